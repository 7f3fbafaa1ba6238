"""The interface of all image sources: class names, splits of rows, and encoded images."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

# Names of the validation split in TFDS and in folders, the preferred one first.
VALIDATION_NAMES = ("validation", "val", "valid")
PHOTOGRAPH_SIZE = 224
# The smallest input side (pixels) that Keras's ResNet50 takes.
SMALLEST_SIZE = 32
# The number of records that are in memory at a time.
CHUNK = 512

Rows = Int[np.ndarray, " n"]


class ImageSource(NamedTuple):
    """A source of images.

    `image_size` is the image side in pixels that it suggests, `sizes` the number of rows of each split. Rows are
    positions within a split.

    - `describe(split, rows)` returns labels (int array) and ids (strings, each only once in the source).
    - `fetch(split, rows)` returns encoded images: bytes of a picture file, or paths.
    - `files(split)` returns the paths of all files that the split's images and labels come from: decoded images are
      found again in the cache by these files, and are not kept if there are none. A source that makes its images itself
      gives its own module, `[Path(__file__)]`.

    `left_out` counts the files that are not read, by reason. `notes` are lines about what was understood, `warnings`
    lines about what may be wrong. `test_at_end` says that validation was held out of train, so that the split test is
    evaluated once at the end.
    """

    class_names: tuple[str, ...]
    image_size: int
    sizes: dict[str, int]
    describe: Callable[[str, Rows], tuple[np.ndarray, Sequence[str]]]
    fetch: Callable[[str, Rows], Sequence[bytes | Path]]
    files: Callable[[str], Sequence[Path]]
    left_out: Mapping[str, int] = MappingProxyType({})
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    test_at_end: bool = False


def stratify(labels: np.ndarray) -> dict[str, Rows]:
    """The rows of train and val: 90% and 10% of each class, at least one row of val for a class with two rows or more.

    The random seed is fixed, whatever the seed of the run: a run that starts from the weights of another run must not
    validate on images that the other one was trained on.
    """
    rng = np.random.default_rng(0)
    held_out: list[int] = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held_out.extend(rows[: max(1, round(len(rows) / 10)) if len(rows) > 1 else 0])
    return {"train": np.setdiff1d(np.arange(len(labels)), held_out), "val": np.sort(np.array(held_out, int))}
