"""The max-pool and its gradient equal XLA's own, also in windows with several maxima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tljax.networks.kernels.pooling import max_pool


def plain(x):
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize("height", [1, 2, 5, 16])
@pytest.mark.parametrize("width", [1, 4, 7])
@pytest.mark.parametrize("values", [2, 1000])
def test_values_and_gradients_are_those_of_xla(height, width, values):
    rng = np.random.default_rng(0)
    # With few different values, most windows have several maxima, and the first gets the gradient.
    x = jnp.asarray(rng.integers(-values, values, (3, height, width, 2)), jnp.float32)
    y, pull = jax.vjp(max_pool, x)
    expected, pull_plain = jax.vjp(plain, x)
    np.testing.assert_array_equal(y, expected)
    dy = jnp.asarray(rng.integers(1, 100, y.shape), jnp.float32)
    np.testing.assert_array_equal(pull(dy)[0], pull_plain(dy)[0])


@pytest.mark.parametrize(("platform", "scatters"), [("cpu", False), ("tpu", True), ("cuda", True)])
def test_only_a_cpu_gathers(platform, scatters):
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x))))
    text = gradient.trace(jnp.ones((1, 8, 8, 2))).lower(lowering_platforms=(platform,)).as_text()
    assert ("select_and_scatter" in text) == scatters
