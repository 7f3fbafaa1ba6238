"""Loss and accuracy as sums over examples, so that batches of any size can be merged exactly."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# For each example its class, or a distribution over the classes.
Targets = Int[Array, " n"] | Float[Array, "n classes"]


class Sums(NamedTuple):
    """Sums over examples, padding left out: cross-entropies (nats), correct predictions, number of examples."""

    loss: Any
    correct: Any
    examples: Any


def zeros(shape: int | tuple[int, ...], dtype: Any) -> Sums:
    """Sums over no examples: zeros of `shape`."""
    return Sums(*(jnp.zeros(shape, dtype) for _ in Sums._fields))


def cross_entropy(logits: Float[Array, "n classes"], targets: Targets) -> Float[Array, " n"]:
    """-log softmax(logits)[target] of each example, in nats; for a distribution, its mean over the target classes."""
    log_probabilities = jax.nn.log_softmax(logits)
    if targets.ndim == 2:
        return -jnp.sum(targets * log_probabilities, axis=-1)
    return -jnp.take_along_axis(log_probabilities, targets[:, None], axis=-1)[:, 0]


def sum_examples(logits: Float[Array, "n classes"], targets: Targets, mask: Bool[Array, " n"]) -> Sums:
    """Sums over the rows where `mask` is true; the others are padding, and their values do not matter.

    A prediction is correct if it equals the target or, if the target is a distribution, its most likely class.
    """
    losses = jnp.where(mask, cross_entropy(logits, targets), 0)
    labels = jax.lax.argmax(targets, 1, jnp.int32) if targets.ndim == 2 else targets
    correct = mask & (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels)
    return Sums(jnp.sum(losses), jnp.sum(correct.astype(losses.dtype)), jnp.sum(mask.astype(losses.dtype)))


def means(sums: Sums) -> dict[str, float]:
    """Mean `loss` and `accuracy` over all examples. `sums` holds numbers, or arrays with one number per step, which are
    added in float64.

    Raises:
      ZeroDivisionError: if there are no examples.
    """
    loss, correct, examples = (float(np.sum(np.asarray(part, np.float64))) for part in sums)
    return {"loss": loss / examples, "accuracy": correct / examples}
