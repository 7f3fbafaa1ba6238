"""Optimizers and their learning rates. No optimizer can change frozen parameters.

An optimizer is an entry of `OPTIMIZERS`, a course of the learning rate one of `SCHEDULES`; their settings are fields of
`config.Optimizer`.
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


def make_optimization(optimizer: Optimizer, cut: Cut, epochs: int, steps: int) -> Optimization:
    """The optimizer `optimizer.name` for the units from the cut on, and its learning rate in a run of so many `epochs`
    of so many `steps`.

    Each leaf of the given tree is labelled "train" or "freeze". A training step passes only the trainable half. With
    the whole tree, frozen leaves get updates of exactly zero, no moments are kept for them, and their gradients do not
    count in the norm that is clipped.
    """
    learning_rate = make_schedule(optimizer, epochs, steps)
    transforms = [OPTIMIZERS[optimizer.name](optimizer, learning_rate)]
    if optimizer.clip_norm is not None:
        transforms.insert(0, optax.clip_by_global_norm(optimizer.clip_norm))
    if optimizer.weight_decay:
        transforms.append(decay_kernels(optimizer.weight_decay, learning_rate))
    if optimizer.layer_decay != 1:
        transforms.append(slow_down(optimizer.layer_decay, cut))
    # A chain would add a level to the state, which the checkpoints of Adam alone do not have.
    train = transforms[0] if len(transforms) == 1 else optax.chain(*transforms)
    return Optimization(optax.partition({"train": train, "freeze": optax.set_to_zero()}, cut.labels), learning_rate)


def make_schedule(optimizer: Optimizer, epochs: int, steps: int) -> Schedule:
    """The learning rate of each step of a run: from 0 up to `optimizer.learning_rate` during the warm-up, then as
    `optimizer.schedule` says, until the last of the `epochs` of `steps` steps has been made."""
    highest, warmup = optimizer.learning_rate, round(optimizer.warmup_epochs * steps)
    if optimizer.schedule == "constant" and not warmup:
        return lambda step: highest
    after = SCHEDULES[optimizer.schedule](highest, max(epochs * steps - warmup, 1))
    # The first step of a warm-up has the rate 0. A single one would change nothing: it has half of the highest.
    rise = optax.linear_schedule(highest / 2 if warmup == 1 else 0.0, highest, warmup)
    course = optax.join_schedules([rise, after], [warmup]) if warmup else after
    return lambda step: course(jnp.asarray(step, float))


def constant(rate: float, steps: int) -> Schedule:
    """The same learning rate in every step."""
    return optax.constant_schedule(rate)


def linear(rate: float, steps: int) -> Schedule:
    """From `rate` down to 0 along a line, as keras.optimizers.schedules.PolynomialDecay with power 1."""
    return optax.linear_schedule(rate, 0.0, steps)


def cosine(rate: float, steps: int) -> Schedule:
    """From `rate` down to 0 along half a cosine (Loshchilov and Hutter, arXiv:1608.03983), as
    keras.optimizers.schedules.CosineDecay."""
    return optax.cosine_decay_schedule(rate, steps)


# Keys are the values of `config.optimizer.schedule`. Each: (highest rate, steps of the run after the warm-up).
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {"constant": constant, "linear": linear, "cosine": cosine}


def decay_kernels(weight_decay: float, learning_rate: Schedule) -> optax.GradientTransformation:
    """Adds -learning_rate * weight_decay * kernel to the updates of kernels: decoupled weight decay (Loshchilov and
    Hutter, arXiv:1711.05101), as in Keras and torch. Biases and BatchNorms do not decay."""

    def is_kernel(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

    return optax.add_decayed_weights(lambda step: -weight_decay * learning_rate(step), mask=is_kernel)


def slow_down(layer_decay: float, cut: Cut) -> optax.GradientTransformation:
    """Multiplies the updates of the head by 1, and those of each unit by `layer_decay` times the factor of the unit
    after it (Bao et al., arXiv:2106.08254)."""
    factors = {unit: layer_decay**distance for distance, unit in enumerate(reversed(cut.units))}

    def scale(updates: Any, params: Any = None) -> Any:
        return {unit: jax.tree.map(lambda u, unit=unit: factors[unit] * u, tree) for unit, tree in updates.items()}

    return optax.stateless(scale)


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
        highest = learning_rate(state.step)

        def change(m: Array, v: Array) -> Array:
            t = step.astype(m.dtype)
            rate = jnp.asarray(highest, m.dtype) * jnp.sqrt(1 - adam.beta_2**t) / (1 - adam.beta_1**t)
            return -rate * m / (jnp.sqrt(v) + adam.epsilon)

        return jax.tree.map(change, mean, square), KerasAdamState(step, mean, square)

    return optax.GradientTransformation(init, update)


def nesterov_sgd(optimizer: Optimizer, learning_rate: Schedule) -> optax.GradientTransformation:
    """Gradient descent with Nesterov's momentum as in torch and optax: the momentum is one of gradients, so that a new
    learning rate holds at once. With a constant rate Keras's is the same."""
    return optax.sgd(learning_rate, optimizer.momentum, nesterov=True)


# Keys are the values of `config.optimizer.name`. AdamW is Adam and weight decay, which `make_optimization` adds.
OPTIMIZERS: dict[str, Callable[[Optimizer, Schedule], optax.GradientTransformation]] = {
    "adam": keras_adam,
    "adamw": keras_adam,
    "sgd": nesterov_sgd,
}


def whole_outside(tx: optax.GradientTransformation, sharding: jax.sharding.Sharding) -> optax.GradientTransformation:
    """`tx` with its gradients and updates constrained to `sharding`, whatever the sharding of its state.

    Without this, the compiler would shard the parameters and the backward pass like the state.
    """

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = tx.update(jax.lax.with_sharding_constraint(grads, sharding), state, params)
        return jax.lax.with_sharding_constraint(updates, sharding), state

    return optax.GradientTransformation(tx.init, update)
