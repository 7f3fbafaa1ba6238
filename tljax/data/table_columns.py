"""Which columns of a table hold files, labels and splits.

Columns are told by what is in them, so that no picture gets the label of another.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tljax.data.layouts import Role, join_names, split_role
from tljax.data.table_files import Finder, Match, has_ending
from tljax.data.table_text import Table

# Names of columns, in small letters and digits alone, the surest first.
FILE_COLUMNS = ("file", "filename", "filepath", "path", "image", "imagepath", "imagename", "imageid", "img", "picture",
                "photo", "id", "name")  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "class", "classname", "category", "target", "y", "breed", "species", "classid",
                 "choice")  # fmt: skip
# Columns whose values are names of splits.
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "usage", "phase", "dataset", "fold")
# Columns that say yes or no, and the split that each means. A spreadsheet writes them in its own language.
YES = ("true", "1", "yes", "1.0", "wahr", "ja", "vrai", "oui", "verdadero", "verdadeiro", "vero", "waar", "prawda")
NO = ("false", "0", "no", "0.0", "falsch", "nein", "faux", "non", "falso", "onwaar", "fałsz")
YES_NO_COLUMNS: dict[str, tuple[Role, Role]] = {
    **dict.fromkeys(("isvalid", "isval", "isvalidation", "valid", "val", "validation"), ("val", "train")),
    **dict.fromkeys(("istest", "test"), ("test", "train")),
    **dict.fromkeys(("istrain", "istraining", "train", "training"), ("train", "val")),
    "split": ("val", "train"),
}
SPLIT_WORDS = re.compile("split|fold|subset|train|valid|test|holdout")
# So many cells of a column show whether it holds files.
LOOKED_AT = 1000
NOT_THERE = Match(None)


class Columns(NamedTuple):
    """Which columns hold what, and what the cells of the one with files mean; `split` is None without one."""

    file: int
    label: int
    split: int | None
    matches: list[Match]
    roles: list[Role | None]
    """The split of each row that the table names; None where it names none."""
    notes: list[str]


def choose_columns(table: Table, finder: Finder) -> Columns:
    """The columns of files, of labels and of splits.

    Raises:
      ValueError: if they cannot be told, or the first line holds no names of columns.
    """
    file, matches = choose_files(table, finder)
    refuse_other_first_line(table, file, matches, finder)
    others = [i for i in range(len(table.columns)) if i != file and table.values(i)]
    if not others:
        raise ValueError(f"{table.file} has no labels: all columns but {table.name(file)} are blank")
    label = _find_known(table, others, LABEL_COLUMNS)
    if label is None:
        refuse_columns_of_classes(table, others)
    split, roles, notes = choose_splits(table, [i for i in others if i != label])
    if label is None:
        label = choose_labels(table, [i for i in others if i != split])
    same = [i for i in others if table.key(i) == table.key(label) and table.cells(i) != table.cells(label)]
    if same:
        raise ValueError(f"{table.file}: two columns are called {table.name(label)}: remove the one that is not meant")
    return Columns(file, label, split, matches, roles, notes)


def refuse_other_first_line(table: Table, file: int, matches: Sequence[Match], finder: Finder) -> None:
    """Raises ValueError if the first line is a row, or the names of the columns stand below it."""
    first = finder.find(table.columns[file])
    is_row = first.spelling == matches[0].spelling and first.picture not in {None, *(m.picture for m in matches)}
    if any(map(has_ending, table.columns)) or (is_row and table.key(file) not in FILE_COLUMNS):
        raise ValueError(
            f"{table.file} names a picture in its first line ({join_names(table.columns)}), where the names of its "
            "columns belong: put a line with their names above it, such as file,label"
        )
    second = Table(table.file, tuple(table.rows[0]), [])
    if matches[0].picture is None and second.key(file) in FILE_COLUMNS:
        raise ValueError(
            f"{table.file} has the names of its columns ({join_names(second.columns)}) below its first line "
            f"({join_names(table.columns)}): remove what stands above them"
        )


def refuse_columns_of_classes(table: Table, columns: Sequence[int]) -> None:
    """Raises ValueError if there is a column for each class, of which every row has one."""
    marks = [i for i in columns if {value.lower() for value in table.values(i)} <= {*YES, *NO}]
    if len(marks) > 1 and all(sum(row[i].strip().lower() in YES for i in marks) == 1 for row in table.rows):
        raise ValueError(
            f"{table.file} has a column for each class ({join_names(map(table.name, marks))}): put the class of each "
            "picture into one column called 'label'"
        )


def choose_labels(table: Table, columns: Sequence[int]) -> int:
    """The only one of `columns` that may hold labels, if none has a usual name.

    Raises:
      ValueError: if there is none, there are several, or its values are no classes.
    """
    plain = [i for i in columns if table.columns[i] and table.key(i) not in (*SPLIT_COLUMNS, *YES_NO_COLUMNS)]
    if len(plain) != 1:
        names = join_names([table.name(i) for i in plain or columns])
        raise ValueError(f"{table.file}: which of the columns {names} holds the labels? Call it 'label'")
    (label,) = plain
    values = table.values(label)
    if 2 * len(values) > max(len(table.rows), 2):
        raise ValueError(
            f"{table.file}: does the column {table.name(label)} hold labels? It has {len(values):,} different values "
            f"in {len(table.rows):,} rows ({join_names(values, most=3)}); call it 'label' if these are classes"
        )
    return label


def choose_files(table: Table, finder: Finder) -> tuple[int, list[Match]]:
    """The column whose cells are files, and what they mean: a column of names with endings before one of names without.

    Raises:
      ValueError: if there is none, or two of one kind mean different pictures.
    """
    every = range(len(table.columns))
    found = [find_all(finder, table.cells(i)) for i in every]
    counts = [len({match.picture for match in matches if match.picture}) for matches in found]
    fit = [i for i in every if counts[i] and 2 * counts[i] >= len(table.values(i))]
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
      ValueError: if a column called split has values that are none, or two columns name different splits.
    """
    found: dict[int, list[Role | None]] = {}
    notes = []
    for i in sorted(columns, key=lambda i: _rank(table, i, (*SPLIT_COLUMNS, *YES_NO_COLUMNS))):
        values = table.values(i)
        if known := _read_splits(table.key(i), values):
            blank: Role | None = None if "train" in known.values() else "train"
            found[i] = [known.get(cell.strip(), blank) for cell in table.cells(i)]
        elif table.key(i) == "split":
            raise ValueError(
                f"{table.file}: the column {table.name(i)} has the values {join_names(values)}: name them train, val "
                "and test, or give the column another name"
            )
        elif _looks_like_splits(table.key(i), values):
            notes.append(f"the column {table.name(i)} is not used ({join_names(values, most=3)})")
    if not found:
        return None, [None] * len(table.rows), notes
    split, *others = found
    for other in others:
        if found[other] != found[split]:
            raise ValueError(
                f"{table.file}: the columns {table.name(split)} and {table.name(other)} both name splits, and not the "
                "same ones: put train, val and test into one column called split"
            )
    blanks = sum(not cell.strip() for cell in table.cells(split))
    if blanks and None not in found[split]:
        notes.append(f"{blanks:,} rows with a blank {table.name(split)} are of the split train")
    return split, found[split], notes


