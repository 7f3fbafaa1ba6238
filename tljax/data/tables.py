"""Pictures whose labels stand in a table: a CSV file with a column of files and a column of labels.

Columns are told by what is in them, so that no picture gets the label of another.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tljax.data.layouts import Found, Role, check_splits, join_names, list_pictures, split_role, unite_names
from tljax.data.table_files import OTHER_CASE, Finder, Match, has_ending, name_split_folder

FILE_COLUMNS = ("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path", "image_name",
                "image_id", "img", "picture", "photo", "id", "name")  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "y", "breed", "species")
# Columns whose values are names of splits.
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "usage", "phase", "dataset", "data_set", "fold")
# Columns that say yes or no, and the split that each means.
YES, NO = ("true", "1", "yes", "1.0"), ("false", "0", "no", "0.0")
YES_NO_COLUMNS: dict[str, tuple[Role, Role]] = {
    **dict.fromkeys(("is_valid", "is_val", "is_validation", "valid", "val", "validation"), ("val", "train")),
    **dict.fromkeys(("is_test", "test"), ("test", "train")),
    **dict.fromkeys(("is_train", "is_training", "train", "training"), ("train", "val")),
    "split": ("val", "train"),
}


# So many cells of a column show whether it holds files.
LOOKED_AT = 1000
# So many missing files are named, with the reason.
SHOWN = 10
NOT_THERE = Match(None)


class Table(NamedTuple):
    """A table that was read: the names of its columns, and its rows."""

    file: Path
    columns: tuple[str, ...]
    rows: list[list[str]]

    def cells(self, column: int) -> list[str]:
        return [row[column] for row in self.rows]

    def name(self, column: int) -> str:
        return self.columns[column].strip() or f"number {column + 1}"


class Columns(NamedTuple):
    """Which columns hold what, and what the cells of the one with files mean; `split` is None without one."""

    file: int
    label: int
    split: int | None
    matches: list[Match]
    roles: list[Role | None]
    """The split of each row that the table names; None where it names none."""
    notes: list[str]


def recognize_table(file: Path, classes: Sequence[str] = ()) -> Found:
    """The pictures that a table names, by split and class. They lie in the table's folder, or where their paths lead.

    Raises:
      ValueError: if the table or its columns cannot be told, pictures are missing or have two labels or two splits, or
        a class has no picture.
    """
    table = read_table(file)
    pictures, others = list_pictures(file.parent)
    finder = Finder(file.parent, pictures)
    if any(has_ending(column) and finder.find(column).picture for column in table.columns):
        raise ValueError(
            f"{file} names a picture in its first line ({join_names(table.columns)}), where the names of its columns "
            "belong: put the line file,label above it"
        )
    columns = choose_columns(table, finder)
    found = Found(file.parent, {}, Counter(others), [describe_columns(table, columns), *columns.notes], [])
    matches = refuse_other_splits(table, columns)
    refuse_missing(table, columns, matches, finder)
    found.notes.extend(describe_spellings(table, columns, matches))
    _fill_splits(found, table, columns, matches)
    found.left_out["not in the table"] += len(set(pictures) - {match.picture for match in matches})
    names = sorted({name for by_class in found.splits.values() for name in by_class})
    for part, by_class in found.splits.items():
        found.splits[part] = {name: by_class.get(name, []) for name in names}
    check_splits(found, {part: f"the split {part}" for part in found.splits}, classes)
    return found._replace(left_out=+found.left_out)


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
            found.left_out["without a label or a split"] += 1
            continue
        before = known.setdefault(picture, (name, role))
        if before[0] != name:
            two_labels.append(picture)
        elif before[1] != role:
            two_splits.append(f"{picture} ({before[1]} and {role})")
        else:
            paths = found.splits.setdefault(role or "all", {}).setdefault(name, [])
            # A picture that stands there twice counts once.
            paths.extend([picture] if picture not in paths[-1:] else [])
    for by_class in found.splits.values():
        for name, paths in by_class.items():
            by_class[name] = list(dict.fromkeys(paths))
    _refuse(table.file, "pictures with two labels", two_labels)
    _refuse(table.file, "pictures in two splits", two_splits)


def read_table(file: Path) -> Table:
    """The names of the columns and the rows of a CSV file, separated by commas, semicolons, tabs or bars.

    Raises:
      ValueError: if it is no text, has fewer than two columns or no row, a row has more or fewer cells than there are
        columns, or a quote is not closed.
    """
    text = _decode(file)
    first, *_ = text.split("\n", 1)
    separator, skipped = max(",;\t|", key=first.count), 0
    # Excel writes the separator into the first line.
    if told := re.fullmatch(r"sep=(.)\r?", first):
        separator, skipped = told[1], 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, lines, begin = [], [], 1
    try:
        for cells in reader:
            if cells and any(map(str.strip, cells)) and reader.line_num > skipped:
                rows.append(cells)
                lines.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{file}, line {begin}: a quote is not closed, or stands within a cell ({error})") from error
    columns = [name.strip() for name in rows[0]] if rows else []
    if len(columns) < 2:
        raise ValueError(f"{file} has the one column {first!r:.80}: it needs one with files and one with labels")
    if len(rows) < 2:
        raise ValueError(f"{file} has the columns {join_names(columns)} and no row below them")
    for cells, line in zip(rows[1:], lines[1:], strict=True):
        if any(map(str.strip, cells[len(columns) :])) or any(columns[len(cells) :]):
            quoted = "; a cell with the separator in it is put in quotes" if len(cells) > len(columns) else ""
            raise ValueError(
                f"{file}, line {line} has {len(cells)} cells ({join_names(cells)}) under {len(columns)} names of "
                f"columns ({join_names(columns)}){quoted}"
            )
    width = len(columns)
    return Table(file, tuple(columns), [(row + [""] * width)[:width] for row in rows[1:]])


def _decode(file: Path) -> str:
    content = file.read_bytes()
    # Excel's "Unicode text".
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error.reason}): save the table as CSV in UTF-8") from error


def choose_columns(table: Table, finder: Finder) -> Columns:
    """The columns of files, of labels and of splits.

    Raises:
      ValueError: if they cannot be told.
    """
    file, matches = choose_files(table, finder)
    others = [i for i in range(len(table.columns)) if i != file]
    split, roles, notes = choose_splits(table, others)
    left = [i for i in others if i != split and table.columns[i]]
    label = _find_known(table, left, LABEL_COLUMNS)
    if label is None:
        plain = [i for i in left if table.columns[i].lower() not in (*SPLIT_COLUMNS, *YES_NO_COLUMNS)]
        if len(plain) != 1:
            names = join_names([table.name(i) for i in plain or others])
            raise ValueError(f"{table.file}: which of the columns {names} holds the labels? Call it 'label'")
        (label,) = plain
    return Columns(file, label, split, matches, roles, notes)


def choose_files(table: Table, finder: Finder) -> tuple[int, list[Match]]:
    """The column whose cells are files, and what they mean: a column of names with endings before one of names without.

    Raises:
      ValueError: if there is none, or two of one kind mean different pictures.
    """
    every = range(len(table.columns))
    found = [find_all(finder, table.cells(i)) for i in every]
    counts = [len({match.picture for match in matches if match.picture}) for matches in found]
    filled = [len({cell.strip() for cell in table.cells(i)} - {""}) for i in every]
    fit = [i for i in every if counts[i] and 2 * counts[i] >= filled[i]]
    # Where cells look like files, these are meant, even if none is there.
    with_ending = [i for i in every if 2 * sum(map(has_ending, table.cells(i))) > len(table.rows)]
    ranked = sorted(with_ending or fit, key=lambda i: (-counts[i], _rank(table, i, FILE_COLUMNS)))
    if not ranked:
        known = _find_known(table, every, FILE_COLUMNS)
        if known is None:
            names = join_names(map(table.name, every))
            raise ValueError(f"{table.file}: which of the columns {names} holds the files? Call it 'file'")
        return known, found[known]
    best = ranked[0]
    # Few different files, such as the classes 0 and 1 beside 0.png and 1.png, are no second column of files.
    for other in (i for i in ranked[1:] if counts[i] and 2 * counts[i] >= counts[best]):
        rows = zip(found[best], found[other], strict=True)
        if any(a.picture != b.picture for a, b in rows if a.picture and b.picture):
            names = " and ".join(table.name(i) for i in sorted((best, other)))
            raise ValueError(
                f"{table.file}: the columns {names} both name files here, and not the same ones: remove the one that "
                "is not meant"
            )
    return best, found[best]


def find_all(finder: Finder, cells: Sequence[str]) -> list[Match]:
    """What all cells of a column mean. A long column whose first cells mean nothing, and look like no files, is not
    looked at any further."""
    first = [finder.find(cell) for cell in cells[:LOOKED_AT]]
    if not any(match.fits for match in first) and not any(map(has_ending, cells[:LOOKED_AT])):
        return [NOT_THERE] * len(cells)
    return first + [finder.find(cell) for cell in cells[LOOKED_AT:]]


def choose_splits(table: Table, columns: Sequence[int]) -> tuple[int | None, list[Role | None], list[str]]:
    """The column of splits, the split of each row, and notes; the column is None if there is none.

    Raises:
      ValueError: if a column called split has values that are none.
    """
    taken: int | None = None
    roles: list[Role | None] = [None] * len(table.rows)
    notes = []
    named = [i for i in columns if table.columns[i].lower() in (*SPLIT_COLUMNS, *YES_NO_COLUMNS)]
    for i in sorted(named, key=lambda i: _rank(table, i, (*SPLIT_COLUMNS, *YES_NO_COLUMNS))):
        values = list(dict.fromkeys(cell.strip() for cell in table.cells(i) if cell.strip()))
        known = _read_splits(table.columns[i].lower(), values)
        if known is None and table.columns[i].lower() == "split":
            raise ValueError(
                f"{table.file}: the column {table.name(i)} has the values {join_names(values)}: name them train, val "
                "and test, or give the column another name"
            )
        if known is None or taken is not None:
            notes.append(f"the column {table.name(i)} is not used ({join_names(values, most=3)})")
            continue
        taken, blank = i, None if "train" in known.values() else "train"
        cells = [cell.strip() for cell in table.cells(i)]
        roles = [known.get(cell, blank) for cell in cells]  # type: ignore[arg-type]
        if blank and "" in cells:
            notes.append(f"{cells.count(''):,} rows with a blank {table.name(i)} are of the split train")
    return taken, roles, notes


def _read_splits(column: str, values: Sequence[str]) -> dict[str, Role] | None:
    """The split that each of `values` means in a column of this name; None if one of them means none."""
    if not values:
        return None
    if column in YES_NO_COLUMNS and all(value.lower() in YES + NO for value in values):
        yes, no = YES_NO_COLUMNS[column]
        return {value: yes if value.lower() in YES else no for value in values}
    found = {value: split_role(value) for value in values}
    if column not in SPLIT_COLUMNS or None in found.values():
        return None
    return {value: role for value, role in found.items() if role}


def _find_known(table: Table, columns: Sequence[int], known: Sequence[str]) -> int | None:
    """The column whose name stands first in `known`."""
    ranked = sorted(columns, key=lambda i: _rank(table, i, known))
    return ranked[0] if ranked and _rank(table, ranked[0], known) < len(known) else None


def _rank(table: Table, column: int, known: Sequence[str]) -> int:
    name = table.columns[column].lower()
    return known.index(name) if name in known else len(known)


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


def refuse_missing(table: Table, columns: Columns, matches: Sequence[Match], finder: Finder) -> None:
    """Raises ValueError with the reasons if rows have no picture, or their paths had different beginnings where they
    were written."""
    pairs = zip(table.cells(columns.file), matches, strict=True)
    missing = {cell.strip(): match for cell, match in pairs if match.picture is None and cell.strip()}
    if missing:
        shown = [f"{cell} ({match.why or finder.explain(cell)})" for cell, match in islice(missing.items(), SHOWN)]
        names = join_names([*shown, *islice(missing, SHOWN, None)], separator="; ", most=SHOWN)
        raise ValueError(
            f"{table.file} names {len(missing)} pictures that are not found: {names}; paths are read from the table's "
            "folder"
        )
    beginnings = list(dict.fromkeys(match.moved_from for match in matches if match.moved_from is not None))
    if len(beginnings) > 1:
        raise ValueError(
            f"{table.file}: pictures are not where it says, and the beginnings of their paths differ "
            f"({join_names(beginnings)}), so that it cannot be told which is which: make them paths from the table"
        )


def describe_spellings(table: Table, columns: Columns, matches: Sequence[Match]) -> list[str]:
    """Lines about pictures that are spelled or lie otherwise than the table says."""
    cells, notes = table.cells(columns.file), []
    others = [(c, m.picture) for c, m in zip(cells, matches, strict=True) if m.spelling == OTHER_CASE]
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
    classes = {form: name for name, forms in united.items() for form in forms}
    return [classes.get(name, "") for name in plain]


def _refuse(file: Path, what: str, names: Sequence[str]) -> None:
    if names:
        names = list(dict.fromkeys(names))
        raise ValueError(f"{file} names {len(names)} {what}: {join_names(names)}; correct the table")
