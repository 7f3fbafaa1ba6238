"""The user's cache folder: arrays are computed once, kept on disk, and verified when a later run reads them."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jax import ShapeDtypeStruct

from tljax.trees import digest_json, sha256

ABOUT = "about.json"
# In it: the digest of each array, and one of the list of them.
DIGESTS, DIGEST = "sha256", "sha256_of_list"
UNFINISHED = "unfinished-"
# An entry that is being deleted: a kill must not leave a part of it under its name.
FORGOTTEN = "forgotten-"
ENTRY_LOCK = ".lock"


def folder(name: str) -> Path:
    """Returns the folder `name` in the user's cache folder, and creates it if it is missing.

    The cache folder is TLJAX_CACHE_DIR, or else in the place where the system keeps caches. One that was there keeps
    its rights, since others may use it too. Only the user can enter what lies in it, because runs execute the programs
    and trust the arrays that they find there.

    Raises:
      OSError: if the folder cannot be created, or belongs to somebody else.
    """
    import pooch

    root = Path(os.environ.get("TLJAX_CACHE_DIR") or pooch.os_cache("tljax"))
    # A user without a name in the system has no home.
    if root.parts[:1] == ("~",):
        raise OSError("this user has no home folder; TLJAX_CACHE_DIR names a folder for the cache")
    path = root
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in Path(name).parts:
            path = path / part
            path.mkdir(mode=0o700, exist_ok=True)
            # The system lets nobody change the rights of another user's folder.
            path.chmod(0o700)
    except PermissionError as error:
        raise PermissionError(f"{path}: {error.strerror}; TLJAX_CACHE_DIR names another cache folder") from error
    return path


def find(about: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays that `build` kept under the same `about`, memory-mapped and read-only; None if there are none.

    The cache key is a digest of `about`. All bytes are verified by the digests of the arrays. A damaged entry is
    deleted, and a printed line says so.
    """
    try:
        entry = folder("arrays") / digest_json(about)
        if not os.path.lexists(entry):
            return None
        before = os.lstat(entry).st_ino
    except OSError:
        return None
    try:
        digests = _read_digests(entry, about)
        arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in digests}
        if any(sha256(array) != digests[name] for name, array in arrays.items()):
            raise ValueError("its bytes are not those that were written")
        os.utime(entry)
    # Damaged JSON and damaged arrays raise errors of many types.
    except Exception as error:
        # Another run may have put a newer one in its place.
        if not os.path.lexists(entry) or os.lstat(entry).st_ino != before:
            return None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        print(f"the cached {about['what']} in {entry} are damaged ({reason}): made again")
        forget(about)
        return None
    return arrays


def _read_digests(entry: Path, about: dict[str, Any]) -> dict[str, str]:
    """The digests of an entry's arrays by name.

    Raises:
      ValueError: if the entry is not what was kept under `about`.
      OSError: if it cannot be read.
    """
    # A pipe would be read without end.
    if not all(path.is_file() for path in entry.iterdir()):
        raise ValueError("something in it is no file")
    saved = json.loads((entry / ABOUT).read_text("utf-8"))
    digests, digest = saved.pop(DIGESTS), saved.pop(DIGEST, None)
    if saved != json.loads(json.dumps(about)):
        raise ValueError(f"its {ABOUT} is about something else")
    # An entry of the version before has no digest of its list: then all its arrays must be in the list.
    names = {path.stem for path in entry.glob("*.npy")}
    whole = names == digests.keys() if digest is None else digest == digest_json(digests)
    if not (whole and digests.keys() <= names):
        raise ValueError(f"its {ABOUT} does not list its arrays")
    return dict(digests)


