"""Images and labels in memory: which rows of which split, decoded how."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jax import ShapeDtypeStruct
from jaxtyping import Int, UInt8

from tljax import cache
from tljax.config import Data
from tljax.mesh import leader_first
from tljax.partition import sha256
from tljax.sources import CHUNK, VALIDATION_NAMES, Rows, Source, open_source

# Images up to this side decode faster in one thread than in several, which then mostly wait for the interpreter.
SMALL_SIZE = 64
# To be raised when `decode` gives other pixels: decoded images that were kept are then not found.
DECODING = 2


@dataclass(frozen=True)
class Split:
    """`images` in RGB, `labels` (int32) are indices into the class names, `ids` name the images within the source.

    They are those in the `rows` of `count` that this process reads: all of them, unless there are several.
    """

    images: UInt8[np.ndarray, "n size size 3"]
    labels: Int[np.ndarray, " n"]
    ids: tuple[str, ...]
    rows: Int[np.ndarray, " n"]
    count: int


@dataclass(frozen=True)
class Dataset:
    """What one run reads. `test` is there only when validation is a slice of train."""

    class_names: tuple[str, ...]
    image_size: int
    train: Split | None
    validation: Split
    test: Split | None


def load(
    config: Data, *, seed: int, training: bool = True, disk_bytes: int = 0, own: Callable[[int], Rows] = np.arange
) -> Dataset:
    """Reads the splits that a run needs: validation alone unless `training`.

    `own` gives those of so many images of a split that this process reads. The sample of `max_images` follows from
    `seed`. Decoded images are kept in the user's cache folder as long as all that is kept stays within `disk_bytes`,
    and found again while the files that they came from have not changed.

    Raises:
      ValueError: naming the setting, class, split or image that is wrong.
      FileNotFoundError: if the folder is not there, or CIFAR-10 cannot be downloaded.
    """
    with leader_first("data"):
        source = open_source(config)
    has = f"the data has {', '.join(source.sizes)}"
    default = next((name for name in (*VALIDATION_NAMES, "test") if name in source.sizes), None)
    spec = config.validation_split or default
    if spec is None:
        raise ValueError(f"config.data.validation_split=None: {has}; set a split or a slice such as train[90%:]")
    parts = {"validation": _find_rows(spec, source.sizes, "validation_split")}
    held_out, held_out_rows = parts["validation"]
    if training:
        if "train" not in source.sizes:
            raise ValueError(f"config.data.name={config.name!r}: no split train to learn from; {has}")
        rows = np.arange(source.sizes["train"])
        parts["train"] = "train", np.setdiff1d(rows, held_out_rows) if held_out == "train" else rows
        if not len(parts["train"][1]):
            raise ValueError(f"config.data.validation_split={spec!r} leaves nothing to train on; take train[90%:]")
    test_split = config.test_split or ("test" if "test" in source.sizes else None)
    if training and held_out == "train" and test_split:
        parts["test"] = _find_rows(test_split, source.sizes, "test_split")
        if parts["test"][0] == "train":
            raise ValueError(f"config.data.test_split={config.test_split!r}: must not be train; {has}")

    names = tuple(config.classes) or source.class_names
    if training and len(names) < 2:
        raise ValueError(
            f"config.data.name={config.name!r} has the one class {names[0]!r}: there is nothing to tell apart"
        )
    size = config.image_size or source.image_size
    splits = {
        part: _read(source, config, part, *chosen, size=size, seed=seed, disk_bytes=disk_bytes, own=own)
        for part, chosen in parts.items()
    }
    return Dataset(names, size, splits.get("train"), splits["validation"], splits.get("test"))


def decode(encoded: bytes | Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """A picture in RGB: turned as its EXIF says, alpha on white, 16 bits scaled to 8, the centre square, bilinear.

    A picture of exactly `size` keeps its pixels.

    Raises:
      Exception: whatever Pillow raises for a damaged file.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
        ImageOps.exif_transpose(image, in_place=True)
        # "I" and "I;16", "I;16B": Pillow would clip them at 255.
        if image.mode.startswith("I"):
            rgb = Image.fromarray((np.asarray(image, np.float64) / 257).round().clip(0, 255).astype(np.uint8))
            rgb = rgb.convert("RGB")
        elif image.has_transparency_data:
            rgba = image.convert("RGBA")
            rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        else:
            rgb = image.convert("RGB")
    if rgb.size != (size, size):
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _find_rows(spec: str, sizes: dict[str, int], setting: str) -> tuple[str, Rows]:
    name, bracket, bounds = spec.partition("[")
    if name not in sizes:
        name = next((other for other in VALIDATION_NAMES if other in sizes), name) if name in VALIDATION_NAMES else name
    if name not in sizes:
        raise ValueError(f"config.data.{setting}={spec!r}: no such split; the data has {', '.join(sizes)}")
    n = sizes[name]
    rows = np.arange(n)
    if bracket:
        import tensorflow_datasets as tfds

        try:
            if "shard" in bounds:
                raise ValueError("only TFDS data sets have shards")
            infos = {name: tfds.core.SplitInfo(name=name, shard_lengths=[n], num_bytes=0)}
            (part,) = tfds.core.ReadInstruction.from_spec(f"{name}[{bounds}").to_absolute(infos)
        except ValueError as error:
            raise ValueError(
                f"config.data.{setting}={spec!r}: no slice of the {n} images of {name}; write {name}[90%:]"
            ) from error
        rows = rows[part.from_ : part.to]
    if not len(rows):
        raise ValueError(f"config.data.{setting}={spec!r}: no images; {name} has {n}")
    return name, rows


