"""Decodes images from files and records when they are read, and prefetches decoded images in other processes."""

import gc
import io
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from tljax.data.image_source import Rows
from tljax.storage.signals import SIGNALS

# Images decoded to at most this side (pixels) decode faster in one thread than in several, which would mostly wait for
# the interpreter (the GIL).
SMALL_SIZE = 64
# The number of images that a decoding process returns at a time.
PIECE = 32
# Formats that Pillow decodes by itself; for some of the others it starts programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# The most pixels that a picture may have: each takes four bytes of memory while it is decoded.
MOST_PIXELS = 10**8


def decode(encoded: bytes | Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Decodes a picture to RGB, crops it to its centre square and resizes that bilinearly to `size` pixels a side.

    The EXIF orientation is applied, transparency is blended with white, and 16-bit values are scaled to 8 bits. A
    picture of exactly `size` x `size` keeps its pixels.

    Raises:
      ValueError: if the picture has more than `MOST_PIXELS` pixels.
      Exception: whatever Pillow raises for a damaged file.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
        ImageOps.exif_transpose(image, in_place=True)
        # The modes "I", "I;16" and "I;16B" hold 16-bit values, which Pillow would clip at 255.
        if image.mode.startswith("I"):
            rgb = Image.fromarray((np.asarray(image, np.float64) / 257).round().clip(0, 255).astype(np.uint8))
            rgb = rgb.convert("RGB")
        elif image.has_transparency_data:
            rgba = image.convert("RGBA")
            rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        else:
            rgb = image.convert("RGB")
    if rgb.size != (size, size):
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


@dataclass(frozen=True)
class Encoded:
    """Images that are indexed like an array, uint8 [n, size, size, 3], and decoded whenever they are read."""

    fetch: Callable[[Rows], Sequence[bytes | Path]]
    """Rows of the split -> encoded images, as bytes or paths."""
    rows: Rows
    """The row of each image within the split."""
    ids: tuple[str, ...]
    size: int
    fingerprint: str
    """Digest that identifies these images in cache keys."""

    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), self.size, self.size, 3

    @property
    def nbytes(self) -> int:
        """The size of all images, decoded."""
        return len(self) * self.size * self.size * 3

    def __getitem__(self, places: Int[np.ndarray, "..."]) -> UInt8[np.ndarray, "... size size 3"]:
        """The images at `places`, decoded; black for a place beyond the last image.

        Raises:
          ValueError: if an image cannot be read; the message names it.
        """
        return self.decode(places, os.cpu_count() if self.size > SMALL_SIZE else 1)

    def decode(self, places: Int[np.ndarray, "..."], threads: int | None) -> UInt8[np.ndarray, "... size size 3"]:
        """As `self[places]`, but decoded in `threads` threads (None: the default of ThreadPoolExecutor)."""
        chosen = np.asarray(places).ravel()
        images = np.zeros((len(chosen), self.size, self.size, 3), np.uint8)
        there = np.flatnonzero(chosen < len(self))

        def decode_into(place: int, encoded: bytes | Path, image: np.ndarray) -> None:
            try:
                image[:] = decode(encoded, self.size)
            # Pillow's decoders raise all kinds of errors for damaged files.
            except Exception as error:
                name = self.ids[place]
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise ValueError(f"{name} is no readable image ({reason}): replace or remove it") from error

        arguments = chosen[there], self.fetch(self.rows[chosen[there]]), [images[i] for i in there]
        if threads == 1:
            list(map(decode_into, *arguments))
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(decode_into, *arguments))
        return images.reshape(*np.shape(places), *self.shape[1:])


@dataclass(frozen=True)
class _Pieces:
    """The source that Grain's worker processes read: item `i` is the decoded images at `places[i]`."""

    images: Encoded
    places: list[Int[np.ndarray, " n"]]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.images.decode(self.places[i], threads=1)


def _end_with_parent(*_: int) -> None:
    """Makes a decoding process end when the run ends, for whatever reason it does. To be called in that process."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def read_ahead(images: Any, places: Sequence[Int[np.ndarray, "..."]]) -> Generator[np.ndarray]:
    """Yields `images[p]` for each `p` of `places`; the content for places beyond the last image is undefined.

    `Encoded` images are prefetched: Grain's worker processes decode the next ones while the caller uses these.
    """
    if not isinstance(images, Encoded):
        some = images if len(images) else np.zeros((1, *images.shape[1:]), images.dtype)
        yield from (some[np.where(p < len(some), p, 0)] for p in places)
        return
    import grain
    from absl import flags

    # Grain reads absl flags of its own. Unless absl started the program, nobody has parsed them, and absl would raise.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    made: Any = None
    pieces = [np.array_split(np.ravel(p), max(1, -(-np.size(p) // PIECE))) for p in places]
    flat = [piece for parts in pieces for piece in parts]
    options = grain.MultiprocessingOptions(num_workers=min(os.cpu_count() or 1, len(flat)), per_worker_buffer_size=2)
    source = grain.MapDataset.source(_Pieces(images, flat)).to_iter_dataset()
    dataset = source.mp_prefetch(options, worker_init_fn=_end_with_parent)
    try:
        with closing(iter(dataset)) as ready:
            # Terminals and schedulers signal all processes. Workers inherit this mask; without it they would end before
            # the run has saved. The first worker would start Python's resource tracker, which unblocks the signals, so
            # the tracker is started before.
            multiprocessing.resource_tracker.ensure_running()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                made = chain([next(ready)] if flat else [], ready)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            for p, parts in zip(places, pieces, strict=True):
                yield np.concatenate([next(made) for _ in parts]).reshape(*np.shape(p), *images.shape[1:])
    finally:
        # A closed iterator still refers to itself and to its last piece, which lies in memory shared with the workers.
        ready = made = None
        gc.collect()
