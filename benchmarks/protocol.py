"""The part that all workers share: each line on stdin is a request in JSON, each line on stdout an answer in JSON.

A worker is one process of one library. It lives for a whole comparison, so that start-up and imports stay out of the
times and the contestants can take turns. This module needs NumPy only, because it also runs in the peers' environment.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

Arrays = dict[str, np.ndarray]
Request = dict[str, Any]

BATCH = 256
LARGE_BATCH = 16
CLASSES = 10
LARGE_CLASSES = 1000
WARM_UP = 2
# The first unit that trains in each job. Only in the last one do BatchNorms normalize with the batch's statistics.
BATCH_NORM_JOB = "step_all_batch_norm"
STEP_CUTS = {"step_head": "head", "step_conv5": "conv5_block1", "step_all": "conv1", BATCH_NORM_JOB: "conv1"}
JOB_CUTS = {"job_feature_extraction": "head", "job_fine_tune": "conv5_block1"}
# The classes of CIFAR-10 that a study's source network learns, and those that it is transferred to.
SOURCE = ("airplane", "automobile", "bird", "cat", "deer")
TARGET = ("dog", "frog", "horse", "ship", "truck")


class Stopwatch:
    """Measures the times of a whole job. It starts when it is created."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.setup: float | None = None
        self.epochs: list[float] = []

    def begin_epoch(self) -> None:
        self._epoch_started = time.perf_counter()

    def end_step(self) -> None:
        """Call it after the first training step, which ends the setup. After later steps it does nothing."""
        if self.setup is None:
            self.setup = time.perf_counter() - self.started

    def end_epoch(self) -> None:
        """Call it after the evaluation, which belongs to the epoch."""
        self.epochs.append(time.perf_counter() - self._epoch_started)


class Worker(Protocol):
    """One library in one setting."""

    jobs: frozenset[str]

    def prepare(self, job: str) -> tuple[Callable[[], object], int]:
        """Builds a `forward_*` or `step_*` job.

        Returns the function to repeat and the number of images that one call takes. The function must not return
        before its work is done.
        """

    def run(self, job: str, request: Request, stopwatch: Stopwatch) -> None:
        """Runs a whole `job_*`, from building the model on.

        `request` gives the numbers of images `train` and `val` and the number of `epochs`.
        """


def arguments(description: str | None, settings: tuple[str, str] | None = None) -> argparse.Namespace:
    """Parses a worker's command line: `--arrays`, and a flag for one of two `settings`, which becomes `setting`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrays", required=True, help="npz of train_, val_ and large_images, train_ and val_labels")
    if settings:
        group = parser.add_mutually_exclusive_group(required=True)
        for setting in settings:
            group.add_argument(f"--{setting}", dest="setting", action="store_const", const=setting)
    return parser.parse_args()


def output_file(path: str | Path) -> Path:
    """The `path` of a file that is written when something is measured. Its folder is made, and tried, before that.

    Raises:
      argparse.ArgumentTypeError: with the path, if no file can be written there.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be written ({error.strerror}); give another file") from error
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; give a file, such as {path / 'results.json'}")
    return path


def study_flags(description: str | None, results: Path | None = None) -> argparse.Namespace:
    """The command line of a study on CIFAR-10: where the data is, and the folder of its runs, which is made. `results`
    is a file that it writes besides."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="TFDS's data_dir with CIFAR-10")
    parser.add_argument("--out", required=True, type=output_folder, help="folder of the runs")
    flags = parser.parse_args()
    try:
        output_file(results or flags.out / "results")
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    return flags


def output_folder(path: str) -> Path:
    """The `path` of a folder in which files are written. It is made, and tried; it raises as `output_file` does."""
    return output_file(Path(path) / "results").parent


def load_arrays(path: str) -> Arrays:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def take_rows(arrays: Arrays, request: Request) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The first `train` training images and labels, and the first `val` validation images and labels.

    Raises:
      ValueError: if there are fewer images, or none is asked for.
    """
    rows = []
    for split in ("train", "val"):
        n, have = request[split], len(arrays[f"{split}_labels"])
        if not 0 < n <= have:
            raise ValueError(f"{split}={n}: there are {have} images")
        rows += [arrays[f"{split}_images"][:n], arrays[f"{split}_labels"][:n]]
    return rows[0], rows[1], rows[2], rows[3]


def repeat_batches(size: int, *arrays: Any) -> Iterator[tuple[Any, ...]]:
    """Repeats batches of `size` rows of `arrays` (anything that slices) without end.

    A smaller batch at the end is left out, because a compiler would have to compile its shape too.
    """
    n = len(arrays[0])
    starts = range(0, n - size + 1, size) or [0]
    for start in cycle(starts):
        yield tuple(array[start : start + size] for array in arrays)


def serve(make: Callable[[Arrays], Worker], arrays_path: str, versions: dict[str, str]) -> None:
    """Answers requests until stdin ends. An exception becomes an answer with the key `error`."""
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
        # On Linux, ru_maxrss is in kB.
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
    """Returns stdout for the answers alone. All else that is printed, by C++ libraries too, now goes to stderr."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, line: str) -> None:
    answers.write(line + "\n")
    answers.flush()
