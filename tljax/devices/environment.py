"""The environment of a run: versions, devices, machine, command."""

import os
import platform
import resource
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

PACKAGES = ("tljax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "libtpu")


def describe_devices() -> str:
    """Number and kind of all devices, such as `4 x TPU v5 lite`; for a CPU also the number of its cores."""
    devices = jax.devices()
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    cores = f" ({count_cores()} cores)" if devices[0].platform == "cpu" else ""
    return f"{len(devices)} x {devices[0].device_kind}{cores}{processes}"


def describe_memory() -> str:
    """Peak memory use of the first local device, and its size if JAX knows it; on a CPU the peak of this process."""
    stats: dict[str, int] = jax.local_devices()[0].memory_stats() or {}
    used = stats.get("peak_bytes_in_use", peak_process_bytes())
    limit = stats.get("bytes_limit")
    return f"{used / 2**30:.1f} GiB" + ("" if limit is None else f" of {limit / 2**30:.1f} GiB on each device")


def peak_process_bytes() -> int:
    """Peak memory use of this process. `ru_maxrss` counts KiB on Linux and bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def count_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """One start of a run as a JSON dict: time, command, versions, devices and machine."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {"python": platform.python_version()} | {n: v for n in PACKAGES if (v := _version(n)) is not None},
        "devices": describe_devices(),
        "platform": jax.devices()[0].client.platform_version.splitlines()[0],
        "machine": platform.platform(),
        "cores": count_cores(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
