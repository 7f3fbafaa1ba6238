"""Corrections: what a person has decided about pictures, in a table, and what a run reads then.

A picture stays on the side of the held-out tenth on which it was: a source divides its pictures before it is corrected,
so that no other picture moves.
"""

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from tljax.data.image_source import Corrected, ImageSource, Rows
from tljax.data.layouts import join_names
from tljax.data.names import find_near_path
from tljax.data.table_files import find_near_name, order_names
from tljax.data.table_text import Table, read_table
from tljax.text import as_written, count_words, restore_surrogates
from tljax.trees import digest_json

# Decisions that are no class.
KEEP, DROP = "keep", "drop"
# How a picture that is dropped is counted.
DROPPED = "dropped by data.corrections"
# So many wrong names are told, and words that are so much alike (0 to 1) may be meant.
TOLD, LIKE = 3, 0.6
# The rows of each part of the data: of which split of the source, and which of it.
Parts = Mapping[str, tuple[str, Rows]]


class Decision(NamedTuple):
    """What was decided about a picture, and the number of the row in which it stands."""

    row: int
    file: str
    said: str

    def __str__(self) -> str:
        return f"row {self.row} ({self.file}: {self.said})"


class PictureTable(NamedTuple):
    """A table about pictures: the numbers of its rows, and the cells of its columns by name, as they were before they
    were escaped."""

    numbers: tuple[int, ...]
    cells: dict[str, list[str]]

    def decisions(self) -> list[Decision]:
        """The rows with a decision; `KEEP` and `DROP` may be written in any case."""
        rows = zip(self.numbers, self.cells["file"], map(read_word, self.cells["decision"]), strict=True)
        return [Decision(*row) for row in rows if row[2]]


def read_word(said: str) -> str:
    """A decision as it is read: the words `KEEP` and `DROP` in small letters, no spaces around it."""
    said = said.strip()
    return said.casefold() if said.casefold() in (KEEP, DROP) else said


def read_sheet(file: Path) -> PictureTable:
    """A table with the columns `file` and `decision`, and perhaps others, as a spreadsheet may have saved it again.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no table, or lacks a column.
    """
    if not file.is_file():
        near = find_near_path(file)
        raise FileNotFoundError(f"{file}: there is no such file{f'; did you mean {near}?' if near else ''}")
    table = read_table(file, needs="one called file and one called decision", least=0)
    places = {table.key(i): i for i in reversed(range(len(table.columns)))}
    if lacking := [name for name in ("file", "decision") if name not in places]:
        raise ValueError(f"{file} has no column {lacking[0]!r}; its columns are {join_names(table.columns)}")
    return PictureTable(table.numbers, {name: _read_cells(table, place) for name, place in places.items()})


def _read_cells(table: Table, column: int) -> list[str]:
    return [restore_surrogates(as_written(cell)) for cell in table.cells(column)]


def unite(decisions: Iterable[Decision], file: Path) -> dict[str, Decision]:
    """The decision about each picture.

    Raises:
      ValueError: if two of them differ.
    """
    united: dict[str, Decision] = {}
    for decision in decisions:
        first = united.setdefault(decision.file, decision)
        if first.said != decision.said:
            raise ValueError(f"{file}: {first} and {decision} decide otherwise about one picture; leave one of them")
    return united


def read_decisions(file: Path) -> dict[str, Decision]:
    """The decisions in a table by picture.

    Raises:
      FileNotFoundError, ValueError: as `read_sheet`, and if decisions contradict each other or a row names no picture.
    """
    decisions = unite(read_sheet(file).decisions(), file)
    if blank := next((decision for name, decision in decisions.items() if not name.strip()), None):
        raise ValueError(f"{file}: row {blank.row} has the decision {blank.said!r} and no file")
    return decisions


def digest_decisions(decisions: Mapping[str, Decision]) -> str:
    """A digest of what decisions change: of all but those that keep a picture as it is."""
    changes = [(name, decision.said) for name, decision in decisions.items() if decision.said != KEEP]
    return digest_json(sorted([_read_plainly(name), _read_plainly(said)] for name, said in changes))


