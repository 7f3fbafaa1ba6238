"""Checkpoints behind one door: Orbax writes them, digests prove what was read.

They are numbered by what was done before: a step counts one, and so does the evaluation at the end of an epoch.
"""

import errno
import hashlib
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tljax.mesh import largest, leads, on_host, wait
from tljax.partition import digest_leaves, find_differences, flatten, is_frozen, merge, split
from tljax.resnet import abstract_variables, build_network
from tljax.state import TrainState
from tljax.workdir import sum_files, write_text

Meta = dict[str, Any]

FOLDER = "checkpoints"
# The frozen half of a run never changes: it is written once, as if before the first step.
FROZEN = 0
# What the system says of files that may be whole.
NOT_NOW = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ENOMEM, errno.ESTALE, errno.EIO)
# Where a damaged one is put aside.
ASIDE = ".damaged"
# Where one is moved before it is deleted: a kill in between must leave no part of it among the others.
DELETED = ".deleted"
# The digests of its files, in a checkpoint: `sha256sum -c` reads it.
LIST = "SHA256SUMS"


class Damaged(ValueError):
    """A checkpoint is not what was saved."""


@contextmanager
def open_checkpoints(workdir: Path, *, own: bool = False) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of the run in `workdir`; of one's `own` run, what was left half written is deleted. Orbax may
    hang at exit if its manager is not closed, so this is a context."""
    if own:
        for pattern in ("*.orbax-checkpoint-tmp*", f"*{DELETED}") if leads() else ():
            for path in (workdir / FOLDER).glob(pattern):
                shutil.rmtree(path, ignore_errors=True)
        wait(f"{workdir / FOLDER} is clean")
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager((workdir / FOLDER).absolute(), options=options) as manager:
        yield manager


def keep_frozen(
    manager: ocp.CheckpointManager, params: Any, batch_stats: Any, cut: str, digests: dict[str, str]
) -> None:
    """Writes what stands before `cut` unless it is there, undamaged; `digests` are its leaves'."""
    if not digests:
        return
    frozen = {"params": split(params, cut)[0], "batch_stats": split(batch_stats, cut)[0]}

    def check() -> None:
        _check(manager, FROZEN, digests, _read(manager, FROZEN, variables=frozen))
        _check_files(manager, FROZEN)

    if FROZEN in manager.all_steps():
        _, damage = _agree(check)
        if damage is None:
            _list_files(manager, FROZEN)
            return
        _put_aside(manager, FROZEN, f"{damage}; written again")
    _write(manager, FROZEN, variables=ocp.args.StandardSave(frozen))


def save(manager: ocp.CheckpointManager, number: int, state: TrainState, frozen: dict[str, str], meta: Meta) -> None:
    """Writes the trainable half of the state with `meta` (JSON, with `cut`) and the digest of every leaf; `frozen` are
    the frozen half's. What is there already stays.

    The variables are an item of their own, so that a later run can start from them without the optimizer's state.

    Raises:
      ValueError: if a number of the state is not finite.
      OSError: if it cannot be written; what was written before stands.
    """
    if number in manager.all_steps() or number == FROZEN:
        return
    variables, progress = _select(state, meta["cut"])
    leaves = jax.tree.map(on_host, variables | progress)
    for path, leaf in flatten(leaves).items():
        if not np.isfinite(leaf).all():
            raise ValueError(
                f"{path} is not finite any more after step {int(leaves['step'])} of this run: the training diverged; "
                "what was saved before stands. Try a smaller --config.optimizer.learning_rate"
            )
    meta = meta | {"digest": frozen | digest_leaves(leaves)}
    _write(
        manager,
        number,
        variables=ocp.args.StandardSave(variables),
        progress=ocp.args.StandardSave(progress),
        meta=ocp.args.JsonSave({"content": meta, "sha256": _digest_meta(meta)}),
    )


def prune(manager: ocp.CheckpointManager, keep: set[int]) -> None:
    """Deletes all checkpoints but those in `keep` and the frozen half. Orbax's own retention can drop the newest for a
    worse metric and can take NaN for the best."""
    for number in set(manager.all_steps()) - keep - {FROZEN}:
        deleted = _move(manager, number, DELETED)
        if leads():
            shutil.rmtree(deleted, ignore_errors=True)


