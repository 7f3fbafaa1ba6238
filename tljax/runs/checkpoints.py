"""The checkpoints of a run: Orbax writes them, digests prove that a read gives what was saved.

A checkpoint's number counts what was done before it: each training step counts one, and so do the evaluation at the end
of an epoch and the solution of a head.
"""

import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tljax.data.layouts import join_names
from tljax.devices.mesh import on_host
from tljax.devices.processes import leads, wait
from tljax.networks.cut import Cut
from tljax.networks.resnet import abstract_variables, build_network
from tljax.runs.integrity import Damaged, agree, check_files, finding_damage, list_files
from tljax.runs.saved_values import check_meta
from tljax.training.state import Diverged, TrainState
from tljax.trees import Tree, digest_json, digest_leaves, find_differences, flatten, unflatten

# The JSON part of a checkpoint: what the run is about, its progress, the digests of the arrays.
Meta = dict[str, Any]

FOLDER = "checkpoints"
# The number of the checkpoint with the frozen variables. They never change in a run, so they are written once, as if
# before the first step.
FROZEN = 0
# A damaged checkpoint is put aside: its folder gets this suffix and stays, but Orbax does not list it any more.
ASIDE = ".damaged"
# A checkpoint's folder gets this suffix before it is deleted: a kill during the deletion must not leave an incomplete
# checkpoint among the others.
DELETED = ".deleted"
# Keys that the meta of an older version lacks, each with the value for which this version behaves as that one did; None
# for what was not recorded then.
META_BEFORE: Meta = {"fit": "crop", "content": None, "read_anew": {}, "views_used": None, "judged": [], "spread": False}
# What a run says that goes on without such a record, which it gets now.
NOT_RECORDED = {
    "content": "this run began when the content of pictures was not recorded: names and labels are as they were, and "
    "from now on the content counts too",
    "views_used": "WARNING this run began when nothing recorded whether config.cache had room for config.data.views: "
    "if it had less or more than now, the training pictures change here",
}


