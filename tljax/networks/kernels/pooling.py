"""The stem's max-pool, whose gradient gathers on a CPU instead of scattering."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from tljax.networks.kernels.windows import interleave, strided_view

TAPS = tuple((i, j) for i in range(3) for j in range(3))


def _pool(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@jax.custom_vjp
def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n oh ow c"]:
    """The maximum of every 3x3 window with stride 2 and one pixel of padding; `oh = (h - 1) // 2 + 1`.

    If several values of a window are the maximum, the gradient goes to the first, row by row, as in Keras and PyTorch.
    XLA's gradient scatters, which is slow on a CPU, so there it gathers. On a TPU v5e, with images of 224x224 pixels,
    gathering would add 29 MB of memory traffic per image to the 273 MB of a training step.
    """
    return _pool(x)


def _forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    y = max_pool(x)
    return y, (x, y)


def _backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array]:
    scatter = lambda x, y, dy: jax.vjp(_pool, x)[1](dy)[0]  # noqa: E731
    return (lax.platform_dependent(*saved, dy, cpu=_gather, default=scatter),)


def _gather(x: Array, y: Array, dy: Array) -> Array:
    _, height, width, _ = x.shape
    rows, columns = y.shape[1:3]
    # On an even side the last window ends at the last pixel, so no padding follows.
    padding = ((0, 0), (1, 2 * rows - height), (1, 2 * columns - width), (0, 0))
    padded = jnp.pad(x, padding, constant_values=-jnp.inf)
    found = jnp.zeros(y.shape, bool)
    parts = {}
    for i, j in TAPS:
        first = (strided_view(padded, (i, j), rows=rows, columns=columns, stride=2) == y) & ~found
        found |= first
        parts[i, j] = jnp.where(first, dy, jnp.zeros((), dy.dtype))

    def before(part: Array, axis: int) -> Array:
        """`part` of the next window along `axis`: an odd position is the last tap here and the first there."""
        size = part.shape[axis]
        shifted = lax.slice_in_dim(part, 1, size, axis=axis)
        return jnp.pad(shifted, [(0, int(a == axis)) for a in range(part.ndim)])

    even_rows = [parts[1, j] for j in range(3)]
    odd_rows = [parts[2, j] + before(parts[0, j], 1) for j in range(3)]
    parities = [[row[1], row[2] + before(row[0], 2)] for row in (even_rows, odd_rows)]
    return interleave(parities, height, width)


max_pool.defvjp(_forward, _backward)
