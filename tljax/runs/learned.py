"""What a run and its sources learned from: short digests of the training pictures, which the run keeps.

Whoever measures its weights can tell which pictures they know already.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt64

from tljax.runs.files import read_arrays, read_file, write_arrays
from tljax.storage.file_index import Digests

LEARNED = "learned.npz"
# The most digests that a run keeps, of each kind: 80 MB. ImageNet has 1.3 million training pictures.
MOST_DIGESTS = 10**7

# The first 8 bytes of each digest, sorted, each only once.
ShortDigests = UInt64[np.ndarray, " n"]


class Learned(NamedTuple):
    """The pictures that weights have learned from, by the bytes of their `files` or by their `pixels`. `whole` says
    whether all are among them: a source may not have kept its own, and there may be too many."""

    files: ShortDigests
    pixels: ShortDigests
    whole: bool

    def can_tell(self, *, of_files: bool) -> bool:
        """Whether it can tell which pictures it has: the pixels of records say nothing of files, nor files of them."""
        own, others = (self.files, self.pixels) if of_files else (self.pixels, self.files)
        return len(own) > 0 or not len(others)

    def has(self, digests: Digests, *, of_files: bool) -> Bool[np.ndarray, " n"]:
        """Which of these pictures it has."""
        known, wanted = self.files if of_files else self.pixels, _as_numbers(digests)
        # Both halves of a search in a sorted array: `np.isin` would sort all that is known for every picture.
        return np.searchsorted(known, wanted, "right") > np.searchsorted(known, wanted)


# What nobody has learned from.
NOTHING = Learned(np.zeros(0, np.uint64), np.zeros(0, np.uint64), whole=True)


def learn(digests: Digests, before: Learned | None, *, of_files: bool) -> Learned:
    """What weights have learned from after a run on pictures with these `digests`. `before` is what the weights that it
    began with had learned from; None if that is not known."""
    known = before or NOTHING
    own = np.unique(_as_numbers(digests))
    # Files that could not be read have zeros.
    own = own[own != 0]
    grown = np.union1d(known.files if of_files else known.pixels, own)
    fits = len(grown) <= MOST_DIGESTS
    kept = grown if fits else own[:MOST_DIGESTS]
    files, pixels = (kept, known.pixels) if of_files else (known.files, kept)
    return Learned(files, pixels, whole=fits and before is not None and known.whole)


def _as_numbers(digests: Digests) -> UInt64[np.ndarray, " n"]:
    return np.ascontiguousarray(digests[:, :2]).view(np.uint64)[:, 0]


def _are_digests(found: np.ndarray) -> bool:
    return found.dtype == np.uint64 and found.ndim == 1 and bool((found[1:] > found[:-1]).all())


def write_learned(workdir: Path, learned: Learned) -> None:
    """Writes what the run in `workdir` learns from, whole or not at all.

    Raises:
      OSError: if it cannot be written.
    """
    write_arrays(workdir / LEARNED, learned._asdict())


def find_learned(folder: Path) -> tuple[Learned | None, str]:
    """What the run in `folder` has learned from, None if that is not known; and a note where it cannot be read."""
    try:
        return read_learned(folder), ""
    except (ValueError, OSError) as error:
        return None, f"{error}: what it learned from is not known; nothing else needs {LEARNED}"


def read_learned(workdir: Path) -> Learned | None:
    """What the run in `workdir` has learned from; None if it has kept nothing, as runs of earlier versions.

    Raises:
      ValueError: if the file is damaged.
      OSError: if the system does not allow reading now.
    """
    path = workdir / LEARNED
    try:
        content = read_file(path)
    except FileNotFoundError:
        return None
    try:
        arrays = read_arrays(content)
        files, pixels, whole = (arrays[name] for name in Learned._fields)
        if not all(map(_are_digests, (files, pixels))):
            raise ValueError("its arrays are not those of a run")
        return Learned(files, pixels, bool(whole))
    # A damaged archive raises errors of many types.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{path} is damaged ({reason})") from error
