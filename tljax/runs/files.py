"""The files of a run but for checkpoints: JSON, JSON Lines, lists of digests. They are written atomically, whole or not
at all. With several processes, only the leader writes."""

import io
import json
import os
import stat
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tljax.config import jsonable
from tljax.devices.processes import leads
from tljax.trees import Row


def write_text(path: Path, text: str) -> None:
    """Writes a file atomically: at any time `path` has either the old content or all of the new.

    Raises:
      OSError: if the file cannot be written.
    """
    # A file's name may be no text in UTF-8; JSON reads what is written then.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file as `write_text` does."""
    if not leads():
        return
    unfinished = path.with_name(path.name + ".tmp")
    try:
        write_through(unfinished, content)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise type(error)(f"{path} cannot be written ({error.strerror})") from error


def open_without_waiting(path: str, flags: int) -> int:
    """An `opener` for `open`: a pipe in place of a file does not wait for its other end."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def open_file(path: Path) -> io.BufferedReader:
    """Opens a file to read its bytes.

    Raises:
      OSError: if it cannot be opened, or is a pipe, a device or a socket, which could be read without end.
    """
    file = open(path, "rb", opener=open_without_waiting)  # noqa: SIM115, the caller closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(f"{path} is no regular file, but a pipe or a device; put the file back, or delete it")


def read_file(path: Path) -> bytes:
    """The content of a file. Raises OSError as `open_file` does."""
    with open_file(path) as file:
        return file.read()


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes a file of `numpy.savez`, as `write_text` does."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    write_bytes(path, file.getvalue())


def read_arrays(content: bytes) -> dict[str, Any]:
    """The arrays of a file of `numpy.savez`.

    Raises:
      ValueError: if they are compressed: they could be a thousand times as large as the file.
      Exception: of many types, if the file is damaged.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its arrays are compressed")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def write_through(path: Path, content: bytes) -> None:
    """Writes a file, and waits until the disk has it."""
    with open(path, "wb", opener=open_without_waiting) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON."""
    write_text(path, json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a file of `write_json`.

    Raises:
      ValueError: if the file is not valid JSON.
      OSError: if it cannot be read.
    """
    try:
        return json.loads(read_file(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); bring it back, give another --workdir, or --overwrite"
        ) from error


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes `rows` as JSON Lines, one row per line."""
    if leads():
        write_text(path, "".join(json.dumps(jsonable(row), ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: Path) -> list[Row]:
    """Reads a file of `write_rows`.

    Raises:
      ValueError: if the file has a line that is no row.
      OSError: if it cannot be read.
    """
    try:
        # Texts in it may hold what `splitlines` takes for the end of a line, such as U+2028.
        rows = [json.loads(line) for line in read_file(path).decode("utf-8").split("\n") if line]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no row")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); bring it back, give another --workdir, or --overwrite"
        ) from error
    return rows
