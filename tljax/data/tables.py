"""Pictures whose labels stand in a table: a CSV file with a column of files and a column of labels."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tljax.data.layouts import EXTENSIONS, Found, check_splits, join_names, list_pictures, split_role

FILE_COLUMNS = ("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path", "image_name",
                "image_id", "img", "picture", "photo", "id", "name")  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "y", "breed", "species")
SPLIT_COLUMNS = ("split", "set", "subset", "dataset", "data_set", "partition", "usage")

Cells = dict[str, str]


def recognize_table(file: Path, classes: Sequence[str] = ()) -> Found:
    """The pictures that a table names, by split and class. They lie in the table's folder, at any depth.

    Raises:
      ValueError: if columns cannot be told, pictures are missing or have two labels, or a class has no picture.
    """
    columns, rows = read_table(file)
    pictures, others = list_pictures(file.parent)
    find = _index(pictures)
    if any(column.strip() in find for column in columns):
        raise ValueError(
            f"{file} names a picture in its first line ({join_names(columns)}), where the names of its columns belong: "
            "put the line file,label above it"
        )
    image = _find_column(file, columns, FILE_COLUMNS, "files")
    label = _find_column(file, [c for c in columns if c != image], LABEL_COLUMNS, "labels")
    split = _known_column(columns, SPLIT_COLUMNS)
    found = Found(file.parent, {}, Counter(others), [], [])
    columns_read = [f"{image} for files", f"{label} for labels", *([f"{split} for splits"] if split else [])]
    found.notes.append(f"columns of {file.name}: {', '.join(columns_read)}")

    labels: dict[str, str] = {}
    missing, twice = [], []
    for row in rows:
        # A label is a name on one line.
        name, path = " ".join(row[label].split()), find.get(row[image].strip())
        role: str | None = split_role(row[split]) if split else "all"
        if path is None:
            missing.append(row[image])
        elif not name or role is None or role == "unlabelled":
            found.left_out["without a label or a split"] += 1
        elif labels.setdefault(path, name) != name:
            twice.append(row[image])
        else:
            found.splits.setdefault(role, {}).setdefault(name, []).append(path)
    _refuse(file, "pictures that are not there", missing)
    _refuse(file, "pictures with two labels", twice)
    found.left_out["not in the table"] += len(set(pictures) - set(labels))
    names = sorted({name for by_class in found.splits.values() for name in by_class})
    for part, by_class in found.splits.items():
        # A picture that stands there twice counts once.
        found.splits[part] = {name: list(dict.fromkeys(by_class.get(name, []))) for name in names}
    check_splits(found, {part: f"the split {part}" for part in found.splits}, classes)
    return found._replace(left_out=+found.left_out)


def read_table(file: Path) -> tuple[list[str], list[Cells]]:
    """The names of the columns and the rows of a CSV file, separated by commas, semicolons or tabs.

    Raises:
      ValueError: if it is no text or has fewer than two columns.
    """
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error.reason}): save the table as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="")
    columns = list(reader.fieldnames or [])
    if len(columns) < 2:
        raise ValueError(f"{file} has the one column {first!r:.80}: it needs one with files and one with labels")
    return columns, [{str(k): str(v) for k, v in row.items() if k is not None} for row in reader]


def _find_column(file: Path, columns: Sequence[str], known: Sequence[str], what: str) -> str:
    """The column with a known name; else the only one that there is."""
    column = _known_column(columns, known)
    if column is None and len(columns) != 1:
        raise ValueError(f"{file}: which of the columns {join_names(columns)} holds the {what}? Call it {known[0]!r}")
    return column or columns[0]


def _known_column(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """The column whose name stands first in `known`."""
    by_name = {column.lower().strip(): column for column in columns}
    return next((by_name[name] for name in known if name in by_name), None)


def _index(pictures: Sequence[str]) -> dict[str, str]:
    """The path of each picture by what a table may call it: path, name, either without its ending. A name of several
    pictures stands for none of them."""
    spellings: dict[str, set[str]] = {}
    for path in pictures:
        for spelled in (path, f"./{path}", os.path.basename(path)):
            for name in (spelled, os.path.splitext(spelled)[0]):
                spellings.setdefault(name, set()).add(path)
    whole = {name: {name} for name in pictures}
    return {name: next(iter(paths)) for name, paths in (spellings | whole).items() if len(paths) == 1}


def _refuse(file: Path, what: str, names: Sequence[str]) -> None:
    if names:
        raise ValueError(
            f"{file} names {len(names)} {what}: {join_names(names)}; they are looked for beside the table, at any "
            f"depth ({' '.join(EXTENSIONS)})"
        )
