"""All devices, of one process or several, as one mesh: how arrays are sharded over it, put there and read back."""

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
    """A mesh of `devices` with one axis, `data`; by default of all devices of all processes."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def whole(mesh: Mesh) -> NamedSharding:
    """Replicates an array: every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
    """Shards an array [rows, ...] along its first axis: every device holds some of the rows."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def by_column(mesh: Mesh) -> NamedSharding:
    """Shards an array [rows, columns, ...] along its second axis: every device holds some of the columns."""
    return NamedSharding(mesh, PartitionSpec(None, AXIS))


def by_largest_axis(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Shards an array along its largest axis that the devices divide evenly; replicates it if there is none."""
    axes = [axis for axis, size in enumerate(shape) if size and size % mesh.size == 0]
    if not axes:
        return whole(mesh)
    split = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[AXIS if axis == split else None for axis in range(split + 1)]))


def round_up(n: int, devices: int) -> int:
    """The smallest multiple of `devices` that is not less than `n`."""
    return -(-n // devices) * devices


def check_batch_size(batch_size: int, devices: int, setting: str = "config.batch_size") -> None:
    """Refuses a batch size that is not a multiple of the number of devices.

    Raises:
      ValueError: in that case; the message names the `setting` and the nearest multiples.
    """
    if batch_size % devices:
        below, above = batch_size // devices * devices, round_up(batch_size, devices)
        nearest = f"{below} or {above}" if below else str(above)
        raise ValueError(f"{setting}={batch_size}: it cannot be dealt out evenly to {devices} devices; use {nearest}")


def compute_dtype(mesh: Mesh, precision: str) -> Any:
    """The `dtype` for a `ResNet` on these devices: bfloat16, or None for the dtype of its input, which is float32.

    `auto` means float32 on CPUs, few of which multiply bfloat16 any faster, and bfloat16 on all other devices.
    """
    if precision == "auto":
        precision = "float32" if mesh.devices.flat[0].platform == "cpu" else "bfloat16"
    return jnp.bfloat16 if precision == "bfloat16" else None


def gather(local: np.ndarray, rows: Int[np.ndarray, " n"], count: int) -> np.ndarray:
    """Collects an array of `count` rows from all processes; every process gets all of it.

    `local` holds this process's rows, `rows` their indices in the whole array. A single process has all rows in order.
    """
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
    """Puts a tree of host arrays on the devices.

    If `sharding` replicates, every process passes the whole arrays. If it shards, each process passes its own part, in
    the order of the whole array, and `size` is the size of the whole array along the sharded axis.
    """

    def put_array(x: Any) -> jax.Array:
        x, shape = np.asarray(x), list(x.shape)
        if size is not None:
            shape[list(sharding.spec).index(AXIS)] = size
        return jax.make_array_from_process_local_data(sharding, x, tuple(shape))

    return jax.tree.map(put_array, tree)


def distribute(tree: Any, shardings: Any) -> Any:
    """Puts a tree of host arrays on the devices, each with its own sharding. Every process passes the whole arrays."""

    def distribute_array(x: Any, sharding: NamedSharding) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    return jax.tree.map(distribute_array, tree, shardings)


def on_host(x: jax.Array) -> np.ndarray:
    """The whole array on the host, however it is sharded over the devices of all processes.

    If no process holds the whole array, all processes must call this together.
    """
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def rows_on_host(x: jax.Array) -> np.ndarray:
    """The rows, in rising order, that this process's devices hold of an array that is sharded by rows."""
    if x.is_fully_addressable:
        return np.asarray(x)
    return np.concatenate([s.data for s in sorted(x.addressable_shards, key=lambda s: s.index[0].start or 0)])


def full_batch(mesh: Mesh, batch_size: int, count: int) -> int:
    """Rows of a batch: `batch_size`, or `count` rounded up to a multiple of the number of devices if that is less."""
    return min(batch_size, round_up(count, mesh.size))


def own_columns(mesh: Mesh, batch: int) -> Int[np.ndarray, " columns"]:
    """Indices within a batch of `batch` examples, in rising order, of the examples that this process's devices take."""
    share = np.arange(batch).reshape(mesh.size, -1)
    return np.concatenate([share[i] for i, d in enumerate(mesh.devices.flat) if d.process_index == jax.process_index()])


def own_rows(mesh: Mesh, batch_size: int, count: int) -> Int[np.ndarray, " rows"]:
    """Indices, in rising order, of the examples that this process's devices take, out of `count` examples.

    Batches are consecutive examples in the order in which these are stored.
    """
    batch = full_batch(mesh, batch_size, count)
    rows = np.arange(count)
    return rows[np.isin(rows % batch, own_columns(mesh, batch))] if batch else rows
