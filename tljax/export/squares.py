"""How a picture becomes the square that an export answers: words that it takes along, and pictures to try them on."""

from typing import Any

import numpy as np

from tljax.data.decoding import ORIENTATION, Fit
from tljax.export.content import Squares

# An expression of Pillow, by `config.data.fit`. docs/export.md does the same.
RESIZING: dict[Fit, str] = {
    "crop": "ImageOps.fit({picture}, {size}, Image.Resampling.BILINEAR)",
    "pad": "ImageOps.pad({picture}, {size}, Image.Resampling.BILINEAR)",
    "stretch": "{picture}.resize({size}, Image.Resampling.BILINEAR)",
}
# Sides of the pictures that exports are tried on, in units of the square's: as large as it, and larger.
LENGTHS = ((2.6, 1.5), (1.7, 1.0), (2.6, 1.5), (1.7, 1.0))
# EXIF's orientation of a camera that is held upright: the picture is turned by a quarter.
UPRIGHT = 6


def describe_resizing(fit: Fit, side: int) -> str:
    """Pillow's words that turn `picture` into a square of `side` pixels a side, RGB."""
    return RESIZING[fit].format(picture="ImageOps.exif_transpose(picture).convert('RGB')", size=(side, side))


def resize_as_said(words: str, picture: Any) -> Any:
    """The square that the words of `describe_resizing` make of a picture of Pillow."""
    from PIL import Image, ImageOps

    return eval(words, {"Image": Image, "ImageOps": ImageOps, "picture": picture})


def join_squares(images: Squares) -> list[Any]:
    """Pictures of Pillow, made of three images each: two wide ones, and two tall ones, the last of which EXIF turns."""
    from PIL import Image

    rows = [np.concatenate(list(images[np.arange(i, i + 3) % len(images)]), axis=1) for i in range(4)]
    side = images.shape[1]
    sizes = [(round(length * side), round(width * side)) for length, width in LENGTHS]
    wide = [Image.fromarray(row).resize(size) for row, size in zip(rows, sizes, strict=True)]
    pictures = wide[:2] + [picture.transpose(Image.Transpose.ROTATE_90) for picture in wide[2:]]
    pictures[-1].getexif()[ORIENTATION] = UPRIGHT
    return pictures
