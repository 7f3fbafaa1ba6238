"""Which picture a cell of a table means.

A path that leads to a file is that file. Otherwise one path must be a whole end of the other, and exactly one picture
must fit: never a file of another name or folder.
"""

import os
import re
import sys
import unicodedata
from bisect import bisect, bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tljax.data.layouts import EXTENSIONS, split_role

# How a path was spelled other than the picture's, from the closest to the loosest.
AS_WRITTEN, OTHER_CASE, NO_ENDING, NO_ENDING_OTHER_CASE = range(4)
# The last of all letters.
LAST = chr(sys.maxunicode)
# So many names before and behind one that is missing are compared with it.
NEAR = 50
# Names in order, and read backwards in order.
Orders = tuple[list[str], list[str]]


class Match(NamedTuple):
    """The picture that a cell means, as a path from the table's folder; None if there is none, and perhaps why."""

    picture: str | None
    spelling: int = AS_WRITTEN
    moved_from: str | None = None
    """The beginning of the cell's path that the picture's has not; None if there is no such beginning."""
    within: str = ""
    """The folder in which the cell's path leads to the picture; empty if that is the table's own, or elsewhere."""
    why: str = ""
    fits: int = 0
    """How many pictures it may mean."""


def _as_written(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _without_ending(path: str) -> str:
    return os.path.splitext(_as_written(path))[0]


SPELLINGS: dict[int, tuple[Callable[[str], str], Callable[[str], str]]] = {
    # The spelling of a cell, and that of a picture, which must be equal.
    AS_WRITTEN: (_as_written, _as_written),
    OTHER_CASE: (lambda cell: _as_written(cell).casefold(), lambda path: _as_written(path).casefold()),
    NO_ENDING: (_as_written, _without_ending),
    NO_ENDING_OTHER_CASE: (
        lambda cell: _as_written(cell).casefold(),
        lambda path: _without_ending(path).casefold(),
    ),
}


def has_ending(cell: str) -> bool:
    """Whether a cell looks like the file of a picture."""
    return cell.strip().lower().endswith(EXTENSIONS)


class Finder:
    """Finds the `pictures` in a folder, given as paths relative to it."""

    def __init__(self, folder: Path, pictures: Sequence[str]):
        self.folder, self.pictures, self._all = folder, pictures, set(pictures)
        # Labels stand there many times.
        self._found: dict[str, Match] = {}
        # Files elsewhere, by the path without links, as they were written first.
        self._elsewhere: dict[str, str] = {}
        # Per spelling, once it is needed, the paths read from their end, in order, and their pictures.
        self._ends: dict[int, tuple[list[str], list[str]]] = {}

    def find(self, cell: str) -> Match:
        """The picture that `cell` means."""
        if cell not in self._found:
            self._found[cell] = self._find(cell.strip())
        return self._found[cell]

    def _find(self, cell: str) -> Match:
        if not cell:
            return Match(None, why="blank")
        for written in dict.fromkeys((cell, cell.replace("\\", "/"))):
            if (file := self._follow(written)) is not None:
                return Match(file, fits=1)
        path = os.path.normpath(cell.replace("\\", "/"))
        for spelling in SPELLINGS:
            found = self._fit(path, spelling)
            if len(found) == 1:
                moved_from, within = _find_beginning(path, found[0]), _find_beginning(found[0], path) or ""
                return Match(found[0], spelling, moved_from, within, fits=1)
            if found:
                return Match(None, why=f"{len(found)} pictures fit: {found[0]} and {found[1]}", fits=len(found))
        return Match(None)

    def _follow(self, cell: str) -> str | None:
        """The picture to which a path leads from the folder."""
        plain = os.path.normpath(cell)
        if plain in self._all:
            return plain
        # Most other columns hold no paths, and need not be looked for.
        if not has_ending(cell) or not os.path.isfile(path := os.path.join(self.folder, cell)):
            return None
        real = os.path.realpath(path)
        inside = os.path.relpath(real, os.path.realpath(self.folder))
        return inside if inside in self._all else self._elsewhere.setdefault(real, plain)

    def _fit(self, path: str, spelling: int) -> list[str]:
        """The pictures whose path is an end of `path`, or has it as its end."""
        ends, pictures = self._order(spelling)
        end = _read_backwards(SPELLINGS[spelling][0](path))
        longer = pictures[bisect_left(ends, end) : bisect_left(ends, end + LAST)]
        shorter = (end[: place + 1] for place, letter in enumerate(end[:-1]) if letter == "/")
        return longer + [p for e in shorter for p in pictures[bisect_left(ends, e) : bisect_right(ends, e)]]

    def _order(self, spelling: int) -> tuple[list[str], list[str]]:
        if spelling not in self._ends:
            ends = [_read_backwards(SPELLINGS[spelling][1](picture)) for picture in self.pictures]
            order = sorted(range(len(ends)), key=ends.__getitem__)
            self._ends[spelling] = [ends[i] for i in order], [self.pictures[i] for i in order]
        return self._ends[spelling]

    def explain(self, cell: str) -> str:
        """Why no picture fits, for the few cells that are printed."""
        path = os.path.normpath(cell.strip().replace("\\", "/"))
        if os.path.lexists(self.folder / path) and not os.access(self.folder / path, os.R_OK):
            return "it may not be read"
        if os.path.isfile(self.folder / path):
            return f"its ending is none of {' '.join(EXTENSIONS)}"
        name = path.rpartition("/")[2]
        numbers = _find_numbers(name)
        with_zeros = self._without_zeros.get(_drop_zeros(name))
        if with_zeros and _find_numbers(with_zeros) != numbers:
            return f"not there; {with_zeros} is, with zeros that spreadsheets drop"
        near = self._find_near(name)
        # Another number is another picture.
        return f"not there; the nearest is {near}" if near and _find_numbers(near) == numbers else "not there"

    @cached_property
    def _without_zeros(self) -> dict[str, str]:
        """The pictures by their names without zeros before numbers: as they are, and without the ending."""
        names = {_drop_zeros(picture.rpartition("/")[2]): picture for picture in self.pictures}
        return names | {os.path.splitext(name)[0]: picture for name, picture in names.items()}

    def _find_near(self, name: str) -> str | None:
        """The picture whose name is most like this one."""
        names, orders = self._names
        near = find_near_name(orders, name)
        return None if near is None else names[near]

    @cached_property
    def _names(self) -> tuple[dict[str, str], Orders]:
        """The pictures by their names, and the orders of these."""
        names = {picture.rpartition("/")[2]: picture for picture in self.pictures}
        return names, order_names(names)


def order_names(names: Iterable[str]) -> Orders:
    """Names as `find_near_name` looks for one."""
    forwards = sorted(names)
    return forwards, sorted(name[::-1] for name in forwards)


def find_near_name(orders: Orders, name: str) -> str | None:
    """The name that is most like this one, of those that begin or end alike: to compare all names of a large folder
    takes seconds. None if there are no names."""
    alike = []
    for order, written in zip(orders, (name, name[::-1]), strict=True):
        place = bisect(order, written)
        alike.append(order[max(place - NEAR, 0) : place + NEAR])
    near = [*alike[0], *(other[::-1] for other in alike[1])]
    # The first of names that are equally alike.
    return min(near, key=lambda o: (-SequenceMatcher(None, o, name).ratio(), o)) if near else None


def _read_backwards(path: str) -> str:
    """The parts of a path from the last to the first, each with a slash behind it."""
    return "/".join(reversed(path.strip("/").split("/"))) + "/"


def _find_beginning(path: str, end: str) -> str | None:
    """What a longer path has before its end."""
    parts, own = path.split("/"), end.split("/")
    return "/".join(parts[: -len(own)]) if len(parts) > len(own) else None


def _drop_zeros(name: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _find_numbers(path: str) -> list[str]:
    """The numbers in a file's name, without those of its ending."""
    return re.findall(r"\d+", os.path.splitext(path.rpartition("/")[2])[0])


def name_split_folder(picture: str) -> str | None:
    """The split whose name a folder on the way to the picture has."""
    return next((role for part in picture.split("/")[:-1] if (role := split_role(part))), None)
