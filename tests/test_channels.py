"""`spread`, which broadcasts a number per channel to all positions, and its gradient on every backend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.networks.kernels.channels import spread


def test_the_gradient_sums_over_all_positions():
    rng = np.random.default_rng(0)
    x, values = rng.normal(size=(2, 3, 3, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    np.testing.assert_array_equal(spread(jnp.asarray(values), x.shape), np.broadcast_to(values, x.shape))
    found = jax.grad(lambda values: jnp.sum(x * spread(values, x.shape)))(values)
    np.testing.assert_allclose(found, x.sum(axis=(0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize(("platform", "multiplies"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_only_a_cpu_multiplies_with_ones(platform, multiplies):
    x, values = jnp.ones((2, 3, 3, 4)), jnp.ones(4)
    gradient = jax.jit(jax.grad(lambda values: jnp.sum(x * spread(values, x.shape))))
    text = gradient.trace(values).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.dot_general" in text) == multiplies
