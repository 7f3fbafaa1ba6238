"""The views of the taps of a window, joined, give the map again."""

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.networks.kernels.windows import interleave, strided_view


@pytest.mark.parametrize(("stride", "tap"), [(1, (0, 2)), (2, (1, 0)), (3, (2, 1))])
def test_a_tap_sees_pixels_a_stride_apart(stride, tap):
    x = jnp.arange(2 * 9 * 8 * 3).reshape(2, 9, 8, 3)
    seen = strided_view(x, tap, rows=3, columns=2, stride=stride)
    for row in range(3):
        for column in range(2):
            np.testing.assert_array_equal(seen[:, row, column], x[:, tap[0] + stride * row, tap[1] + stride * column])


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 3), (1, 2)])
def test_the_four_parities_make_the_map(height, width):
    rows, columns = -(-height // 2), -(-width // 2)
    x = jnp.arange(2 * 4 * rows * columns * 3).reshape(2, 2 * rows, 2 * columns, 3)
    parities = [[strided_view(x, (i, j), rows=rows, columns=columns, stride=2) for j in range(2)] for i in range(2)]
    np.testing.assert_array_equal(interleave(parities, height, width), x[:, :height, :width])
