"""Optimizers compute the same as Keras's, and frozen leaves get updates of exactly zero."""

import subprocess
import sys
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.config import OPTIMIZER_USES, Optimizer
from tljax.networks.architectures import RESNET50
from tljax.networks.cut import Cut
from tljax.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    KerasAdamState,
    keras_adam,
    make_optimization,
    make_schedule,
    whole_outside,
)


def make_adam(**settings) -> optax.GradientTransformation:
    optimizer = Optimizer(**settings)
    return keras_adam(optimizer, lambda step: optimizer.learning_rate)


def partitioned_adam(cut: str | None, **settings) -> optax.GradientTransformation:
    return make_optimization(Optimizer(**settings), Cut(RESNET50.units, cut), 1, 1).tx


# Twenty steps of both optimizers down a quadratic, in float64, with every setting that Keras has too. The first
# coordinate of each leaf has a gradient that starts near epsilon.
COMPARE_WITH_KERAS = """
import os
os.environ["KERAS_BACKEND"] = "jax"
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
import jax.numpy as jnp
import keras
import numpy as np
import optax
from tljax.config import Optimizer
from tljax.networks.cut import Cut
from tljax.training.optimizers import make_optimization

keras.config.set_floatx("float64")
EPOCHS, STEPS = 4, 5
scale = np.array([1e-4, 1.0, 100.0, 0.0])
start = {"conv1": {"conv": {"kernel": [1e-3, 1.0, -2.0, 5.0], "bias": [1e-3, -1.0, 2.0, 3.0]}},
         "head": {"kernel": [2e-3, 3.0, 1.0, -4.0]}}
start = jax.tree.map(np.array, start, is_leaf=lambda x: isinstance(x, list))


def make_rate(o):
    warmup = round(o.warmup_epochs * STEPS)
    if o.schedule == "cosine":
        first, target = (0.0, o.learning_rate) if warmup else (o.learning_rate, None)
        return keras.optimizers.schedules.CosineDecay(
            first, EPOCHS * STEPS - warmup, warmup_target=target, warmup_steps=warmup)
    if o.schedule == "linear":
        return keras.optimizers.schedules.PolynomialDecay(o.learning_rate, EPOCHS * STEPS, 0.0)
    return o.learning_rate


def make_peer(o):
    common = {"global_clipnorm": o.clip_norm}
    adam = {"beta_1": o.beta_1, "beta_2": o.beta_2, "epsilon": o.epsilon}
    if o.name == "adam":
        return keras.optimizers.Adam(make_rate(o), **adam, **common)
    if o.name == "adamw":
        return keras.optimizers.AdamW(make_rate(o), weight_decay=o.weight_decay, **adam, **common)
    return keras.optimizers.SGD(
        make_rate(o), momentum=o.momentum, nesterov=True, weight_decay=o.weight_decay or None, **common)


def compare(o):
    peer = make_peer(o)
    variables = [keras.Variable(x, dtype="float64", name=path[-1].key)
                 for path, x in jax.tree_util.tree_leaves_with_path(start)]
    if o.weight_decay:
        peer.exclude_from_weight_decay(var_names=["bias"])
    peer.build(variables)
    tx, rate = make_optimization(o, Cut(("conv1", "head"), "conv1"), EPOCHS, STEPS)
    params = jax.tree.map(jnp.asarray, start)
    state = tx.init(params)
    # Keras computes the cosine's angle in float32.
    near = {"rtol": 1e-7, "atol": 1e-8} if o.schedule == "cosine" else {"rtol": 1e-12, "atol": 1e-16}
    for step in range(EPOCHS * STEPS):
        with jax.numpy_dtype_promotion("standard"):
            np.testing.assert_allclose(rate(step), peer.learning_rate, **near, err_msg=f"{o} step {step}")
            peer.apply([jnp.asarray(scale * np.asarray(v.value)) for v in variables])
        updates, state = tx.update(jax.tree.map(lambda p: scale * p, params), state, params)
        params = optax.apply_updates(params, updates)
        for mine, theirs in zip(jax.tree.leaves(params), variables, strict=True):
            assert mine.dtype == theirs.value.dtype == jnp.float64
            np.testing.assert_allclose(mine, theirs.value, **near, err_msg=f"{o} step {step}")
    assert all(np.abs(np.asarray(p) - s).max() > 1e-4 for p, s in zip(*map(jax.tree.leaves, (params, start))))
    still = np.array([np.asarray(p)[3] == s[3] for p, s in zip(*map(jax.tree.leaves, (params, start)))])
    # bias, kernel, kernel: without a gradient only a kernel with weight decay moves.
    assert still.tolist() == [True, not o.weight_decay, not o.weight_decay], (o, still)


others = {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-2}
for o in (
    Optimizer(),
    Optimizer(**others),
    Optimizer(beta_1=0.0, epsilon=1e-7),
    Optimizer(clip_norm=0.5, schedule="linear"),
    Optimizer(name="adamw", weight_decay=0.1, learning_rate=0.01),
    Optimizer(name="adamw", weight_decay=0.1, clip_norm=3.0, schedule="cosine", warmup_epochs=0.6, **others),
    Optimizer(name="sgd", learning_rate=1e-3),
    Optimizer(name="sgd", learning_rate=1e-3, momentum=0.8, weight_decay=0.5, clip_norm=2.0),
    Optimizer(name="sgd", momentum=0.0, schedule="cosine", weight_decay=0.1),
):
    o.check()
    compare(o)
print("equal")
"""


