"""show: prints the results of a run or lesson."""

import argparse
import json
from pathlib import Path

from tljax.report import printed
from tljax.runs.files import read_file
from tljax.runs.saved_values import check_summary
from tljax.runs.workdir import CONFIG, SUMMARY
from tljax.trees import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("run", type=Path, help="the workdir of a run, or of a lesson")


def run(flags: argparse.Namespace) -> None:
    """Prints the summary of a run, or the table of a lesson's stages."""
    print(show(flags.run))


def show(run: Path) -> str:
    """The summary of a run, or the table of a lesson's finished stages and the names of others, as text.

    Raises:
      FileNotFoundError: if no run is finished there.
      ValueError: if a summary cannot be read.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"{run} is no folder; give the workdir of a run or of a lesson")
    if (run / SUMMARY).is_file():
        return printed.summary_line(_read_summary(run / SUMMARY, in_lesson=False))
    found = sorted(run.glob(f"*/{SUMMARY}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{run} holds no {SUMMARY}: no run is finished there")
    table = printed.stages_table({path.parent.name: _read_summary(path, in_lesson=True) for path in found})
    unfinished = {path.parent for path in run.glob(f"*/{CONFIG}")} - {path.parent for path in found}
    names = ", ".join(sorted(path.name for path in unfinished))
    return f"{table}\nbegun, not finished: {names}; the command that began this goes on" if names else table


def _read_summary(path: Path, *, in_lesson: bool) -> Row:
    """A summary that can be printed; `in_lesson` as a row of a table.

    Raises:
      ValueError, OSError: with the file, and what is wrong with it.
    """
    try:
        row: Row = json.loads(read_file(path).decode("utf-8"))
        check_summary(row, in_lesson=in_lesson)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no summary of a run, or damaged ({type(error).__name__}: {error})") from error
    return row
