"""Checkpoints behind one door: Orbax writes them, digests prove what was read."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from tljax.partition import digest, find_differences, merge, split
from tljax.resnet import VARIANTS, ResNet
from tljax.state import TrainState

FOLDER = "checkpoints"
# The frozen half of a run never changes: it is written once, as if after an epoch 0.
FROZEN = 0


@contextmanager
def open_checkpoints(workdir: Path) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of the run in `workdir`, one an epoch. Orbax may hang at exit if its manager is not closed, so
    this is a context."""
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager((workdir / FOLDER).absolute(), options=options) as manager:
        yield manager


def describe_network(model: ResNet, variant: str) -> dict[str, Any]:
    """What `build_network` needs to make `model` again, as JSON."""
    sizes = list(model.stage_sizes)
    return {"num_classes": model.num_classes, "variant": variant, "stage_sizes": sizes, "width": model.width}


def build_network(description: dict[str, Any]) -> ResNet:
    """Undoes `describe_network`."""
    return ResNet(
        num_classes=description["num_classes"],
        variant=VARIANTS[description["variant"]],
        stage_sizes=tuple(description["stage_sizes"]),
        width=description["width"],
    )


@cache
def abstract_variables(model: ResNet) -> dict[str, Any]:
    """Shapes and types of the network's `params` and `batch_stats`, nothing computed."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.ShapeDtypeStruct((), jax.random.key(0).dtype), image)


def save_frozen(manager: ocp.CheckpointManager, params: dict[str, Any], batch_stats: dict[str, Any], cut: str) -> None:
    """Writes what stands before `cut`, once a run; nothing where nothing does."""
    frozen = {"params": split(params, cut)[0], "batch_stats": split(batch_stats, cut)[0]}
    if frozen["params"]:
        manager.save(FROZEN, args=ocp.args.Composite(variables=ocp.args.StandardSave(frozen)))


def save(
    manager: ocp.CheckpointManager, epoch: int, state: TrainState, frozen: dict[str, str], meta: dict[str, Any]
) -> None:
    """Writes the trainable half of the state after `epoch` with `meta` (JSON, with `cut`) and the digest of every
    parameter and running statistic; `frozen` is the frozen half's.

    The variables are an item of their own, so that a later run can start from them without the optimizer's state.
    """
    params, batch_stats = split(state.params, meta["cut"])[1], split(state.batch_stats, meta["cut"])[1]
    progress = {"step": state.step, "opt_state": state.opt_state}
    digests = frozen | digest(params, batch_stats, cut=None)
    items = ocp.args.Composite(
        variables=ocp.args.StandardSave({"params": params, "batch_stats": batch_stats}),
        progress=ocp.args.StandardSave(progress),
        meta=ocp.args.JsonSave(meta | {"digest": digests}),
    )
    manager.save(epoch, args=items)


def prune(manager: ocp.CheckpointManager, keep: set[int]) -> None:
    """Deletes all checkpoints but those of the epochs in `keep` and the frozen half. Orbax's own retention can drop
    the newest for a worse metric and can take NaN for the best."""
    for epoch in set(manager.all_steps()) - keep - {FROZEN}:
        manager.delete(epoch)


def restore_variables(manager: ocp.CheckpointManager, epoch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """`params` and `batch_stats` after `epoch`, and the checkpoint's meta.

    Raises:
      ValueError: if a leaf is not, to the bit, what was saved.
    """

    # Of this process, whatever devices the run had that wrote it.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def restore(number: int, half: int) -> dict[str, Any]:
        wanted = {name: split(tree, meta["cut"])[half] for name, tree in abstract.items()}
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), wanted)
        items = ocp.args.Composite(variables=ocp.args.StandardRestore(wanted))
        return manager.restore(number, args=items).variables if wanted["params"] else wanted

    meta = manager.restore(epoch, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
    abstract = abstract_variables(build_network(meta["network"]))
    frozen, trainable = restore(FROZEN, 0), restore(epoch, 1)
    variables = {name: merge(frozen[name], trainable[name]) for name in abstract}
    damaged = find_differences(meta["digest"], digest(variables["params"], variables["batch_stats"], cut=None))
    if damaged:
        raise ValueError(
            f"checkpoint {manager.directory / str(epoch)} is damaged: {damaged[0]}"
            f"{f' and {len(damaged) - 1} more leaves' if damaged[1:] else ''} differ from what was saved"
        )
    return variables, meta


def read_run(workdir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The best epoch's variables of the run in `workdir`, and its newest checkpoint's meta.

    Raises:
      ValueError: if there is no checkpoint, or it is damaged.
    """
    if not (workdir / FOLDER).is_dir():
        raise ValueError(f"{workdir} holds no {FOLDER}/: it is not the folder of a run that trained")
    with open_checkpoints(workdir) as manager:
        newest = manager.latest_step()
        if newest in (None, FROZEN):
            raise ValueError(f"{workdir / FOLDER} holds no finished checkpoint: run that stage again")
        meta = manager.restore(newest, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        variables, _ = restore_variables(manager, meta["stopper"]["best_epoch"])
    return variables, meta