def restore_newest(
    manager: ocp.CheckpointManager, state: TrainState, frozen: dict[str, str], about: Meta
) -> tuple[TrainState, Meta] | None:
    """State and meta of the newest good checkpoint; None where there is none. `state` gives shapes and types; the
    one returned is on the host, its `params` and `batch_stats` the trainable half alone. `frozen` are the digests of
    the frozen leaves that the run has now, `about` is what its meta is to hold (with `cut`).

    A checkpoint is good if all of it is to the bit what was saved, and the variables of the one it names as the best.
    A damaged one is named and put aside, and the one before is taken.

    Raises:
      ValueError: if the run began with other frozen weights, or was about something else.
      OSError: if the system does not let it read.
    """
    cut = about["cut"]
    variables, progress = _select(state, cut)
    numbers = set(manager.all_steps()) - {FROZEN}
    for number in sorted(numbers, reverse=True):
        found, damage = _agree(partial(_restore, manager, number, variables, progress, about))
        if damage is None:
            leaves, meta = found
            if {path: value for path, value in meta["digest"].items() if _is_frozen(path, cut)} != frozen:
                raise ValueError(
                    f"{manager.directory.parent}: this run began with other source weights; bring those back, give "
                    "another --workdir, or --overwrite"
                )
            _, damage = _agree(partial(_check_files, manager, number))
        if damage is not None:
            _put_aside(manager, number, f"{damage}; going on from the one before {number}")
            continue
        _list_files(manager, number)
        _look_after_others(manager, number, meta["best"])
        return TrainState(**leaves), meta
    if set(manager.all_steps()) - {FROZEN} != numbers:
        print(f"no good checkpoint is left in {manager.directory}: it starts over", file=sys.stderr, flush=True)
    return None


def _look_after_others(manager: ocp.CheckpointManager, number: int, best: int) -> None:
    """Names what is damaged of the checkpoints beside `number`. Of the best one the arrays were read already."""
    for other in sorted(set(manager.all_steps()) - {FROZEN, number}):
        _, damage = _agree(partial(_check_files, manager, other))
        if damage is not None and other == best:
            print(f"{damage}; its arrays are whole", file=sys.stderr, flush=True)
        elif damage is not None:
            _put_aside(manager, other, f"{damage}; it is not needed")
        elif other == best:
            _list_files(manager, other)


def _restore(
    manager: ocp.CheckpointManager, number: int, variables: Any, progress: Any, about: Meta
) -> tuple[dict[str, Any], Meta]:
    """The leaves of a good checkpoint, and its meta."""
    meta, cut = read_meta(manager, number), about["cut"]
    for name, value in json.loads(json.dumps(about)).items():
        if meta[name] != value:
            raise ValueError(
                f"{manager.directory.parent}: this run began with another {name} ({meta[name]}) than now ({value}); "
                "bring that back, give another --workdir, or --overwrite"
            )
    leaves = _read(manager, number, variables=variables, progress=progress)
    _check(manager, number, {p: d for p, d in meta["digest"].items() if not _is_frozen(p, cut)}, leaves)
    if meta["best"] not in (number, FROZEN):
        digests = read_meta(manager, meta["best"])["digest"]
        best = _read(manager, meta["best"], variables=variables)
        _check(manager, meta["best"], {p: digests.get(p, "") for p in flatten(variables)}, best)
    return leaves, meta


def read_meta(manager: ocp.CheckpointManager, number: int) -> Meta:
    """What was saved beside the arrays.

    Raises:
      Damaged: if it is not what was saved.
    """
    saved = _read(manager, number, meta=None)
    if not isinstance(saved, dict) or saved.get("sha256") != _digest_meta(saved.get("content")):
        raise Damaged(f"checkpoint {_folder(manager, number)} is damaged: meta differs from what was saved")
    return saved["content"]


def restore_variables(manager: ocp.CheckpointManager, number: int) -> tuple[dict[str, Any], Meta]:
    """`params` and `batch_stats` of a checkpoint, on the host, and its meta.

    Raises:
      Damaged: if a leaf is not, to the bit, what was saved.
    """
    meta = read_meta(manager, number)
    abstract = abstract_variables(build_network(meta["network"]))
    frozen, trainable = ({name: split(tree, meta["cut"])[half] for name, tree in abstract.items()} for half in (0, 1))
    if frozen["params"]:
        frozen = _read(manager, FROZEN, variables=frozen)
    trainable = _read(manager, number, variables=trainable)
    variables = {name: merge(frozen[name], trainable[name]) for name in abstract}
    expected = {path: value for path, value in meta["digest"].items() if path.split("/")[0] in variables}
    _check(manager, number, expected, variables)
    return variables, meta


def read_run(workdir: Path) -> tuple[dict[str, Any], Meta]:
    """The best epoch's variables of the run in `workdir`, and its newest checkpoint's meta.

    Raises:
      ValueError: if there is no checkpoint of an epoch, or it is damaged.
    """
    if not (workdir / FOLDER).is_dir():
        raise ValueError(f"{workdir} holds no {FOLDER}/: it is not the folder of a run that trained")
    with open_checkpoints(workdir) as manager:
        newest = manager.latest_step()
        meta = {"best": FROZEN} if newest in (None, FROZEN) else read_meta(manager, newest)
        if meta["best"] == FROZEN:
            raise ValueError(f"{workdir / FOLDER} holds no finished epoch: run that stage again")
        try:
            variables, _ = restore_variables(manager, meta["best"])
        except Damaged as error:
            raise Damaged(f"{error}; delete {workdir} to run that again") from error
    return variables, meta


