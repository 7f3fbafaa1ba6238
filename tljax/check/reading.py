"""Reads all parts of some data for a check: broken pictures are found, and end nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tljax.check.findings import Finding
from tljax.check.result import Checked, Part
from tljax.config import Data
from tljax.data.corrections import leave_out
from tljax.data.decoding import BrokenPictures, Encoded, decode_all
from tljax.data.image_source import ImageSource, Rows
from tljax.data.layouts import describe_left_out, join_names
from tljax.data.reading import ReadImages, read_images
from tljax.data.sources import open_source
from tljax.data.splits import Reading, choose_parts, choose_rows
from tljax.storage.file_index import FileIndex, open_index
from tljax.trees import Row

# The order of the parts in which a check looks at them; others follow.
PARTS = ("train", "validation", "test")
# Decoded images above this are decoded whenever they are read, where the disk has no room for them either.
MEMORY_BYTES = 2**30
# So many broken pictures are told where there are no others.
BROKEN_TOLD = 3


class Opened(NamedTuple):
    """Some data whose pictures are not read yet: its source, the rows of each part, and lines about what was
    understood, and about what is wrong."""

    source: ImageSource
    parts: dict[str, tuple[str, Rows]]
    class_names: tuple[str, ...]
    notes: list[str]
    warnings: list[str]


class ReadData(NamedTuple):
    """What was read of some data, and the pictures that cannot be read at all, or only in part."""

    checked: Checked
    broken: list[Finding]
    half_read: list[Finding]
    reasons: Mapping[str, str]
    """Why the broken ones cannot be read, by id."""
    of_files: bool
    """Whether digests are of files, else of pixels."""
    padded: bool = False
    """Whether borders may come from `data.fit=pad`."""


def open_data(config: Data) -> Opened:
    """Opens the data that a run of `config` would read, and the splits that it would not.

    Raises:
      ValueError, FileNotFoundError, PermissionError: as `open_source`, or if there is no picture at all.
    """
    source = open_source(config)
    try:
        source, parts = leave_out(source, choose_parts(config, source, training=True), config.classes)
        refused = []
    # What a run refuses is looked at as the source divides it.
    except ValueError as error:
        parts, refused = {}, [f"a run refuses this data: {error}"]
    used = {split for split, _ in parts.values()}
    others = {split: (split, np.arange(size)) for split, size in source.sizes.items() if size and split not in used}
    if not parts and not others:
        raise ValueError(f"{config.name} has no pictures")
    named = {part if part not in parts else f"{part} (not used)": rows for part, rows in others.items()}
    left_out = describe_left_out(source.left_out)
    notes = [*source.notes, *([f"files left out: {left_out}"] if left_out else [])]
    return Opened(source, _order(parts | named), tuple(config.classes) or source.class_names, notes,
                  [*source.warnings, *refused])  # fmt: skip


def _order(parts: dict[str, tuple[str, Rows]]) -> dict[str, tuple[str, Rows]]:
    return {part: parts[part] for part in (*PARTS, *parts) if part in parts}


def list_dropped(opened: Opened) -> set[str]:
    """The ids of the pictures that corrections drop."""
    source = opened.source
    dropped = {split: corrected.rows[corrected.dropped] for split, corrected in source.corrected.items()}
    return {name for split, rows in dropped.items() if len(rows) for name in source.describe(split, rows)[1]}


def read_data(config: Data, opened: Opened, size: int, disk_bytes: int) -> ReadData:
    """Reads all pictures, `size` pixels a side. They are kept in the cache, where runs find them.

    Raises:
      ValueError: if no picture can be read.
      FileNotFoundError: if a file is gone.
    """
    whole = replace(config, broken="refuse", max_images=None, labels_per_class=None)
    reading = Reading(whole, size, 0, disk_bytes, MEMORY_BYTES, np.arange)
    parts: dict[str, Part] = {}
    broken: list[Finding] = []
    half_read: list[Finding] = []
    reasons: dict[str, str] = {}
    with open_index(str(config.path.resolve()) if config.kind else config.name, disk_bytes) as index:
        for part, (split, rows) in opened.parts.items():
            listed = choose_rows(opened.source, reading, part, split, rows)
            labels = dict(zip(listed["ids"].tolist(), listed["labels"].tolist(), strict=True))
            read, good, bad = _read_part(opened.source, reading, split, listed, index)
            rows, groups = good["rows"], opened.source.groups
            parts[part] = Part(
                read.images,
                tuple(good["ids"].tolist()),
                np.asarray(good["labels"]),
                np.asarray(read.digests),
                groups.of[split][rows] if groups else None,
                partial(_fetch, opened.source, split, rows),
            )
            reasons |= bad
            for kind, found, names in (("broken", broken, sorted(bad)), ("half_read", half_read, read.unfinished)):
                found += [Finding(name, part, kind, 1.0, opened.class_names[labels[name]]) for name in names]
    groups = opened.source.groups
    checked = Checked(opened.class_names, parts, groups.names if groups else ())
    if not checked.ids:
        told = join_names((f"{name} ({reason})" for name, reason in sorted(reasons.items())), "; ", BROKEN_TOLD)
        raise ValueError(f"{config.name} has no picture that can be read: {told}; replace them")
    return ReadData(
        checked,
        broken,
        half_read,
        reasons,
        not any(map(opened.source.shards, opened.source.sizes)),
        config.fit == "pad",
    )


def _read_part(
    source: ImageSource, reading: Reading, split: str, listed: Row, index: FileIndex
) -> tuple[ReadImages, Row, dict[str, str]]:
    """The pictures of a part that can be read, what is left of the list, and why the others cannot be read."""
    try:
        read = read_images(source, reading, split, listed, index)
        # What is decoded whenever it is read has not been decoded yet.
        if isinstance(read.images, Encoded):
            found = decode_all(read.images, f"reading {split}")
            if found.broken:
                raise BrokenPictures(found.broken)
            read = read._replace(unfinished=tuple(found.unfinished))
    except BrokenPictures as error:
        good = np.array([name not in error.reasons for name in listed["ids"].tolist()], bool)
        columns = {name: listed[name][good] for name in ("rows", "labels", "ids", "own")}
        left = columns | {"count": np.array(good.sum()), "skipped": np.zeros(0, str)}
        if not good.any():
            return _read_nothing(reading), left, error.reasons
        read, left, others = _read_part(source, reading, split, left, index)
        return read, left, error.reasons | others
    return read, listed, {}


def _fetch(source: ImageSource, split: str, rows: Rows, places: np.ndarray) -> Sequence[bytes | Path]:
    return source.fetch(split, rows[places])


def _read_nothing(reading: Reading) -> ReadImages:
    return ReadImages(np.zeros((0, reading.size, reading.size, 3), np.uint8), (), np.zeros((0, 4), np.uint32))
