"""The 3x3 convolution with stride 1 and padding 1, with 16 products per 2x2 output tile instead of 36.

This is F(2x2, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, section
4.1. `_input`, `_kernel` and `_output` multiply by the paper's matrices B^T, G and A^T. In float32 the result differs
from the plain sum by about 1e-6 of the largest output.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tljax.networks.kernels.windows import interleave, strided_view

Grid = list[list[Array]]
Transform = Callable[[Sequence[Array]], list[Array]]


@jax.custom_vjp
def winograd(x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c f"]) -> Float[Array, "n h w f"]:
    """Cross-correlates NHWC images with an HWIO kernel, with stride 1 and one pixel of zeros on every side.

    Both gradients are computed with 16 products per tile too; nothing scatters.
    """
    n, height, width, _ = x.shape
    tiles, weights = _tiles(x), _both(_kernel, [[kernel[i, j] for j in range(3)] for i in range(3)])
    y = _both(_output, [[t @ k for t, k in zip(ts, ks, strict=True)] for ts, ks in zip(tiles, weights, strict=True)])
    rows, columns = -(-height // 2), -(-width // 2)
    return interleave([[part.reshape(n, rows, columns, -1) for part in row] for row in y], height, width)


def _both(transform: Transform, grid: Grid) -> Grid:
    """Applies `transform` to each column of a grid, then to each row of the result."""
    columns = [transform(column) for column in zip(*grid, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]


def _input(d: Sequence[Array]) -> list[Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _kernel(g: Sequence[Array]) -> list[Array]:
    return [g[0], 0.5 * (g[0] + g[1] + g[2]), 0.5 * (g[0] - g[1] + g[2]), g[2]]


def _output(m: Sequence[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _output_transposed(y: Sequence[Array]) -> list[Array]:
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]


def _kernel_transposed(g: Sequence[Array]) -> list[Array]:
    return [g[0] + 0.5 * (g[1] + g[2]), 0.5 * (g[1] - g[2]), 0.5 * (g[1] + g[2]) + g[3]]


def _tiles(x: Array) -> Grid:
    """The 16 inputs of the products, [n * tiles, c] each. They come from 4x4 input tiles that overlap by two pixels."""
    _, height, width, channels = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    x = jnp.pad(x, ((0, 0), (1, 1 + 2 * rows - height), (1, 1 + 2 * columns - width), (0, 0)))
    grid = [[strided_view(x, (i, j), rows=rows, columns=columns, stride=2) for j in range(4)] for i in range(4)]
    return [[t.reshape(-1, channels) for t in row] for row in _both(_input, grid)]


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return winograd(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dx = winograd(dy, kernel[::-1, ::-1].swapaxes(2, 3))
    _, height, width, features = dy.shape
    dy = jnp.pad(dy, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    halves = [[dy[:, i::2, j::2].reshape(-1, features) for j in range(2)] for i in range(2)]
    outer = zip(_tiles(x), _both(_output_transposed, halves), strict=True)
    products = [[t.T @ d for t, d in zip(ts, ds, strict=True)] for ts, ds in outer]
    return dx, jnp.stack([jnp.stack(row) for row in _both(_kernel_transposed, products)])


winograd.defvjp(_forward, _backward)
