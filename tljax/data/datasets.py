"""The splits of a run: their images, labels and digests, and what a summary says about them."""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, UInt8

from tljax.config import Data
from tljax.data.augmentation import find_kept_side
from tljax.data.corrections import leave_out
from tljax.data.decoding import TIFF_ENDINGS, USUAL_FIT, Encoded, is_read_anew
from tljax.data.groups import warn_leaks
from tljax.data.image_source import ImageSource, Rows
from tljax.data.layouts import join_names, suggest_table
from tljax.data.reading import list_images, read_images
from tljax.data.sources import open_source
from tljax.data.splits import Reading, choose_parts, choose_rows
from tljax.devices.mesh import gather
from tljax.devices.processes import check_alike, leader_first, max_over_processes
from tljax.storage.file_index import Digests, FileIndex, open_index
from tljax.trees import Row, digest_json, sha256


@dataclass(frozen=True)
class Split:
    """The part of a split that this process reads; all of it, unless there are several processes.

    `images` are RGB, `labels` (int32) are indices into the class names, `ids` name the images within the source. The
    whole split has `count` images; `rows` are the positions of this part in it.
    """

    images: UInt8[np.ndarray, "n size size 3"] | Encoded
    labels: Int[np.ndarray, " n"]
    ids: tuple[str, ...]
    rows: Int[np.ndarray, " n"]
    count: int
    digests: Digests
    """A digest of each picture: of its file or, unless `of_files`, of its pixels."""
    of_files: bool = True
    skipped: tuple[str, ...] = ()
    """Images of the split that cannot be read, with the reasons. `count` is without them."""
    unfinished: tuple[str, ...] = ()
    """JPEGs without end marker, of which no row is missing. They are among `images`."""
    read_anew: tuple[str, ...] = ()
    """Pictures that are read otherwise than by version 0.1.0. They are among `images`."""
    groups: Int[np.ndarray, " n"] | None = None
    """The same number for pictures that belong together, in all splits; None where nothing says which do."""

    def all_labels(self) -> Int[np.ndarray, " count"]:
        """The labels of the whole split. All processes call this together."""
        return gather(self.labels, self.rows, self.count)

    def all_ids(self) -> tuple[str, ...]:
        """The ids of the whole split. All processes call this together."""
        if jax.process_count() == 1:
            return self.ids
        # Names of files may be no text in UTF-8.
        own = [name.encode("utf-8", "surrogateescape") for name in self.ids]
        width = max_over_processes(max(map(len, own), default=0))
        table = np.array(own, f"S{width or 1}").view(np.uint8).reshape(len(own), width or 1)
        everything = gather(table, self.rows, self.count)
        return tuple(bytes(row).rstrip(b"\0").decode("utf-8", "surrogateescape") for row in everything)

    def all_digests(self) -> Digests:
        """The digests of the whole split. All processes call this together."""
        return gather(self.digests, self.rows, self.count)

    def all_groups(self) -> Int[np.ndarray, " count"] | None:
        """The groups of the whole split. All processes call this together."""
        return None if self.groups is None else gather(self.groups, self.rows, self.count)

    def content(self) -> str:
        """A digest of the whole split's pictures with their labels, in their order. All processes call this
        together."""
        return digest_json([sha256(self.all_digests()), sha256(self.all_labels())])

    def count_read_anew(self) -> int:
        """The number of `read_anew` in the whole split. All processes call this together."""
        known = set(self.read_anew)
        own = np.fromiter((name in known for name in self.ids), bool, len(self.ids))
        return int(gather(own, self.rows, self.count).sum())

    def identity(self) -> list[int]:
        """The number of images in the whole split, and a checksum of their positions, ids and labels. All processes
        call this together."""
        examples = zip(self.rows, self.ids, self.labels, strict=True)
        texts = (f"{row} {name} {label}".encode("utf-8", "surrogateescape") for row, name, label in examples)
        own = np.fromiter(map(zlib.crc32, texts), np.uint32, len(self.rows))
        return [self.count, int(gather(own, self.rows, self.count).sum(dtype=np.int64) % 2**31)]


