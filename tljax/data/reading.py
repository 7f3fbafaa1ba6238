"""Lists and decodes the images of a split, or finds what an earlier run has kept of them.

What is kept is found by the content of what was read: by the digests of the pictures' files or, where pictures are
records, of the files that hold them.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import ShapeDtypeStruct
from jaxtyping import UInt8

from tljax.data.decoding import USUAL_FIT, BrokenPictures, Encoded, decode_all
from tljax.data.image_source import ImageSource, Rows
from tljax.data.splits import Reading, choose_rows
from tljax.devices.mesh import gather
from tljax.storage import cache
from tljax.storage.file_index import Digests, FileIndex, LookedUp
from tljax.trees import Row, digest_json, sha256

# Part of the cache key. Increase it when `decode` gives other pixels: images in the cache are then not found.
DECODING = 4


class ReadImages(NamedTuple):
    """The images of a split that this process reads, the JPEGs among them that lack their end marker, and a digest of
    each picture: of its file or, where it is a record, of its pixels."""

    images: UInt8[np.ndarray, "n size size 3"] | Encoded
    unfinished: tuple[str, ...]
    digests: Digests


def list_images(
    source: ImageSource, reading: Reading, part: str, split: str, rows: Rows, index: FileIndex
) -> dict[str, np.ndarray]:
    """What `choose_rows` chooses. It is kept where choosing takes reading all pictures or records.

    Raises:
      ValueError: as `choose_rows`.
      FileNotFoundError: if a file is gone.
    """
    config, shards = reading.config, source.shards(split)
    if not shards and config.broken == "refuse":
        return choose_rows(source, reading, part, split, rows)
    about = {
        "what": f"the list of {split}",
        "class_names": source.class_names,
        "classes": config.classes,
        "rows": sha256(rows),
        "own": sha256(reading.own(len(rows))),
        "labels_per_class": config.labels_per_class if part == "train" else None,
        "max_images": config.max_images,
        "seed": reading.seed,
        "broken": config.broken,
        "pillow": version("pillow"),
        "source": config.name,
        "content": _digest_shards(shards, index) if shards else _digest_files(source, split, rows, index),
    }
    # The digest of shards says nothing of labels that were corrected.
    about |= {} if source.corrections is None else {"corrections": source.corrections}
    listed = cache.find(about) if reading.disk_bytes else None
    if listed is None:
        with cache.build(about, {}, reading.disk_bytes) as listed:
            listed |= choose_rows(source, reading, part, split, rows)
    return listed


def read_images(
    source: ImageSource, reading: Reading, split: str, listed: dict[str, np.ndarray], index: FileIndex
) -> ReadImages:
    """The images of the rows that are `listed`, decoded. They are decoded in every pass instead if they fit neither on
    the disk nor into memory.

    Raises:
      BrokenPictures: if images cannot be read.
      FileNotFoundError: if a file is gone.
    """
    rows, fetch, config = listed["rows"], partial(source.fetch, split), reading.config
    encoded = Encoded(fetch, rows, tuple(listed["ids"].tolist()), reading.size, "", config.fit or USUAL_FIT)
    about = _describe(encoded, split)
    shards, files = source.shards(split), None
    if shards:
        about["content"] = [config.name, _digest_shards(shards, index), sha256(rows)]
    else:
        files = index.look_up([str(path) for path in fetch(rows)])
        # The files of a new data set are read once, to be decoded. Those of another may have been decoded before.
        if not index.is_new:
            files = index.complete(files, f"reading the files of {split}")
            about["content"] = sha256(files.digests)
    if encoded.nbytes <= max(reading.memory_bytes, reading.disk_bytes):
        kept = cache.find(about) if reading.disk_bytes and "content" in about else None
        kept = kept if kept and _is_of(encoded, kept) else _decode(encoded, about, reading, files, index)
        if kept is not None:
            return ReadImages(kept["images"], tuple(map(str, kept["unfinished"])), kept["digests"])
    if files is not None:
        digests = index.complete(files, f"reading the files of {split}").digests
        about["content"] = sha256(digests)
    else:
        digests = _digest_records(encoded, about, reading)
    return ReadImages(replace(encoded, fingerprint=digest_json(about)), (), digests)


def _describe(encoded: Encoded, split: str) -> Row:
    """What decoded images depend on, besides their content."""
    return {
        "what": f"images of {split}",
        "decoding": DECODING,
        "pillow": version("pillow"),
        "ids": sha256(np.array(encoded.ids, str)),
        "size": encoded.size,
        "fit": encoded.fit,
    }


def _is_of(encoded: Encoded, kept: dict[str, np.ndarray]) -> bool:
    """Whether arrays from the cache can be those of these images."""
    shapes = {name: array.shape for name, array in kept.items() if name != "unfinished"}
    return shapes == {"images": encoded.shape, "digests": (len(encoded), 4)} and "unfinished" in kept


def _decode(
    encoded: Encoded, about: Row, reading: Reading, files: LookedUp | None, index: FileIndex
) -> dict[str, np.ndarray] | None:
    """Decodes all images, and keeps them if the disk has room; None if they fit nowhere. The digests of `files` are
    learned on the way: `about` is complete then."""
    with cache.build(about, {"images": ShapeDtypeStruct(encoded.shape, np.uint8)}, reading.disk_bytes) as made:
        # Without room on the disk, `build` gives an array in memory, which may be too small for the images.
        if not isinstance(made["images"], np.memmap) and encoded.nbytes > reading.memory_bytes:
            return None
        found = decode_all(encoded, f"reading the {about['what']}", made["images"])
        if found.broken:
            raise BrokenPictures(found.broken)
        if files is not None:
            index.learn(files, np.arange(len(encoded)), found.digests)
            about["content"] = sha256(found.digests)
        made["unfinished"], made["digests"] = np.array(found.unfinished, str), found.digests
        return made


def _digest_shards(shards: Sequence[Path], index: FileIndex) -> str:
    """A digest of the files that hold the records of a split. Each process reads a share of them."""
    own = np.arange(len(shards))[jax.process_index() :: jax.process_count()]
    files = index.complete(index.look_up([str(shards[i]) for i in own]), "reading the files of records")
    return sha256(gather(files.digests, own, len(shards)))


def _digest_files(source: ImageSource, split: str, rows: Rows, index: FileIndex) -> str:
    """A digest of the names, the labels and the content of the pictures in `rows`."""
    labels, names = source.describe(split, rows)
    files = index.look_up([str(path) for path in source.fetch(split, rows)])
    content = index.complete(files, f"reading the files of {split}").digests
    return digest_json([sha256(np.asarray(labels)), list(names), sha256(content)])


def _digest_records(encoded: Encoded, about: Row, reading: Reading) -> Digests:
    """The digests of the pixels of records that are decoded in every pass, once."""
    about = about | {"what": about["what"].replace("images", "digests", 1)}
    kept = cache.find(about) if reading.disk_bytes else None
    if kept is None:
        with cache.build(about, {}, reading.disk_bytes) as kept:
            kept["digests"] = decode_all(encoded, f"reading the {about['what']}").digests
    return kept["digests"]
