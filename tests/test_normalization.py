from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.networks.kernels.normalization import normalize

MASK = jnp.array([True, False, True, True, False, True])


def draw(*shape, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(3, 2, (len(MASK), *shape)), dtype)
    scale, bias = (jnp.asarray(rng.uniform(-2, 2, shape[-1]), dtype) for _ in range(2))
    return x, scale, bias


def flax_normalize(x, scale, bias, mask, epsilon):
    bn = nn.BatchNorm(use_running_average=False, momentum=0.0, epsilon=epsilon, use_fast_variance=False)
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": 0 * scale, "var": 0 * scale}}
    mask = None if mask is None else mask.reshape(-1, 1, 1, 1)
    return bn.apply(variables, x, mask=mask, mutable=["batch_stats"])


def loss(function, mask, x, scale, bias):
    y, _ = function(x, scale, bias, mask, 1e-3)
    # Padding has no effect on a loss, but its outputs may be used.
    return jnp.sum(y**3 * jnp.asarray(np.arange(y.size).reshape(y.shape) % 7, y.dtype))


@pytest.mark.parametrize("mask", [None, MASK], ids=["all rows", "masked"])
@pytest.mark.parametrize("shape", [(5, 3, 4), (1, 1, 3)])
def test_values_statistics_and_gradients_are_flax_s(shape, mask):
    # Flax's BatchNorm promotes float32 with float64.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        x, scale, bias = draw(*shape)
        y, statistics = jax.jit(partial(normalize, mask=mask, epsilon=1e-3))(x, scale, bias)
        expected, updated = flax_normalize(x, scale, bias, mask, 1e-3)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
        for name, value in statistics._asdict().items():
            np.testing.assert_allclose(value, updated["batch_stats"][name], rtol=1e-12)
        ours, theirs = (
            jax.jit(jax.grad(partial(loss, function, mask), argnums=(0, 1, 2)))(x, scale, bias)
            for function in (normalize, flax_normalize)
        )
        for own, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-9, atol=1e-9)


def test_a_large_mean_costs_no_precision():
    """The variance is the mean square of differences from the mean, not a difference of two large numbers."""
    x, scale, bias = draw(8, 8, 4, dtype=np.float32)
    _, near = normalize(x, scale, bias, None, 1e-3)
    _, far = normalize(x + np.float32(4096), scale, bias, None, 1e-3)
    np.testing.assert_allclose(far.var, near.var, rtol=1e-3)


def test_bfloat16_differs_by_its_rounding():
    x, scale, bias = draw(5, 5, 4, dtype=np.float32)
    narrow = x.astype(jnp.bfloat16)
    y, statistics = normalize(narrow, scale, bias, MASK, 1e-3)
    expected, wide = normalize(narrow.astype(jnp.float32), scale, bias, MASK, 1e-3)
    assert (y.dtype, statistics.mean.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.03)
    np.testing.assert_allclose(statistics, wide, rtol=1e-4)


def test_without_any_row_nothing_is_divided_by_zero():
    x, scale, bias = draw(2, 2, 4, dtype=np.float32)
    gradients = jax.grad(partial(loss, normalize, jnp.zeros(len(MASK), bool)), argnums=(0, 1, 2))(x, scale, bias)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
