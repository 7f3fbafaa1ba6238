"""show: prints the results of a run or lesson."""

import argparse
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from tljax.config import SOURCE, Lesson, Monitor, is_number
from tljax.report import printed
from tljax.report.study import BY_UNIT, TO_TRAIN, describe_tested, list_rows
from tljax.runs.files import read_file, read_json, read_rows
from tljax.runs.records import read_answer
from tljax.runs.saved_configs import build_settings, fill_in
from tljax.runs.saved_values import are_epochs, check_summary
from tljax.runs.workdir import ANSWER, CONFIG, METRICS, SUMMARY, is_at_work
from tljax.text import printable
from tljax.trees import Row


def run(flags: argparse.Namespace) -> None:
    """Prints the summary of a run, or the table of a lesson's stages."""
    print(show(flags.run))


def show(run: Path) -> str:
    """The summary of a run, or the table of a lesson's finished stages, and what is in training or only begun, as text.

    Raises:
      FileNotFoundError: if no run is finished or at work there; it says which are interrupted, and how far they came.
      ValueError: if a summary cannot be read.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"{run} is no folder; give the workdir of a run or of a lesson")
    # Asked before the summary is read: who ends in between has written it.
    at_work = bool(is_at_work(run))
    summary = _read_summary(run / SUMMARY, in_lesson=False)
    if summary is None:
        return _show_stages(run, at_work)
    text = printed.results(summary)
    return f"{text}\n{run} is in training: this may change" if at_work else text


def _show_stages(run: Path, at_work: bool) -> str:
    """What `show` gives of a folder without a summary; `at_work` says whether a run is at work there."""
    begun = {path.parent for path in run.glob(f"*/{CONFIG}")} or {path.parent for path in run.glob(CONFIG)}
    training = {folder for folder in begun if is_at_work(folder)}
    summaries = {
        folder: _read_summary(folder / SUMMARY, in_lesson=True) for folder in _sort_by_time(run.glob(f"*/{SUMMARY}"))
    }
    finished = {folder.name: row for folder, row in summaries.items() if row is not None}
    left = {folder for folder in begun - training if folder.name not in finished}
    unfinished = _describe_unfinished(run, training, left, at_work)
    if finished:
        answer = _describe_answer(run, finished)
        return "\n".join([*answer, printed.stages_table(finished), *_describe_stages(run, finished), *unfinished])
    if training or at_work:
        return "\n".join(unfinished)
    raise FileNotFoundError("; ".join([f"{run} holds no {SUMMARY}: no run is finished there", *unfinished]))


def _describe_answer(run: Path, finished: Mapping[str, Row]) -> list[str]:
    """What the study in `run` came to; nothing of another run.

    Raises:
      ValueError, OSError: if its file is damaged.
    """
    if not (run / ANSWER).exists():
        return []
    found = read_answer(run / ANSWER)
    test = finished.get(found["chosen"], {}).get("test")
    table = [printed.align([BY_UNIT, *list_rows(found)])] if found["heads"] else []
    said = [*found["said"], *describe_tested(found, test), f"{TO_TRAIN}: {found['command']}"]
    return [*map(printable, said), "", *table, ""]


def _describe_stages(run: Path, finished: Mapping[str, Row]) -> list[str]:
    """The notes that the report of a lesson has, of its `finished` stages; where `run` is a folder of other runs, what
    their own summaries say."""
    damaged = []
    try:
        origins, monitors = _read_lesson(run)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        origins, monitors = {}, {}
        damaged = [f"{run / CONFIG} is damaged ({type(error).__name__}): which stages helped is not known"]
    notes = printed.stages_notes(finished, finished.get(SOURCE), origins, monitors)
    return [*notes, *map(printable, damaged)]


def _read_lesson(run: Path) -> tuple[dict[str, str | None], dict[str, Monitor]]:
    """From which stage each stage of a lesson takes its weights, and what makes an epoch of it the best; nothing where
    `run` holds no lesson.

    Raises:
      OSError, ValueError, TypeError, AttributeError, KeyError: if its config is damaged.
    """
    saved = read_json(run / CONFIG) if (run / CONFIG).exists() else {}
    if "stages" not in saved:
        return {}, {}
    lesson: Lesson = build_settings(Lesson, fill_in(saved, Lesson))
    return lesson.origins(), {name: stage.monitor for name, stage in lesson.active.items()}


def _describe_unfinished(run: Path, training: set[Path], left: set[Path], at_work: bool) -> list[str]:
    """Lines about the folders in `training`, and about those that are `left`: begun, and neither finished nor in
    training."""
    lines = [f"in training: {_join(training)}"] if training else [f"{run} is in training"] * at_work
    if left and at_work:
        lines.append(f"begun, not finished: {_join(left)}; the lesson comes to it")
    elif left:
        # Where the system does not say that a run is at work, one may be.
        word = "begun, not finished" if any(is_at_work(folder) is None for folder in left) else "interrupted"
        lines += [f"{word}: {folder.name}, {_describe_epochs(folder)}" for folder in sorted(left)]
        lines.append("to go on, type the command that began this once more, with the same --workdir")
    return lines


def _describe_epochs(folder: Path) -> str:
    """How far a run came that is not finished: its last epoch, and the lowest loss on the validation pictures."""
    try:
        rows = [row for row in read_rows(folder / METRICS) if _has_losses(row)]
    except (OSError, ValueError):
        rows = []
    if not rows:
        return "before it had a result"
    best = min(rows, key=lambda row: float(row["val_loss"]))
    lowest = f"{best['val_loss']:.4f}, in epoch {best['epoch']}, with val_accuracy {best['val_accuracy']:.4f}"
    return f"after epoch {rows[-1]['epoch']}: its lowest val_loss is {lowest}"


def _has_losses(row: Row) -> bool:
    # A solved head may have none, and a diverged epoch has none that is a number.
    return are_epochs([row]) and is_number(row["val_loss"]) and is_number(row["val_accuracy"])


def _join(folders: set[Path]) -> str:
    return ", ".join(sorted(folder.name for folder in folders))


def _sort_by_time(files: Iterable[Path]) -> list[Path]:
    """The folders of files, the one with the oldest file first. A run may delete a file at any time."""
    times: dict[Path, float] = {}
    for file in files:
        with suppress(FileNotFoundError):
            times[file.parent] = file.stat().st_mtime
    return sorted(times, key=lambda folder: times[folder])


def _read_summary(path: Path, *, in_lesson: bool) -> Row | None:
    """A summary that can be printed; `in_lesson` as a row of a table. None if there is none.

    Raises:
      ValueError, OSError: with the file, and what is wrong with it.
    """
    try:
        row: Row = json.loads(read_file(path).decode("utf-8"))
        check_summary(row, in_lesson=in_lesson)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no summary of a run, or damaged ({type(error).__name__}: {error})") from error
    return row
