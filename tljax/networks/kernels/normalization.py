"""Normalization with the statistics of a batch. Its gradient reads the activations twice and keeps nothing but them."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


class Statistics(NamedTuple):
    """Mean and (biased) variance of each channel."""

    mean: Float[Array, " c"]
    var: Float[Array, " c"]


def normalize(
    x: Float[Array, "n h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mask: Bool[Array, " n"] | None,
    epsilon: float,
) -> tuple[Float[Array, "n h w c"], Statistics]:
    """`(x - mean) / sqrt(var + epsilon) * scale + bias` in `x`'s dtype, and the statistics in `scale`'s.

    Mean and variance are those of all positions of the rows where `mask` is true (None: all rows). The gradient takes
    into account that they depend on `x`; the statistics that are returned have none.
    """
    n, height, width, _ = x.shape
    rows = jnp.ones(n, scale.dtype) if mask is None else mask.astype(scale.dtype)
    weights = rows / jnp.maximum(jnp.sum(rows) * (height * width), 1)
    y, statistics = _normalize(x, scale, bias, weights.reshape(-1, 1, 1, 1), epsilon)
    return y, lax.stop_gradient(statistics)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalize(x: Array, scale: Array, bias: Array, weights: Array, epsilon: float) -> tuple[Array, Statistics]:
    """`weights` [n 1 1 1] are what a position of each row counts in the mean."""
    statistics = _measure(x.astype(scale.dtype), weights, narrow=x.dtype.itemsize < 4)
    factor = scale * lax.rsqrt(statistics.var + epsilon)
    y = (x.astype(scale.dtype) - _wide(statistics.mean)) * _wide(factor) + _wide(bias)
    return y.astype(x.dtype), statistics


def _measure(x: Array, weights: Array, narrow: bool) -> Statistics:
    """16-bit numbers are read once, for the means of themselves and of their squares: the subtraction loses little
    precision compared with the rounding to 16 bits before it. Others are read once more, for the variance."""
    mean = _sum(x * weights)
    if narrow:
        return Statistics(mean, jnp.maximum(_sum(jnp.square(x) * weights) - jnp.square(mean), 0))
    return Statistics(mean, _sum(jnp.square(x - _wide(mean)) * weights))


def _sum(x: Array) -> Array:
    return jnp.sum(x, axis=(0, 1, 2))


def _wide(values: Array) -> Array:
    return values.reshape(1, 1, 1, -1)


_Saved = tuple[Array, Array, Array, Statistics]


def _forward(
    x: Array, scale: Array, bias: Array, weights: Array, epsilon: float
) -> tuple[tuple[Array, Statistics], _Saved]:
    y, statistics = _normalize(x, scale, bias, weights, epsilon)
    return (y, statistics), (x, scale, weights, statistics)


def _backward(epsilon: float, saved: _Saved, cotangents: tuple[Array, Statistics]) -> tuple[Array, Array, Array, Array]:
    """The gradient of Ioffe and Szegedy, "Batch Normalization", arXiv:1502.03167, section 3, with a weight a row."""
    x, scale, weights, (mean, var) = saved
    dy = cotangents[0].astype(scale.dtype)
    inverse = lax.rsqrt(var + epsilon)
    normal = (x.astype(scale.dtype) - _wide(mean)) * _wide(inverse)
    d_bias, d_scale = _sum(dy), _sum(dy * normal)
    dx = (dy - weights * (_wide(d_bias) + normal * _wide(d_scale))) * _wide(scale * inverse)
    return dx.astype(x.dtype), d_scale, d_bias, jnp.zeros_like(weights)


_normalize.defvjp(_forward, _backward)
