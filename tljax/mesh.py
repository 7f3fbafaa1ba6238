"""The devices as one mesh: what is split over them, and what each of them holds whole."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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
    largest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[AXIS if axis == largest else None for axis in range(largest + 1)]))


def round_up(n: int, devices: int) -> int:
    """The least number from `n` on that can be dealt out evenly."""
    return -(-n // devices) * devices


def check_batch_size(batch_size: int, devices: int) -> None:
    """Refuses a batch that cannot be dealt out evenly.

    Raises:
      ValueError: naming the nearest sizes that can.
    """
    if batch_size % devices:
        below, above = batch_size // devices * devices, round_up(batch_size, devices)
        nearest = f"{below} or {above}" if below else str(above)
        raise ValueError(f"batch_size={batch_size}: it cannot be dealt out evenly to {devices} devices; use {nearest}")


def compute_dtype(mesh: Mesh, precision: str) -> Any:
    """The `dtype` of a network on these devices; None leaves it that of its input, which is float32.

    `auto` is bfloat16 but on CPUs, few of which multiply it any faster.
    """
    if precision == "auto":
        precision = "float32" if mesh.devices.flat[0].platform == "cpu" else "bfloat16"
    return jnp.bfloat16 if precision == "bfloat16" else None
