"""On a CPU the convolution is a matrix product, with the outputs and gradients of XLA's own convolution."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tljax.networks.kernels.convolution import convolution

CASES = list(product((1, 2, 3, 5, 8), (1, 3, 7), (1, 2)))


def xla(x, kernel, *, stride: int, padding: int):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def draw(height: int, width: int, kernel: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    x, k = rng.normal(size=(2, height, width, 3)), rng.normal(size=(kernel, kernel, 3, 4)) / kernel
    return jnp.asarray(x, jnp.float32), jnp.asarray(k, jnp.float32)


def assert_same(x, k, stride: int, padding: int) -> None:
    def gradients(f):
        # A different weight for each output, so that no gradient is right by symmetry.
        def scalar(x, k):
            y = f(x, k, stride=stride, padding=padding)
            return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)), y

        (_, y), grads = jax.jit(jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True))(x, k)
        return y, *grads

    for mine, peer in zip(gradients(convolution), gradients(xla), strict=True):
        assert mine.shape == peer.shape
        np.testing.assert_allclose(mine, peer, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "kernel", "stride"), CASES)
def test_the_product_and_its_gradients_are_those_of_the_convolution(size, kernel, stride):
    assert_same(*draw(size, size, kernel), stride, kernel // 2)


@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "padding"),
    [(5, 2, 3, 2, 1), (1, 8, 7, 2, 3), (8, 5, 3, 1, 0), (7, 4, 1, 2, 1), (2, 3, 3, 3, 2)],
)
def test_so_are_those_of_oblong_images_and_other_paddings(height, width, kernel, stride, padding):
    assert_same(*draw(height, width, kernel), stride, padding)


@pytest.mark.parametrize(("size", "kernel", "stride"), CASES)
def test_the_side_of_the_output_is_as_documented(size, kernel, stride):
    x, k = draw(size, size, kernel)
    padding = kernel // 2
    side = (size + 2 * padding - kernel) // stride + 1
    assert jax.eval_shape(lambda: convolution(x, k, stride=stride, padding=padding)).shape == (2, side, side, 4)


@pytest.mark.parametrize(("platform", "convolves"), [("tpu", True), ("cuda", True), ("cpu", False)])
def test_the_backend_is_chosen_when_the_program_is_lowered(platform, convolves):
    x, k = draw(8, 8, 3)

    def loss(x, k):
        return jnp.sum(convolution(x, k, stride=2, padding=1) ** 2)

    for f in (loss, jax.grad(loss, argnums=(0, 1))):
        text = jax.jit(f).trace(x, k).lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.convolution" in text) == convolves
        assert ("stablehlo.dot_general" in text) != convolves


def test_taps_that_meet_padding_only_are_left_out_of_the_product():
    x, k = draw(1, 1, 7)
    text = jax.jit(lambda x, k: convolution(x, k, stride=2, padding=3)).trace(x, k)
    text = text.lower(lowering_platforms=("cpu",)).as_text()
    assert "(tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>" in text