@dataclass(frozen=True)
class Dataset:
    """The splits that one run reads, and what `summary.json` says about them.

    `train` is None without training, `validation` if all labels are learned from; `test` is None unless validation was
    taken out of train, or is None.
    """

    class_names: tuple[str, ...]
    image_size: int
    train: Split | None
    validation: Split | None
    test: Split | None
    description: Row

    @property
    def shown(self) -> Split:
        """The split whose pictures a run shows and keeps: validation or, without it, train."""
        split = self.validation or self.train
        assert split is not None, "a run reads one of them"
        return split

    @property
    def train_counts(self) -> dict[str, int]:
        """The number of training images of each class."""
        counts: dict[str, int] = self.description["splits"]["train"]["classes"]
        return counts

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that are not None, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


class Extent(NamedTuple):
    """How much data there is: pictures to learn from and to validate on, classes, and the side of a picture in
    pixels."""

    images: int
    validation: int
    classes: int
    side: int
    by_class: tuple[int, ...] = ()
    """The pictures of each class to learn from; empty if they were not counted."""
    test: int = 0
    """The pictures that are evaluated once at the end."""


def load_dataset(
    config: Data,
    *,
    seed: int,
    training: bool = True,
    only: str | None = None,
    disk_bytes: int = 0,
    memory_bytes: float = math.inf,
    own: Callable[[int], Rows] = np.arange,
) -> Dataset:
    """Reads the splits that a run needs: validation alone unless `training`; or `only` one of these, such as test.

    `own(n)` returns which of a split's `n` images this process reads. `seed` draws the samples of `max_images` and
    `labels_per_class`. Decoded images are kept in the user's cache folder, which stays within `disk_bytes`; later runs
    find them there until the source files change. A split that fits neither there nor into `memory_bytes` is decoded
    whenever it is read.

    Raises:
      ValueError: if a setting, class, split or image is wrong; the message names it.
      FileNotFoundError: if the folder or table does not exist, or CIFAR-10 cannot be downloaded.
      PermissionError: if a folder cannot be read.
    """
    seed = seed if config.seed is None else config.seed
    source, parts, names = _open(config, training)
    parts = parts if only is None else {part: parts[part] for part in parts if part == only}
    size = config.image_size or source.image_size
    reading = Reading(config, size, seed, disk_bytes, memory_bytes, own)
    sizes = {"train": find_kept_side(config, size)}
    with open_index(str(config.path.resolve()) if config.kind else config.name, disk_bytes) as index:
        splits = {
            part: _read(source, reading._replace(size=sizes.get(part, size)), part, chosen, index)
            for part, chosen in parts.items()
        }
    description = _describe(config, source, size, names, {part: parts[part][0] for part in parts}, splits)
    return Dataset(names, size, splits.get("train"), splits.get("validation"), splits.get("test"), description)


def _open(config: Data, training: bool) -> tuple[ImageSource, dict[str, tuple[str, Rows]], tuple[str, ...]]:
    """The source, the rows of each part as `choose_parts` gives them, without what corrections drop, and the names of
    the classes."""
    with leader_first("data"):
        source = open_source(config)
    check_alike("data.corrections", str(source.corrections))
    source, parts = leave_out(source, choose_parts(config, source, training), config.classes)
    names = tuple(config.classes) or source.class_names
    if training and len(names) < 2:
        raise ValueError(
            f"config.data.name={config.name!r} has the one class {names[0]!r}: there is nothing to tell apart"
            f"{suggest_table(config.path) if config.kind == 'folder' else ''}"
        )
    return source, parts, names


def size_up(config: Data, seed: int, *, counting: bool) -> Extent:
    """The extent of what `load_dataset` would read. No picture is decoded: broken ones count.
    With `counting` the labels are read, to count the classes.

    Raises:
      ValueError, FileNotFoundError: as `load_dataset`, as far as that shows without decoding.
    """
    source, parts, names = _open(config, training=True)
    size, whole = config.image_size or source.image_size, replace(config, broken="refuse")
    seed = seed if config.seed is None else config.seed
    # Where no row is this process's own, labels are read only if they decide which rows are chosen.
    none = Reading(whole, size, seed, 0, math.inf, lambda n: np.arange(0))
    readings = {"train": none._replace(own=np.arange)} if counting else {}
    found = {part: choose_rows(source, readings.get(part, none), part, *chosen) for part, chosen in parts.items()}
    counts = {part: int(chosen["count"]) for part, chosen in found.items()}
    by_class = np.bincount(found["train"]["labels"], minlength=len(names)).tolist() if counting else ()
    return Extent(
        counts["train"], counts.get("validation", 0), len(names), size, tuple(by_class), counts.get("test", 0)
    )


