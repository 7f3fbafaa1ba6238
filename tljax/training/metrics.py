"""Loss and accuracy as sums over examples, so that parts of any size merge exactly."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# The class of each example, or a distribution over the classes.
Targets = Int[Array, " n"] | Float[Array, "n classes"]


class Sums(NamedTuple):
    """Sums over the examples that count: cross-entropies (nats), correct predictions, examples."""

    loss: Any
    correct: Any
    examples: Any


def zeros(shape: int | tuple[int, ...], dtype: Any) -> Sums:
    """Sums over nothing, each of `shape`."""
    return Sums(*(jnp.zeros(shape, dtype) for _ in Sums._fields))


def cross_entropy(logits: Float[Array, "n classes"], targets: Targets) -> Float[Array, " n"]:
    """-log softmax(logits)[target] of each example, in nats; of a distribution the mean over its classes."""
    log_probabilities = jax.nn.log_softmax(logits)
    if targets.ndim == 2:
        return -jnp.sum(targets * log_probabilities, axis=-1)
    return -jnp.take_along_axis(log_probabilities, targets[:, None], axis=-1)[:, 0]


def sum_examples(logits: Float[Array, "n classes"], targets: Targets, mask: Bool[Array, " n"]) -> Sums:
    """Sums over the rows where `mask` is true; the others are padding, whatever they hold. A prediction is correct if
    it is the target, or the likeliest class of one that is a distribution."""
    losses = jnp.where(mask, cross_entropy(logits, targets), 0)
    labels = jax.lax.argmax(targets, 1, jnp.int32) if targets.ndim == 2 else targets
    correct = mask & (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels)
    return Sums(jnp.sum(losses), jnp.sum(correct.astype(losses.dtype)), jnp.sum(mask.astype(losses.dtype)))


def means(sums: Sums) -> dict[str, float]:
    """Mean `loss` and `accuracy` over all examples of the sums, numbers or arrays of one each step; these are added in
    double precision.

    Raises:
      ZeroDivisionError: if nothing was counted.
    """
    loss, correct, examples = (float(np.sum(np.asarray(part, np.float64))) for part in sums)
    return {"loss": loss / examples, "accuracy": correct / examples}
