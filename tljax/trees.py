"""Nested dicts of arrays, of any network or none: leaves by path, their digests, and differences of digests."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

Tree = dict[str, Any]
# Named values that JSON can hold: an epoch's metrics, a summary.
Row = dict[str, Any]


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves of a tree by path; a path is the keys joined by `/`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unflatten(leaves: dict[str, Any]) -> Tree:
    """The nested dicts from which `flatten` gives these leaves."""
    tree: Tree = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def sha256(array: np.ndarray) -> str:
    """SHA-256 digest of an array's bytes, dtype and shape, in hexadecimal."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 digest of a value that JSON can hold, in hexadecimal; the order of keys does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_leaves(tree: Any) -> dict[str, str]:
    """`sha256` of every leaf by path; several threads compute them at once."""
    leaves = flatten(tree)
    with ThreadPoolExecutor() as pool:
        return dict(zip(leaves, pool.map(lambda leaf: sha256(np.asarray(leaf)), leaves.values()), strict=True))


def find_differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Sorted paths whose digests differ between `before` and `after`, or that only one of them has."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