def _read(
    source: Source,
    config: Data,
    part: str,
    split: str,
    rows: Rows,
    *,
    size: int,
    seed: int,
    disk_bytes: int,
    own: Callable[[int], Rows],
) -> Split:
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in source.files(split)]
    about = {
        "what": f"images of {split}",
        "decoding": DECODING,
        "pillow": version("pillow"),
        "class_names": source.class_names,
        "files": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        "rows": sha256(rows),
        "own": sha256(own(len(rows))),
        "classes": config.classes,
        "max_images": config.max_images,
        "seed": seed,
        "size": size,
    }
    kept = cache.find(about) if files and disk_bytes else None
    if kept is None:
        rows, labels, mine, count = _choose_rows(source, config, part, split, rows, seed, own)
        shapes = {"images": ShapeDtypeStruct((len(rows), size, size, 3), np.uint8)}
        with cache.build(about, shapes, disk_bytes if files else 0) as kept:
            kept["labels"], kept["rows"], kept["count"] = labels.astype(np.int32), mine, np.array(count)
            kept["ids"] = np.array(_decode_rows(source, split, rows, size, kept["images"]))
    ids = tuple(kept["ids"].tolist())
    return Split(kept["images"], np.asarray(kept["labels"]), ids, np.asarray(kept["rows"]), int(kept["count"]))


def _choose_rows(
    source: Source, config: Data, part: str, split: str, rows: Rows, seed: int, own: Callable[[int], Rows]
) -> tuple[Rows, Int[np.ndarray, " n"], Rows, int]:
    """Rows within the split and labels of what this process reads, which ones they are of all that are chosen, and how
    many those are."""

    def sample(rows: Rows) -> Rows:
        if config.max_images is None or len(rows) <= config.max_images:
            return rows
        return np.sort(np.random.default_rng(seed).choice(rows, config.max_images, replace=False))

    # Without a choice of classes only the labels of what is read are needed.
    if not config.classes:
        rows = sample(rows)
        mine, count = own(len(rows)), len(rows)
        rows = rows[mine]
    labels = source.labels(split, rows)
    if np.any(labels < 0) or np.any(labels >= len(source.class_names)):
        raise ValueError(f"config.data.name={config.name!r}: split {split} has images without a label; use another")
    if config.classes:
        renumbered = np.full(len(source.class_names), -1)
        renumbered[[source.class_names.index(name) for name in config.classes]] = np.arange(len(config.classes))
        labels = renumbered[labels]
        absent = [name for i, name in enumerate(config.classes) if i not in labels]
        if absent and part != "test":
            raise ValueError(f"config.data.classes: no image of {absent[0]!r} in the rows of {split} for {part}")
        kept = sample(np.flatnonzero(labels >= 0))
        mine, count = own(len(kept)), len(kept)
        rows, labels = rows[kept[mine]], labels[kept[mine]]
    return rows, labels, mine, count


def _decode_rows(source: Source, split: str, rows: Rows, size: int, images: np.ndarray) -> list[str]:
    """Fills `images`; returns their ids."""
    from tqdm import tqdm

    def decode_named(encoded: bytes | Path, name: str) -> np.ndarray:
        try:
            return decode(encoded, size)
        # Pillow's decoders raise all kinds of errors for damaged files.
        except Exception as error:
            raise ValueError(f"{name} is no readable image ({type(error).__name__}): replace or remove it") from error

    names: list[str] = []
    bar = tqdm(total=len(rows), desc=f"reading {split}", unit=" images", delay=1, leave=False, disable=None)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        decode_all = map if size <= SMALL_SIZE else pool.map
        for start in range(0, len(rows), CHUNK):
            encoded, ids = source.fetch(split, rows[start : start + CHUNK])
            names.extend(ids)
            for i, image in enumerate(decode_all(decode_named, encoded, ids), start):
                images[i] = image
            bar.update(len(encoded))
    return names
