"""Leaves of a tree by path, and digests that depend on every bit."""

import jax
import numpy as np
import pytest

from tljax.trees import digest_leaves, find_differences, flatten, sha256, unflatten

TREE = {"conv1": {"conv": {"kernel": 1, "bias": 2}}, "conv5_block1": {"1_bn": {"scale": 3}}, "head": {"bias": 4}}


def test_flatten_joins_the_path_and_unflatten_undoes_it():
    flat = flatten(TREE)
    assert flat == {"conv1/conv/bias": 2, "conv1/conv/kernel": 1, "conv5_block1/1_bn/scale": 3, "head/bias": 4}
    assert unflatten(flat) == TREE


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.view(np.int32),
        lambda x: x.reshape(3, 1),
        lambda x: x[::-1],
        lambda x: np.array([-0.0, 1.0, 2.0], np.float32),
    ],
    ids=["dtype of the same bytes", "shape", "order", "-0.0 for 0.0"],
)
def test_another_array_has_another_digest(change):
    array = np.array([0.0, 1.0, 2.0], np.float32)
    assert sha256(array) == sha256(array.copy())
    assert sha256(change(array)) != sha256(array)


def test_digests_are_by_path_wherever_the_leaves_are_held():
    tree = {"a": {"b": np.arange(3.0, dtype=np.float32)}, "c": np.ones((2, 2), np.float32)}
    assert digest_leaves(tree).keys() == {"a/b", "c"}
    assert digest_leaves(tree) == digest_leaves(jax.tree.map(jax.numpy.asarray, tree))


def test_leaves_that_changed_came_or_went_are_named():
    before, after = {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "4", "d": "5"}
    assert find_differences(before, after) == ["b", "c", "d"]
    assert find_differences(before, before) == []