def correct(source: ImageSource, file: Path) -> ImageSource:
    """`source` with the labels that the decisions in `file` give its pictures. `leave_out` leaves out what is dropped.

    Raises:
      FileNotFoundError, ValueError: as `read_decisions`, and if a decision is none, or its picture is not there.
    """
    decisions = read_decisions(file)
    labels, places = _find_places(source, decisions)
    found = _find_pictures(decisions, places, file)
    targets = {name: find_class(decision, source.class_names, file) for name, decision in found.items()}
    of_split: dict[str, list[str]] = {split: [] for split in source.sizes}
    for name in sorted(found, key=places.__getitem__):
        of_split[places[name][0]].append(name)
    corrected = {
        split: _correct_split(
            np.array([places[name][1] for name in names], int),
            labels.get(split, np.arange(0)),
            np.array([found[name].said == DROP for name in names], bool),
            [targets[name] for name in names],
        )
        for split, names in of_split.items()
    }
    return source._replace(
        describe=partial(_describe, source, corrected),
        corrected=corrected,
        corrections=digest_decisions(decisions),
        warnings=(*source.warnings, *_warn_of_words(source.class_names, found)),
    )


def _correct_split(
    rows: Rows, labels: Int[np.ndarray, " size"], dropped: Bool[np.ndarray, " n"], targets: Sequence[int | None]
) -> Corrected:
    """What changes in a split with these `labels`. A target is None where the label stays."""
    before = labels[rows]
    after = [old if label is None else label for label, old in zip(targets, before, strict=True)]
    return Corrected(rows, before, np.array(after, int), dropped)


def _describe(
    source: ImageSource, corrected: Mapping[str, Corrected], split: str, rows: Rows
) -> tuple[Int[np.ndarray, " n"], Sequence[str]]:
    """The labels after corrections, and the ids, of some rows."""
    labels, ids = source.describe(split, rows)
    changes = corrected[split]
    if not len(changes.rows):
        return labels, ids
    places = np.minimum(np.searchsorted(changes.rows, rows), len(changes.rows) - 1)
    return np.where(changes.rows[places] == rows, changes.after[places], labels), ids


def _find_places(source: ImageSource, names: Iterable[str]) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, int]]]:
    """The labels of each split, and where each picture is: its split and its row. Where all `names` are found, the
    splits that are left are not read: labels and names of records take reading them."""
    missing = set(names)
    labels: dict[str, np.ndarray] = {}
    places: dict[str, tuple[str, int]] = {}
    for split, size in source.sizes.items():
        if not missing:
            break
        labels[split], ids = source.describe(split, np.arange(size))
        places |= {name: (split, row) for row, name in enumerate(ids)}
        missing.difference_update(ids)
    return labels, places


def _find_pictures(decisions: Mapping[str, Decision], places: Mapping[str, object], file: Path) -> dict[str, Decision]:
    """The decisions by the names that pictures have in the source.

    Raises:
      ValueError: if a picture is not there.
    """
    missing = [decision for name, decision in decisions.items() if name not in places]
    if not missing:
        return dict(decisions)
    plain: dict[str, list[str]] = {}
    for name in places:
        plain.setdefault(_read_plainly(name), []).append(name)
    meant = {decision.file: plain.get(_read_plainly(decision.file), []) for decision in missing}
    unknown = [decision for decision in missing if len(meant[decision.file]) != 1]
    if unknown:
        orders = order_names(places)
        # To look for what is near takes a moment a name.
        told = [
            f"row {each.row}: {each.file} (the nearest is {find_near_name(orders, each.file)})"
            for each in unknown[:TOLD]
        ]
        raise ValueError(
            f"{file} names {count_words(len(unknown), 'picture')} that the data has not: "
            f"{join_names([*told, *map(str, unknown[TOLD:])], '; ', TOLD)}; correct the table, or give the data that "
            "it is about"
        )
    return unite((d._replace(file=meant.get(name, [name])[0]) for name, d in decisions.items()), file)


