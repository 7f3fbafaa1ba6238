"""show: what a finished run, or the stages of a lesson, came to."""

import argparse
from pathlib import Path

from tljax.report import tables
from tljax.runs.files import Row, read_json

SUMMARY = "summary.json"


def main(arguments: list[str]) -> None:
    """Prints the summary of the run in a folder, or of a lesson the table of its stages."""
    parser = argparse.ArgumentParser("main.py show", description="Prints what a finished run or lesson came to.")
    parser.add_argument("run", type=Path, help="the workdir of a run, or of a lesson")
    print(show(parser.parse_args(arguments).run))


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
