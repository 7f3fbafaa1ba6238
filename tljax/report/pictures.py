"""The pictures of a page: found in the data of a run, where that is still what it was, and made small."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import UInt8

from tljax.data.datasets import Split
from tljax.data.decoding import Encoded
from tljax.report.blocks import Thumbnail
from tljax.trees import Row

# How many pictures a page shows at most, the longest side of one in pixels, and WebP's quality: a page of photographs
# stays below 3 MB.
MOST_PICTURES, SIDE, QUALITY = 600, 96, 70


@dataclass(frozen=True)
class Album:
    """The pictures of a split by their names; none, where the data is not there or no longer the same."""

    split: Split | None
    why: str = ""
    """Why there are none."""

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each picture is among those that this process reads."""
        return {} if self.split is None else {name: place for place, name in enumerate(self.split.ids)}

    def key(self, name: str) -> str | None:
        """What a page calls a picture: the same for all of equal content. None if it is not here."""
        place = self.places.get(name)
        if place is None or self.split is None:
            return None
        return np.asarray(self.split.digests[place]).tobytes().hex()


def find_album(splits: Mapping[str, Split], described: Row, recorded: Row | None, part: str) -> Album:
    """The pictures of the split `part`, validation or test, if they are those that a run has `recorded`. `splits` are
    those that were read just now, and `described` is what a summary would say about them."""
    before = ((recorded or {}).get("splits") or {}).get(part)
    now = described.get("splits", {}).get(part)
    if before is None or "content" not in before:
        return Album(None, "the run is of a version that kept no digests, so these may be others")
    if now is None or part not in splits:
        return Album(None, f"the data has no {part} split any more")
    if now["content"] != before["content"]:
        return Album(None, "the data has changed since the run was made")
    return Album(splits[part])


def shrink(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """An image whose longest side is at most `SIDE` pixels."""
    from PIL import Image

    factor = SIDE / max(image.shape[:2])
    if factor >= 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    small: UInt8[np.ndarray, "h w 3"] = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    return small


def as_uri(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """An image as the text that a page holds."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def make_picture(name: str, image: UInt8[np.ndarray, "h w 3"], alt: str = "") -> Thumbnail:
    """A small picture for a page."""
    small = shrink(image)
    return Thumbnail(name, as_uri(small), small.shape[1], small.shape[0], alt or name)


def read_images(split: Split, places: Sequence[int]) -> UInt8[np.ndarray, "n size size 3"]:
    """The images at some places of a split; those that can no longer be read are black."""
    chosen = np.array(places, int)
    if isinstance(split.images, Encoded):
        return split.images.decode(chosen).images
    return np.asarray(split.images[chosen])


def make_thumbnails(album: Album, names: Sequence[str], alts: Mapping[str, str]) -> dict[str, Thumbnail]:
    """Small pictures of an album by their keys, of those that are there. `alts` says what each is, by its name."""
    there = [name for name in dict.fromkeys(names) if name in album.places]
    if album.split is None or not there:
        return {}
    images = read_images(album.split, [album.places[name] for name in there])
    made = {}
    for name, image in zip(there, images, strict=True):
        key = album.key(name)
        assert key is not None, "it is there"
        made[key] = make_picture(name, image, alts.get(name, ""))
    return made
