"""Pictures whose labels stand in a table: a CSV file with a column of files and a column of labels."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tljax.data.layouts import ENDING, Found, Role, check_splits, join_names, list_pictures, split_role, unite_names
from tljax.data.table_columns import Columns, choose_columns
from tljax.data.table_files import NO_ENDING_OTHER_CASE, OTHER_CASE, Finder, Match, name_split_folder
from tljax.data.table_text import Table, fold_column, read_table
from tljax.text import count_words

# What programs write where there is no label.
NO_LABEL = ("nan", "na", "n/a", "#n/a", "null", "none")
# So many missing files are named, with the reason.
SHOWN = 10


def recognize_table(file: Path, classes: Sequence[str] = (), group: str | None = None) -> Found:
    """The pictures that a table names, by split and class. They lie in the table's folder, or where their paths lead.
    `group` is the name of the column that says which belong together.

    Raises:
      ValueError: if the table or its columns cannot be told, pictures are missing or have two labels, splits or groups,
        or a class has no picture.
    """
    table = read_table(file)
    pictures, others = list_pictures(file.parent)
    finder = Finder(file.parent, pictures)
    columns = choose_columns(table, finder)
    found = Found(file.parent, {}, Counter(others), [describe_columns(table, columns), *columns.notes], [])
    matches = refuse_other_folders(refuse_other_splits(table, columns))
    refuse_missing(table, columns, matches, finder)
    found.notes.extend(describe_spellings(table, columns, matches))
    _fill_splits(found, table, columns, matches)
    # The table itself.
    found.left_out[f"{ENDING}{file.suffix.lower()}"] -= 1
    found.left_out["not in the table"] += len(set(pictures) - {match.picture for match in matches})
    if not found.splits:
        raise ValueError(f"{file}: no row has all of a file, a label and a split")
    names = sorted({name for by_class in found.splits.values() for name in by_class})
    for part, by_class in found.splits.items():
        found.splits[part] = {name: by_class.get(name, []) for name in names}
    check_splits(found, {part: f"the split {part}" for part in found.splits}, classes)
    groups = read_groups(table, matches, group) if group else {}
    return found._replace(left_out=+found.left_out, groups=groups)


def read_groups(table: Table, matches: Sequence[Match], column: str) -> dict[str, str]:
    """What stands in a column beside each picture.

    Raises:
      ValueError: if there is no such column, or two cells of a picture differ.
    """
    key = fold_column(column)
    places = [i for i in range(len(table.columns)) if table.key(i) == key]
    if not places:
        raise ValueError(
            f"{table.file} has no column {column!r} for config.data.group; it has {join_names(table.columns)}"
        )
    groups: dict[str, str] = {}
    two_groups = []
    for match, cell in zip(matches, table.cells(places[0]), strict=True):
        name = " ".join(cell.split())
        if match.picture is not None and groups.setdefault(str(match.picture), name) != name:
            two_groups.append(f"{match.picture} ({groups[str(match.picture)]} and {name})")
    _refuse(table.file, "in two groups", two_groups)
    return groups


def _fill_splits(found: Found, table: Table, columns: Columns, matches: Sequence[Match]) -> None:
    """Adds the pictures to the splits of `found`, each once.

    Raises:
      ValueError: if a picture has two labels, or is in two splits.
    """
    labels = name_classes(table.cells(columns.label), found)
    known: dict[str, tuple[str, Role | None]] = {}
    two_labels, two_splits = [], []
    for name, match, role in zip(labels, matches, columns.roles, strict=True):
        picture = str(match.picture)
        if not name or match.picture is None or role == "unlabelled" or (role is None and columns.split is not None):
            found.left_out["without a file, a label or a split"] += 1
            continue
        before = known.setdefault(picture, (name, role))
        if before[0] != name:
            two_labels.append(f"{picture} ({before[0]} and {name})")
        elif before[1] != role:
            two_splits.append(f"{picture} ({before[1]} and {role})")
        else:
            found.splits.setdefault(role or "all", {}).setdefault(name, []).append(picture)
    # A picture that stands there twice counts once.
    for by_class in found.splits.values():
        for name, paths in by_class.items():
            by_class[name] = list(dict.fromkeys(paths))
    _refuse(table.file, "with two labels", two_labels)
    _refuse(table.file, "in two splits", two_splits)


def describe_columns(table: Table, columns: Columns) -> str:
    """Which columns are used, with three values of each."""
    uses = [
        (columns.file, "files"),
        (columns.label, "labels"),
        *([(columns.split, "splits")] if columns.split is not None else []),
    ]
    said = []
    for i, use in uses:
        values = list(dict.fromkeys(" ".join(cell.split()) for cell in table.cells(i) if cell.strip()))
        said.append(f"{table.name(i)} for {use} ({', '.join(values[:3])}{', ...' if values[3:] else ''})")
    return f"columns of {table.file.name}: {', '.join(said)}"


def refuse_other_splits(table: Table, columns: Columns) -> list[Match]:
    """The matches, without those of bare names in the folder of another split than most of the table's pictures."""
    bare = [not re.search(r"[/\\]", cell) for cell in table.cells(columns.file)]
    folders = [name_split_folder(m.picture) if m.picture and is_bare else None
               for m, is_bare in zip(columns.matches, bare, strict=True)]  # fmt: skip
    counts = Counter(folder for folder in folders if folder)
    most = counts.most_common(1)[0][0] if counts else None
    return [
        Match(None, why=f"{match.picture} is of another split than most pictures of the table, {most}")
        if folder not in (None, most, role)
        else match
        for match, folder, role in zip(columns.matches, folders, columns.roles, strict=True)
    ]


