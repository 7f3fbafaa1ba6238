"""The answers of `predict` as rows: a line each for a reader, CSV or JSON Lines, on standard output or in a file.

A row is `{"file", "label", "probability", "top", "set"}` or `{"file", "error"}`; "set" may be missing.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from tljax.text import plain_cell, printable
from tljax.trees import Row

STANDARD_OUTPUT = "-"
Write = Callable[[Row], None]


Start = Callable[[TextIO, int, bool], Write]


def find_writer(out: str | None) -> Start:
    """What starts a file of rows, with so many labels and perhaps sets, and returns what writes a row. `out` is a file,
    `-` for standard output, or None for lines for a reader.

    Raises:
      ValueError: if `out` has another ending, or its folder is not there.
    """
    if out is None:
        return start_lines
    if out != STANDARD_OUTPUT and not Path(out).absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {Path(out).parent}; make it first")
    if os.path.exists(out) and not os.path.isfile(out):
        raise ValueError(f"--out {out}: it is there, and no file; give another name")
    if out == STANDARD_OUTPUT or out.lower().endswith(".jsonl"):
        return start_json_lines
    if out.lower().endswith(".csv"):
        return start_csv
    raise ValueError(f"--out {out}: rows are written to a file ending in .csv or .jsonl, or to - for standard output")


def start_lines(file: TextIO, top: int, sets: bool) -> Write:
    """Starts lines for a reader, which have no header; returns what writes a row."""
    return partial(write_line, file)


def start_json_lines(file: TextIO, top: int, sets: bool) -> Write:
    """Starts JSON Lines, which have no header; returns what writes a row."""
    return partial(write_json_line, file)


def write_line(file: TextIO, row: Row) -> None:
    """Writes a row for a reader."""
    if "error" in row:
        print(printable(f"{row['file']:<40}  NOT READ: {row['error']}"), file=file)
        return
    others = ", ".join(f"{name} {p:.1%}" for name, p in row["top"][1:])
    others = f"  ({others})" if others else ""
    chosen = f"  {' or '.join(row['set'])}" if "set" in row else ""
    line = f"{row['file']:<40}  {row['label']:<16} {row['probability']:6.1%}{chosen}{others}"
    print(printable(line), file=file)


def write_json_line(file: TextIO, row: Row) -> None:
    """Writes a row as JSON."""
    print(json.dumps(row), file=file)


def start_csv(file: TextIO, top: int, sets: bool) -> Write:
    """Starts a table in CSV by the names of its columns; returns what writes a row."""
    others = [f"{what}_{rank}" for rank in range(2, top + 1) for what in ("label", "probability")]
    writer = csv.DictWriter(file, ["file", "label", "probability", *(["set"] if sets else []), *others, "error"])
    writer.writeheader()
    return partial(write_csv_row, writer)


def write_csv_row(writer: Any, row: Row) -> None:
    """Writes a row of a table. Text is `plain_cell`, a set is `join_set`."""
    cells: Row = {name: row[name] for name in ("file", "label", "probability", "error") if name in row}
    for rank, (name, probability) in enumerate(row.get("top", [])[1:], start=2):
        cells |= {f"label_{rank}": name, f"probability_{rank}": probability}
    cells |= {"set": join_set(row["set"])} if "set" in row else {}
    writer.writerow({name: plain_cell(cell) if isinstance(cell, str) else cell for name, cell in cells.items()})


def join_set(labels: Sequence[str]) -> str:
    r"""The labels of a set in one cell, with `|` between them; `\` stands before a `|` or `\` that is part of one."""
    return "|".join(re.sub(r"([|\\])", r"\\\1", label) for label in labels)


@contextmanager
def open_output(out: str | None, stdout: TextIO) -> Iterator[TextIO]:
    """The file that rows are written to: `stdout` without `out` or with `-`.

    A file gets its name when the block has ended well; until then what was there before stays.

    Raises:
      OSError: if it cannot be written.
    """
    if out is None or out == STANDARD_OUTPUT:
        yield stdout
        stdout.flush()
        return
    # A link stays a link.
    target = Path(os.path.realpath(out))
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        # Names of files may be no text in UTF-8; they are written as they are.
        with unfinished.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except OSError as error:
        # The block may fail for other reasons.
        if error.errno is None or error.filename not in (None, str(unfinished)):
            raise
        raise type(error)(f"{out} cannot be written ({error.strerror}); give another --out") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
