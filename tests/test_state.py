"""The optimizer of a new state starts from the trainable half, and a state is sharded as asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny_runs import TINY

from tljax.config import Optimizer
from tljax.devices.mesh import make_mesh, put, whole
from tljax.networks.cut import Cut
from tljax.networks.resnet import ResNet
from tljax.training.optimizers import make_optimization
from tljax.training.state import create_state, find_shardings, place_state
from tljax.trees import flatten

MODEL = ResNet(3, architecture=TINY)
CUT = Cut(MODEL.units, "conv5_block1")
MESH = make_mesh()


@pytest.fixture(scope="module")
def state():
    variables = jax.jit(MODEL.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    return create_state(variables, make_optimization(Optimizer(), CUT, 1, 1).tx, CUT)


def test_the_optimizer_starts_from_the_trainable_half_alone(state):
    means = state.opt_state.inner_states["train"].inner_state.mean
    assert set(means) == {"conv5_block1", "head"}
    assert int(state.step) == 0 and state.step.dtype == jnp.int32


@pytest.mark.parametrize("optimizer_too", [False, True])
def test_every_device_holds_the_variables_and_may_share_the_optimizers_state(state, optimizer_too):
    shardings = find_shardings(state, MESH, optimizer_too)
    assert {s.spec for s in jax.tree.leaves(shardings.variables)} == {PartitionSpec()}
    specs = {path: s.spec for path, s in flatten(shardings.opt_state).items()}
    # A kernel [1 1 c f] is sharded along its longest axis, the number of updates is not sharded.
    parted = [spec for path, spec in specs.items() if path.endswith("3_conv/kernel")]
    assert len(parted) == 2
    assert all((spec != PartitionSpec()) == optimizer_too for spec in parted)
    assert next(spec for path, spec in specs.items() if path.endswith("inner_state/step")) == PartitionSpec()


def test_a_restored_half_is_placed_beside_the_frozen_one(state):
    moved = jax.tree.map(lambda x: np.asarray(x) + 1, CUT.split(state.variables)[1])
    restored = jax.tree.map(np.asarray, state)._replace(variables=moved, step=np.int32(5))
    placed = place_state(restored, put(state.variables, whole(MESH)), CUT, find_shardings(state, MESH, False))
    frozen, trained = CUT.split(placed.variables)
    jax.tree.map(np.testing.assert_array_equal, frozen, CUT.split(state.variables)[0])
    jax.tree.map(np.testing.assert_array_equal, trained, moved)
    assert int(placed.step) == 5
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(placed))
