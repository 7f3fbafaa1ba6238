"""An index of files' digests: a file that is as it was is not read again.

It works as git's index does. The size, the times and the inode of a file are recorded with the digest of its bytes. As
long as they are the same, the digest holds. The index lies in the user's cache folder; without it, all files are read.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int64, UInt32

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
NO_STAMPS, NO_DIGESTS = np.zeros((0, 4), np.int64), np.zeros((0, 4), np.uint32)


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
        self._opened_at = time.time_ns()
        kept = _find(about) if disk_bytes else None
        self.is_new = kept is None
        found = kept or {"paths": np.zeros(0, np.uint8), "stamps": NO_STAMPS, "digests": NO_DIGESTS}
        paths = found["paths"].tobytes().split(b"\0")[:-1]
        # The rows of the index: where each path is, and what is recorded of it.
        self._places = {os.fsdecode(path): place for place, path in enumerate(paths)}
        self._stamps, self._digests = np.array(found["stamps"]), np.array(found["digests"])
        self._seen = np.zeros(len(paths), bool)
        self._changed = False

    def look_up(self, paths: Sequence[str]) -> LookedUp:
        """The files at `paths`, with the digests of those that are as recorded.

        Raises:
          FileNotFoundError: if a file is not there.
        """
        absolute = tuple(map(os.path.abspath, paths))
        stamps = np.array([_stamp(path) for path in absolute], np.int64).reshape(-1, 4)
        digests, known = np.zeros((len(paths), 4), np.uint32), np.zeros(len(paths), bool)
        places = np.array([self._places.get(path, -1) for path in absolute], int)
        there = np.flatnonzero(places >= 0)
        same = there[(self._stamps[places[there]] == stamps[there]).all(axis=1)]
        digests[same], known[same] = self._digests[places[same]], True
        self._seen[places[there]] = True
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
        there = np.array([digest is not None for digest in read], bool)
        digests = np.array([digest for digest in read if digest is not None], np.uint32).reshape(-1, 4)
        return self.learn(files, left[there], digests)

    def learn(self, files: LookedUp, rows: Int[np.ndarray, " m"], digests: UInt32[np.ndarray, "m 4"]) -> LookedUp:
        """`files` with the `digests` of the bytes that were read since then from those in `rows`."""
        all_digests, known = files.digests.copy(), files.known.copy()
        all_digests[rows], known[rows] = digests, True
        places = np.array([self._places.setdefault(files.paths[i], len(self._places)) for i in rows], int)
        more = len(self._places) - len(self._stamps)
        self._stamps = np.concatenate([self._stamps, np.zeros((more, 4), np.int64)])
        self._digests = np.concatenate([self._digests, np.zeros((more, 4), np.uint32)])
        self._seen = np.concatenate([self._seen, np.ones(more, bool)])
        self._stamps[places], self._digests[places] = files.stamps[rows], digests
        self._changed = self._changed or len(rows) > 0
        return files._replace(digests=all_digests, known=known)

    def save(self) -> None:
        """Keeps what was learned. Rows of files that are gone, or may change once more within the same tick, are left
        out."""
        if not (self._changed and self._disk_bytes):
            return
        old = self._stamps[:, 1:3].max(axis=1, initial=0) <= self._opened_at - TICK
        left = {path: i for path, i in self._places.items() if old[i] and (self._seen[i] or os.path.exists(path))}
        rows = list(left.values())
        with cache.build(self._about, {}, self._disk_bytes) as kept:
            kept["paths"] = np.frombuffer(b"".join(os.fsencode(path) + b"\0" for path in left), np.uint8)
            kept["stamps"], kept["digests"] = self._stamps[rows], self._digests[rows]


@contextmanager
def open_index(name: str, disk_bytes: int) -> Iterator[FileIndex]:
    """The index of the files of the data set `name`. What was learned in the block is kept when it ends, by an error
    too, in the cache folder within `disk_bytes`; with 0 nothing is kept."""
    index = FileIndex({"what": f"digests of the files of {name}", "index": 1}, disk_bytes)
    try:
        yield index
    finally:
        index.save()


def _find(about: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays of an index; None if there is none, or they are not those of one."""
    found = cache.find(about)
    if found is None:
        return None
    kinds = {name: (array.dtype, array.shape[1:]) for name, array in found.items()}
    wanted = {"paths": (np.uint8, ()), "stamps": (np.int64, (4,)), "digests": (np.uint32, (4,))}
    if kinds != wanted:
        return None
    return found if int((found["paths"] == 0).sum()) == len(found["stamps"]) == len(found["digests"]) else None


def _stamp(path: str) -> tuple[int, int, int, int]:
    found = os.stat(path)
    # Some network file systems number inodes with 64 bits.
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & (2**63 - 1)


def _digest_file(path: str) -> UInt32[np.ndarray, "4"] | None:
    """The digest of a file; None if it cannot be read, which whoever decodes it will say."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
    return np.frombuffer(digest[:16], np.uint32)
