"""Optimizers and their learning rates. No optimizer can change frozen parameters.

An optimizer is an entry of `OPTIMIZERS`; its settings are fields of `config.Optimizer`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from tljax.config import Optimizer
from tljax.networks.cut import Cut

# Number of updates so far (int32 or a Python int) -> learning rate of the next update.
Schedule = Callable[[Any], Any]


class Optimization(NamedTuple):
    """The optimizer of the trainable units, and its learning rate."""

    tx: optax.GradientTransformation
    learning_rate: Schedule


def make_optimization(optimizer: Optimizer, cut: Cut, steps: int) -> Optimization:
    """The optimizer `optimizer.name` for the units from the cut on, and its learning rate in a run of `steps` steps.

    Each leaf of the given tree is labelled "train" or "freeze". A training step passes only the trainable half. With
    the whole tree, frozen leaves get updates of exactly zero, and no moments are kept for them.
    """
    learning_rate = constant(optimizer, steps)
    transforms = {"train": OPTIMIZERS[optimizer.name](optimizer, learning_rate), "freeze": optax.set_to_zero()}
    return Optimization(optax.partition(transforms, cut.labels), learning_rate)


def constant(optimizer: Optimizer, steps: int) -> Schedule:
    """The same learning rate in every step."""
    return lambda step: optimizer.learning_rate


class KerasAdamState(NamedTuple):
    """Number of updates and the running means of the gradients and of their squares."""

    step: Int[Array, ""]
    mean: Any
    square: Any


def keras_adam(adam: Optimizer, learning_rate: Schedule) -> optax.GradientTransformation:
    """Adam as keras.optimizers.Adam computes it:

        update = -lr * sqrt(1 - beta_2^t) / (1 - beta_1^t) * mean / (sqrt(square) + epsilon)

    optax.adam adds epsilon after the bias correction of `square`, which gives other step sizes early in training. The
    formula is the one "just before Section 2.1" of Kingma and Ba (arXiv:1412.6980), which Keras cites.
    """

    def init(params: Any) -> KerasAdamState:
        # Two trees, not one twice: a buffer can be donated only once.
        mean, square = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return KerasAdamState(jnp.zeros((), jnp.int32), mean, square)

    def update(grads: Any, state: KerasAdamState, params: Any = None) -> tuple[Any, KerasAdamState]:
        step = state.step + 1
        mean = jax.tree.map(lambda m, g: m + (g - m) * (1 - adam.beta_1), state.mean, grads)
        square = jax.tree.map(lambda v, g: v + (g * g - v) * (1 - adam.beta_2), state.square, grads)

        def change(m: Array, v: Array) -> Array:
            t = step.astype(m.dtype)
            rate = learning_rate(state.step) * jnp.sqrt(1 - adam.beta_2**t) / (1 - adam.beta_1**t)
            return -rate * m / (jnp.sqrt(v) + adam.epsilon)

        return jax.tree.map(change, mean, square), KerasAdamState(step, mean, square)

    return optax.GradientTransformation(init, update)


# Keys are the values of `config.optimizer.name`.
OPTIMIZERS: dict[str, Callable[[Optimizer, Schedule], optax.GradientTransformation]] = {"adam": keras_adam}


def whole_outside(tx: optax.GradientTransformation, sharding: jax.sharding.Sharding) -> optax.GradientTransformation:
    """`tx` with its gradients and updates constrained to `sharding`, whatever the sharding of its state.

    Without this, the compiler would shard the parameters and the backward pass like the state.
    """

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = tx.update(jax.lax.with_sharding_constraint(grads, sharding), state, params)
        return jax.lax.with_sharding_constraint(updates, sharding), state

    return optax.GradientTransformation(tx.init, update)