def _read(manager: ocp.CheckpointManager, number: int, **items: Any) -> dict[str, Any]:
    """The `items` of a checkpoint as one, abstract trees, or `meta`, which is JSON. Orbax casts other types without a
    word: what comes from here is to be checked against digests, which hold the type."""
    # Of this process, whatever devices the run had that wrote it.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def ask(item: Any) -> Any:
        if item is None:
            return ocp.args.JsonRestore()
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), item)
        return ocp.args.StandardRestore(wanted)

    with _reading(manager, number):
        restored = manager.restore(number, args=ocp.args.Composite(**{name: ask(item) for name, item in items.items()}))
        if "meta" in items:
            return restored["meta"]
        return {name: leaf for item in items for name, leaf in restored[item].items()}


@contextmanager
def _reading(manager: ocp.CheckpointManager, number: int) -> Iterator[None]:
    try:
        yield
    # What is damaged in its midst raises errors of all kinds.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if (isinstance(error, OSError) and error.errno in NOT_NOW) or isinstance(error, MemoryError):
            raise OSError(f"checkpoint {_folder(manager, number)} cannot be read now ({reason})") from error
        raise Damaged(f"checkpoint {_folder(manager, number)} is damaged: {reason}") from error


def _check(manager: ocp.CheckpointManager, number: int, expected: dict[str, str], leaves: Any) -> None:
    damaged = find_differences(expected, digest_leaves(leaves))
    if damaged:
        raise Damaged(
            f"checkpoint {_folder(manager, number)} is damaged: {damaged[0]}"
            f"{f' and {len(damaged) - 1} more leaves' if damaged[1:] else ''} differ from what was saved"
        )


def _check_files(manager: ocp.CheckpointManager, number: int) -> None:
    """Finds what digests of arrays do not: damage in files that nothing reads. The leader does it, with nothing in it
    that all processes do together."""
    folder = _folder(manager, number)
    if not leads():
        return
    if not (folder / LIST).exists():
        print(f"checkpoint {folder} has no {LIST}", flush=True)
        return
    with _reading(manager, number):
        saved = (folder / LIST).read_bytes().decode(errors="replace").splitlines()
        now = sum_files(folder, LIST).splitlines()
    wrong = sorted(line.partition("  ")[2] for line in set(saved) - set(now))
    if wrong:
        raise Damaged(f"checkpoint {folder} is damaged: {wrong[0]} or {LIST} is not the file that was saved")
    unlisted = sorted(line.partition("  ")[2] for line in set(now) - set(saved))
    if unlisted:
        more = f" and {len(unlisted) - 1} more are" if unlisted[1:] else " is"
        print(f"checkpoint {folder}: {unlisted[0]}{more} not in {LIST}", flush=True)


def _list_files(manager: ocp.CheckpointManager, number: int) -> None:
    """Writes the list of a checkpoint that is whole, unless it has one: a kill, or a full disk, can come between."""
    folder = _folder(manager, number)
    if leads() and not (folder / LIST).exists():
        with suppress(OSError):
            write_text(folder / LIST, sum_files(folder, LIST))


def _agree(read: Callable[[], Any]) -> tuple[Any, str | None]:
    """What `read` gives, and what is damaged for any of the processes: where one cannot read, none goes on from."""
    found, damage = None, None
    try:
        found = read()
    except Damaged as error:
        damage = str(error)
    return found, (damage or "another process found it damaged") if largest(damage is not None) else None


def _select(state: TrainState, cut: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint holds of a state: variables that another run can start from, and the rest."""
    variables = {"params": split(state.params, cut)[1], "batch_stats": split(state.batch_stats, cut)[1]}
    return variables, {"opt_state": state.opt_state, "step": state.step}


def _is_frozen(path: str, cut: str) -> bool:
    kind, *rest = path.split("/")
    return kind in ("params", "batch_stats") and is_frozen(rest[0], cut)


def _write(manager: ocp.CheckpointManager, number: int, **items: Any) -> None:
    # Orbax would make it anew.
    if not Path(manager.directory).is_dir():
        raise FileNotFoundError(
            f"{manager.directory} is gone; if the workdir was moved, the run goes on where it is now"
        )
    try:
        # Each of the threads that write prints what went wrong, too.
        with redirect_stderr(io.StringIO()):
            manager.save(number, args=ocp.args.Composite(**items), force=True)
    except Exception as error:
        system = re.search(r": ([^:]+) \[os_error_code", str(error))
        reason = system[1] if system else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise OSError(
            f"checkpoint {_folder(manager, number)} cannot be written ({reason}); those before it stand"
        ) from error
    _list_files(manager, number)


def _put_aside(manager: ocp.CheckpointManager, number: int, message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    _move(manager, number, ASIDE)


def _folder(manager: ocp.CheckpointManager, number: int) -> Path:
    return Path(manager.directory / str(number))


def _move(manager: ocp.CheckpointManager, number: int, ending: str) -> Path:
    """A checkpoint to where Orbax sees none."""
    path = _folder(manager, number)
    moved = path.with_name(path.name + ending)
    if leads():
        shutil.rmtree(moved, ignore_errors=True)
        path.rename(moved)
    wait(f"{path} is moved")
    manager.reload()
    return moved


def _digest_meta(meta: Any) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
