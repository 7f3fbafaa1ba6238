"""The state that a training step reads and writes, and its sharding over the devices."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from tljax.devices.mesh import by_largest_axis, distribute, whole
from tljax.networks.cut import Cut, merge
from tljax.trees import Tree


class Diverged(ValueError):
    """A loss or a state that is not finite: all processes of a run meet it together."""


class TrainState(NamedTuple):
    """The state of a training.

    `step` counts updates (int32 scalar). `variables` are the whole network's, `{"params": ..., "batch_stats": ...}`,
    which are evaluated and kept; `opt_state` is the optimizer's state for the trainable half. Where `variables` are
    moving averages, `raw` is the trainable half that the optimizer moves; else it is empty.
    """

    step: Int[Array, ""]
    variables: Tree
    opt_state: Any
    raw: Tree = {}  # noqa: RUF012, nobody changes a tree in place


def create_state(variables: Tree, tx: optax.GradientTransformation, cut: Cut, *, averages: bool = False) -> TrainState:
    """The state before the first step, with a new optimizer state for the trainable half of `variables`; with
    `averages`, they become moving averages."""
    trained = cut.split(variables)[1]
    # Copies, since a buffer can be donated only once.
    raw = jax.tree.map(jnp.copy, trained) if averages else {}
    return TrainState(jnp.zeros((), jnp.int32), variables, tx.init(trained["params"]), raw)


def find_shardings(state: TrainState, mesh: Mesh, optimizer_too: bool) -> TrainState:
    """The sharding of each array of `state`: every device holds all of it.

    With `optimizer_too`, a device holds only a part of the optimizer's state.
    """
    everything = jax.tree.map(lambda _: whole(mesh), state)
    if not optimizer_too:
        return everything
    return everything._replace(opt_state=jax.tree.map(lambda x: by_largest_axis(mesh, x.shape), state.opt_state))


def place_state(restored: TrainState, variables: Tree, cut: Cut, shardings: TrainState) -> TrainState:
    """Puts a restored state, whose variables are the trainable half alone, on the devices as `shardings` say.

    The frozen half is that of `variables`, which is on the devices already.
    """
    state = distribute(restored, shardings._replace(variables=cut.split(shardings.variables)[1]))
    return state._replace(variables=merge(cut.split(variables)[0], state.variables))
