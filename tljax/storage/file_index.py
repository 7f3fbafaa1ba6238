"""An index of files' digests: a file that is as it was is not read again.

It works as git's index does. The size, the times and the inode of a file are recorded with the digest of its bytes. As
long as they are the same, the digest holds. The index lies in the user's cache folder; without it, all files are read.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt32

from tljax.storage import cache

# The first 16 bytes of a SHA-256 digest.
Digests = UInt32[np.ndarray, "n 4"]
# Size in bytes, the times of the last changes of content and of inode in ns, the number of the inode.
Stamps = Int64[np.ndarray, "n 4"]

# A file that was changed less than this (ns) before it was looked at is read again next time: it may change once more
# and keep its times, which some file systems (FAT) count in steps of two seconds.
TICK = 2 * 10**9
# The number of files that are read between two steps of the bar.
READ_AT_ONCE = 512


class LookedUp(NamedTuple):
    """Files as they are now, and their digests as far as they are `known`; unknown ones are zeros."""

    paths: tuple[str, ...]
    stamps: Stamps
    digests: Digests
    known: Bool[np.ndarray, " n"]


def digest_bytes(content: bytes) -> UInt32[np.ndarray, "4"]:
    """A digest as the index holds it."""
    return np.frombuffer(hashlib.sha256(content).digest()[:16], np.uint32)


class FileIndex:
    """The index of one data set's files; `is_new` if nothing of it was kept. `open_index` makes it."""

    def __init__(self, about: dict[str, Any], disk_bytes: int):
        self._about, self._disk_bytes = about, disk_bytes
        found = _load(about) if disk_bytes else None
        self.is_new = found is None
        self._rows = found or {}
        self._seen: set[str] = set()
        self._changed = False
        self._opened_at = time.time_ns()

    def look_up(self, paths: Sequence[str]) -> LookedUp:
        """The files at `paths`, with the digests of those that are as recorded.

        Raises:
          FileNotFoundError: if a file is not there.
        """
        absolute = tuple(map(os.path.abspath, paths))
        stamps, digests = np.empty((len(paths), 4), np.int64), np.zeros((len(paths), 4), np.uint32)
        known = np.zeros(len(paths), bool)
        for i, path in enumerate(absolute):
            found = os.stat(path)
            stamp = found.st_size, found.st_mtime_ns, found.st_ctime_ns, _as_int64(found.st_ino)
            stamps[i] = stamp
            recorded = self._rows.get(path)
            if recorded is not None and recorded[0] == stamp:
                digests[i], known[i] = recorded[1], True
        self._seen.update(absolute)
        return LookedUp(absolute, stamps, digests, known)

    def complete(self, files: LookedUp, name: str) -> LookedUp:
        """`files` with the digests of all that can be read; the unknown ones are read behind a bar called `name`."""
        from tqdm import tqdm

        left = np.flatnonzero(~files.known)
        read: list[UInt32[np.ndarray, 4] | None] = []
        with (
            ThreadPoolExecutor() as pool,
            tqdm(total=len(left), desc=name, unit=" files", delay=1, leave=False, disable=None) as bar,
        ):
            for start in range(0, len(left), READ_AT_ONCE):
                some = left[start : start + READ_AT_ONCE]
                read += pool.map(_digest_file, (files.paths[i] for i in some))
                bar.update(len(some))
        found = [(int(place), digest) for place, digest in zip(left, read, strict=True) if digest is not None]
        return self.learn(files, [place for place, _ in found], [digest for _, digest in found])

    def learn(self, files: LookedUp, places: Iterable[int], digests: Iterable[np.ndarray]) -> LookedUp:
        """`files` with the `digests` of the bytes that were read since then from those at `places`."""
        all_digests, known = files.digests.copy(), files.known.copy()
        for i, digest in zip(places, digests, strict=True):
            all_digests[i], known[i] = digest, True
            self._rows[files.paths[i]] = tuple(files.stamps[i].tolist()), digest.tolist()
            self._changed = True
        return files._replace(digests=all_digests, known=known)

    def save(self) -> None:
        """Keeps what was learned. Rows of files that are gone, or may change once more within the same tick, are left
        out."""
        if not (self._changed and self._disk_bytes):
            return
        old, seen = self._opened_at - TICK, self._seen
        rows = {p: row for p, row in self._rows.items() if max(row[0][1:3]) <= old and (p in seen or os.path.exists(p))}
        with cache.build(self._about, {}, self._disk_bytes) as kept:
            kept["paths"] = np.frombuffer(b"".join(os.fsencode(path) + b"\0" for path in rows), np.uint8)
            kept["stamps"] = np.array([stamp for stamp, _ in rows.values()], np.int64).reshape(-1, 4)
            kept["digests"] = np.array([digest for _, digest in rows.values()], np.uint32).reshape(-1, 4)


@contextmanager
def open_index(name: str, disk_bytes: int) -> Iterator[FileIndex]:
    """The index of the files of the data set `name`. What was learned in the block is kept when it ends, by an error
    too, in the cache folder within `disk_bytes`; with 0 nothing is kept."""
    index = FileIndex({"what": f"digests of the files of {name}", "index": 1}, disk_bytes)
    try:
        yield index
    finally:
        index.save()


def _load(about: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], list[int]]] | None:
    """Stamp and digest of each file in the index, by path; None if there is no index."""
    found = cache.find(about)
    if found is None:
        return None
    paths = map(os.fsdecode, found["paths"].tobytes().split(b"\0")[:-1])
    rows = zip(map(tuple, found["stamps"].tolist()), found["digests"].tolist(), strict=True)
    return dict(zip(paths, rows, strict=True))


def _digest_file(path: str) -> UInt32[np.ndarray, "4"] | None:
    """The digest of a file; None if it cannot be read, which whoever decodes it will say."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
    return np.frombuffer(digest[:16], np.uint32)


def _as_int64(number: int) -> int:
    """The low 63 bits: some network file systems number inodes with 64."""
    return number & (2**63 - 1)
