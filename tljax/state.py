"""What a training step reads and writes."""

from typing import Any, NamedTuple

from jaxtyping import Array, Int


class TrainState(NamedTuple):
    """`params` and `batch_stats` hold the whole network, units on top; `opt_state` the optimizer's state of the
    trainable half; `step` counts updates (int32 scalar)."""

    step: Int[Array, ""]
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: Any