def refuse_other_folders(matches: Sequence[Match]) -> list[Match]:
    """The matches; where most paths lead to their pictures as they are written, without those that lead elsewhere: a
    copy in another folder is not what is meant."""
    found = [match for match in matches if match.picture]
    if 2 * sum(not match.within for match in found) <= len(found):
        return list(matches)
    return [
        Match(None, why=f"not there; {match.picture} is, in another folder than most") if match.within else match
        for match in matches
    ]


def refuse_missing(table: Table, columns: Columns, matches: Sequence[Match], finder: Finder) -> None:
    """Raises ValueError with the reasons if rows have no picture, or not all paths lose the same beginning."""
    pairs = zip(table.cells(columns.file), matches, strict=True)
    missing = {cell.strip(): match for cell, match in pairs if match.picture is None and cell.strip()}
    if missing:
        shown = [f"{cell} ({match.why or finder.explain(cell)})" for cell, match in islice(missing.items(), SHOWN)]
        names = join_names([*shown, *islice(missing, SHOWN, None)], separator="; ", most=SHOWN)
        if all(match.fits for match in missing.values()):
            raise ValueError(
                f"{table.file} names {count_words(len(missing), 'picture')} of which it cannot be told which is meant: "
                f"{names}; write paths from the table, or put the table into the folder that is meant"
            )
        empty = "" if finder.pictures else f", and {finder.folder} has no picture"
        raise ValueError(
            f"{table.file} names {count_words(len(missing), 'picture')} not found: {names}; paths are read from the "
            f"table's folder{empty}"
        )
    several = {find_copy(match): match.picture for match, cell in zip(matches, table.cells(columns.file), strict=True)
               if match.picture and re.search(r"[/\\]", cell)}  # fmt: skip
    if len(several) > 1:
        raise ValueError(
            f"{table.file}: its paths lead into several folders ({join_names(map(str, several.values()), most=3)}): "
            "make them paths from the table, or put the table into the folder that is meant"
        )
    moved = dict.fromkeys(match.moved_from for match in matches if match.picture)
    if len(moved) > 1:
        begin = join_names("none" if beginning is None else beginning or "/" for beginning in moved)
        raise ValueError(
            f"{table.file}: pictures are not where it says, and the beginnings of their paths differ ({begin}), so "
            "that it cannot be told which is which: make them paths from the table"
        )


def find_copy(match: Match) -> tuple[str, ...]:
    """The folder in which a cell's path leads to its picture, but for folders of splits: pictures of one table that lie
    in several may be of several copies."""
    return tuple(part for part in match.within.split("/") if part and not split_role(part))


def describe_spellings(table: Table, columns: Columns, matches: Sequence[Match]) -> list[str]:
    """Lines about pictures that are spelled or lie otherwise than the table says."""
    cells, notes = table.cells(columns.file), []
    others = [
        (c, m.picture) for c, m in zip(cells, matches, strict=True) if m.spelling in (OTHER_CASE, NO_ENDING_OTHER_CASE)
    ]
    if others:
        notes.append(f"{len(others):,} files differ from the table in case, such as {others[0][1]} for {others[0][0]}")
    moved = [m for m in matches if m.moved_from is not None]
    if moved:
        notes.append(
            f"{len(moved):,} paths begin with {moved[0].moved_from or '/'}, which is not here: read without it"
        )
    return notes


def name_classes(cells: Sequence[str], found: Found) -> list[str]:
    """The class of each label. A label is a name on one line."""
    plain = [" ".join(cell.split()) for cell in cells]
    united = unite_names([name for name in dict.fromkeys(plain) if name], found)
    if doubtful := [name for name in united if name.lower() in NO_LABEL]:
        found.warnings.append(
            f"{join_names(doubtful)} is read as a class: leave the cell blank where a picture has no label"
        )
    several = [name for name in united if len(parts := re.split("[ ,;|]+", name)) > 1 and united.keys() >= set(parts)]
    if several:
        found.warnings.append(f"several labels in a cell are read as a class of its own: {join_names(several)}")
    classes = {form: name for name, forms in united.items() for form in forms}
    return [classes.get(name, "") for name in plain]


def _refuse(file: Path, what: str, names: Sequence[str]) -> None:
    if names:
        names = list(dict.fromkeys(names))
        count = count_words(len(names), "picture")
        raise ValueError(f"{file} names {count} {what}: {join_names(names)}; correct the table")
