"""Checkpoints behind one door: Orbax writes them, digests prove what was read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from tljax.partition import digest, find_differences
from tljax.resnet import VARIANTS, ResNet
from tljax.state import TrainState

FOLDER = "checkpoints"


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


def abstract_variables(model: ResNet) -> dict[str, Any]:
    """Shapes and types of the network's `params` and `batch_stats`, nothing computed."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.ShapeDtypeStruct((), jax.random.key(0).dtype), image)


def save(manager: ocp.CheckpointManager, epoch: int, state: TrainState, meta: dict[str, Any]) -> None:
    """Writes the state after `epoch` with `meta` (JSON) and the digest of every parameter and running statistic.

    The variables are an item of their own, so that a later run can start from them without the optimizer's state.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    progress = {"step": state.step, "opt_state": state.opt_state}
    items = ocp.args.Composite(
        variables=ocp.args.StandardSave(variables),
        progress=ocp.args.StandardSave(progress),
        meta=ocp.args.JsonSave(meta | {"digest": digest(state.params, state.batch_stats, cut=None)}),
    )
    manager.save(epoch, args=items)


def prune(manager: ocp.CheckpointManager, keep: set[int]) -> None:
    """Deletes all checkpoints but those of the epochs in `keep`. Orbax's own retention can drop the newest for a
    worse metric and can take NaN for the best."""
    for epoch in set(manager.all_steps()) - keep:
        manager.delete(epoch)


def restore_variables(manager: ocp.CheckpointManager, epoch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """`params` and `batch_stats` after `epoch`, and the checkpoint's meta.

    Raises:
      ValueError: if a leaf is not, to the bit, what was saved.
    """
    meta = manager.restore(epoch, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
    abstract = abstract_variables(build_network(meta["network"]))
    items = ocp.args.Composite(variables=ocp.args.StandardRestore(abstract))
    variables = manager.restore(epoch, args=items).variables
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
        if newest is None:
            raise ValueError(f"{workdir / FOLDER} holds no finished checkpoint: run that stage again")
        meta = manager.restore(newest, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        variables, _ = restore_variables(manager, meta["stopper"]["best_epoch"])
    return variables, meta
