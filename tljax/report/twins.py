"""How accurate stages are without the pictures that have a twin in train: with equal digests, which a run counts at its
end, or found by `check`."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from tljax.data.corrections import DROP, digest_decisions, read_decisions, read_sheet
from tljax.report.belief import Copies, few_interval, find_copies_of, has_chosen
from tljax.report.blocks import Block, Sheet, Text
from tljax.report.pictures import Album
from tljax.report.shown import FindAlbum, Shown
from tljax.runs.predictions import PREDICTIONS, Predictions
from tljax.text import count_words
from tljax.trees import Row

# The kinds of rows of `check.csv` whose two pictures are twins, the worst first.
TWIN_KINDS = ("leak", "contradiction", "exact_twin", "near_twin")
CAPTION = (
    "Brackets: the interval of 95%, where fewer than 1,000 pictures are left, which chose nothing and do not belong "
    "together."
)


class CheckedTwins(NamedTuple):
    """The pairs of twins in a `check.csv`, and the pictures that a run which reads it does not have."""

    file: Path
    pairs: Sequence[tuple[str, str]]
    dropped: Collection[str] = ()


class TrainNames(NamedTuple):
    """The names of the training pictures of a stage; None, and why, where nobody can tell."""

    ids: Collection[str] | None
    why: str = ""


def read_twins(file: Path) -> CheckedTwins:
    """The twins that a check has found.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no table of a check.
    """
    found = _read_pairs(file)
    if found is None:
        raise ValueError(f"{file} has no columns kind and other; give the check.csv that check DATA --out FOLDER wrote")
    return CheckedTwins(file, found)


def _read_pairs(file: Path) -> list[tuple[str, str]] | None:
    cells = read_sheet(file).cells
    if not {"kind", "other"} <= cells.keys():
        return None
    rows = zip(cells["kind"], cells["file"], cells["other"], strict=True)
    return [(name, other) for kind, name, other in rows if kind.strip() in TWIN_KINDS and name and other]


def read_own_twins(shown: Shown) -> tuple[CheckedTwins | None, str]:
    """The twins in the corrections that a stage has read, and a line where these are not known any more; None and no
    line without corrections that a check wrote."""
    config, summary = shown.record.config, shown.record.summary or {}
    if config is None or config.data.corrections is None:
        return None, ""
    file = config.data.corrections_file
    try:
        pairs, decisions = _read_pairs(file), read_decisions(file)
    except (OSError, ValueError) as error:
        return None, f"Twins in its corrections are not known: {' '.join(str(error).split())}."
    if pairs is None:
        return None, ""
    if digest_decisions(decisions) != summary.get("data", {}).get("corrections"):
        return None, f"{file} has other decisions now than it had for this run: the twins in it are not counted."
    return CheckedTwins(file, pairs, {name for name, each in decisions.items() if each.said == DROP}), ""


def find_with_twin(
    ids: Sequence[str], pairs: Iterable[tuple[str, str]], train: Collection[str]
) -> Bool[np.ndarray, " n"]:
    """Which of these pictures have a twin among those of train."""
    having = {one for first, second in pairs for one, other in ((first, second), (second, first)) if other in train}
    return np.fromiter((name in having for name in ids), bool, len(ids))


def measure_without(found: Predictions, twins: Bool[np.ndarray, " n"], *, with_interval: bool) -> Copies:
    """The accuracy on pictures with and without those that have a twin in train."""
    right, left = found.right, int((~twins).sum())
    rest = float(right[~twins].mean()) if left else None
    interval = few_interval(rest, left) if with_interval and rest is not None else None
    return Copies(int(twins.sum()), len(right), float(right.mean()), rest, interval)


def describe_twins(stages: Sequence[Shown], find_album: FindAlbum, check: CheckedTwins | None) -> list[Block]:
    """A table of the accuracies with and without pictures that have a twin in train, and what is to be said of it.
    Nothing where there are no equal pictures, and no check.

    `check` is about all stages; corrections in which a run has read what a check found are looked at, too.
    """
    rows: list[tuple[str | float, ...]] = []
    lines: list[tuple[str, str]] = []
    for shown in stages:
        summary = shown.record.summary
        # What learned from nothing has no twins in train.
        if summary is None or summary["stage"] == "zero_shot":
            continue
        equal = ((split, find_copies_of(summary, split)) for split in PREDICTIONS)
        rows += [_make_row(shown, split, "equal digests", copies) for split, copies in equal if copies is not None]
        own, line = read_own_twins(shown)
        lines += [(shown.label, line)] * bool(line)
        # A check that was asked for may be that of the corrections.
        asked = [] if check is None else [check if own is None else check._replace(dropped=own.dropped)]
        same = own is not None and check is not None and own.file.resolve() == check.file.resolve()
        for twins in [*asked, *([own] if own is not None and not same else [])]:
            more, said = _compare(shown, summary, twins, find_album)
            rows += more
            lines += [(shown.label, text) for text in said]
    columns = ["stage", "pictures", "with a twin in train", "by", "accuracy with them", "accuracy without them (95%)"]
    table = [Sheet(columns, rows, CAPTION)] if rows else []
    return [*table, *([Text(_join_lines(lines, len(stages) > 1))] if lines else [])]


def _make_row(shown: Shown, split: str, by: str, copies: Copies, images: int | None = None) -> tuple[str | float, ...]:
    """A row of the table; `images` are those of the split, where not all of them are known."""
    spread = f" of {images:,}, spread evenly," if images and images > copies.of else ""
    rest = "none is left" if copies.rest is None else f"{copies.rest:.4f}"
    if copies.interval:
        rest += f" ({copies.interval[0]:.2f} to {copies.interval[1]:.2f})"
    pictures = f"{copies.of:,}{spread} of {split}"
    return shown.label, pictures, copies.pictures, by, f"{copies.accuracy:.4f}", rest


def _compare(
    shown: Shown, summary: Row, twins: CheckedTwins, find_album: FindAlbum
) -> tuple[list[tuple[str | float, ...]], list[str]]:
    """The rows and the lines about a stage and the twins that a check found."""
    kept = {"validation": shown.record.validation, "test": shown.record.test}
    found = {split: own for split, own in kept.items() if own is not None and (own.predicted >= 0).all()}
    if not found:
        return [], [f"{twins.file} says nothing of it: it keeps no predictions for single pictures."]
    splits = summary.get("data", {}).get("splits", {})
    measured = {name for own in found.values() for name in own.ids}
    named = {name for pair in twins.pairs for name in pair}
    if not named & measured:
        none = f" with twins, none of them among its {' and '.join(found)} pictures" if named else ""
        return [], [f"{twins.file} names {count_words(len(named), 'picture')}{none}."]
    train = _name_train(shown, find_album)
    others = named - measured - set(twins.dropped) if train.ids is None else train.ids
    rows, lines = [], _describe_names(twins, named - measured, train)
    for split, own in found.items():
        having = find_with_twin(own.ids, twins.pairs, others)
        if not having.any():
            lines.append(f"{twins.file} names no {split} picture of it with a twin in train.")
            continue
        grouped = "worth" in (summary.get("test", {}) if split == "test" else summary)
        chose = split == "validation" and has_chosen(summary)
        copies = measure_without(own, having, with_interval=not (grouped or chose))
        rows.append(_make_row(shown, split, str(twins.file), copies, splits.get(split, {}).get("images")))
    return rows, lines


def _name_train(shown: Shown, find_album: FindAlbum) -> TrainNames:
    """The names of the training pictures, if the data is still what it was."""
    album: Album = find_album(shown.record, "train")
    if album.split is None:
        return TrainNames(None, album.why)
    if len(album.split.ids) < album.split.count:
        return TrainNames(None, "several processes read them")
    return TrainNames(frozenset(album.split.ids))


def _describe_names(twins: CheckedTwins, others: Collection[str], train: TrainNames) -> list[str]:
    """Which of the names in a check are not those of a run; `others` are none of the pictures that it is measured on,
    as far as it has kept them."""
    dropped = len(set(others) & set(twins.dropped))
    drops = f"; {dropped:,} of them were dropped by its corrections" * bool(dropped)
    if train.ids is not None:
        unknown = len(set(others) - set(train.ids))
        be = "is" if unknown == 1 else "are"
        names = f"{count_words(unknown, 'name')} in {twins.file} {be}"
        line = f"{names} neither in train nor in its files of predictions{drops}."
        return [line] if unknown else []
    return [
        f"The names of its training pictures are not known ({train.why}): a twin that {twins.file} names counts as one "
        f"in train if it is not in its files of predictions{drops}."
    ]


def _join_lines(lines: Sequence[tuple[str, str]], named: bool) -> list[str]:
    """Each line once, after the names of the stages that it is about, where there are several; `lines` have these."""
    labels: dict[str, list[str]] = {}
    for label, text in lines:
        labels.setdefault(text, []).append(label)
    return [f"{', '.join(names)}: {text}" if named else text for text, names in labels.items()]
