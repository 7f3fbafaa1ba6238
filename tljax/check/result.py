"""What is checked, and what was found: the table, `check.csv` and the page are made of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from tljax.check.findings import Finding
from tljax.data.decoding import Encoded
from tljax.data.image_source import CHUNK
from tljax.storage.file_index import Digests

# What is called with the part of some work that is done, from 0 to 1.
Report = Callable[[float], None]


class Part(NamedTuple):
    """The pictures of a part of the data that can be read."""

    images: UInt8[np.ndarray, "n size size 3"] | Encoded
    ids: tuple[str, ...]
    labels: Int[np.ndarray, " n"]
    digests: Digests
    groups: Int[np.ndarray, " n"] | None
    fetch: Callable[[np.ndarray], Sequence[bytes | Path]]
    """The files at some places, as bytes or paths."""


class Checked(NamedTuple):
    """The pictures of all parts, one part after the other: train, validation, test, and what a run does not read."""

    class_names: tuple[str, ...]
    parts: Mapping[str, Part]
    group_names: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts.values() for name in part.ids)

    @property
    def splits(self) -> tuple[str, ...]:
        """The part of each picture."""
        return tuple(split for split, part in self.parts.items() for _ in part.ids)

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        return np.concatenate([np.zeros(0, int), *(part.labels for part in self.parts.values())])

    @property
    def groups(self) -> Int[np.ndarray, " n"] | None:
        """The same number for pictures that belong together, in all parts; None where nothing says which do."""
        found = [part.groups for part in self.parts.values() if part.groups is not None]
        return np.concatenate(found) if found else None

    @property
    def digests(self) -> Digests:
        return np.concatenate([part.digests for part in self.parts.values()])

    def files(self) -> Iterator[bytes | Path]:
        """The files of all pictures, one after the other."""
        for part in self.parts.values():
            for start in range(0, len(part.ids), CHUNK):
                yield from part.fetch(np.arange(start, min(start + CHUNK, len(part.ids))))


class Shortcut(NamedTuple):
    """A property of pictures that is not their content and names a class."""

    property: str
    """Such as `width`, `bytes`, `border color`."""
    label: str
    """The class."""
    rule: str
    """Which pictures it names, such as `above 300`."""
    share: float
    """The part of the class that it names, in cross-validation."""
    precision: float
    """The part of those it names that are of the class, in cross-validation."""
    files: tuple[str, ...]
    """The pictures that it names."""
    values: Mapping[str, Sequence[float | str]]
    """The property of each picture by class: numbers, or words such as `JPEG`."""
    also: tuple[str, ...] = ()
    """Other properties that name mostly the same pictures."""


class Verdict(NamedTuple):
    """A line of the table: how many pictures (or classes) there are of a kind of finding, and what to do."""

    kind: str
    number: int
    text: str


class Result(NamedTuple):
    """What a check came to. `verdicts` are the worst first."""

    data: str
    class_names: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    """The pictures of each class by part."""
    verdicts: Sequence[Verdict]
    findings: Sequence[Finding]
    shortcuts: Sequence[Shortcut]
    notes: Sequence[str]
    """What a reader must know: which network was used, what was not looked at."""