def choose_pictures(config: Data, side: int, most: int) -> Encoded:
    """At most so many pictures to learn from, spread over all of them, which become images of this `side`."""
    source, parts, _ = _open(config, training=True)
    split, rows = parts["train"]
    some = rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]
    return Encoded(partial(source.fetch, split), some, tuple(map(str, some)), side, "", config.fit or USUAL_FIT)


def _describe(
    config: Data,
    source: ImageSource,
    size: int,
    names: tuple[str, ...],
    origins: Mapping[str, str],
    splits: Mapping[str, Split],
) -> Row:
    """What `summary.json` says about the data. `origins` are the source's splits that `splits` were read from."""
    found = {part: splits[part] for part in ("train", "validation", "test") if part in splits}
    skipped = [
        f"{part}: {len(split.skipped)} images cannot be read and are skipped: {join_names(split.skipped)}"
        for part, split in splits.items()
        if split.skipped
    ]
    unfinished = [
        f"{part}: {len(split.unfinished)} JPEGs lack their end marker and are read, since no row is missing: "
        f"{join_names(split.unfinished)}"
        for part, split in splits.items()
        if split.unfinished
    ]
    counts = {part: count_classes(split.all_labels(), names) for part, split in found.items()}
    wanted = config.labels_per_class
    fewer = "no image" if wanted is None else f"fewer images than config.data.labels_per_class={wanted}"
    short = [name for name, count in counts.get("train", {}).items() if count < (wanted or 1)]
    scarce = [f"train has {fewer} of {join_names(short)}"] if short else []
    grouped = {part: its for part, split in found.items() if (its := split.all_groups()) is not None}
    leaks = warn_leaks(source.groups.names, grouped) if source.groups else []
    # Without training, only one split is wanted.
    sizes = source.sizes.items() if "train" in origins else ()
    unused = [f"{name} ({size:,} images)" for name, size in sizes if name not in origins.values()]
    return {
        "name": config.name,
        "image_size": size,
        "splits": {
            part: {
                "of": origins[part],
                "images": split.count,
                "classes": counts[part],
                "names": split.identity()[1],
                "content": split.content(),
                "read_anew": split.count_read_anew(),
            }
            for part, split in found.items()
        },
        "left_out": dict(source.left_out),
        "notes": [*source.notes, *([f"not used: {join_names(unused)}"] if unused else [])],
        "warnings": [*source.warnings, *leaks, *scarce, *skipped, *unfinished],
    } | ({} if source.corrections is None else {"corrections": source.corrections})


def count_classes(labels: Int[np.ndarray, " n"], names: Sequence[str]) -> dict[str, int]:
    """How many pictures each class has."""
    counts = np.bincount(labels, minlength=len(names))
    return dict(zip(names, map(int, counts), strict=True))


def _read(source: ImageSource, reading: Reading, part: str, chosen: tuple[str, Rows], index: FileIndex) -> Split:
    split, rows = chosen
    listed = list_images(source, reading, part, split, rows, index)
    images, unfinished, digests = read_images(source, reading, split, listed, index)
    ids, of_files = tuple(listed["ids"].tolist()), not source.shards(split)
    return Split(
        images,
        labels=np.asarray(listed["labels"]),
        ids=ids,
        rows=np.asarray(listed["own"]),
        count=int(listed["count"]),
        digests=np.asarray(digests),
        of_files=of_files,
        skipped=tuple(listed["skipped"].tolist()),
        unfinished=unfinished,
        read_anew=_find_read_anew(source, split, ids, listed["rows"]) if of_files else (),
        groups=source.groups.of[split][listed["rows"]] if source.groups else None,
    )


def _find_read_anew(source: ImageSource, split: str, ids: tuple[str, ...], rows: Rows) -> tuple[str, ...]:
    """`Split.read_anew` of pictures that are files. That of records shows in their digests, which are of pixels."""
    tiffs = [place for place, name in enumerate(ids) if name.lower().endswith(TIFF_ENDINGS)]
    files = source.fetch(split, rows[tiffs]) if tiffs else ()
    return tuple(ids[place] for place, file in zip(tiffs, files, strict=True) if is_read_anew(file))
