"""The text of a table: its rows, and the names of its columns."""

import csv
import io
import re
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tljax.data.layouts import join_names


class Table(NamedTuple):
    """A table that was read: the names of its columns, and its rows."""

    file: Path
    columns: tuple[str, ...]
    rows: list[list[str]]
    numbers: tuple[int, ...] = ()
    """The number of each row in a spreadsheet, whose first row are the names of the columns."""

    def cells(self, column: int) -> list[str]:
        return [row[column] for row in self.rows]

    def values(self, column: int) -> list[str]:
        """The different cells that are not blank."""
        return list(dict.fromkeys(cell for row in self.rows if (cell := row[column].strip())))

    def name(self, column: int) -> str:
        return self.columns[column] or f"number {column + 1}"

    def key(self, column: int) -> str:
        """The name of a column for comparisons."""
        return fold_column(self.columns[column])


def fold_column(name: str) -> str:
    """The name of a column for comparisons: `ClassId`, `class_id` and `Class ID` are one."""
    return re.sub(r"[\W_]", "", name.casefold())


# The columns of a table of labels.
LABELLED = "one with files and one with labels"


def read_table(file: Path, needs: str = LABELLED, least: int = 1) -> Table:
    """The names of the columns and the rows of a CSV file, separated by commas, semicolons, tabs or bars. `needs` says
    which columns it must have.

    Raises:
      ValueError: if it is no text, has fewer than two columns or less than `least` rows, a row has more or fewer cells
        than there are columns, or a quote is not closed.
    """
    text = _decode(file)
    # Excel writes the separator into the first line.
    told = re.match(r"sep=(.)[\r\n]", text)
    separator = told[1] if told else _choose_separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows, lines, numbers, begin = [], [], [], 1
    try:
        # Spreadsheets hide the line that tells the separator.
        for number, cells in enumerate(reader, start=0 if told else 1):
            if any(map(str.strip, cells)) and not (told and begin == 1):
                rows.append(cells)
                lines.append(begin)
                numbers.append(number)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{file}, line {begin}: a quote is not closed, or does not end its cell before the next {separator!r}"
        ) from error
    if not rows:
        raise ValueError(f"{file} is empty: it needs two columns, {needs}")
    columns = [name.strip() for name in rows[0]]
    if len(columns) < 2:
        raise ValueError(
            f"{file} has the one column {columns[0]!r:.80}: it needs {needs}, separated by commas, semicolons, tabs or "
            "bars"
        )
    if len(rows) <= least:
        raise ValueError(f"{file} has the columns {join_names(columns)} and no row below them")
    for cells, line in zip(rows[1:], lines[1:], strict=True):
        if any(map(str.strip, cells[len(columns) :])) or any(columns[len(cells) :]):
            quoted = "; a cell with the separator in it is put in quotes" if len(cells) > len(columns) else ""
            raise ValueError(
                f"{file}, line {line} has {len(cells)} cells ({join_names(cells)}) under {len(columns)} names of "
                f"columns ({join_names(columns)}){quoted}"
            )
    width = len(columns)
    return Table(file, tuple(columns), [(row + [""] * width)[:width] for row in rows[1:]], tuple(numbers[1:]))


def _decode(file: Path) -> str:
    content = file.read_bytes()
    # Excel's "Unicode text".
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error.reason}): save the table as CSV in UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{file} is no text in UTF-8 (it has zero bytes): save the table as CSV in UTF-8")
    return text


def _choose_separator(text: str) -> str:
    """The separator that gives the first line as many cells as the next one; the most, if several do or none."""

    def fit(separator: str) -> tuple[bool, int]:
        widths = []
        # A quote that is not closed is told later, with its line.
        with suppress(csv.Error):
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
            for cells in islice(filter(None, reader), 2):
                widths.append(len(cells))
        first = widths[0] if widths else 0
        return first > 1 and widths == [first, first], first

    return max(",;\t|", key=fit)