class Checkpoints:
    """The checkpoints of one run, by number. `open_checkpoints` creates it."""

    def __init__(self, manager: ocp.CheckpointManager):
        self._manager = manager
        self.folder = Path(manager.directory)

    @property
    def numbers(self) -> set[int]:
        """The numbers of all checkpoints but `FROZEN`."""
        return set(self._manager.all_steps()) - {FROZEN}

    def keep_frozen(self, variables: Tree, cut: Cut, digests: dict[str, str]) -> None:
        """Writes the variables before the cut as checkpoint `FROZEN`, unless it is there undamaged.

        A damaged one is put aside first. `digests` are those of the frozen leaves; without any, nothing is written.

        Raises:
          OSError: if it cannot be written, or what is there cannot be read now.
        """
        if not digests:
            return
        frozen = cut.split(variables)[0]

        def verify() -> None:
            self._check(FROZEN, digests, self._read(FROZEN, variables=flatten(frozen)))
            check_files(self.path(FROZEN))

        if FROZEN in self._manager.all_steps():
            _, damage = agree(verify)
            if damage is None:
                list_files(self.path(FROZEN))
                return
            self._put_aside(FROZEN, f"{damage}; written again")
        self._write(FROZEN, variables=ocp.args.PyTreeSave(frozen))

    def save(self, number: int, state: TrainState, cut: Cut, frozen: dict[str, str], meta: Meta) -> None:
        """Writes the state without its frozen variables, `meta` (JSON) and the digest of every leaf; `frozen` are the
        digests of the frozen leaves. A checkpoint that exists already is left as it is.

        The variables are an Orbax item of their own, so that a later run can start from them without the optimizer's
        state.

        Raises:
          Diverged: if a value in the state is not finite.
          OSError: if the checkpoint cannot be written; those written before stay.
        """
        if number in self._manager.all_steps() or number == FROZEN:
            return
        variables, progress = _select(state, cut)
        leaves = jax.tree.map(on_host, variables | progress)
        for path, leaf in flatten(leaves).items():
            if not np.isfinite(leaf).all():
                raise Diverged(
                    f"{path} is not finite any more after step {int(leaves['step'])} of this run: the training "
                    "diverged; what was saved before stands. Try a smaller --config.optimizer.learning_rate"
                )
        meta = meta | {"digest": frozen | digest_leaves(leaves)}
        self._write(
            number,
            variables=ocp.args.PyTreeSave(variables),
            # As dicts: tuples inside tuples, as chains of optimizers have, would be saved as lists, and not be found.
            progress=ocp.args.PyTreeSave(unflatten(flatten(progress))),
            meta=ocp.args.JsonSave({"content": meta, "sha256": digest_json(meta)}),
        )

    def prune(self, keep: set[int]) -> None:
        """Deletes all checkpoints but those in `keep` and `FROZEN`.

        Orbax's own retention is not used: it can delete the newest checkpoint because its metric is worse, and can take
        NaN for the best metric.
        """
        for number in self.numbers - keep:
            deleted = self._move(number, DELETED)
            if leads():
                shutil.rmtree(deleted, ignore_errors=True)

    def restore_newest(
        self, state: TrainState, cut: Cut, frozen: dict[str, str], about: Meta
    ) -> tuple[TrainState, Meta] | None:
        """The state and the meta of the newest good checkpoint; None if there is none.

        `state` gives shapes and dtypes. The returned state lies on this process's first device, and its `variables` are
        the trainable ones only. A leaf that an older version did not save stays a `jax.ShapeDtypeStruct`: `complete`
        gives it its initial value. `frozen` are the digests of the frozen leaves that the run has now. `about` is the
        part of the meta that must be the same as when the run began.

        A checkpoint is good if it is, to the bit, what was saved, and if the variables of the checkpoint that it names
        as the best are too. A damaged one is reported and put aside; then the one before it is tried.

        Raises:
          ValueError: if the run began with other frozen weights, or with another `about`.
          OSError: if the system does not allow reading now.
        """
        numbers = self.numbers
        for number in sorted(numbers, reverse=True):
            found, damage = agree(partial(self._restore, number, state, cut, about))
            if found is not None and damage is None:
                if cut.select(found[1]["digest"]) != frozen:
                    raise ValueError(
                        f"{self.folder.parent}: this run began with other source weights; bring those back, give "
                        "another --workdir, or --overwrite"
                    )
                _, damage = agree(partial(check_files, self.path(number)))
            if damage is not None:
                self._put_aside(number, f"{damage}; going on from the one before {number}")
                continue
            assert found is not None
            list_files(self.path(number))
            self._look_after_others(number, found[1]["best"])
            return found
        if self.numbers != numbers:
            print(f"no good checkpoint is left in {self.folder}: it starts over", file=sys.stderr, flush=True)
        return None

    def read_meta(self, number: int) -> Meta:
        """The meta of a checkpoint; keys that an older version did not write come from `META_BEFORE`.

        Raises:
          Damaged: if the meta is not what was saved, or nothing that a run saves.
          OSError: if the system does not allow reading now.
        """
        with finding_damage(self.path(number)):
            saved = self._manager.restore(number, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        if not isinstance(saved, dict) or saved.get("sha256") != digest_json(saved.get("content")):
            raise Damaged(f"checkpoint {self.path(number)} is damaged: meta differs from what was saved")
        try:
            meta = META_BEFORE | saved["content"]
            check_meta(meta)
        except (ValueError, TypeError) as error:
            raise Damaged(f"checkpoint {self.path(number)} is damaged: its meta was edited: {error}") from error
        return meta

    def restore_variables(self, number: int) -> tuple[Tree, Meta]:
        """The variables of the whole network, on this process's first device, and the meta of a checkpoint.

        Raises:
          Damaged: if the meta or a leaf is not, to the bit, what was saved.
          OSError: if the system does not allow reading now.
        """
        meta = self.read_meta(number)
        model = build_network(meta["network"])
        frozen, trained = Cut(model.units, meta["cut"]).split(abstract_variables(model))
        self._check_sizes(number, meta["network"], flatten(trained))
        leaves = self._read(number, variables=flatten(trained))
        if frozen["params"]:
            leaves |= self._read(FROZEN, variables=flatten(frozen))
        expected = {path: value for path, value in meta["digest"].items() if path.split("/")[0] in frozen}
        self._check(number, expected, leaves)
        return unflatten(leaves), meta

    def read_back(self, number: int) -> None:
        """Reads the variables of a checkpoint that was just written.

        Raises:
          OSError: if they cannot be read, or are not what was saved.
        """
        try:
            self.restore_variables(number)
        except Damaged as error:
            raise OSError(
                f"the checkpoint that was just written cannot be read back ({error}): this folder is not fit for "
                "checkpoints; give another --workdir"
            ) from error

    def path(self, number: int) -> Path:
        """The folder of a checkpoint."""
        return self.folder / str(number)

    def _look_after_others(self, number: int, best: int) -> None:
        """Checks the files of all checkpoints but `number`, and puts damaged ones aside.

        The best one is only reported: `_restore` has already checked its arrays.
        """
        for other in sorted(self.numbers - {number}):
            _, damage = agree(partial(check_files, self.path(other)))
            if damage is not None and other == best:
                print(f"{damage}; its arrays are whole", file=sys.stderr, flush=True)
            elif damage is not None:
                self._put_aside(other, f"{damage}; it is not needed")
            elif other == best:
                list_files(self.path(other))

    def _restore(self, number: int, state: TrainState, cut: Cut, about: Meta) -> tuple[TrainState, Meta]:
        """The state and the meta of a checkpoint, checked against the digests. The variables of the checkpoint that it
        names as the best are checked too."""
        meta = self.read_meta(number)
        for name, value in json.loads(json.dumps(about)).items():
            if name not in meta:
                raise Damaged(f"checkpoint {self.path(number)} is damaged: its meta was edited: it has no {name!r}")
            if meta[name] is None and value is not None:
                print(f"{self.folder.parent}: {NOT_RECORDED[name]}", flush=True)
            elif meta[name] != value and value is not None:
                raise ValueError(
                    f"{self.folder.parent}: this run began with {_describe_change(name, meta[name], value)}; bring "
                    "back what it began with, or begin anew with another --workdir or --overwrite"
                )
        variables, progress = _select(state, cut)
        wanted = flatten(variables | progress)
        saved = {path: leaf for path, leaf in wanted.items() if path in meta["digest"]}
        kinds = {path: path.split("/")[0] in variables for path in saved}
        leaves = self._read(
            number,
            variables={path: leaf for path, leaf in saved.items() if kinds[path]},
            progress={path: leaf for path, leaf in saved.items() if not kinds[path]},
        )
        self._check(number, {p: d for p, d in meta["digest"].items() if not cut.holds(p)}, leaves)
        if meta["best"] not in (number, FROZEN):
            digests = self.read_meta(meta["best"])["digest"]
            best = self._read(meta["best"], variables=flatten(variables))
            self._check(meta["best"], {p: digests.get(p, "") for p in flatten(variables)}, best)
        return _place_leaves(TrainState(variables=variables, **progress), leaves), meta

    def _read(self, number: int, **items: dict[str, Any]) -> dict[str, Any]:
        """Leaves of a checkpoint by path. `items` gives, for each Orbax item, the paths to read and their shapes.

        Orbax casts to the dtype asked for without a warning. So callers check the result against the digests, which
        cover the dtype.
        """
        # A device of this process: the run that wrote the checkpoint may have had other devices.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def ask(leaves: dict[str, Any]) -> Any:
            shapes = {p: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here) for p, x in leaves.items()}
            wanted = unflatten(shapes)
            arguments = ocp.checkpoint_utils.construct_restore_args(wanted)
            return ocp.args.PyTreeRestore(item=wanted, restore_args=arguments, partial_restore=True)

        with finding_damage(self.path(number)):
            asked = {name: ask(leaves) for name, leaves in items.items()}
            restored = self._manager.restore(number, args=ocp.args.Composite(**asked))
            return {path: leaf for name in items for path, leaf in flatten(restored[name]).items()}

    def _check(self, number: int, expected: dict[str, str], leaves: dict[str, Any]) -> None:
        damaged = find_differences(expected, digest_leaves(leaves))
        if damaged:
            self._refuse_other_types(number, {path: leaves[path] for path in damaged if path in leaves})
            raise Damaged(
                f"checkpoint {self.path(number)} is damaged: {damaged[0]}"
                f"{f' and {len(damaged) - 1} more leaves' if damaged[1:] else ''} differ from what was saved"
            )

    def _refuse_other_types(self, number: int, leaves: dict[str, Any]) -> None:
        """Raises ValueError if all `leaves` were saved with other types than they were read with, as under
        JAX_ENABLE_X64. Nothing is damaged then, if the files are those that were saved."""
        saved = {path: leaf.dtype for path, leaf in self._describe(number).items()}
        others = [path for path in leaves if path in saved and saved[path] != leaves[path].dtype]
        if others and len(others) == len(leaves):
            check_files(self.path(number))
            raise ValueError(
                f"{self.folder.parent}: {others[0]} was saved as {saved[others[0]]} and is read as "
                f"{leaves[others[0]].dtype}: this program computes with other types than the run (is JAX_ENABLE_X64 "
                "set?); nothing is damaged"
            )

    def _check_sizes(self, number: int, network: Meta, leaves: dict[str, Any]) -> None:
        """Raises Damaged unless the arrays are as large as those of the `network` of the meta: the memory for `leaves`
        is taken before the arrays are read."""
        saved = self._describe(number, "variables")
        for path, leaf in leaves.items():
            if path in saved and tuple(saved[path].shape) != leaf.shape:
                sizes = {name: network[name] for name in ("width", "num_classes", "hidden") if name in network}
                raise Damaged(
                    f"checkpoint {self.path(number)} is damaged: its meta was edited: network={sizes} has {path} "
                    f"{leaf.shape}, it holds {tuple(saved[path].shape)}"
                )

    def _describe(self, number: int, items: str = "*") -> dict[str, Any]:
        """The types and shapes of the arrays of a checkpoint's Orbax `items` by path, as they were saved."""
        with finding_damage(self.path(number)):
            read = ocp.PyTreeCheckpointHandler().metadata
            trees = [read(file.parent).tree for file in self.path(number).glob(f"{items}/_METADATA")]
            return {path: leaf for tree in trees for path, leaf in flatten(tree).items()}

    def _write(self, number: int, **items: Any) -> None:
        # Orbax would create a missing folder again.
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} is gone; if the workdir was moved, the run goes on where it is now")
        try:
            # Every thread that writes also prints its error to stderr; the OSError below says it once.
            with redirect_stderr(io.StringIO()):
                self._manager.save(number, args=ocp.args.Composite(**items), force=True)
        except Exception as error:
            system = re.search(r": ([^:]+) \[os_error_code", str(error))
            reason = system[1] if system else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise OSError(
                f"checkpoint {self.path(number)} cannot be written ({reason}); those before it stand"
            ) from error
        list_files(self.path(number))

    def _put_aside(self, number: int, message: str) -> None:
        print(message, file=sys.stderr, flush=True)
        self._move(number, ASIDE)

    def _move(self, number: int, ending: str) -> Path:
        """Adds `ending` to the name of a checkpoint's folder, so that Orbax does not list it; returns the new path."""
        path = self.path(number)
        moved = path.with_name(path.name + ending)
        if leads():
            shutil.rmtree(moved, ignore_errors=True)
            path.rename(moved)
        wait(f"{path} is moved")
        self._manager.reload()
        return moved