def test_twenty_steps_are_those_of_keras():
    done = subprocess.run([sys.executable, "-c", COMPARE_WITH_KERAS], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "equal", done.stderr


# torch.optim.SGD with nesterov=True, by its documentation: v = m * v + g; p -= rate * (g + m * v).
def test_under_a_schedule_the_momentum_is_one_of_gradients_as_in_torch():
    sgd = Optimizer(name="sgd", learning_rate=0.1, schedule="cosine", warmup_epochs=1)
    tx, rate = make_optimization(sgd, Cut(RESNET50.units, "head"), 4, 5)
    scale = np.float64([1.0, 5.0, 0.1])
    params = {"head": {"kernel": jnp.float32([1.0, -1.0, 2.0])}}
    peer, velocity, state = np.float64([1.0, -1.0, 2.0]), np.zeros(3), tx.init(params)
    for step in range(20):
        gradient = scale * peer
        velocity = 0.9 * velocity + gradient
        peer -= float(rate(step)) * (gradient + 0.9 * velocity)
        updates, state = tx.update(jax.tree.map(lambda p: np.float32(scale) * p, params), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["head"]["kernel"], peer, rtol=1e-4, atol=1e-6)


def first_update(tx, gradient: float) -> float:
    params = jnp.zeros((1,))
    return float(tx.update(jnp.full((1,), gradient), tx.init(params), params)[0][0])


# At step 1 the mean is (1 - beta_1) * g and the square (1 - beta_2) * g * g, so with g = 1 Keras moves by
# -lr * sqrt(0.001) / 0.1 * 0.1 / (sqrt(0.001) + epsilon) and optax by -lr / (1 + epsilon).
@pytest.mark.parametrize(("epsilon", "moved"), [(1e-7, -0.99999684), (1e-2, -0.75974693), (1.0, -0.03065343)])
def test_epsilon_is_added_to_the_uncorrected_root(epsilon, moved):
    assert first_update(make_adam(learning_rate=1.0, epsilon=epsilon), 1.0) == pytest.approx(moved, rel=1e-5)


def test_a_large_epsilon_moves_otherwise_than_in_optax():
    with jax.numpy_dtype_promotion("standard"):
        assert first_update(optax.adam(1.0, eps=1.0), 1.0) == pytest.approx(-0.5, rel=1e-5)
    assert first_update(make_adam(learning_rate=1.0, epsilon=1.0), 1.0) == pytest.approx(-0.03065343, rel=1e-5)


def test_mean_and_square_are_buffers_of_their_own():
    state = make_adam().init({"kernel": jnp.ones((2, 3))})
    assert state.mean["kernel"].unsafe_buffer_pointer() != state.square["kernel"].unsafe_buffer_pointer()


PARAMS = {
    "conv1": {"conv": {"kernel": jnp.ones((2, 3))}},
    "conv5_block1": {"1_bn": {"scale": jnp.ones((3,))}},
    "head": {"bias": jnp.ones((4,))},
}
GRADS = jax.tree.map(lambda x: 0.5 * x, PARAMS)


@pytest.mark.parametrize(
    ("cut", "frozen"),
    [
        ("conv1", set()),
        ("conv5_block1", {"conv1"}),
        ("head", {"conv1", "conv5_block1"}),
        (None, {"conv1", "conv5_block1", "head"}),
    ],
)
def test_of_the_whole_tree_frozen_leaves_get_exact_zeros(cut, frozen):
    tx = partitioned_adam(cut)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert {unit for unit in PARAMS if all(bool(jnp.all(x == 0)) for x in jax.tree.leaves(updates[unit]))} == frozen
    for unit in PARAMS.keys() - frozen:
        for update in jax.tree.leaves(updates[unit]):
            np.testing.assert_allclose(update, -1e-3, rtol=1e-4)


def test_a_frozen_gradient_that_is_nan_still_gives_zero():
    tx = partitioned_adam("head")
    grads = GRADS | {"conv1": {"conv": {"kernel": jnp.full((2, 3), jnp.nan)}}}
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["conv1"]["conv"]["kernel"], 0)
    np.testing.assert_allclose(updates["head"]["bias"], -1e-3, rtol=1e-4)


