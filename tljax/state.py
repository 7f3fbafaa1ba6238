"""What a training step reads and writes, and where on the devices it lies."""

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from tljax.mesh import by_largest_axis, distribute, whole
from tljax.partition import merge, split


class TrainState(NamedTuple):
    """`params` and `batch_stats` hold the whole network, units on top; `opt_state` the optimizer's state of the
    trainable half; `step` counts updates (int32 scalar)."""

    step: Int[Array, ""]
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: Any


def shard(state: TrainState, mesh: Mesh, optimizer_too: bool) -> TrainState:
    """What each device holds of a state: everything, or of the optimizer's state a part."""
    everything = jax.tree.map(lambda _: whole(mesh), state)
    if not optimizer_too:
        return everything
    return everything._replace(opt_state=jax.tree.map(lambda x: by_largest_axis(mesh, x.shape), state.opt_state))


def place_state(restored: TrainState, variables: dict[str, Any], cut: str, shardings: TrainState) -> TrainState:
    """A restored state, of which the trainable half is on the host, on the devices; the frozen half is `variables`'."""
    shardings = shardings._replace(
        params=split(shardings.params, cut)[1], batch_stats=split(shardings.batch_stats, cut)[1]
    )
    state = distribute(restored, shardings)
    frozen = {name: split(tree, cut)[0] for name, tree in variables.items()}
    return state._replace(
        params=merge(frozen["params"], state.params), batch_stats=merge(frozen["batch_stats"], state.batch_stats)
    )
