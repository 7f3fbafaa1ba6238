"""Reads what a run has come to, for others than the run itself: it may be at work meanwhile, and is not disturbed."""

import re
import time
from contextlib import suppress
from pathlib import Path

import jax

from tljax.runs.checkpoints import FOLDER, FROZEN, Meta, open_checkpoints
from tljax.runs.integrity import Damaged
from tljax.runs.workdir import is_at_work
from tljax.trees import Tree

# A read beside a run at work fails if the run deletes the checkpoint meanwhile. The newest is read again for so many
# seconds, and so often at least, with a pause in between.
AGAIN_SECONDS, AGAIN_TIMES, AGAIN_PAUSE = 10.0, 3, 0.05


class Unfinished(ValueError):
    """No checkpoint of a finished epoch is there."""


def read_run(workdir: Path) -> tuple[Tree, Meta]:
    """The variables of the best epoch of the run in `workdir`, and the meta of its newest checkpoint. Where a run is at
    work or has just written, what cannot be read is read again.

    Raises:
      ValueError: if there is no checkpoint of a finished epoch, or a checkpoint is damaged.
      OSError: if the system, or a run that is at work there, does not allow reading now.
    """
    tries, end = 1, time.monotonic() + AGAIN_SECONDS
    while True:
        before = _list_folder(workdir / FOLDER)
        try:
            return _read_best(workdir)
        # What Orbax is reading may go at any time; it raises errors of many types then.
        except Exception as error:
            # A run that ended before the first question has changed the folder before the second.
            at_work = is_at_work(workdir)
            changed = _list_folder(workdir / FOLDER) != before
            ended = tries >= AGAIN_TIMES and time.monotonic() > end
            if ended or not _may_pass(error, at_work, changed):
                _name_run_at_work(error, workdir, at_work, changed)
                raise
        tries += 1
        time.sleep(AGAIN_PAUSE)


def _read_best(workdir: Path) -> tuple[Tree, Meta]:
    """What `read_run` gives, read once."""
    if not (workdir / FOLDER).is_dir():
        raise Unfinished(f"{workdir} holds no {FOLDER}/: it is not the folder of a run that trained")
    with open_checkpoints(workdir) as checkpoints:
        newest = max(checkpoints.numbers, default=None)
        meta = {"best": FROZEN} if newest is None else checkpoints.read_meta(newest)
        if meta["best"] == FROZEN:
            raise Unfinished(f"{workdir / FOLDER} holds no finished epoch: run that stage again")
        try:
            variables, _ = checkpoints.restore_variables(meta["best"])
        except Damaged as error:
            raise Damaged(f"{error}; delete {workdir} to run that again") from error
    return variables, meta


def _list_folder(folder: Path) -> set[tuple[str, int, int]]:
    """The name, number and time of everything in a folder: two that are equal have had no change in between."""
    found = set()
    with suppress(OSError):
        for path in folder.iterdir():
            status = path.stat()
            found.add((path.name, status.st_ino, status.st_mtime_ns))
    return found


def _may_pass(error: Exception, at_work: bool | None, changed: bool) -> bool:
    """Whether `read_run` may succeed if it reads once more."""
    # Several processes of a run wait for each other in a read, so none of them may begin another one alone.
    if jax.process_count() > 1:
        return False
    if isinstance(error, Unfinished):
        return changed and not at_work
    return changed or at_work is not False


def _name_run_at_work(error: Exception, workdir: Path, at_work: bool | None, changed: bool) -> None:
    """Raises an error that says so if `error` may come from a run that is at work in `workdir`."""
    # A lesson comes to this stage later.
    if isinstance(error, Unfinished) and (at_work or is_at_work(workdir.parent)):
        raise Unfinished(f"{workdir} is in training and has no finished epoch yet; wait for it") from error
    if at_work or changed:
        reason = re.sub(r".* is damaged: |; delete .*", "", " ".join(str(error).split()))
        raise OSError(f"{workdir} is in training, and could not be read just now ({reason}); try again") from error
