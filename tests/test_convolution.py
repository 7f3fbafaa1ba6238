"""The product that stands for a convolution on a CPU, against XLA's own convolution."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tljax.convolution import convolution


def peer(x, kernel, *, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def inputs(side: int, size: int):
    rng = np.random.default_rng(side * 10 + size)
    x = rng.normal(size=(2, side, side + 1, 3)).astype(np.float32)
    return x, rng.normal(size=(size, size, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_equals_xlas_convolution_with_its_gradients(side, size, stride):
    x, kernel = inputs(side, size)
    settings = {"stride": stride, "padding": size // 2}
    ours, theirs = (partial(f, **settings) for f in (convolution, peer))
    np.testing.assert_allclose(ours(x, kernel), theirs(x, kernel), rtol=1e-5, atol=1e-5)

    def gradients(f):
        return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(f(x, kernel))), argnums=(0, 1))(x, kernel)

    for a, b in zip(gradients(ours), gradients(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("platform", "convolves"), [("cpu", False), ("tpu", True), ("cuda", True)])
def test_the_backend_is_chosen_when_lowering(platform, convolves):
    x, kernel = inputs(8, 3)
    f = jax.jit(partial(convolution, stride=1, padding=1))
    text = f.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in text) == convolves
    assert ("stablehlo.dot_general" in text) != convolves


def test_taps_that_see_only_padding_are_skipped():
    """On a 1x1 map a 3x3 kernel is its centre: one product of depth 3, not of 27."""
    x, kernel = np.ones((2, 1, 1, 3), np.float32), inputs(1, 3)[1]
    text = jax.jit(partial(convolution, stride=1, padding=1)).lower(x, kernel).as_text()
    assert "tensor<2x3xf32>, tensor<3x4xf32>" in text
