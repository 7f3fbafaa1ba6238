"""What a training step reads and writes, and where on the devices it lies."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from tljax.devices.mesh import by_largest_axis, distribute, whole
from tljax.networks.cut import Cut, merge
from tljax.trees import Tree


class TrainState(NamedTuple):
    """`variables` are the whole network's, `{"params": ..., "batch_stats": ...}`; `opt_state` is the optimizer's state
    of the half that trains; `step` counts updates (int32 scalar)."""

    step: Int[Array, ""]
    variables: Tree
    opt_state: Any


def create_state(variables: Tree, tx: optax.GradientTransformation, cut: Cut) -> TrainState:
    """A state before its first step; the optimizer starts from the trainable half of the given weights."""
    return TrainState(jnp.zeros((), jnp.int32), variables, tx.init(cut.split(variables)[1]["params"]))


def shard(state: TrainState, mesh: Mesh, optimizer_too: bool) -> TrainState:
    """What each device holds of a state: all of it or, with `optimizer_too`, only a part of the optimizer's state."""
    everything = jax.tree.map(lambda _: whole(mesh), state)
    if not optimizer_too:
        return everything
    return everything._replace(opt_state=jax.tree.map(lambda x: by_largest_axis(mesh, x.shape), state.opt_state))


def place_state(restored: TrainState, variables: Tree, cut: Cut, shardings: TrainState) -> TrainState:
    """A restored state on the devices: its trainable half comes from the host, the frozen half is `variables`'."""
    state = distribute(restored, shardings._replace(variables=cut.split(shardings.variables)[1]))
    return state._replace(variables=merge(cut.split(variables)[0], state.variables))
