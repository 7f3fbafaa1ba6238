"""Loss and accuracy as sums over examples: padding counts for nothing, and parts merge to the whole."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.training.metrics import Sums, cross_entropy, means, sum_examples

LOGITS = np.array([[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(9)], [2.0, 1.0]], np.float32)
LABELS = np.array([0, 0, 0, 1], np.int32)
LOSSES = [math.log(2), math.log(4 / 3), math.log(10), math.log(1 + math.e)]


def test_cross_entropy_is_in_nats():
    np.testing.assert_allclose(cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS)), LOSSES, rtol=1e-6)


def test_cross_entropy_of_large_logits_is_finite():
    losses = cross_entropy(jnp.asarray([[1e4, 0.0], [1e4, 0.0]]), jnp.asarray([0, 1]))
    np.testing.assert_array_equal(losses, [0, 1e4])


def test_measure_sums_over_the_examples():
    sums = sum_examples(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.ones(4, bool))
    np.testing.assert_allclose(sums, [sum(LOSSES), 2, 4], rtol=1e-6)


@pytest.mark.parametrize("garbage", [0.0, 1e30, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("label", [0, 1])
def test_padding_counts_for_nothing_whatever_it_holds(garbage, label):
    logits = np.concatenate([LOGITS, np.full((3, 2), garbage, np.float32)])
    labels = np.concatenate([LABELS, np.full(3, label, np.int32)])
    sums = sum_examples(jnp.asarray(logits), jnp.asarray(labels), jnp.arange(7) < 4)
    np.testing.assert_allclose(sums, [sum(LOSSES), 2, 4], rtol=1e-6)


def test_a_batch_of_padding_is_zero():
    assert sum_examples(jnp.full((2, 2), jnp.nan), jnp.zeros(2, jnp.int32), jnp.zeros(2, bool)) == (0, 0, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_of_any_size_have_the_mean_of_the_whole(size):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(7, 5)).astype(np.float32), rng.integers(0, 5, 7).astype(np.int32)
    parts = []
    for start in range(0, 7, size):
        part = slice(start, start + size)
        n = len(labels[part])
        parts.append(sum_examples(jnp.asarray(logits[part]), jnp.asarray(labels[part]), jnp.ones(n, bool)))
    whole = sum_examples(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(7, bool))
    stacked = Sums(*(np.stack(leaves) for leaves in zip(*parts, strict=True)))
    for name, value in means(whole).items():
        np.testing.assert_allclose(means(stacked)[name], value, rtol=1e-6)


def test_steps_are_added_in_double_precision():
    losses = np.array([2**24, 1, 1], np.float32)
    assert means(Sums(losses, losses, np.array([1, 0, 0], np.float32)))["loss"] == 2**24 + 2


def test_compute_divides_by_the_examples():
    assert means(Sums(6.0, 3.0, 4.0)) == {"loss": 1.5, "accuracy": 0.75}


def test_the_mean_of_nothing_is_refused():
    with pytest.raises(ZeroDivisionError):
        means(Sums(0.0, 0.0, 0.0))