def adam_state(state: optax.OptState):
    return state.inner_states["train"].inner_state


def test_frozen_leaves_have_no_moments():
    state = adam_state(partitioned_adam("conv5_block1").init(PARAMS))
    for moment in (state.mean, state.square):
        assert isinstance(moment["conv1"]["conv"]["kernel"], optax.MaskedNode)
        assert [x.shape for x in jax.tree.leaves(moment)] == [(3,), (4,)]


def test_the_trainable_half_alone_is_updated_as_within_the_whole():
    tx = partitioned_adam("conv5_block1")
    half, half_grads = ({unit: tree[unit] for unit in ("conv5_block1", "head")} for tree in (PARAMS, GRADS))
    state, half_state = tx.init(PARAMS), tx.init(half)
    for _ in range(3):
        updates, state = tx.update(GRADS, state, PARAMS)
        half_updates, half_state = tx.update(half_grads, half_state, half)
        assert half_updates.keys() == half.keys()
        jax.tree.map(np.testing.assert_array_equal, half_updates, {unit: updates[unit] for unit in half})
    assert int(adam_state(half_state).step) == int(adam_state(state).step) == 3


def test_the_rate_is_that_of_the_config_in_every_step():
    _, rate = make_optimization(Optimizer(learning_rate=3e-4), Cut(RESNET50.units, "head"), 1, 100)
    assert [rate(step) for step in (0, 1, 99)] == [3e-4] * 3


def test_every_choice_of_the_config_is_a_row():
    assert set(OPTIMIZERS) == set(OPTIMIZER_USES) == set(get_args(get_type_hints(Optimizer)["name"]))
    assert set(SCHEDULES) == set(get_args(get_type_hints(Optimizer)["schedule"]))


# The state of Adam alone is that of earlier checkpoints.
def test_settings_that_are_not_asked_for_add_nothing():
    assert isinstance(adam_state(partitioned_adam("head").init(PARAMS)), KerasAdamState)


