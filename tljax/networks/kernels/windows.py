"""The inputs that one tap of a sliding window reads, and maps joined from their even and odd rows and columns."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float


def strided_view(
    x: Float[Array, "n h w c"], tap: tuple[int, int], *, rows: int, columns: int, stride: int
) -> Float[Array, "n rows columns c"]:
    """The values that `tap` of a window reads at `rows` x `columns` positions, `stride` apart, of a padded `x`."""
    i, j = tap
    return x[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]


def interleave(parities: Sequence[Sequence[Array]], height: int, width: int) -> Float[Array, "n h w c"]:
    """Joins four maps: `parities[i][j]` holds the rows of parity i and columns of parity j (0 even, 1 odd).

    Each of the four has the shape [n, ceil(h/2), ceil(w/2), c].
    """
    n, rows, columns, channels = parities[0][0].shape
    grid = jnp.stack([jnp.stack(row, axis=3) for row in parities], axis=2)
    return grid.reshape(n, 2 * rows, 2 * columns, channels)[:, :height, :width]
