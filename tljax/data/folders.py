"""Folders of pictures: labels and splits are subfolders, or stand in a table."""

from pathlib import Path
from typing import Literal

import numpy as np

from tljax.config import COLUMN
from tljax.data.groups import find_groups, refuse_no_side, stratify_groups, warn_unheld
from tljax.data.image_source import PHOTOGRAPH_SIZE, Groups, ImageSource, Rows
from tljax.data.layouts import BESIDE, Found, describe_left_out, join_names, recognize, suggest_table
from tljax.data.splits import stratify
from tljax.data.tables import recognize_table

# What a run says about a validation split that it makes.
DIVIDED = "the split val is a tenth of each class, at least one where there are two; other pictures, another tenth"
DIVIDED_GROUPS = "the split val is {:,} of the {:,} groups, about a tenth of each class; other pictures, other groups"
# Paths, and the label of each.
Pictures = tuple[list[str], np.ndarray]
Holdout = Literal["train", "test", "none"]


def open_folder(
    folder: Path, classes: tuple[str, ...] = (), holdout: Holdout = "train", group: str | None = None
) -> ImageSource:
    """`folder` as an image source, with the splits of its subfolders.

    Without a split val, `stratify` divides the split train; with `holdout="test"` only if there is no test either, with
    `holdout="none"` never.
    `classes` are the classes that will be used, empty for all. `group` says which pictures belong together
    (`config.data.group`).

    Raises:
      PermissionError: if a folder cannot be read.
      ValueError: if it has no folders of classes, `recognize` refuses its layout, or groups cannot be told or divided.
    """
    found = recognize(folder, classes)
    if not any(found.splits.values()):
        raise ValueError(f"config.data.name='folder:{folder}': {_explain_flat(found)}")
    return _as_source(found, holdout, group)


def _explain_flat(found: Found) -> str:
    """Why a folder has no classes, and what to do."""
    flat = found.left_out[BESIDE]
    held = f"{flat:,} pictures lie in it" if flat != 1 else "1 picture lies in it"
    if not flat:
        held = f"it holds no picture{f' ({describe_left_out(found.left_out)})' if found.left_out else ''}"
    table = suggest_table(found.base) or ", or write csv:FILE, a table with the columns file and label"
    return (
        f"{held}, and no folder of a class: put the pictures of each class into a folder of its own, such as "
        f"{found.base / 'cat'}{table}"
    )


def open_table(
    file: Path, classes: tuple[str, ...] = (), holdout: Holdout = "train", group: str | None = None
) -> ImageSource:
    """A CSV file with labels, and the pictures beside it, as an image source. The arguments are those of `open_folder`.

    Raises:
      ValueError: as `recognize_table`, or if groups cannot be told or divided.
    """
    column = group.removeprefix(COLUMN) if group and group.startswith(COLUMN) else None
    return _as_source(recognize_table(file, classes, column), holdout, group)


def _as_source(found: Found, holdout: Holdout, group: str | None) -> ImageSource:
    """The pictures of a layout, which has classes."""
    names = list(next(iter(found.splits.values())))
    splits = {split: _shuffle(list(by_class.values())) for split, by_class in found.splits.items()}
    whole = splits.pop("all", None) or (splits.get("train") if "val" not in splits else None)
    divided = whole is not None and holdout != "none" and (holdout == "train" or "test" not in splits)
    if whole is not None:
        splits["train"] = whole
    groups, said = find_groups(group, {split: paths for split, (paths, _) in splits.items()}, found.groups)
    notes, warnings = [*found.notes, *said], list(found.warnings)
    if whole is not None and divided:
        parts, note, lines = _divide(whole[1], names, groups, group)
        splits |= {split: _choose(whole, rows) for split, rows in parts.items()}
        groups = _follow(groups, parts)
        notes, warnings = [*notes, note], [*warnings, *lines]

    def fetch(split: str, rows: Rows) -> list[Path]:
        return [found.base / splits[split][0][i] for i in rows]

    def describe(split: str, rows: Rows) -> tuple[np.ndarray, list[str]]:
        return splits[split][1][rows], [splits[split][0][i] for i in rows]

    return ImageSource(
        class_names=tuple(names),
        image_size=PHOTOGRAPH_SIZE,
        sizes={split: len(paths) for split, (paths, _) in splits.items()},
        describe=describe,
        fetch=fetch,
        shards=lambda _: [],
        left_out=dict(found.left_out),
        notes=tuple(notes),
        warnings=tuple(warnings),
        test_at_end=divided and "test" in splits,
        groups=groups,
    )


def _divide(
    labels: np.ndarray, names: list[str], groups: Groups | None, group: str | None
) -> tuple[dict[str, Rows], str, list[str]]:
    """The rows of train and val, a note, and warnings."""
    if groups is None:
        alone = [name for i, name in enumerate(names) if np.sum(labels == i) == 1]
        line = f"one picture of each of {join_names(alone)}: none is left to validate on"
        return stratify(labels), DIVIDED, [line] * bool(alone)
    own = groups.of["train"]
    parts = stratify_groups(labels, own)
    refuse_no_side(str(group), [groups.names[i] for i in np.unique(own)], parts["val"])
    note = DIVIDED_GROUPS.format(len(np.unique(own[parts["val"]])), len(np.unique(own)))
    return parts, note, warn_unheld(labels, own, parts["val"], names)


def _follow(groups: Groups | None, parts: dict[str, Rows]) -> Groups | None:
    """The groups, where `parts` of train become splits."""
    if groups is None:
        return None
    return groups._replace(of={**groups.of, **{split: groups.of["train"][rows] for split, rows in parts.items()}})


def _shuffle(by_class: list[list[str]]) -> Pictures:
    """The pictures of all classes and their labels, shuffled by a fixed seed: every slice then holds all classes."""
    paths = [path for pictures in by_class for path in pictures]
    labels = np.repeat(np.arange(len(by_class)), [len(pictures) for pictures in by_class])
    return _choose((paths, labels), np.random.default_rng(0).permutation(len(paths)))


def _choose(pictures: Pictures, rows: Rows) -> Pictures:
    return [pictures[0][i] for i in rows], pictures[1][rows]