def _read_splits(column: str, values: Sequence[str]) -> dict[str, Role] | None:
    """The split that each of `values` means in a column of this name; None if one of them means none, or nothing says
    that splits are meant."""
    if column in YES_NO_COLUMNS and all(value.lower() in YES + NO for value in values):
        yes, no = YES_NO_COLUMNS[column]
        return {value: yes if value.lower() in YES else no for value in values}
    found: dict[str, Role] = {}
    for value in values:
        if not (role := split_role(value)):
            return None
        found[value] = role
    # Any column with several splits, each by one name.
    return found if column in SPLIT_COLUMNS or 1 < len(values) == len(set(found.values())) else None


def _looks_like_splits(column: str, values: Sequence[str]) -> bool:
    named = column in (*SPLIT_COLUMNS, *YES_NO_COLUMNS) or SPLIT_WORDS.search(column)
    return bool(named) or any(map(split_role, values[:LOOKED_AT]))


def _find_known(table: Table, columns: Sequence[int], known: Sequence[str]) -> int | None:
    """The column whose name stands first in `known`."""
    ranked = sorted(columns, key=lambda i: _rank(table, i, known))
    return ranked[0] if ranked and _rank(table, ranked[0], known) < len(known) else None


def _rank(table: Table, column: int, known: Sequence[str]) -> int:
    name = table.key(column)
    return known.index(name) if name in known else len(known)
