"""Loss and accuracy as sums over examples, so that parts of any size merge exactly."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Sums(NamedTuple):
    """Sums over the examples that count: cross-entropies (nats), correct predictions, examples."""

    loss: Any
    correct: Any
    examples: Any


def zeros(shape: int | tuple[int, ...], dtype: Any) -> Sums:
    """Sums over nothing, each of `shape`."""
    return Sums(*(jnp.zeros(shape, dtype) for _ in Sums._fields))


def cross_entropy(logits: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """-log softmax(logits)[label] of each example, in nats."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)[:, 0]


def measure(logits: Float[Array, "n classes"], labels: Int[Array, " n"], mask: Bool[Array, " n"]) -> Sums:
    """Sums over the rows where `mask` is true; the others are padding, whatever they hold."""
    losses = jnp.where(mask, cross_entropy(logits, labels), 0)
    correct = mask & (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels)
    return Sums(jnp.sum(losses), jnp.sum(correct.astype(losses.dtype)), jnp.sum(mask.astype(losses.dtype)))


def compute(sums: Sums) -> dict[str, float]:
    """Mean `loss` and `accuracy` over all examples of the sums, numbers or arrays of one each step; these are added in
    double precision.

    Raises:
      ZeroDivisionError: if nothing was counted.
    """
    loss, correct, examples = (float(np.sum(np.asarray(part, np.float64))) for part in sums)
    return {"loss": loss / examples, "accuracy": correct / examples}
