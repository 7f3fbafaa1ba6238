"""Loss and accuracy as sums over examples, so that parts of any size merge exactly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Sums(NamedTuple):
    """Sums over the examples that count: cross-entropies (nats), correct predictions, examples."""

    loss: Array | float
    correct: Array | float
    examples: Array | float


ZERO = Sums(0.0, 0.0, 0.0)


def cross_entropy(logits: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """-log softmax(logits)[label] of each example, in nats."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)[:, 0]


def measure(logits: Float[Array, "n classes"], labels: Int[Array, " n"], mask: Bool[Array, " n"]) -> Sums:
    """Sums over the rows where `mask` is true; the others are padding, whatever they hold."""
    losses = jnp.where(mask, cross_entropy(logits, labels), 0)
    correct = mask & (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels)
    return Sums(jnp.sum(losses), jnp.sum(correct.astype(losses.dtype)), jnp.sum(mask.astype(losses.dtype)))


def merge(a: Sums, b: Sums) -> Sums:
    """Sums over the examples of both, in double precision on the host."""
    return Sums(*(float(x) + float(y) for x, y in zip(a, b, strict=True)))


def compute(sums: Sums) -> dict[str, float]:
    """Mean `loss` and `accuracy`.

    Raises:
      ZeroDivisionError: if nothing was counted.
    """
    examples = float(sums.examples)
    return {"loss": float(sums.loss) / examples, "accuracy": float(sums.correct) / examples}
