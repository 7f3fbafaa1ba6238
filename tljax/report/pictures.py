"""The pictures of a page: found in the data of a run, where that is still what it was, and made small."""

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from tljax.config import ZERO_SHOT_MAX_IMAGES, Cache, Data
from tljax.data.datasets import Dataset, Split, load_dataset
from tljax.data.decoding import Encoded
from tljax.data.sources import OTHER_NAMES, SOURCES
from tljax.data.tfds_sets import find_set
from tljax.report.blocks import Thumbnail
from tljax.runs.records import StageRecord
from tljax.trees import Row

NO_PICTURES = "there are names and no pictures"
# How many pictures a page shows at most, and how many characters they take: the page stays below 3 MB.
MOST_PICTURES, MOST_CHARACTERS = 600, 2_400_000
# The longest side of a picture in pixels, and WebP's quality. Photographs fit at the first; the last fits noise.
SIZES = ((96, 70), (96, 35), (64, 35), (48, 20), (32, 5))


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
        """What a page calls a picture: the same for all of equal content and name. None if it is not here."""
        place = self.places.get(name)
        if place is None or self.split is None:
            return None
        content = np.asarray(self.split.digests[place]).tobytes()
        return hashlib.sha256(content + name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def find_album(dataset: Dataset, recorded: Row | None, part: str) -> Album:
    """The pictures of the split `part` if they are those that a run has `recorded`: its summary
    describes its data so."""
    before = ((recorded or {}).get("splits") or {}).get(part) or {}
    now = dataset.description["splits"].get(part)
    if "content" not in before:
        return Album(None, f"{NO_PICTURES}: the run is of a version that kept no digests of them")
    if now is None:
        return Album(None, f"{NO_PICTURES}: the data has no {part} split any more")
    if now["content"] != before["content"]:
        return Album(None, f"{NO_PICTURES}: they have changed since")
    return Album(dataset.splits[part])


class Albums:
    """Finds the pictures of stages: in data sets that were read for a run, or by reading them once more."""

    def __init__(self, datasets: Iterable[Dataset] = (), *, may_read: bool = True):
        self.known = list(datasets)
        self.may_read = may_read
        self.read: dict[str, Dataset | Album] = {}

    def find(self, record: StageRecord, part: str) -> Album:
        """The pictures of a stage's split `part`."""
        recorded = (record.summary or {}).get("data")
        for dataset in self.known:
            if (album := find_album(dataset, recorded, part)).split is not None:
                return album
        if not self.may_read or record.config is None:
            return Album(None, f"{NO_PICTURES}: they are not at hand")
        found = self._read_once(record, whole=part != "validation")
        return found if isinstance(found, Album) else find_album(found, recorded, part)

    def _read_once(self, record: StageRecord, *, whole: bool) -> Dataset | Album:
        assert record.config is not None and record.summary is not None, "it has predictions"
        data, seed = record.config.data, record.config.seed
        if record.summary["stage"] == "zero_shot":
            data = replace(data, max_images=data.max_images or ZERO_SHOT_MAX_IMAGES)
        key = repr((data, seed, whole))
        if key not in self.read:
            self.read[key] = read_dataset(data, record.config.cache, seed, whole=whole)
        return self.read[key]


def read_dataset(data: Data, cache: Cache, seed: int, *, whole: bool) -> Dataset | Album:
    """The validation split of some data, and if it is to be `whole`, all splits; or an album that says why they cannot
    be read. What a run has decoded is found in the cache, and nothing is downloaded."""
    try:
        # Somebody may have edited the config.
        data.check()
        cache.check()
        if not (data.kind or data.name in SOURCES or find_set(data.name, data.dir, OTHER_NAMES).is_prepared()):
            raise ValueError(f"{data.name} is not on this machine")
        return load_dataset(data, seed=seed, training=whole, disk_bytes=cache.disk_bytes)
    # Libraries that read data raise errors of many types.
    except Exception as error:
        return Album(None, f"{NO_PICTURES}: {' '.join(str(error).split()) or type(error).__name__}")


class Drawn(NamedTuple):
    """A picture before it is made small: the name that is copied, and what is said of it."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    alt: str


def shrink(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """An image whose longest side is at most `side` pixels."""
    from PIL import Image

    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    small: UInt8[np.ndarray, "h w 3"] = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    return small


def as_uri(image: UInt8[np.ndarray, "h w 3"], quality: int) -> str:
    """An image as the text that a page holds."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def make_thumbnail(drawn: Drawn, side: int, quality: int) -> Thumbnail:
    """A small picture for a page."""
    small = shrink(drawn.image, side)
    return Thumbnail(drawn.name, as_uri(small, quality), small.shape[1], small.shape[0], drawn.alt)


def make_thumbnails(pictures: Mapping[str, Drawn]) -> dict[str, Thumbnail]:
    """Small pictures for a page, by their keys: as large as lets all of them stay within `MOST_CHARACTERS`."""
    made: dict[str, Thumbnail] = {}
    for side, quality in SIZES:
        made = {key: make_thumbnail(drawn, side, quality) for key, drawn in pictures.items()}
        if sum(len(picture.src) for picture in made.values()) <= MOST_CHARACTERS:
            break
    return made


def read_images(album: Album, names: Iterable[str]) -> dict[str, UInt8[np.ndarray, "size size 3"]]:
    """The images of an album with these names, of those that are there; one that can no longer be read is black."""
    there = [name for name in dict.fromkeys(names) if name in album.places]
    if album.split is None or not there:
        return {}
    places, images = np.array([album.places[name] for name in there]), album.split.images
    found = images.decode(places).images if isinstance(images, Encoded) else np.asarray(images[places])
    return dict(zip(there, found, strict=True))
