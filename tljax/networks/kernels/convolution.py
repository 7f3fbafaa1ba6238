"""The convolution of every unit, in the form that is fastest on each backend."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from tljax.networks.kernels.windows import strided_view
from tljax.networks.kernels.winograd import winograd

# From this side on, XLA's convolution beats the product over shifted copies. On 2 cores of an AMD EPYC the two take 14
# and 45 ms for a 7x7 kernel on 256 images of 32x32; 5.7 and 7.4 ms for a 3x3 kernel with stride 2 on 16 maps of 28x28;
# 5.9 and 5.4 ms for the same kernel on 16 maps of 14x14.
LARGE_SIDE = 28


def convolution(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c f"], *, stride: int, padding: int
) -> Float[Array, "n oh ow f"]:
    """Cross-correlates NHWC images with an HWIO kernel, after `padding` zeros on every side.

    The form depends on the platform that the program is compiled for, not on the machine that compiles it. A CPU takes
    matrix products: Winograd's for a 3x3 kernel with stride 1, else one product over shifted copies of the input. It
    takes XLA's convolution only where the copies would take longer than the product (`LARGE_SIDE`), or where numbers
    have fewer than 32 bits, which Winograd's sums would round too much. Other platforms always take XLA's convolution.
    All forms give the same result up to rounding; a TPU or GPU computes float32 in full precision too.
    Output side: `(h + 2 * padding - kh) // stride + 1`.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_as_product if x.dtype.itemsize >= 4 else _as_convolution, stride=stride, padding=padding),
        default=partial(_as_convolution, stride=stride, padding=padding),
    )


def _as_convolution(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def _as_product(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    _, height, width, _ = x.shape
    if kernel.shape[:2] == (3, 3) and (stride, padding) == (1, 1) and min(height, width) > 1:
        # On a 2x2 map every output position reads every input position: one dense product wastes nothing.
        return _unrolled(x, kernel) if (height, width) == (2, 2) else winograd(x, kernel)
    if kernel.shape[0] > 1 and min(height, width) >= LARGE_SIDE:
        return _on_large_map(x, kernel, stride, padding)
    return _as_patches(x, kernel, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _on_large_map(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """XLA's convolution forward; the gradients are matrix products, which are faster on large maps too."""
    return _as_convolution(x, kernel, stride=stride, padding=padding)


def _forward_on_large_map(x: Array, kernel: Array, stride: int, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return _on_large_map(x, kernel, stride, padding), (x, kernel)


def _backward_on_large_map(stride: int, padding: int, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    return jax.vjp(partial(_as_patches, stride=stride, padding=padding), *saved)[1](dy)


_on_large_map.defvjp(_forward_on_large_map, _backward_on_large_map)


def _unrolled(x: Array, kernel: Array) -> Array:
    """The 3x3 convolution of a 2x2 map as one matrix product, [n, 4c] @ [4c, 4f]."""
    n, height, width, _ = x.shape
    return (x.reshape(n, -1) @ _unroll(kernel)).reshape(n, height, width, -1)


# The positions of a 2x2 map; and for each tap of a 3x3 kernel the pairs (input, output) of positions that it connects.
PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))
PAIRS = {
    (i, j): [
        (a, b)
        for a in range(4)
        for b in range(4)
        if (PLACES[a][0] - PLACES[b][0] + 1, PLACES[a][1] - PLACES[b][1] + 1) == (i, j)
    ]
    for i in range(3)
    for j in range(3)
}


@jax.custom_vjp
def _unroll(kernel: Array) -> Array:
    taps = {pair: kernel[tap] for tap, pairs in PAIRS.items() for pair in pairs}
    return jnp.concatenate([jnp.concatenate([taps[a, b] for b in range(4)], axis=1) for a in range(4)])


def _backward_of_unroll(_: None, dy: Array) -> tuple[Array]:
    """Sums the blocks that belong to one tap. JAX's own gradient would pad each block to the whole kernel first."""
    blocks = [jnp.split(rows, 4, axis=1) for rows in jnp.split(dy, 4)]
    return (jnp.stack([jnp.stack([sum(blocks[a][b] for a, b in PAIRS[i, j]) for j in range(3)]) for i in range(3)]),)


_unroll.defvjp(lambda kernel: (_unroll(kernel), None), _backward_of_unroll)


def _as_patches(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    n, height, width, _ = x.shape
    size_h, size_w, _, features = kernel.shape
    out_h = (height + 2 * padding - size_h) // stride + 1
    out_w = (width + 2 * padding - size_w) // stride + 1
    # On small maps most taps of a 3x3 kernel read nothing but padding: their products are zero and are left out.
    rows = _taps_that_see_the_image(size_h, height, out_h, stride, padding)
    columns = _taps_that_see_the_image(size_w, width, out_w, stride, padding)
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    shifted = [strided_view(x, (i, j), rows=out_h, columns=out_w, stride=stride) for i in rows for j in columns]
    patches = jnp.concatenate(shifted, axis=-1).reshape(n * out_h * out_w, -1)
    weights = kernel[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].reshape(-1, features)
    return (patches @ weights).reshape(n, out_h, out_w, features)


def _taps_that_see_the_image(taps: int, side: int, out: int, stride: int, padding: int) -> range:
    """The taps along one axis that overlap the image at some output position; they are contiguous."""
    seeing = [t for t in range(taps) if any(0 <= o * stride + t - padding < side for o in range(out))]
    return range(seeing[0], seeing[-1] + 1)
