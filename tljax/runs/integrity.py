"""Whether a checkpoint's files are those that were saved: lists of their digests, and what is called damaged.

A read that fails proves damage only where the files can be read at all (`NOT_NOW`).
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from tljax.devices.processes import leads, max_over_processes
from tljax.runs.files import open_file, read_file, write_bytes

T = TypeVar("T")

# Errors of the operating system that do not prove damage: the files may be whole, but cannot be read now.
NOT_NOW = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ENOMEM, errno.ESTALE, errno.EIO)
# The file in each checkpoint's folder with the digests of all others there; `sha256sum -c` reads it.
CHECKSUMS = "SHA256SUMS"


class Damaged(ValueError):
    """A checkpoint is not what was saved."""


@contextmanager
def finding_damage(folder: Path) -> Iterator[None]:
    """A block that reads the checkpoint in `folder`.

    Raises:
      Damaged: for every error of the block, unless the files may be whole.
      OSError: if they may be, and cannot be read now.
    """
    _refuse_pipes(folder)
    try:
        yield
    # Orbax raises errors of many types when a file is damaged inside.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if (isinstance(error, OSError) and error.errno in NOT_NOW) or isinstance(error, MemoryError):
            raise OSError(f"checkpoint {folder} cannot be read now ({reason})") from error
        raise Damaged(f"checkpoint {folder} is damaged: {reason}") from error


def _refuse_pipes(folder: Path) -> None:
    """Raises Damaged if something below `folder` is neither a file nor a folder: a pipe would be read without end."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.exists() and not path.is_file():
                raise Damaged(f"checkpoint {folder} is damaged: {path.relative_to(folder)} is no regular file")


def agree(read: Callable[[], T]) -> tuple[T | None, str | None]:
    """The result of `read`, and a message if any process found damage: a checkpoint that one process cannot read is
    good for none. All processes call this together."""
    found, damage = None, None
    try:
        found = read()
    except Damaged as error:
        damage = str(error)
    return found, (damage or "another process found it damaged") if max_over_processes(damage is not None) else None


def sum_files(folder: Path, name: str) -> str:
    """The SHA-256 digest and the relative path of every file below `folder`, one line each, in sha256sum's format: a
    path that would be several lines is escaped, which a backslash before the digest says.

    `name` is the file in `folder` that is to hold these lines; it is left out.

    Raises:
      OSError: if a file or a folder cannot be read.
    """

    def line(path: str) -> str:
        escaped = path.replace("\\", r"\\").replace("\n", r"\n").replace("\r", r"\r")
        with open_file(folder / path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"{'' if escaped == path else chr(92)}{digest}  {escaped}\n"

    def refuse(error: OSError) -> None:
        raise error

    walked = os.walk(folder, onerror=refuse)
    paths = (os.path.relpath(os.path.join(parent, found), folder) for parent, _, names in walked for found in names)
    with ThreadPoolExecutor() as pool:
        return "".join(pool.map(line, sorted(set(paths) - {name, f"{name}.tmp"})))


def check_files(folder: Path) -> None:
    """Checks the files of the checkpoint in `folder` against its `CHECKSUMS`. This finds damage in files that no read
    touches; the digests of the arrays do not.

    Only the leader does this. So nothing in here may wait for the other processes.

    Raises:
      Damaged: if a file is not what was saved.
      OSError: if the system does not allow reading now.
    """
    if not leads():
        return
    if not (folder / CHECKSUMS).exists():
        print(f"checkpoint {folder} has no {CHECKSUMS}", flush=True)
        return
    with finding_damage(folder):
        saved = _split_sums(read_file(folder / CHECKSUMS))
        now = _split_sums(_encode_sums(folder))
    wrong = sorted(line.partition("  ")[2] for line in saved - now)
    if wrong:
        raise Damaged(f"checkpoint {folder} is damaged: {wrong[0]} or {CHECKSUMS} is not the file that was saved")
    unlisted = sorted(line.partition("  ")[2] for line in now - saved)
    if unlisted:
        more = f" and {len(unlisted) - 1} more are" if unlisted[1:] else " is"
        print(f"checkpoint {folder}: {unlisted[0]}{more} not in {CHECKSUMS}", flush=True)


def list_files(folder: Path) -> None:
    """Writes the `CHECKSUMS` of an undamaged checkpoint if they are missing: a kill or a full disk can come between the
    checkpoint and its list."""
    if leads() and not (folder / CHECKSUMS).exists():
        with suppress(OSError):
            write_bytes(folder / CHECKSUMS, _encode_sums(folder))


def _encode_sums(folder: Path) -> bytes:
    """The content of `CHECKSUMS`. The names of files are the system's bytes, which may be no text in UTF-8."""
    return sum_files(folder, CHECKSUMS).encode("utf-8", "surrogateescape")


def _split_sums(content: bytes) -> set[str]:
    """The lines of `CHECKSUMS`, to be compared and printed. A name may hold what `splitlines` takes for their end."""
    return {line.decode("utf-8", "backslashreplace") for line in content.split(b"\n") if line}
