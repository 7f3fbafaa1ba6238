"""The devices as one mesh, of one process or several: what each of them holds, and how it comes there and back."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from tljax.devices.processes import max_over_processes

AXIS = "data"


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the one axis `data` of `devices`, by default all there are."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def whole(mesh: Mesh) -> NamedSharding:
    """Every device holds all of an array."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
    """Of an array [rows, ...] every device holds some of the rows."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def by_column(mesh: Mesh) -> NamedSharding:
    """Of an array [rows, columns, ...] every device holds some of the columns."""
    return NamedSharding(mesh, PartitionSpec(None, AXIS))


def by_largest_axis(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """An array is split along the largest of its axes that can be dealt out evenly; whole where there is none."""
    axes = [axis for axis, size in enumerate(shape) if size and size % mesh.size == 0]
    if not axes:
        return whole(mesh)
    split = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[AXIS if axis == split else None for axis in range(split + 1)]))


def round_up(n: int, devices: int) -> int:
    """The least number from `n` on that can be dealt out evenly."""
    return -(-n // devices) * devices


def check_batch_size(batch_size: int, devices: int, setting: str = "config.batch_size") -> None:
    """Refuses a batch that cannot be dealt out evenly.

    Raises:
      ValueError: naming the `setting` and the nearest sizes that can.
    """
    if batch_size % devices:
        below, above = batch_size // devices * devices, round_up(batch_size, devices)
        nearest = f"{below} or {above}" if below else str(above)
        raise ValueError(f"{setting}={batch_size}: it cannot be dealt out evenly to {devices} devices; use {nearest}")


def compute_dtype(mesh: Mesh, precision: str) -> Any:
    """The `dtype` of a network on these devices; None leaves it that of its input, which is float32.

    `auto` is bfloat16 but on CPUs, few of which multiply it any faster.
    """
    if precision == "auto":
        precision = "float32" if mesh.devices.flat[0].platform == "cpu" else "bfloat16"
    return jnp.bfloat16 if precision == "bfloat16" else None


def gather(local: np.ndarray, rows: Int[np.ndarray, " n"], count: int) -> np.ndarray:
    """All `count` rows of an array of which each process has those that `rows` name."""
    if jax.process_count() == 1:
        return local
    padded = max_over_processes(len(rows))
    width = ((0, padded - len(rows)), *[(0, 0)] * (local.ndim - 1))
    everything = multihost_utils.process_allgather((np.pad(local, width), np.pad(rows, width[0], constant_values=-1)))
    values, places = (np.reshape(x, (-1, *x.shape[2:])) for x in everything)
    gathered = np.empty((count, *local.shape[1:]), local.dtype)
    gathered[places[places >= 0]] = values[places >= 0]
    return gathered


def put(tree: Any, sharding: NamedSharding, size: int | None = None) -> Any:
    """Arrays of the host on the devices. Of what is split, each process gives its own part, in the order of the whole;
    `size` is then that of the whole along the axis that is split."""

    def put_array(x: Any) -> jax.Array:
        x, shape = np.asarray(x), list(x.shape)
        if size is not None:
            shape[list(sharding.spec).index(AXIS)] = size
        return jax.make_array_from_process_local_data(sharding, x, tuple(shape))

    return jax.tree.map(put_array, tree)


def distribute(tree: Any, shardings: Any) -> Any:
    """Arrays of the host, of which every process has the whole, on the devices as `shardings` say."""

    def distribute_array(x: Any, sharding: NamedSharding) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    return jax.tree.map(distribute_array, tree, shardings)


def on_host(x: jax.Array) -> np.ndarray:
    """All of an array, however it lies on the devices of all processes."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def rows_on_host(x: jax.Array) -> np.ndarray:
    """What this process's devices hold of an array that is split by rows, in rising order."""
    if x.is_fully_addressable:
        return np.asarray(x)
    return np.concatenate([s.data for s in sorted(x.addressable_shards, key=lambda s: s.index[0].start or 0)])


def full_batch(mesh: Mesh, batch_size: int, count: int) -> int:
    """Examples of a batch: of `count` as many as there are, filled up for the devices, but not more than
    `batch_size`."""
    return min(batch_size, round_up(count, mesh.size))


def own_columns(mesh: Mesh, batch: int) -> Int[np.ndarray, " columns"]:
    """Which examples of each batch this process's devices take, in rising order."""
    share = np.arange(batch).reshape(mesh.size, -1)
    return np.concatenate([share[i] for i, d in enumerate(mesh.devices.flat) if d.process_index == jax.process_index()])


def own_rows(mesh: Mesh, batch_size: int, count: int) -> Int[np.ndarray, " rows"]:
    """Which of `count` examples, in batches as they are stored, this process's devices take, in rising order."""
    batch = full_batch(mesh, batch_size, count)
    rows = np.arange(count)
    return rows[np.isin(rows % batch, own_columns(mesh, batch))] if batch else rows
