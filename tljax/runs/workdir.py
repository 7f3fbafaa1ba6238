"""The folder of a run: which process works in it, how far the run is, what it runs on."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from tljax.config import AnyConfig, Data, as_json
from tljax.data.corrections import digest_decisions, read_decisions
from tljax.devices import environment
from tljax.devices.processes import leads, wait
from tljax.runs import evidence, learned, predictions, reference
from tljax.runs.files import open_without_waiting, read_json, read_rows, write_json, write_rows
from tljax.runs.saved_configs import ConfigT, explain_changes, fill_in, find_changes, go_on_as_begun, growing
from tljax.runs.saved_values import are_epochs, check_summary
from tljax.trees import Row

CONFIG, METRICS, SUMMARY, ENVIRONMENT = "config.json", "metrics.jsonl", "summary.json", "environment.jsonl"
# The page of a run.
REPORT = "report.html"
# What a recipe became. Its run begins with this file, so that the folder is a run's only with the config after it.
RECIPE = "recipe.json"
# The answer of a study.
ANSWER = "how_deep.json"
# What a run writes into its workdir; --overwrite deletes these and `RECIPE`, and nothing else.
OTHERS = (
    *predictions.PREDICTIONS.values(), "report.md", REPORT, ANSWER, "figures", "checkpoints",
    reference.REFERENCE, evidence.EVIDENCE, learned.LEARNED,
)  # fmt: skip
FILES = (CONFIG, ENVIRONMENT, METRICS, *OTHERS, SUMMARY)
# What a run writes into these folders, as patterns of names.
OWN = {"figures": r"(unfinished_)?(samples|predictions|curves|places|growth)\.png", "checkpoints": r"\d+(\..*)?"}
LOCK = ".lock"
# The names of stages, which are folders in the workdir.
STAGE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}"
# The locks that processes of this system hold, a line each. Reading it takes none.
HELD = Path("/proc/locks")


@contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Makes `workdir` unless it is there, and keeps every other run out of it until the block ends. A folder that was
    made for this and is still empty then is removed.

    Raises:
      OSError: if it cannot be made, or another run is at work there.
      ValueError: if it is an address, or its path has a '['.
    """
    if not leads():
        yield
        return
    _refuse_file(workdir)
    made = [path for path in (workdir, *workdir.parents) if not os.path.exists(path)]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / LOCK, "a", opener=open_without_waiting)  # noqa: SIM115, the block below closes it
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
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise FileExistsError(f"{workdir} is a file; give a folder as --workdir")
    if re.match(r"[a-z][a-z0-9]+:/", str(workdir)):
        raise ValueError(
            f"--workdir {workdir} is an address, not a folder: locks and renames do not work there; mount it, or give "
            "a folder of this machine"
        )
    # Orbax finds its files by a pattern that begins with this path.
    if "[" in str(workdir.resolve()):
        raise ValueError(
            f"{workdir.resolve()}: checkpoints cannot be read from a path with '['; give another --workdir"
        )


def _lock(file: Any, workdir: Path) -> None:
    # The system releases this lock however the process ends.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The run that was here a moment ago may have removed the file since it was opened.
        taken = not os.path.samestat(os.fstat(file.fileno()), (workdir / LOCK).stat())
    except (BlockingIOError, FileNotFoundError):
        taken = True
    except OSError as error:
        print(f"{workdir}: cannot keep other runs out ({error.strerror})")
        return
    if taken:
        raise FileExistsError(f"{workdir}: another run is at work there; wait, or give another --workdir")


def is_at_work(workdir: Path) -> bool | None:
    """Whether a run of another process is at work in `workdir`; None if the system does not say. It takes no lock, for
    which a run that starts in this moment would end."""
    try:
        number = (workdir / LOCK).stat().st_ino
    except OSError:
        return False
    try:
        rows = [line.split() for line in HELD.read_text().splitlines()]
    except OSError:
        return None
    # Such as `1: FLOCK ADVISORY WRITE 4711 fe:00:8246 0 EOF`, with the process and, after the device, the file's
    # number. The device is not compared: some file systems have another one here than in `stat`.
    held = [row for row in rows if row[1:2] == ["FLOCK"] and row[5].split(":")[-1] == str(number)]
    return any(row[4] != str(os.getpid()) for row in held)


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def find_run(workdir: Path, config: AnyConfig) -> Literal["none", "begun", "finished"]:
    """How far the run of `config` in `workdir` is. A finished run with fewer epochs than `config` counts as begun.

    Raises:
      FileExistsError: if `workdir` holds files of a run without its config.
      ValueError: if it holds a run of another config, with what differs, or a finished one of other corrections.
      FileNotFoundError: if the corrections of a finished run are not there.
    """
    _refuse_file(workdir)
    refuse_other_folders(workdir)
    if not (workdir / CONFIG).exists():
        return "none"
    before, now = fill_in(read_json(workdir / CONFIG), type(config)), as_json(config)
    may_grow = growing(config)
    changes = find_changes(before, now, may_grow)
    if changes:
        raise ValueError(
            f"{workdir} holds a run of another config ({explain_changes(changes, config)}); give its config, another "
            "--workdir, or --overwrite"
        )
    # More epochs than before are allowed, fewer are not: compared the other way round, they show.
    longer = find_changes(now, before, may_grow)
    if longer or not _is_whole(workdir):
        return "begun"
    _refuse_other_corrections(workdir, config.data)
    return "finished"


