"""Broadcasts one number per channel to all positions, with a gradient that a CPU sums fast."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def spread(values: Float[Array, " c"], shape: tuple[int, ...]) -> Float[Array, "... c"]:
    """Broadcasts `values` to an array of `shape`, whose last axis is the channels.

    The gradient sums over all positions. On a CPU the sum is a matrix product with ones: XLA's own sum down the columns
    of a 1024 x 2048 matrix takes 33 ms on 2 cores of an AMD EPYC, longer than multiplying that matrix with 256 rows.
    """
    return jnp.broadcast_to(values, shape)


def _forward(values: Array, shape: tuple[int, ...]) -> tuple[Array, None]:
    return spread(values, shape), None


def _backward(shape: tuple[int, ...], _: None, dy: Array) -> tuple[Array]:
    rows = dy.reshape(-1, shape[-1])
    as_product = lambda rows: (jnp.ones((1, len(rows)), rows.dtype) @ rows)[0]  # noqa: E731
    return (lax.platform_dependent(rows, cpu=as_product, default=lambda rows: jnp.sum(rows, axis=0)),)


spread.defvjp(_forward, _backward)
