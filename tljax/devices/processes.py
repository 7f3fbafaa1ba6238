"""Several processes that run as one: who leads, what all of them agree on."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from tljax.storage import signals

# Of a process that nothing was heard of for so long, the others know that it is dead, and end.
HEARTBEAT_SECONDS = 30


def join(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several, if it is told of them or JAX finds the cluster that it runs in (TPU slices,
    Slurm, Open MPI, Kubernetes). To be called before anything else asks JAX for a device.

    Raises:
      ValueError: if only some of the three are given.
    """
    given = coordinator_address, num_processes, process_id
    if any(value is None for value in given) and any(value is not None for value in given):
        raise ValueError("--coordinator_address HOST:PORT, --num_processes and --process_id belong together; give all")
    try:
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    # What JAX says where it finds no cluster.
    except ValueError as error:
        if "coordinator_address should be defined" not in str(error):
            raise


def leads() -> bool:
    """Whether this process writes what a run needs only once."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Until every process has come to the place of this `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextmanager
def leader_first(name: str) -> Iterator[None]:
    """A block that the others enter when the leader is through it: they find what it has made."""
    if not leads():
        wait(name)
    yield
    if leads():
        wait(name)


def check_alike(what: str, text: str) -> None:
    """Refuses to go on where the processes of a run do not have the same.

    Raises:
      ValueError: naming a process that has another `text` than the first.
    """
    if jax.process_count() == 1:
        return
    own = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
    digests = multihost_utils.process_allgather(own)
    others = np.flatnonzero((digests != digests[0]).any(axis=1))
    if len(others):
        raise ValueError(f"process {others[0]} was given another {what} than process 0; start all with the same one")


def max_over_processes(value: int) -> int:
    """The maximum of `value` over all processes; every process gets it."""
    return value if jax.process_count() == 1 else int(np.max(multihost_utils.process_allgather(np.int32(value))))


def sum_over_processes(value: int) -> int:
    """The sum of `value` over all processes modulo 2**31; each is below 2**31. Every process gets it."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).astype(np.int64).sum() % 2**31)


def interrupted() -> int:
    """The signal that any of the processes was told to end by, 0 if none. All processes ask together."""
    return max_over_processes(signals.noted())
