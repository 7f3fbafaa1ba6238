"""Adam computes the same as Keras's Adam, and frozen leaves get updates of exactly zero."""

import subprocess
import sys
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.config import OPTIMIZER_USES, Optimizer
from tljax.networks.cut import Cut
from tljax.networks.resnet import RESNET50
from tljax.training.optimizers import OPTIMIZERS, constant, keras_adam, make_optimization, whole_outside


def make_adam(**settings) -> optax.GradientTransformation:
    optimizer = Optimizer(**settings)
    return keras_adam(optimizer, constant(optimizer, 1))


def partitioned_adam(cut: str | None, **settings) -> optax.GradientTransformation:
    return make_optimization(Optimizer(**settings), Cut(RESNET50.units, cut), 1).tx


# Twenty steps of both optimizers down a quadratic, in float64. One coordinate's gradient starts near epsilon.
COMPARE_WITH_KERAS = """
import os
os.environ["KERAS_BACKEND"] = "jax"
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import keras
import numpy as np
import optax
from tljax.config import Optimizer
from tljax.training.optimizers import constant, keras_adam

keras.config.set_floatx("float64")
scale, start = np.array([1.0, 100.0, 1e-4, 0.0]), np.array([1.0, -2.0, 1e-3, 5.0])
others = {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-2}
for adam in (Optimizer(), Optimizer(**others), Optimizer(beta_1=0.0, epsilon=1e-7)):
    peer = keras.optimizers.Adam(adam.learning_rate, adam.beta_1, adam.beta_2, adam.epsilon)
    variable = keras.Variable(start, dtype="float64")
    peer.build([variable])
    tx, params = keras_adam(adam, constant(adam, 20)), jnp.asarray(start)
    state = tx.init(params)
    for step in range(20):
        peer.apply([jnp.asarray(scale * np.asarray(variable.value))])
        updates, state = tx.update(scale * params, state)
        params = optax.apply_updates(params, updates)
        assert params.dtype == variable.value.dtype == jnp.float64
        np.testing.assert_allclose(params, variable.value, rtol=1e-12, atol=0, err_msg=f"{adam} step {step}")
    assert np.abs(np.asarray(params)[:3] - start[:3]).min() > 1e-5
print("equal")
"""


def test_twenty_steps_are_those_of_keras():
    done = subprocess.run([sys.executable, "-c", COMPARE_WITH_KERAS], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "equal", done.stderr


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
    _, rate = make_optimization(Optimizer(learning_rate=3e-4), Cut(RESNET50.units, "head"), 100)
    assert [rate(step) for step in (0, 1, 99)] == [3e-4] * 3


def test_every_choice_of_the_config_is_a_row():
    assert set(OPTIMIZERS) == set(OPTIMIZER_USES) == set(get_args(get_type_hints(Optimizer)["name"]))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("cut", ["conv5_block1", "head"])
def test_no_optimizer_touches_what_is_frozen(name, cut):
    cut = Cut(RESNET50.units, cut)
    tx, _ = make_optimization(Optimizer(name=name), cut, 10)
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
    tx, _ = make_optimization(Optimizer(learning_rate=0.5), Cut(RESNET50.units, "head"), 10)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["head"]["bias"], -0.5)
    np.testing.assert_array_equal(updates["conv1"]["conv"]["kernel"], 0)


def test_an_optimizer_that_is_dealt_out_gives_the_same_updates():
    tx = partitioned_adam("conv1")
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    updates, _ = jax.jit(lambda g: tx.update(g, tx.init(PARAMS), PARAMS))(GRADS)
    others, _ = jax.jit(lambda g: whole_outside(tx, sharding).update(g, tx.init(PARAMS), PARAMS))(GRADS)
    jax.tree.map(np.testing.assert_array_equal, others, updates)
