"""show: what a finished run, or the stages of a lesson, came to."""

import argparse
from pathlib import Path

from tljax.report import tables
from tljax.runs.files import read_json
from tljax.runs.workdir import SUMMARY
from tljax.trees import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this command."""
    parser.add_argument("run", type=Path, help="the workdir of a run, or of a lesson")


def run(flags: argparse.Namespace) -> None:
    """Prints the summary of a run, or the table of a lesson's stages."""
    print(show(flags.run))


def show(run: Path) -> str:
    """As a person reads it.

    Raises:
      FileNotFoundError: if nothing there is finished.
    """
    if (run / SUMMARY).is_file():
        return tables.summary_line(read_json(run / SUMMARY))
    stages: dict[str, Row] = {path.parent.name: read_json(path) for path in run.glob(f"*/{SUMMARY}")}
    if not stages:
        raise FileNotFoundError(f"{run} holds no {SUMMARY}: no run is finished there")
    return tables.stages_table(dict(sorted(stages.items(), key=lambda item: (run / item[0] / SUMMARY).stat().st_mtime)))
