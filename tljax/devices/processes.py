"""One run in several processes: how they join, which one leads, and values that all of them agree on."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from tljax.storage import signals
from tljax.trees import Row

# If a process sends no heartbeat for this long, the others take it for dead and end.
HEARTBEAT_SECONDS = 30


def join(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects this process to the other processes of the run, if there are any.

    It uses the three arguments or, if they are None, the cluster that JAX detects (TPU slices, Slurm, Open MPI,
    Kubernetes). Without a cluster the process runs alone. Call it before anything else asks JAX for a device.

    Raises:
      ValueError: if only some of the three arguments are given.
    """
    given = coordinator_address, num_processes, process_id
    if any(value is None for value in given) and any(value is not None for value in given):
        raise ValueError("--coordinator_address HOST:PORT, --num_processes and --process_id belong together; give all")
    try:
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    # JAX raises this error if it detects no cluster.
    except ValueError as error:
        if "coordinator_address should be defined" not in str(error):
            raise


def leads() -> bool:
    """Whether this process is the leader, which writes everything that a run needs only once."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Waits until every process has called `wait` with this `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextmanager
def leader_first(name: str) -> Iterator[None]:
    """A block that the leader runs first. The other processes enter it afterwards and find the leader's files."""
    if not leads():
        wait(name)
    yield
    if leads():
        wait(name)


def check_alike(what: str, text: str) -> None:
    """Checks that all processes of a run have the same `text`; `what` names it in the error.

    Raises:
      ValueError: if a process has another `text` than process 0; the message names the first such process.
    """
    if jax.process_count() == 1:
        return
    own = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
    digests = multihost_utils.process_allgather(own)
    others = np.flatnonzero((digests != digests[0]).any(axis=1))
    if len(others):
        raise ValueError(f"process {others[0]} was given another {what} than process 0; start all with the same one")


def as_leader(row: Row) -> Row:
    """The `row`, as JSON holds it, of the leader; every process gets it."""
    if jax.process_count() == 1:
        return row
    text = np.frombuffer(json.dumps(row).encode() if leads() else b"", np.uint8)
    room = np.zeros(max_over_processes(len(text)), np.uint8)
    room[: len(text)] = text
    found: Row = json.loads(bytes(multihost_utils.broadcast_one_to_all(room)))
    return found


def max_over_processes(value: int) -> int:
    """The maximum of `value` over all processes; every process gets it."""
    return value if jax.process_count() == 1 else int(np.max(multihost_utils.process_allgather(np.int32(value))))


def interrupted() -> int:
    """The number of the signal that any process has received, 0 if none has. All processes must call it together."""
    return max_over_processes(signals.noted())