@contextmanager
def open_checkpoints(workdir: Path, *, own: bool = False) -> Iterator[Checkpoints]:
    """Opens the checkpoints of the run in `workdir`.

    With `own`, the run belongs to the caller: what a kill left half written or half deleted is removed. Without it,
    nothing may be written, and nothing is created. This is a context manager because Orbax may hang at exit if its own
    manager is not closed.
    """
    if own:
        for pattern in ("*.orbax-checkpoint-tmp*", f"*{DELETED}") if leads() else ():
            for path in (workdir / FOLDER).glob(pattern):
                shutil.rmtree(path, ignore_errors=True)
        wait(f"{workdir / FOLDER} is clean")
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False, create=own, lightweight_initialize=not own)
    with ocp.CheckpointManager((workdir / FOLDER).absolute(), options=options) as manager:
        yield Checkpoints(manager)


def complete(restored: TrainState, fresh: Callable[[], TrainState]) -> TrainState:
    """`restored` with initial values for the leaves of the optimizer's state that an older version did not save.

    The initial values come from `fresh()`, a state before its first step. It is called only if leaves are missing.
    """
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(restored.opt_state)):
        return restored

    def choose(leaf: Any, first: Any) -> Any:
        return on_host(first) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf

    return restored._replace(opt_state=jax.tree.map(choose, restored.opt_state, fresh().opt_state))


