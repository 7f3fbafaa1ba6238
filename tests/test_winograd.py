"""Winograd's products give the convolution and its gradients, in float64 and in float32."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import AS_USERS
from jax import lax

from tljax.networks.kernels.winograd import winograd


def plain(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


def value_and_gradients(f, x, kernel, weight):
    y, pull = jax.vjp(f, x, kernel)
    return y, *pull(weight)


# Every side once as height and as width; the long form takes all pairs of them.
SIZES = [(1, 1), (2, 2), (3, 3), (4, 4), (7, 7), (1, 7), (7, 2), (2, 3), (3, 4), (4, 1), (8, 8), (56, 5)]
MORE = [pytest.param(*size, marks=pytest.mark.long) for size in product((1, 2, 3, 4, 7), repeat=2) if size not in SIZES]


@pytest.mark.parametrize(("height", "width"), [*SIZES, *MORE])
def test_it_is_the_convolution_and_so_are_its_gradients(height, width):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(2, height, width, 3)))
        kernel, weight = jnp.asarray(rng.normal(size=(3, 3, 3, 5))), jnp.asarray(rng.normal(size=(2, height, width, 5)))
        results = [jax.jit(value_and_gradients, static_argnums=0)(f, x, kernel, weight) for f in (winograd, plain)]
        for mine, peer in zip(*results, strict=True):
            np.testing.assert_allclose(mine, peer, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("optimized")
def test_float32_rounds_by_units_in_the_last_place():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 14, 14, 256)), rng.normal(size=(3, 3, 256, 64))
    mine = jax.jit(winograd, compiler_options=AS_USERS)(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    with jax.enable_x64(True):
        exact = np.asarray(plain(jnp.asarray(x), jnp.asarray(kernel)))
    assert mine.dtype == jnp.float32
    assert np.abs(mine - exact).max() < 3e-6 * np.abs(exact).max()
