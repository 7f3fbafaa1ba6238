"""Nested dicts of arrays by path: flatten, digests, differences. Nothing here knows a network."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

Tree = dict[str, Any]
# One line of numbers with names: an epoch's metrics, a summary. As JSON.
Row = dict[str, Any]


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


def sha256(array: np.ndarray) -> str:
    """Digest of an array's bytes, type and shape."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def digest_leaves(tree: Any) -> dict[str, str]:
    """SHA-256 of every leaf by path, several at a time."""
    leaves = flatten(tree)
    with ThreadPoolExecutor() as pool:
        return dict(zip(leaves, pool.map(lambda leaf: sha256(np.asarray(leaf)), leaves.values()), strict=True))


def find_differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Paths of the leaves that two digests do not have alike, sorted."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
