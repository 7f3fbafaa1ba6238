"""Optimizers and their learning rates. Whatever the optimizer, it cannot touch what is frozen.

An optimizer is a row of `OPTIMIZERS`; its settings are fields of `config.Optimizer`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from tljax.config import Optimizer
from tljax.networks.cut import Cut

# From the number of updates done before, int32 or a Python int, to the learning rate of the next one.
Schedule = Callable[[Any], Any]


class Optimization(NamedTuple):
    """How the trainable half is moved."""

    tx: optax.GradientTransformation
    learning_rate: Schedule


def make_optimization(optimizer: Optimizer, cut: Cut, steps: int) -> Optimization:
    """The optimizer of `optimizer.name` for the units from the cut on, and its learning rate over a run of so many
    `steps`.

    The labels are made from whatever tree comes in: a training step passes the trainable half alone; passing the whole
    tree freezes just the same, with exact zeros, and keeps no moments for what is frozen.
    """
    learning_rate = constant(optimizer, steps)
    transforms = {"train": OPTIMIZERS[optimizer.name](optimizer, learning_rate), "freeze": optax.set_to_zero()}
    return Optimization(optax.partition(transforms, cut.labels), learning_rate)


def constant(optimizer: Optimizer, steps: int) -> Schedule:
    """The same rate in every step."""
    return lambda step: optimizer.learning_rate


class KerasAdamState(NamedTuple):
    """Number of updates and the running means of the gradients and of their squares."""

    step: Int[Array, ""]
    mean: Any
    square: Any


def keras_adam(adam: Optimizer, learning_rate: Schedule) -> optax.GradientTransformation:
    """Adam as keras.optimizers.Adam computes it:

        update = -lr * sqrt(1 - beta_2^t) / (1 - beta_1^t) * mean / (sqrt(square) + epsilon)

    optax.adam adds epsilon after the bias correction of `square`, which early in training is another step size. The
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


# By the values of `config.optimizer.name`.
OPTIMIZERS: dict[str, Callable[[Optimizer, Schedule], optax.GradientTransformation]] = {"adam": keras_adam}


def whole_outside(tx: optax.GradientTransformation, sharding: jax.sharding.Sharding) -> optax.GradientTransformation:
    """`tx` with gradients and updates that lie as `sharding` says, however its state is dealt out: the compiler would
    deal out the parameters and the backward pass in the same way."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = tx.update(jax.lax.with_sharding_constraint(grads, sharding), state, params)
        return jax.lax.with_sharding_constraint(updates, sharding), state

    return optax.GradientTransformation(tx.init, update)