def _read_plainly(text: str) -> str:
    """A name as it is where a program has composed its letters or its spaces otherwise."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def find_class(decision: Decision, class_names: Sequence[str], file: Path) -> int | None:
    """The label that a decision gives; None if it gives none.

    Raises:
      ValueError: if it is no decision.
    """
    if decision.said in (KEEP, DROP):
        return None
    if decision.said in class_names:
        return class_names.index(decision.said)
    alike = [i for i, name in enumerate(class_names) if _read_plainly(name) == _read_plainly(decision.said)]
    if len(alike) == 1:
        return alike[0]
    words = {name.casefold(): name for name in (KEEP, DROP, *class_names)}
    near = difflib.get_close_matches(decision.said.casefold(), words, 1, cutoff=LIKE)
    raise ValueError(
        f"{file}: {decision} is no decision: write {KEEP}, {DROP} or the name of a class"
        f"{f'; did you mean {words[near[0]]}?' if near else ''}"
    )


def _warn_of_words(class_names: Sequence[str], decisions: Mapping[str, Decision]) -> list[str]:
    said = {decision.said for decision in decisions.values()}
    return [
        f"the decision {word} is not read as the class {name}"
        for word in (KEEP, DROP)
        for name in class_names
        if name.casefold() == word and word in said
    ]


def leave_out(
    source: ImageSource, parts: Parts, classes: Sequence[str] = ()
) -> tuple[ImageSource, dict[str, tuple[str, Rows]]]:
    """The parts of the data without the pictures that corrections drop; and the source, which says how many decisions
    were applied. `classes` are those that are used, empty for all.

    Raises:
      ValueError: if nothing is left of a part.
    """
    if source.corrections is None:
        return source, dict(parts)
    left, counts = {}, {}
    for part, (split, rows) in parts.items():
        corrected = source.corrected[split]
        left[part] = split, np.setdiff1d(rows, corrected.rows[corrected.dropped])
        if not len(left[part][1]):
            raise ValueError(f"config.data.corrections drops all {len(rows):,} pictures of {split} for {part}")
        used = np.isin(corrected.rows, rows) & _are_of(source, corrected, classes)
        counts[part] = _count(corrected, used)
    total = {what: sum(count[what] for count in counts.values()) for what in ("dropped", "relabelled", "kept")}
    unread = sum(len(corrected.rows) for corrected in source.corrected.values()) - sum(total.values())
    dropped = {DROPPED: total["dropped"]} if total["dropped"] else {}
    source = source._replace(
        left_out={**source.left_out, **dropped}, notes=(*source.notes, _tell(counts, total, unread))
    )
    return source, left


def _are_of(source: ImageSource, corrected: Corrected, classes: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Which pictures are, or were, of one of `classes`."""
    used = [source.class_names.index(name) for name in classes or source.class_names]
    return np.isin(corrected.before, used) | np.isin(corrected.after, used)


def _count(corrected: Corrected, used: Bool[np.ndarray, " n"]) -> dict[str, int]:
    relabelled = ~corrected.dropped & (corrected.after != corrected.before)
    kept = ~corrected.dropped & ~relabelled
    of_kind = {"dropped": corrected.dropped, "relabelled": relabelled, "kept": kept}
    return {what: int((chosen & used).sum()) for what, chosen in of_kind.items()}


def _tell(counts: Mapping[str, Mapping[str, int]], total: Mapping[str, int], unread: int) -> str:
    """How many decisions were applied, for a reader: in all, and in each part."""
    by_part = [f"{part}: {_list_counts(count)}" for part, count in counts.items() if any(count.values())]
    parts = f" ({'; '.join(by_part)})" if by_part else ""
    others = f"; {unread:,} about pictures that this run does not read" if unread else ""
    return f"corrections: {', '.join(f'{number:,} {what}' for what, number in total.items())}{parts}{others}"


def _list_counts(count: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in count.items() if number)