def _select(state: TrainState, cut: Cut) -> tuple[Tree, Tree]:
    """The part of a state that a checkpoint holds: the trainable variables, and the rest, in an Orbax item each."""
    raw = {"raw": state.raw} if state.raw else {}
    return cut.split(state.variables)[1], {"opt_state": state.opt_state, "step": state.step} | raw


def _place_leaves(state: TrainState, leaves: dict[str, Any]) -> TrainState:
    """`state` with `leaves` at their paths; where there is no leaf, the shape stays."""
    tree = state.variables | {"opt_state": state.opt_state, "step": state.step, "raw": state.raw}
    found = [leaves.get(path, shape) for path, shape in flatten(tree).items()]
    placed = jax.tree.unflatten(jax.tree.structure(tree), found)
    variables = {kind: placed[kind] for kind in state.variables}
    return TrainState(placed["step"], variables, placed["opt_state"], placed["raw"])


def _describe_change(name: str, before: Any, now: Any) -> str:
    """How a part of a meta differs, for a reader. Splits are numbers of pictures and checksums."""
    if name == "views_used":
        in_use, room = ("in use", "no room") if before else ("not in use", "room")
        return f"config.data.views {in_use}, and config.cache has {room} for them now"
    if name == "read_anew":
        found = ", ".join(f"{split}: {count:,}" for split, count in sorted((before | now).items()))
        return f"TIFFs that were turned twice or not inverted, and are read as they should now ({found})"
    if name == "class_names":
        return f"the classes {join_names(before)}, and the data has {join_names(now)} now"
    if name not in ("data", "content"):
        return f"another {name} ({before}) than now ({now})"
    splits = [split for split in sorted(before.keys() | now.keys()) if before.get(split) != now.get(split)]
    if name == "content":
        return f"other pictures than now ({', '.join(splits)}: names and labels are the same, the content is not)"
    said = []
    for split in splits:
        counts = [side.get(split, [0])[0] for side in (before, now)]
        same = ", with other names, labels or order" if counts[0] == counts[1] else ""
        said.append(f"{split}: {counts[0]:,} then, {counts[1]:,} now{same}")
    return f"other pictures than now ({'; '.join(said)})"
