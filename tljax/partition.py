"""The cut: everything before it is frozen, everything from it on trains. Nothing else decides what trains."""

import difflib
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.resnet import STAGE_SIZES, UNITS

Tree = dict[str, Any]


def _keras_layer_starts() -> dict[int, str]:
    """Index of the first layer of each unit in Keras's ResNet50(include_top=False).layers, an input layer first.

    A stem has 7 layers; a block has 10 and its stage's first block 2 more on the shortcut. The head starts after the
    last layer.
    """
    layers = [7] + [12 if block == 0 else 10 for size in STAGE_SIZES for block in range(size)]
    starts = np.cumsum([0, *layers])
    return dict(zip(map(int, starts), UNITS, strict=True))


KERAS_LAYER_STARTS = _keras_layer_starts()


def find_cut(cut: str) -> str:
    """The unit that a user's `cut` means: a unit's name, or the index of a Keras layer where a unit starts.

    Raises:
      ValueError: naming the nearest unit, or where the unit around the layer starts.
    """
    if cut in UNITS:
        return cut
    if not cut.isdecimal():
        near = difflib.get_close_matches(cut, UNITS, n=1, cutoff=0.0)[0]
        raise ValueError(f"config.cut={cut!r} is no unit; the nearest is {near!r} (units: {', '.join(UNITS)})")
    index = int(cut)
    if index > max(KERAS_LAYER_STARTS):
        raise ValueError(f"config.cut={cut}: the headless model has {max(KERAS_LAYER_STARTS)} layers, 0 to 174")
    if index not in KERAS_LAYER_STARTS:
        start = max(s for s in KERAS_LAYER_STARTS if s < index)
        raise ValueError(
            f"config.cut={cut} lies inside the unit {KERAS_LAYER_STARTS[start]}, which starts at layer {start}; "
            f"cut there or at {min(s for s in KERAS_LAYER_STARTS if s > index)}, the next unit"
        )
    return KERAS_LAYER_STARTS[index]


def is_frozen(unit: str, cut: str | None) -> bool:
    """Whether `unit` stands before `cut`; with no cut nothing trains."""
    return cut is None or UNITS.index(unit) < UNITS.index(cut)


def labels(tree: Tree, cut: str | None) -> Tree:
    """The same tree with `"freeze"` or `"train"` in place of each leaf, for `optax.partition`.

    `tree` has units as its top-level keys, all of them or some.
    """
    frozen, trainable = split(tree, cut)
    return {**jax.tree.map(lambda _: "freeze", frozen), **jax.tree.map(lambda _: "train", trainable)}


def split(tree: Tree, cut: str | None) -> tuple[Tree, Tree]:
    """The units before `cut` and those from it on; `merge` puts them together again."""
    frozen = {unit: subtree for unit, subtree in tree.items() if is_frozen(unit, cut)}
    return frozen, {unit: subtree for unit, subtree in tree.items() if unit not in frozen}


def merge(frozen: Tree, trainable: Tree) -> Tree:
    """Undoes `split`."""
    return {**frozen, **trainable}


class Counts(NamedTuple):
    """Numbers of parameters as Keras counts them: running statistics are non-trainable parameters."""

    total: int
    trainable: int
    non_trainable: int


def count(params: Tree, batch_stats: Tree, cut: str | None) -> Counts:
    """Parameters of the whole network, trained from `cut` on. Leaves need a shape only."""

    def size(tree: Tree) -> int:
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))

    total, trainable = size(params) + size(batch_stats), size(split(params, cut)[1])
    return Counts(total, trainable, total - trainable)


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves by path, keys joined by `/`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unflatten(leaves: dict[str, Any]) -> Tree:
    """Undoes `flatten` for nested dicts."""
    tree: Tree = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def digest(params: Tree, batch_stats: Tree, cut: str | None) -> dict[str, str]:
    """SHA-256 of every frozen leaf by path: bytes, type and shape of the parameters and running statistics before
    `cut`. Two equal digests prove the leaves equal to the bit."""
    return digest_leaves({"params": split(params, cut)[0], "batch_stats": split(batch_stats, cut)[0]})


def digest_leaves(tree: Any) -> dict[str, str]:
    """SHA-256 of every leaf by path, several at a time."""
    leaves = flatten(tree)
    with ThreadPoolExecutor() as pool:
        return dict(zip(leaves, pool.map(lambda leaf: sha256(np.asarray(leaf)), leaves.values()), strict=True))


def select_frozen(digests: dict[str, str], cut: str) -> dict[str, str]:
    """What `digest` gives for an earlier `cut` of the same leaves."""
    return {path: value for path, value in digests.items() if is_frozen(path.split("/")[1], cut)}


def sha256(array: np.ndarray) -> str:
    """Digest of an array's bytes, type and shape."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def find_differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Paths of the leaves that two digests do not have alike, sorted."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def verify_frozen(before: dict[str, str], after: dict[str, str]) -> int:
    """The number of frozen leaves, all proved equal to the bit by their digests.

    Raises:
      RuntimeError: naming the leaves that moved.
    """
    moved = find_differences(before, after)
    if moved:
        raise RuntimeError(f"{len(moved)} frozen leaves moved, first {moved[0]}: this is a bug, do not use this run")
    return len(before)
