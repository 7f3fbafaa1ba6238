"""The interface of all image sources: class names, splits of rows, and encoded images."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

# Names of the validation split in TFDS and in folders, the preferred one first.
VALIDATION_NAMES = ("validation", "val", "valid")
PHOTOGRAPH_SIZE = 224
# The smallest input side (pixels) that Keras's ResNet50 takes.
SMALLEST_SIZE = 32
# The number of records that are in memory at a time.
CHUNK = 512

Rows = Int[np.ndarray, " n"]


class Groups(NamedTuple):
    """Which pictures belong together: the `names` of the groups and, for each split, the group of each row."""

    names: tuple[str, ...]
    of: Mapping[str, Int[np.ndarray, " n"]]


class Corrected(NamedTuple):
    """The pictures of a split about which something was decided: their rows, in rising order, their labels before and
    after, and which of them are dropped."""

    rows: Rows
    before: Int[np.ndarray, " n"]
    after: Int[np.ndarray, " n"]
    dropped: Bool[np.ndarray, " n"]


class ImageSource(NamedTuple):
    """A source of images.

    `image_size` is the image side in pixels that it suggests, `sizes` the number of rows of each split. Rows are
    positions within a split.

    - `describe(split, rows)` returns labels (int array) and ids (strings, each only once in the source).
    - `fetch(split, rows)` returns encoded images: bytes of a picture file, or paths.
    - `shards(split)` returns the paths of the files whose records the split's pictures are. It is empty where each
      picture is a file of its own; `fetch` then returns paths. Decoded images are found again in the cache by the
      content of these files. A source that makes its images itself gives its own module, `[Path(__file__)]`.

    `left_out` counts the files that are not read, by reason. `notes` are lines about what was understood, `warnings`
    lines about what may be wrong. `test_at_end` says that validation was held out of train, so that the split test is
    evaluated once at the end. `groups` are None where nothing says which pictures belong together. `corrected` is what
    `corrections` (their digest, None without any) change in each split.
    """

    class_names: tuple[str, ...]
    image_size: int
    sizes: dict[str, int]
    describe: Callable[[str, Rows], tuple[np.ndarray, Sequence[str]]]
    fetch: Callable[[str, Rows], Sequence[bytes | Path]]
    shards: Callable[[str], Sequence[Path]]
    left_out: Mapping[str, int] = MappingProxyType({})
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    test_at_end: bool = False
    groups: Groups | None = None
    corrected: Mapping[str, Corrected] = MappingProxyType({})
    corrections: str | None = None