@contextmanager
def build(
    about: dict[str, Any], shapes: dict[str, ShapeDtypeStruct], disk_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Gives the block a dict of arrays of `shapes` to fill in, and keeps them under `about` when the block ends.

    The block may add other arrays to the dict. `about` is a JSON dict, and its `what` names the arrays in messages. The
    kept arrays stay within `disk_bytes`: the least recently used entries are deleted first. If the arrays do not fit
    or the disk is full, they are in memory only and are not kept. If the block raises, nothing is kept.
    """
    size = sum(int(np.prod(s.shape)) * np.dtype(s.dtype).itemsize for s in shapes.values())
    unfinished = _make_room(about, size, disk_bytes)
    if unfinished is None:
        yield {name: np.empty(s.shape, s.dtype) for name, s in shapes.items()}
        return
    try:
        with (unfinished / ENTRY_LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = _open_arrays(unfinished, shapes, about)
            arrays = kept or {name: np.empty(s.shape, s.dtype) for name, s in shapes.items()}
            yield arrays
            if kept is not None:
                _keep(unfinished, arrays, shapes, about)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _open_arrays(
    unfinished: Path, shapes: dict[str, ShapeDtypeStruct], about: dict[str, Any]
) -> dict[str, np.ndarray] | None:
    """Memory-mapped arrays in new files, or None, with a printed reason, if the disk has no room for them.

    The room is reserved first, because writing through a memory map to a full disk would kill the process.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        for name, s in shapes.items():
            path = unfinished / f"{name}.npy"
            arrays[name] = np.lib.format.open_memmap(path, "w+", s.dtype, s.shape)
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        print(f"{about['what']} are not kept: {unfinished.parent}: {error.strerror}")
        return None
    return arrays


def _keep(
    unfinished: Path, arrays: dict[str, np.ndarray], shapes: dict[str, ShapeDtypeStruct], about: dict[str, Any]
) -> None:
    try:
        for name in arrays.keys() - shapes.keys():
            np.save(unfinished / f"{name}.npy", arrays[name])
        digests = {name: sha256(array) for name, array in arrays.items()}
        kept = {DIGESTS: digests, DIGEST: digest_json(digests), **about}
        (unfinished / ABOUT).write_text(json.dumps(kept, indent=1))
    except OSError as error:
        print(f"{about['what']} are not kept: {unfinished.parent}: {error.strerror}")
        return
    forget(about)
    # Another process may have kept the same entry just before.
    with suppress(OSError):
        unfinished.rename(unfinished.with_name(digest_json(about)))


def forget(about: dict[str, Any]) -> None:
    """Deletes the entry that is kept under `about`, if there is one."""
    with suppress(OSError):
        entry = folder("arrays") / digest_json(about)
        if entry.is_dir():
            forgotten = Path(tempfile.mkdtemp(prefix=FORGOTTEN, dir=entry.parent))
            entry.rename(forgotten / entry.name)
            shutil.rmtree(forgotten, ignore_errors=True)
        # What is no folder is no entry, and in the way of one.
        entry.unlink(missing_ok=True)


def _make_room(about: dict[str, Any], size: int, disk_bytes: int) -> Path | None:
    """A new folder with room for `size` bytes, made by deleting old entries, or None if that is not possible.

    A printed line gives the reason for None, unless `disk_bytes` is 0.
    """
    if not disk_bytes:
        return None
    if size > disk_bytes:
        print(f"{about['what']} are not kept: {size / 2**30:.2f} GiB, cache.disk_gib={disk_bytes / 2**30:g}")
        return None
    try:
        root = folder("arrays")
        for path in root.glob(f"{UNFINISHED}*"):
            _delete_if_left(path)
        for path in root.glob(f"{FORGOTTEN}*"):
            shutil.rmtree(path, ignore_errors=True)
        # Some systems put files of their own into every folder.
        entries = sorted((path.stat().st_mtime, path) for path in root.iterdir() if path.is_dir())
        # The unfinished entries that are left stay: other processes are writing them now.
        entries = [(at, path) for at, path in entries if not path.name.startswith(UNFINISHED)]
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for _, path in entries}
        while entries and sum(sizes.values()) + size > disk_bytes:
            _, oldest = entries.pop(0)
            shutil.rmtree(oldest, ignore_errors=True)
            del sizes[oldest]
        # Writing through a memory map to a full disk kills the process.
        if shutil.disk_usage(root).free < size + 2**26:
            raise OSError(f"{root} has no space left for {size / 2**30:.2f} GiB")
        return Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=root))
    except OSError as error:
        print(f"{about['what']} are not kept: {error}")
        return None


def _delete_if_left(unfinished: Path) -> None:
    """Deletes an unfinished entry if its writer is gone.

    The writer holds a lock on it, which the system releases however the process ends.
    """
    with suppress(OSError):
        with (unfinished / ENTRY_LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(unfinished, ignore_errors=True)
