"""Draws where in a picture a logit comes from."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

# Colors of contributions for and against the label.
FOR, AGAINST = (214, 39, 40), (31, 119, 180)


def paint(
    square: UInt8[np.ndarray, "size size 3"], contributions: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "size size 3"]:
    """The picture in gray, red where it speaks for the label and blue where it speaks against it.

    The map is enlarged bilinearly; the color has a share of 70% at the largest contribution of the picture.
    """
    from PIL import Image

    enlarged = Image.fromarray(contributions.astype(np.float32)).resize(square.shape[1::-1], Image.Resampling.BILINEAR)
    strength = np.asarray(enlarged)[..., None] / max(float(np.abs(contributions).max()), 1e-12)
    gray = np.repeat(square.mean(axis=2, keepdims=True), 3, axis=2)
    color = np.where(strength > 0, np.array(FOR), np.array(AGAINST))
    share = 0.7 * np.abs(strength)
    painted: UInt8[np.ndarray, "size size 3"] = (
        (gray * (1 - share) + color * share).round().clip(0, 255).astype(np.uint8)
    )
    return painted


def draw_map(
    path: Path, square: UInt8[np.ndarray, "size size 3"], contributions: Float[np.ndarray, "h w"], title: str
) -> None:
    """Draws a picture beside its map as a PNG file, which has the title in its text.

    Raises:
      OSError: if the file cannot be written.
    """
    from PIL import Image, PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_itxt("Title", title)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        both = np.concatenate([square, paint(square, contributions)], axis=1)
        Image.fromarray(both).save(unfinished, "PNG", pnginfo=text)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise OSError(f"{path} cannot be written ({error.strerror})") from error
