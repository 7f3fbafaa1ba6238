"""Reads images ahead of those who use them: what is kept encoded is decoded in other processes meanwhile."""

import gc
import math
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Int

from tljax.data.decoding import Encoded
from tljax.storage.signals import SIGNALS

# The number of images that a decoding process returns at a time.
PIECE = 32
# Pieces that wait for each process.
BUFFER = 2
# Where Linux keeps memory that processes share. Docker gives it 64 MiB, and who writes more is killed.
SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class _Pieces:
    """The source that Grain's worker processes read: item `i` is the decoded images at `places[i]`."""

    images: Encoded
    places: list[Int[np.ndarray, " n"]]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.images.decode(self.places[i], threads=1).whole()


def _end_with_parent(*_: int) -> None:
    """Makes a decoding process end when the run ends, for whatever reason it does. To be called in that process."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def start_resource_tracker() -> None:
    """Starts Python's resource tracker, which frees shared memory that is left when the run ends in the midst of a
    pass. It does so without its warning: below an error's line, that would look like another error."""
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    try:
        multiprocessing.resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()


@contextmanager
def without_main() -> Iterator[None]:
    """A block in which processes start that do not run the program's main module: they need nothing of it, and a script
    without a main guard would train again in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def free_shared_memory() -> float:
    """Bytes that are free where processes share arrays; infinite where the system has no such place."""
    if not os.path.isdir(SHARED_MEMORY):
        return math.inf
    there = os.statvfs(SHARED_MEMORY)
    return there.f_bavail * there.f_frsize


def count_workers(piece_bytes: int, pieces: int) -> int:
    """How many processes decode: one for each CPU, but no more than there are pieces, and none for which there is no
    shared memory. A process holds its buffers and the piece that it decodes."""
    room = free_shared_memory() / (piece_bytes * (BUFFER + 1))
    return int(min(os.cpu_count() or 1, pieces, room))


def read_ahead(images: Any, places: Sequence[Int[np.ndarray, "..."]]) -> Generator[np.ndarray]:
    """Yields `images[p]` for each `p` of `places`; the content for places beyond the last image is undefined.

    `Encoded` images are prefetched: Grain's worker processes decode the next ones while the caller uses these.
    """
    if not isinstance(images, Encoded):
        some = images if len(images) else np.zeros((1, *images.shape[1:]), images.dtype)
        yield from (some[np.where(p < len(some), p, 0)] for p in places)
        return
    pieces = [np.array_split(np.ravel(p), max(1, -(-np.size(p) // PIECE))) for p in places]
    flat = [piece for parts in pieces for piece in parts]
    workers = count_workers(PIECE * images.size * images.size * 3, len(flat))
    if flat and not workers:
        print(
            f"{SHARED_MEMORY} has {free_shared_memory() / 2**20:.0f} MiB free, too few to decode in other processes: "
            "images are decoded in this one, which is slower (docker run --shm-size=1g makes room)"
        )
        yield from (images[p] for p in places)
        return
    import grain
    from absl import flags

    # Grain reads absl flags of its own. Unless absl started the program, nobody has parsed them, and absl would raise.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    made: Any = None
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=BUFFER)
    source = grain.MapDataset.source(_Pieces(images, flat)).to_iter_dataset()
    dataset = source.mp_prefetch(options, worker_init_fn=_end_with_parent)
    try:
        with closing(iter(dataset)) as ready:
            # Terminals and schedulers signal all processes. Workers inherit this mask; without it they would end before
            # the run has saved. The first worker would start Python's resource tracker, which unblocks the signals, so
            # the tracker is started before.
            start_resource_tracker()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                with without_main():
                    made = chain([next(ready)] if flat else [], ready)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            for p, parts in zip(places, pieces, strict=True):
                yield np.concatenate([next(made) for _ in parts]).reshape(*np.shape(p), *images.shape[1:])
    finally:
        # A closed iterator still refers to itself and to its last piece, which lies in memory shared with the workers.
        ready = made = None
        gc.collect()