@pytest.mark.parametrize(("schedule", "half", "end"), [("constant", 1, 1), ("linear", 0.5, 0), ("cosine", 0.5, 0)])
@pytest.mark.parametrize("warmup", [0, 0.5, 1])
def test_rates_rise_during_the_warm_up_and_fall_until_the_last_epoch(schedule, half, end, warmup):
    optimizer = Optimizer(learning_rate=0.2, schedule=schedule, warmup_epochs=warmup)
    rate = make_schedule(optimizer, epochs=3, steps=100)
    rises = int(warmup * 100)
    np.testing.assert_allclose(
        [float(rate(i)) for i in range(rises)], 0.2 * np.arange(rises) / max(rises, 1), atol=1e-7
    )
    left = 300 - rises
    found = [float(rate(rises + step)) for step in (0, left // 2, left, left + 50)]
    np.testing.assert_allclose(found, [0.2, 0.2 * half, 0.2 * end, 0.2 * end], atol=1e-7)


def test_a_warm_up_of_one_step_trains():
    rate = make_schedule(Optimizer(learning_rate=0.2, schedule="linear", warmup_epochs=0.01), epochs=3, steps=100)
    np.testing.assert_allclose([float(rate(i)) for i in (0, 1, 300)], [0.1, 0.2, 0.0], atol=1e-7)
    two = make_schedule(Optimizer(learning_rate=0.2, warmup_epochs=0.02), epochs=3, steps=100)
    np.testing.assert_allclose([float(two(i)) for i in (0, 1, 2)], [0.0, 0.1, 0.2], atol=1e-7)


# Each unit as if it were trained alone, at its own rate.
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_layer_decay_gives_each_unit_its_own_rate(name):
    decay = {"weight_decay": 0.1} if name != "adam" else {}
    units, rate = ("conv1", "conv5_block1", "head"), 0.02
    slowed = Optimizer(name=name, learning_rate=rate, layer_decay=0.5, **decay)
    tx, _ = make_optimization(slowed, Cut(units, "conv1"), 1, 10)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
    for unit, factor in zip(units, (0.25, 0.5, 1.0), strict=True):
        alone, _ = make_optimization(
            Optimizer(name=name, learning_rate=rate * factor, **decay), Cut(units, "conv1"), 1, 10
        )
        own = {unit: PARAMS[unit]}
        its_state = alone.init(own)
        for _ in range(3):
            updates, its_state = alone.update(own, its_state, own)
            own = optax.apply_updates(own, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), own[unit], params[unit])


def test_frozen_gradients_do_not_count_in_the_norm():
    tx, _ = make_optimization(
        Optimizer(name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=1.0), Cut(RESNET50.units, "head"), 1, 1
    )
    grads = {"conv1": {"conv": {"kernel": jnp.full((2, 3), 1e6)}}, "head": {"bias": jnp.float32([3.0, 4.0])}}
    updates, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_allclose(updates["head"]["bias"], [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("cut", ["conv5_block1", "head"])
def test_no_optimizer_touches_what_is_frozen(name, cut):
    cut = Cut(RESNET50.units, cut)
    decay = {"weight_decay": 0.1} if name != "adam" else {}
    tx, _ = make_optimization(Optimizer(name=name, layer_decay=0.9, clip_norm=1.0, **decay), cut, 1, 10)
    updates, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    moved = {unit for unit in PARAMS if any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(updates[unit]))}
    assert moved == {unit for unit in PARAMS if not cut.freezes(unit)}
    shapes = {x.shape for unit in PARAMS if cut.freezes(unit) for x in jax.tree.leaves(PARAMS[unit])}
    assert not shapes & {x.shape for x in jax.tree.leaves(state)}, "the optimizer keeps no state for what is frozen"


def test_an_optimizer_is_a_row_that_is_given_the_rate_of_each_step(monkeypatch):
    """A made-up optimizer whose every update is minus the learning rate."""

    def row(optimizer, learning_rate):
        def update(grads, count, params=None):
            return jax.tree.map(lambda g: jnp.full_like(g, -learning_rate(int(count))), grads), count + 1

        return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)

    monkeypatch.setitem(OPTIMIZERS, "adam", row)
    tx, _ = make_optimization(Optimizer(learning_rate=0.5), Cut(RESNET50.units, "head"), 1, 10)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["head"]["bias"], -0.5)
    np.testing.assert_array_equal(updates["conv1"]["conv"]["kernel"], 0)


def test_an_optimizer_that_is_dealt_out_gives_the_same_updates():
    tx = partitioned_adam("conv1")
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    updates, _ = jax.jit(lambda g: tx.update(g, tx.init(PARAMS), PARAMS))(GRADS)
    others, _ = jax.jit(lambda g: whole_outside(tx, sharding).update(g, tx.init(PARAMS), PARAMS))(GRADS)
    jax.tree.map(np.testing.assert_array_equal, others, updates)
