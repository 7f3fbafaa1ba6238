"""The user's cache folder: arrays computed once, kept, and checked when they are found again."""

import fcntl
import hashlib
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

from tljax.trees import sha256

ABOUT = "about.json"
UNFINISHED = "unfinished-"
LOCK = ".lock"


def folder(name: str) -> Path:
    """The folder `name` in the user's cache (TLJAX_CACHE_DIR, or where the system keeps caches), made unless it is
    there. Nobody else can enter it: programs and numbers found there are run and believed.

    Raises:
      OSError: if it cannot be made, or belongs to somebody else.
    """
    import pooch

    root = Path(os.environ.get("TLJAX_CACHE_DIR") or pooch.os_cache("tljax"))
    (root / name).mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)
    return root / name


def find(about: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays that `build` kept under the same `about`, memory-mapped and read-only, or None.

    Every byte is checked against its digest; a damaged entry is deleted, with a line that says so.
    """
    try:
        entry = folder("arrays") / _fingerprint(about)
    except OSError:
        return None
    try:
        digests = json.loads((entry / ABOUT).read_text())["sha256"]
        arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in digests}
        if any(sha256(array) != digests[name] for name, array in arrays.items()):
            raise ValueError("its bytes are not those that were written")
        os.utime(entry)
    except (OSError, ValueError, KeyError) as error:
        if entry.exists():
            print(f"the cached {about['what']} in {entry} are damaged ({error}): made again")
            forget(about)
        return None
    return arrays


@contextmanager
def build(
    about: dict[str, Any], shapes: dict[str, ShapeDtypeStruct], disk_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Arrays of `shapes` to fill in, and others to add; kept under `about` (JSON, with `what`) once the block ends.

    All that is kept stays within `disk_bytes`: what was unused longest goes. Arrays that do not fit are in memory
    alone, and with a full disk too. A block that fails leaves nothing.
    """
    size = sum(int(np.prod(s.shape)) * np.dtype(s.dtype).itemsize for s in shapes.values())
    unfinished = _make_room(about, size, disk_bytes)
    if unfinished is None:
        yield {name: np.empty(s.shape, s.dtype) for name, s in shapes.items()}
        return
    try:
        with (unfinished / LOCK).open("w") as lock:
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
    """Arrays in files whose room is reserved: writing through a memory map to a full disk would kill the process."""
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
        (unfinished / ABOUT).write_text(json.dumps({"sha256": digests, **about}, indent=1))
    except OSError as error:
        print(f"{about['what']} are not kept: {unfinished.parent}: {error.strerror}")
        return
    forget(about)
    # Another process may just have kept the same.
    with suppress(OSError):
        unfinished.rename(unfinished.with_name(_fingerprint(about)))


def forget(about: dict[str, Any]) -> None:
    """Deletes what is kept under `about`."""
    shutil.rmtree(folder("arrays") / _fingerprint(about), ignore_errors=True)


def _make_room(about: dict[str, Any], size: int, disk_bytes: int) -> Path | None:
    """A new folder that `size` bytes can be written to, or None, with the reason in a line."""
    if not disk_bytes:
        return None
    if size > disk_bytes:
        print(f"{about['what']} are not kept: {size / 2**30:.2f} GiB, cache.disk_gib={disk_bytes / 2**30:g}")
        return None
    try:
        root = folder("arrays")
        for path in root.glob(f"{UNFINISHED}*"):
            _delete_if_left(path)
        entries = sorted((path.stat().st_mtime, path) for path in root.iterdir())
        # What another process is writing now is not to be touched.
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
    """The process that writes there holds a lock, which the system takes from it however it ends."""
    with suppress(OSError):
        with (unfinished / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(unfinished, ignore_errors=True)


def _fingerprint(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
