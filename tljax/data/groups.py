"""Which pictures belong together, as those of one patient, writer or film do, and which groups are held out."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from tljax.config import COLUMN
from tljax.data.image_source import Groups, Rows
from tljax.data.layouts import join_names
from tljax.text import count_words

# So many of a class are held out: one in ten.
TENTH = 10


def find_groups(
    group: str | None, splits: Mapping[str, Sequence[str]], cells: Mapping[str, str]
) -> tuple[Groups | None, list[str]]:
    """The groups of the pictures of each split, whose paths `splits` has, and a line about them; None and no line
    without a `group`.

    `group` is `config.data.group`; `cells` are those of its column. What has no match, an empty one or a blank cell is
    a group by itself.

    Raises:
      ValueError: if all pictures are.
    """
    if group is None:
        return None, []
    name = cells.__getitem__ if group.startswith(COLUMN) else _match(group)
    found = {split: [name(path) for path in paths] for split, paths in splits.items()}
    paths = [path for several in splits.values() for path in several]
    alone = [
        path for path, its in zip(paths, (its for names in found.values() for its in names), strict=True) if not its
    ]
    if len(alone) == len(paths):
        raise ValueError(f"config.data.group={group!r} {_none(group)} {len(paths):,} pictures, such as {paths[0]}")
    # A name and a path may be equal.
    keys = {split: [(its, "" if its else path) for its, path in zip(found[split], splits[split], strict=True)]
            for split in splits}  # fmt: skip
    numbers = {key: i for i, key in enumerate(sorted({key for several in keys.values() for key in several}))}
    of = {split: np.array([numbers[key] for key in several], int) for split, several in keys.items()}
    groups = Groups(tuple(its or path for its, path in numbers), of)
    return groups, [describe_groups(groups, group, len(alone))]


def _match(pattern: str) -> Callable[[str], str]:
    # macOS writes letters with accents in another form.
    expression = re.compile(unicodedata.normalize("NFC", pattern))

    def name(path: str) -> str:
        match = expression.search(unicodedata.normalize("NFC", path))
        return (match[min(1, expression.groups)] or "") if match else ""

    return name


def _none(group: str) -> str:
    return "is blank for all" if group.startswith(COLUMN) else "matches none of the"


def describe_groups(groups: Groups, group: str, alone: int) -> str:
    """How many groups there are, which is the largest, and how many pictures are `alone`."""
    counts = np.bincount(np.concatenate(list(groups.of.values())), minlength=len(groups.names))
    largest = int(counts.argmax())
    most = f"{groups.names[largest]} with {count_words(int(counts[largest]), 'picture')}"
    line = f"{count_words(len(counts), 'group')} by {group!r}, the largest {most}"
    without = "has none there and is" if alone == 1 else "have none there and are"
    return line + f"; {count_words(alone, 'picture')} {without} a group each" * bool(alone)


def stratify_groups(labels: np.ndarray, groups: Int[np.ndarray, " n"]) -> dict[str, Rows]:
    """The rows of train and val: whole groups, about a tenth of each class, at least one group of each class with two
    or more. Every class keeps a group in train, so that val may lack a class, and have no row.

    Groups come in an order drawn by a fixed seed, as in `splits.stratify`. Each is held out that brings val nearer to a
    tenth of each class; then the best one for each class that is not there yet.
    """
    _, own = np.unique(groups, return_inverse=True)
    classes, counts = _count_by_group(labels, own)
    sizes, holders = np.bincount(labels), np.bincount(np.concatenate(classes), minlength=labels.max() + 1)
    wanted = np.where(holders > 1, np.maximum(1, np.round(sizes / TENTH)), 0)
    held, left = np.zeros(len(sizes)), holders.copy()
    chosen: set[int] = set()

    def may_go(group: int) -> bool:
        return group not in chosen and bool((left[classes[group]] > 1).all())

    def worsens(group: int) -> float:
        """By how much it takes val away from what is wanted, in tenths of each class."""
        there, aim = held[classes[group]], wanted[classes[group]]
        change = np.abs(there + counts[group] - aim) - np.abs(there - aim)
        return float((change / np.maximum(aim, 1)).sum())

    def take(group: int) -> None:
        chosen.add(group)
        held[classes[group]] += counts[group]
        left[classes[group]] -= 1

    for group in np.random.default_rng(0).permutation(len(classes)).tolist():
        if may_go(group) and worsens(group) < 0:
            take(group)
    for label in np.argsort(holders, kind="stable"):
        those = np.unique(own[labels == label]).tolist() if holders[label] > 1 and not held[label] else []
        if those := [group for group in those if may_go(group)]:
            take(min(those, key=worsens))
    out = np.isin(own, list(chosen))
    return {"train": np.flatnonzero(~out), "val": np.flatnonzero(out)}


def _count_by_group(labels: np.ndarray, own: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The classes of each group, and how many pictures of each it has."""
    pairs, counts = np.unique(np.stack([own, labels]), axis=1, return_counts=True)
    starts = np.flatnonzero(np.diff(pairs[0])) + 1
    return np.split(pairs[1], starts), np.split(counts, starts)


def refuse_no_side(group: str, names: Sequence[str], rows: Rows) -> None:
    """Raises ValueError if no group can be held out: `rows` are those of val, `names` those of all groups."""
    if len(names) < 2:
        raise ValueError(
            f"config.data.group={group!r} makes one group of all pictures, {join_names(names)}: none is left to "
            "validate on; give another REGEX, or a folder val/ of other groups"
        )
    if not len(rows):
        raise ValueError(
            f"config.data.group={group!r}: each of the {len(names):,} groups has all pictures of a class, which leaves "
            "none to validate on; give another REGEX, or a folder val/ of other groups"
        )


def warn_unheld(labels: np.ndarray, groups: np.ndarray, rows: Rows, names: Sequence[str]) -> list[str]:
    """Lines about the classes of which no picture is in `rows`, those of val, and why."""
    there = np.unique(labels)
    unheld = np.setdiff1d(there, labels[rows]).tolist()
    single = [i for i in unheld if len(np.unique(groups[labels == i])) == 1]
    several = [i for i in unheld if i not in single]
    return [
        *_say(single, names, "one group of each of {}: none is left to validate on"),
        *_say(several, names, "no group of {} can be held out without all pictures of another class: none is left to "
                              "validate on"),
    ]  # fmt: skip


def _say(some: Sequence[int], names: Sequence[str], line: str) -> list[str]:
    return [line.format(join_names(names[i] for i in some))] if some else []


def warn_leaks(names: Sequence[str], groups: Mapping[str, Int[np.ndarray, " n"]]) -> list[str]:
    """Lines about groups on both sides; `groups` are those of the pictures of each split of a run."""
    pairs = (("train", "validation"), ("train", "test"), ("validation", "test"))
    return [line for one, other in pairs if one in groups and other in groups
            for line in _warn_leak(names, groups, one, other)]  # fmt: skip


def _warn_leak(
    names: Sequence[str], groups: Mapping[str, Int[np.ndarray, " n"]], one: str, other: str
) -> Iterable[str]:
    both = np.intersect1d(groups[one], groups[other])
    if not len(both):
        return ()
    those = int(np.isin(groups[other], both).sum())
    there = "1 group is" if len(both) == 1 else f"{len(both):,} groups are"
    called = join_names(names[i] for i in both.tolist())
    return (
        f"{there} in both {one} and {other} ({called}): {those:,} of the {len(groups[other]):,} {other} pictures are "
        "of such groups, and the accuracy there says too much",
    )
