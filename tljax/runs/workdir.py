"""The folder of a run: who works in it, how far the run is."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from tljax.config import AnyConfig, as_json
from tljax.devices.processes import leads, wait
from tljax.runs.files import read_json, write_json
from tljax.runs.saved_configs import fill_in, find_changes, growing

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
# What a run writes into its workdir; --overwrite deletes these and nothing else.
FILES = (CONFIG, METRICS, "predictions.jsonl", "report.md", "figures", "checkpoints", SUMMARY)
LOCK = ".lock"


@contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Makes `workdir` unless it is there, and keeps every other run out of it meanwhile. What was made for this and is
    empty in the end is removed again.

    Raises:
      OSError: if it cannot be made, or another run is at work there.
    """
    if not leads():
        yield
        return
    _refuse_file(workdir)
    made = [path for path in (workdir, *workdir.parents) if not path.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / LOCK).open("a")
    except OSError as error:
        _remove(made)
        raise type(error)(f"{workdir} cannot be written to ({error.strerror}); give another --workdir") from error
    with file:
        _lock(file, workdir)
        try:
            yield
        finally:
            with suppress(OSError):
                (workdir / LOCK).unlink()
            _remove(made)


def _refuse_file(workdir: Path) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise FileExistsError(f"{workdir} is a file; give a folder as --workdir")


def _lock(file: Any, workdir: Path) -> None:
    # The system lets go of it however the process ends.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who was there a moment ago may have removed it.
        taken = not os.path.samestat(os.fstat(file.fileno()), (workdir / LOCK).stat())
    except (BlockingIOError, FileNotFoundError):
        taken = True
    except OSError as error:
        print(f"{workdir}: cannot keep other runs out ({error.strerror})")
        return
    if taken:
        raise FileExistsError(f"{workdir}: another run is at work there; wait, or give another --workdir")


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def find_run(workdir: Path, config: AnyConfig) -> Literal["none", "begun", "finished"]:
    """How far the run of `config` in `workdir` is. One with fewer epochs counts as begun.

    Raises:
      FileExistsError: if what is there is no run that could go on.
      ValueError: if it is a run of another config, with what differs.
    """
    _refuse_file(workdir)
    found = [name for name in FILES if (workdir / name).exists()]
    if not found:
        return "none"
    if CONFIG not in found:
        raise FileExistsError(
            f"{workdir} holds {', '.join(found)} but no {CONFIG}; give another --workdir, or --overwrite"
        )
    before, now = fill_in(read_json(workdir / CONFIG), type(config)), as_json(config)
    may_grow = growing(config)
    changes = find_changes(before, now, may_grow)
    if changes:
        raise ValueError(
            f"{workdir} holds a run of another config ({'; '.join(changes)}); give its config, another --workdir, or "
            "--overwrite"
        )
    # More epochs are no change; the other way round they would be.
    longer = find_changes(now, before, may_grow)
    return "finished" if not longer and _is_whole(workdir) else "begun"


def _is_whole(workdir: Path) -> bool:
    """Whether there is what a finished run leaves."""
    try:
        stage = read_json(workdir / SUMMARY)["stage"]
    except (OSError, ValueError):
        return False
    return stage == "zero_shot" or (workdir / METRICS).exists()


def begin_run(workdir: Path, config: AnyConfig, *, overwrite: bool) -> None:
    """Writes `config.json` where there is none; with `overwrite` it deletes first what an earlier run left. All
    processes go on after that."""
    wait(f"{workdir} is checked")
    if overwrite:
        clear(workdir)
    if not (workdir / CONFIG).exists():
        write_json(workdir / CONFIG, as_json(config))
    wait(f"{workdir} is there")


def mark_running(workdir: Path, config: AnyConfig) -> None:
    """From here on the run is one of `config`, and not finished."""
    if leads():
        (workdir / SUMMARY).unlink(missing_ok=True)
    write_json(workdir / CONFIG, as_json(config))


def clear(workdir: Path) -> None:
    """Deletes what a run left in `workdir`: its summary first, so that it is no finished run any more, its config last,
    until when the folder is known as a run's."""
    for path in (workdir / name for name in reversed(FILES) if leads()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
