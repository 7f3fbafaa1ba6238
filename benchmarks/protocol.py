"""What all workers share: a request of JSON a line on stdin, an answer of JSON a line on stdout.

A worker is one process of one library, alive for a whole comparison, so that start-up and imports stay out of the
times and the contestants can take turns. Needs NumPy only: it runs in the environments of the peers too.
"""

import argparse
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, Protocol, TextIO

import numpy as np

Arrays = dict[str, np.ndarray]
Request = dict[str, Any]

BATCH = 256
LARGE_BATCH = 16
CLASSES = 10
LARGE_CLASSES = 1000
WARM_UP = 2
# The first unit that trains.
STEP_CUTS = {"step_head": "head", "step_conv5": "conv5_block1", "step_all": "conv1"}
JOB_CUTS = {"job_feature_extraction": "head", "job_fine_tune": "conv5_block1"}


class Stopwatch:
    """The times of a whole job, started with it."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.setup: float | None = None
        self.epochs: list[float] = []

    def begin_epoch(self) -> None:
        self._epoch_started = time.perf_counter()

    def end_step(self) -> None:
        """To be called after every training step, or the first: only that one counts."""
        if self.setup is None:
            self.setup = time.perf_counter() - self.started

    def end_epoch(self) -> None:
        """To be called after the evaluation, which belongs to the epoch."""
        self.epochs.append(time.perf_counter() - self._epoch_started)


class Worker(Protocol):
    """One library in one setting."""

    jobs: frozenset[str]

    def prepare(self, job: str) -> tuple[Callable[[], object], int]:
        """Builds a `forward_*` or `step_*` job: what to repeat, which returns when its work is done, and how many
        images one repetition takes."""

    def run(self, job: str, request: Request, stopwatch: Stopwatch) -> None:
        """Runs a whole `job_*` with the `train`, `val` and `epochs` of `request`, from building the model on."""


def arguments(description: str | None, settings: tuple[str, str] | None = None) -> argparse.Namespace:
    """The command line of a worker: `--arrays`, and one of two `settings`, as the attribute `setting`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrays", required=True, help="npz of train_, val_ and large_images, train_ and val_labels")
    if settings:
        group = parser.add_mutually_exclusive_group(required=True)
        for setting in settings:
            group.add_argument(f"--{setting}", dest="setting", action="store_const", const=setting)
    return parser.parse_args()


def load_arrays(path: str) -> Arrays:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def take_rows(arrays: Arrays, request: Request) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The first `train` and `val` rows: training images and labels, validation images and labels."""
    rows = []
    for split in ("train", "val"):
        n, have = request[split], len(arrays[f"{split}_labels"])
        if not 0 < n <= have:
            raise ValueError(f"{split}={n}: there are {have} images")
        rows += [arrays[f"{split}_images"][:n], arrays[f"{split}_labels"][:n]]
    return rows[0], rows[1], rows[2], rows[3]


def repeat_batches(size: int, *arrays: Any) -> Iterator[tuple[Any, ...]]:
    """Batches of `size` rows of `arrays` (anything that slices), over and over; without a smaller one at the end, for
    which a compiler would have to compile once more."""
    n = len(arrays[0])
    starts = range(0, n - size + 1, size) or [0]
    for start in cycle(starts):
        yield tuple(array[start : start + size] for array in arrays)


def serve(make: Callable[[Arrays], Worker], arrays_path: str, versions: dict[str, str]) -> None:
    """Answers requests until stdin ends; an exception is an answer too."""
    answers = _take_stdout()
    worker = make(load_arrays(arrays_path))
    _answer(answers, "ready " + json.dumps(versions))
    prepared: dict[str, tuple[Callable[[], object], int]] = {}
    for line in sys.stdin:
        try:
            answer = _handle(worker, json.loads(line), prepared)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        _answer(answers, json.dumps(answer))


def _handle(worker: Worker, request: Request, prepared: dict[str, tuple[Callable[[], object], int]]) -> dict[str, Any]:
    job = request["job"]
    if job == "peak":
        # Linux counts in kB.
        return {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}
    if job not in worker.jobs:
        return {"unsupported": True}
    if job.startswith("job_"):
        prepared.clear()
        stopwatch = Stopwatch()
        worker.run(job, request, stopwatch)
        seconds = time.perf_counter() - stopwatch.started
        return {"seconds": seconds, "setup_seconds": stopwatch.setup, "epochs": stopwatch.epochs}
    if job not in prepared:
        # The memory of the job before must not burden this one.
        prepared.clear()
        repeat, images = worker.prepare(job)
        for _ in range(WARM_UP):
            repeat()
        prepared[job] = repeat, images
    repeat, images = prepared[job]
    started, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < request["seconds"] or not count:
        repeat()
        count += 1
    return {"images_per_second": count * images / elapsed, "images": count * images}


def _take_stdout() -> TextIO:
    """The answers' own way out; whatever else is printed, by C++ too, goes to stderr."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, line: str) -> None:
    answers.write(line + "\n")
    answers.flush()