def _refuse_other_corrections(workdir: Path, data: Data) -> None:
    """Raises ValueError if the finished run in `workdir` had other corrections than `data` has: its pictures are not
    read again, by which that shows in a run that goes on."""
    if data.corrections is None:
        return
    before = (read_json(workdir / SUMMARY).get("data") or {}).get("corrections")
    if before != digest_decisions(read_decisions(data.corrections_file)):
        raise ValueError(
            f"{workdir} holds a run of other corrections than {data.corrections} has now; give those, another "
            "--workdir, or --overwrite"
        )


def as_begun(workdir: Path, config: ConfigT) -> ConfigT:
    """`config` for the run in `workdir`: settings that an older version did not have are as that version behaved."""
    try:
        return go_on_as_begun(config, read_json(workdir / CONFIG))
    except OSError:
        return config


def _is_whole(workdir: Path) -> bool:
    """Whether the files of a finished run are there, and undamaged: a run that is not whole writes them again."""
    try:
        summary = read_json(workdir / SUMMARY)
        check_summary(summary, in_lesson=True)
        return summary["stage"] == "zero_shot" or are_epochs(read_rows(workdir / METRICS))
    except (OSError, ValueError):
        return False


def begin_run(workdir: Path, config: AnyConfig, *, overwrite: bool, recipe: Row | None = None) -> None:
    """Writes `config.json` unless it is there, and before it the `recipe` that the config comes from; with `overwrite`
    it deletes the files of an earlier run first. All processes wait until this is done."""
    wait(f"{workdir} is checked")
    if overwrite:
        clear(workdir)
    if recipe is not None and not (workdir / RECIPE).exists():
        write_json(workdir / RECIPE, recipe)
    if not (workdir / CONFIG).exists():
        write_json(workdir / CONFIG, as_json(config))
    wait(f"{workdir} is there")


def mark_running(workdir: Path, config: AnyConfig) -> None:
    """Marks the run as one of `config` that is not finished, and records what this start runs on. What an earlier epoch
    predicted for the test split goes, too: the run itself may not evaluate that."""
    if leads():
        (workdir / SUMMARY).unlink(missing_ok=True)
        (workdir / predictions.PREDICTIONS["test"]).unlink(missing_ok=True)
    write_json(workdir / CONFIG, as_json(config))
    record_environment(workdir)


def record_environment(workdir: Path) -> None:
    """Adds a row to `environment.jsonl`: command, versions, devices and machine of this start. No run depends on it: a
    damaged file is written anew, and one that cannot be written is a line."""
    try:
        earlier = read_rows(workdir / ENVIRONMENT)
    except (OSError, ValueError):
        earlier = []
    try:
        write_rows(workdir / ENVIRONMENT, [*earlier, environment.describe()])
    except OSError as error:
        print(f"the environment is not recorded: {error}")


def find_stages(workdir: Path) -> list[Path]:
    """The folders of the stages of the lesson in `workdir`, as far as they are runs."""
    try:
        config = read_json(workdir / CONFIG)
    except (OSError, ValueError):
        return []
    stages = config.get("stages") if isinstance(config, dict) else None
    # Somebody may have edited the file: a name must not lead out of the folder.
    names = [name for name in stages if re.fullmatch(STAGE_NAME, name)] if isinstance(stages, dict) else []
    return [workdir / name for name in names if (workdir / name / CONFIG).exists()]


def clear(workdir: Path) -> None:
    """Deletes the files of a run in `workdir`, and those of its stages if it is a lesson: no stage of an earlier lesson
    is left that would be taken for one of the next. Other people's files stay.

    Raises:
      FileExistsError: if another run is at work in one of the stages; nothing is deleted then.
    """
    stages = find_stages(workdir)
    if (workdir / CONFIG).exists():
        names = ", ".join(stage.name for stage in stages)
        print(f"--overwrite: the run in {workdir} is deleted{f', with its stages {names}' if names else ''}")
    with ExitStack() as claimed:
        for stage in stages:
            claimed.enter_context(claim(stage))
        for stage in stages:
            _delete_files(stage)
        _delete_files(workdir)
    _remove(stages)


def _delete_files(workdir: Path) -> None:
    """Deletes the files of a run: its summary first, so that it no longer counts as finished; its config last, so that
    the folder is known as a run's until the end."""
    for path in (workdir / name for name in (*reversed(FILES), RECIPE) if leads()):
        if path.is_dir():
            _delete_own(path)
        else:
            path.unlink(missing_ok=True)
            # A kill may have left it.
            path.with_name(f"{path.name}.tmp").unlink(missing_ok=True)


def _delete_own(folder: Path) -> None:
    for path in folder.iterdir():
        if re.fullmatch(OWN[folder.name], path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # A file that no run wrote keeps the folder.
    with suppress(OSError):
        folder.rmdir()


def _holds_own(path: Path) -> bool:
    """Whether a file or a folder with the name of a run's is there, and a folder has what a run writes into it."""
    if not path.is_dir():
        return path.exists()
    return any(re.fullmatch(OWN[path.name], inside.name) for inside in path.iterdir()) if path.name in OWN else True


def refuse_other_folders(workdir: Path) -> None:
    """Raises FileExistsError if `workdir` holds names of a run's files but no config: somebody else's folder."""
    found = [name for name in FILES if _holds_own(workdir / name)]
    if found and CONFIG not in found:
        raise FileExistsError(
            f"{workdir} holds {', '.join(found)} but no {CONFIG}, so it is no run; give another --workdir"
        )
