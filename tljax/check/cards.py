"""Which findings, cards and pictures the page of a check has, and the table that is saved from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from tljax.check.findings import FINDING_COLUMNS, Finding, write_cells
from tljax.check.result import Checked, Part
from tljax.data.corrections import DROP, KEEP, read_word
from tljax.data.decoding import Encoded
from tljax.report.blocks import Ledger
from tljax.report.pictures import MOST_PICTURES
from tljax.report.shown import take_turns

# The file that is saved from the page.
SAVED = "check.csv"
# A page has so many findings at most: 8 MB where names have 30 characters.
MOST_FINDINGS = 100_000
# So many pictures of a card are shown at first, as `page_decisions.js` has it.
PICTURES_OF_A_CARD = 6


class Place(NamedTuple):
    """Where a picture stands: its part and its class."""

    split: str
    label: str


class Case(NamedTuple):
    """A card: the rows of findings that belong together, and the pictures that it shows, in this order."""

    rows: list[int]
    files: list[str]

    @property
    def shown(self) -> list[str]:
        """The pictures that are there at first."""
        return self.files[:PICTURES_OF_A_CARD]


def choose_findings(findings: Sequence[Finding], most: int = MOST_FINDINGS) -> list[Finding]:
    """At most `most` findings, but all with a decision, then the worst of each kind in turns; in their order. The words
    `keep` and `drop` are written in small letters."""
    decided = [i for i, finding in enumerate(findings) if finding.decision.strip()]
    kinds: dict[str, list[int]] = {}
    for i in sorted(range(len(findings)), key=lambda i: -findings[i].score):
        kinds.setdefault(findings[i].kind, []).append(i)
    chosen = list(dict.fromkeys([*decided, *take_turns(kinds.values())]))[: max(most, len(decided))]
    return [replace(findings[i], decision=read_word(findings[i].decision)) for i in sorted(chosen)]


def list_places(checked: Checked) -> dict[str, Place]:
    """Where each picture stands, by its id."""
    names = checked.class_names
    return {
        name: Place(part, names[label])
        for part, its in checked.parts.items()
        for name, label in zip(its.ids, its.labels.tolist(), strict=True)
    }


def fill_places(findings: Iterable[Finding], places: Mapping[str, Place]) -> list[Finding]:
    """Findings with the part and class of their pictures, where a table has lost them."""
    return [
        row if row.split or row.file not in places
        else replace(row, split=places[row.file].split, label=places[row.file].label)
        for row in findings
    ]  # fmt: skip


def part_twins(chosen: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Findings, and decisions about twins that have none: their rows are turned round, behind those of findings."""
    first: dict[tuple[str, str, str], int] = {}
    for i, row in enumerate(chosen):
        first.setdefault((row.kind, row.file, row.other), i)
    beside = {
        i for i, row in enumerate(chosen)
        if row.decision and row.kind != "contradiction" and first.get((row.kind, row.other, row.file), i) < i
    }  # fmt: skip
    return [row for i, row in enumerate(chosen) if i not in beside], [chosen[i] for i in sorted(beside)]


def list_cases(found: Sequence[Finding], kinds: Sequence[str]) -> list[Case]:
    """The cards of these kinds: rows about a picture, its twins, and theirs; the worst kind first, as they are given,
    and the worst of it. A picture that others are compared with stands first."""
    rows = [i for i, finding in enumerate(found) if finding.kind in kinds]
    groups = join_pairs((found[i].file, found[i].other) for i in rows)
    cases: dict[str, list[int]] = {}
    for i in sorted(rows, key=lambda i: (kinds.index(found[i].kind), -found[i].score)):
        cases.setdefault(groups[found[i].file], []).append(i)
    return [Case(its, _order_files([found[i] for i in its])) for its in cases.values()]


def join_pairs(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The group of each name, which is one of its names. An empty second name joins nothing."""
    heads: dict[str, str] = {}

    def find(name: str) -> str:
        while (head := heads.setdefault(name, name)) != name:
            # Ways that are used become short.
            heads[name] = heads[head]
            name = heads[name]
        return name

    for first, second in pairs:
        head = find(first)
        if second:
            heads[find(second)] = head
    return {name: find(name) for name in tuple(heads)}


def _order_files(its: Sequence[Finding]) -> list[str]:
    about = dict.fromkeys(finding.file for finding in its)
    others = dict.fromkeys(finding.other for finding in its if finding.other and finding.other not in about)
    return [*others, *about]


def choose_files(
    found: Sequence[Finding],
    cases: Iterable[Case],
    places: Mapping[str, Place],
    first: Iterable[str] = (),
    most: int = MOST_PICTURES,
) -> list[str]:
    """The pictures that a page has, of those that have `places`: the `first`, then all that a card shows, the cards of
    each kind in turns."""
    kinds: dict[str, list[Case]] = {}
    for case in cases:
        kinds.setdefault(found[case.rows[0]].kind, []).append(case)
    files = dict.fromkeys(file for file in first if file in places)
    for case in take_turns(kinds.values()):
        new = [file for file in case.shown if file in places and file not in files]
        if len(files) + len(new) <= most:
            files |= dict.fromkeys(new)
    return list(files)


def read_images(checked: Checked, names: Sequence[str]) -> dict[str, UInt8[np.ndarray, "size size 3"]]:
    """The images with these names, in their order, of those that there are; one that can no longer be read is black."""
    found: dict[str, UInt8[np.ndarray, "size size 3"]] = {}
    for part in checked.parts.values():
        places = {name: place for place, name in enumerate(part.ids)}
        there = [name for name in names if name in places]
        found |= dict(zip(there, _decode(part, [places[name] for name in there]), strict=True))
    return {name: found[name] for name in names if name in found}


def _decode(part: Part, places: Sequence[int]) -> UInt8[np.ndarray, "n size size 3"]:
    chosen = np.array(places, int)
    return part.images.decode(chosen).images if isinstance(part.images, Encoded) else part.images[chosen]


def has_pictures(case: Case, keys: Mapping[str, str]) -> bool:
    """Whether the page has all pictures that a card shows; `keys` are those of its pictures."""
    return all(file in keys for file in case.shown)


def make_ledger(
    found: Sequence[Finding],
    beside: Sequence[Finding],
    class_names: Sequence[str],
    places: Mapping[str, Place],
    keys: Mapping[str, str],
    reasons: Mapping[str, str],
) -> Ledger:
    """The table that is saved: all rows that the page has (`part_twins`), and a spare one for each twin without one."""
    about = {finding.file for finding in (*found, *beside)}
    twins = {row.other: row for row in found if row.other in places and row.other not in about}
    spare = [_turn_round(row, places[file]) for file, row in twins.items()]
    cells = {file: _write_cell(file) for file in (*about, *twins)}
    return Ledger(
        SAVED,
        FINDING_COLUMNS,
        [write_cells(finding) for finding in (*found, *beside, *spare)],
        len(beside) + len(spare),
        # A class that is called so cannot be a decision.
        [_write_cell(label) for label in class_names if label.strip().casefold() not in (KEEP, DROP)],
        {cells[file]: key for file, key in keys.items() if file in cells},
        {cells[file]: why for file, why in reasons.items() if file in cells},
    )


def _turn_round(row: Finding, place: Place) -> Finding:
    """A finding about the other picture, which stands at `place`."""
    return Finding(row.other, place.split, row.kind, row.score, place.label, other=row.file)


def _write_cell(text: str) -> str:
    return write_cells(Finding(text, "", "", 0.0, ""))[0]
