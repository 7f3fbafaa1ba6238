"""What every place of images offers: classes, rows of splits, and encoded images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

# What the split to evaluate on is called, by TFDS and in folders.
VALIDATION_NAMES = ("validation", "val", "valid")
PHOTOGRAPH_SIZE = 224
# The smallest input that Keras's ResNet50 takes.
SMALLEST_SIZE = 32
# Records that are in memory at a time.
CHUNK = 512

Rows = Int[np.ndarray, " n"]


class ImageSource(NamedTuple):
    """A place of images: classes, the side it suggests, rows of each split, and how to get at the rows.

    `describe(split, rows)` is labels (int) and ids; `fetch(split, rows)` is encoded images (bytes or files);
    `files(split)` is all that they are read from.
    """

    class_names: tuple[str, ...]
    image_size: int
    sizes: dict[str, int]
    describe: Callable[[str, Rows], tuple[np.ndarray, Sequence[str]]]
    fetch: Callable[[str, Rows], Sequence[bytes | Path]]
    files: Callable[[str], Sequence[Path]]


def stratify(labels: np.ndarray) -> dict[str, Rows]:
    """Rows of train and val, 90% and 10% of each class, at least one of val where a class has two.

    The seed is always the same: a later run with another one must not validate on what its source was trained on.
    """
    rng = np.random.default_rng(0)
    held_out: list[int] = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held_out.extend(rows[: max(1, round(len(rows) / 10)) if len(rows) > 1 else 0])
    return {"train": np.setdiff1d(np.arange(len(labels)), held_out), "val": np.sort(np.array(held_out, int))}
