"""The worker processes that `compare.py` asks in turn, and its requests to them."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from protocol import STEP_CUTS

Answer = dict[str, Any]
Request = dict[str, Any]

HERE = Path(__file__).parent
# Library -> setting -> flags of its worker.
SETTINGS: dict[str, dict[str, list[str]]] = {
    "tljax": {"tljax": []},
    "keras": {"keras jit": ["--jit"], "keras no jit": ["--no-jit"]},
    "torch": {"torch eager": ["--eager"], "torch compile": ["--compile"]},
}
PEERS = ("keras", "torch")
# As many epochs as in the lesson.
EPOCHS = {"job_feature_extraction": 10, "job_fine_tune": 7, "job_cached": 10}
# tljax's cache keeps activations of the frozen units and compiled programs. With a cold cache a job makes them first.
CACHES = ("cold", "warm")
JOBS = ("forward_224", "forward_32", *STEP_CUTS, *EPOCHS, "peak")


class Plan(NamedTuple):
    """How much work a comparison does. A sixth of all images is for validation."""

    images: int
    peer_images: int
    """Images with which a peer's whole job is measured, for two epochs; for all epochs if these are all images."""
    seconds: float
    """In each round, a forward pass or a training step is repeated for at least this long."""


class Contestant:
    """A worker process. It starts at the first request and, if it has died, again at the next request."""

    def __init__(self, name: str, python: str, arrays: Path, environment: dict[str, str]) -> None:
        self.name, self.library = name, name.split()[0]
        script = HERE / f"{self.library}_worker.py"
        self.command = [python, str(script), *SETTINGS[self.library][name], "--arrays", str(arrays)]
        self.environment = environment
        self.versions: dict[str, str] = {}
        self.process: subprocess.Popen[str] | None = None

    def ask(self, request: Request) -> Answer:
        """The answer to `request`; `{"error": ...}` if the job fails, or if the process dies or does not start."""
        try:
            process = self.process or self._start()
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if line:
                return json.loads(line)
        except (OSError, RuntimeError) as error:
            line = f": {error}"
        code = self.stop()
        return {"error": f"the worker ended with code {code}{line}"}

    def stop(self) -> int | None:
        process, self.process = self.process, None
        if process is None:
            return None
        assert process.stdin and process.stdout
        # If the process is dead, the rest of a request may still be in the buffer, and nobody reads it.
        with contextlib.suppress(OSError):
            process.stdin.close()
        code = process.wait()
        process.stdout.close()
        return code

    def _start(self) -> subprocess.Popen[str]:
        environment = os.environ | self.environment
        pipe = subprocess.PIPE
        process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.process = process
        assert process.stdout
        line = process.stdout.readline()
        if not line.startswith("ready "):
            raise RuntimeError(f"said {line.strip()!r} instead of ready")
        self.versions = json.loads(line.removeprefix("ready "))
        return process


def open_contestants(peers_python: str, arrays: Path, environment: dict[str, str]) -> list[Contestant]:
    """All contestants: tljax in this Python, the peers in `peers_python`."""
    return [
        Contestant(name, sys.executable if library == "tljax" else peers_python, arrays, environment)
        for library, settings in SETTINGS.items()
        for name in settings
    ]


def split_images(images: int) -> Request:
    """A sixth is for validation, as in CIFAR-10."""
    return {"train": images - images // 6, "val": images // 6}


def requests(job: str, contestant: Contestant, plan: Plan) -> dict[str, Request]:
    """The requests to `contestant` in each round of `job`, by the name under which the answer is kept."""
    name, library = contestant.name, contestant.library
    if job not in EPOCHS:
        return {name: {"job": job, "seconds": plan.seconds}}
    request = {"job": job, "epochs": EPOCHS[job], **split_images(plan.images)}
    if library == "tljax":
        # In job_cached an expert computes the activations once, by hand. With a cold cache tljax does so by itself.
        own, caches = ("job_feature_extraction", CACHES[:1]) if job == "job_cached" else (job, CACHES)
        return {f"{name} {cache}": {**request, "job": own, "cache": cache} for cache in caches}
    if job == "job_cached" or plan.peer_images >= plan.images:
        return {name: request}
    return {name: {**request, "epochs": 2, **split_images(plan.peer_images)}}


def complete(answer: Answer, request: Request, job: str, plan: Plan) -> Answer:
    """Returns `answer` with its `request`. If it measured part of a job, `seconds` are scaled up and `scaled` is set.

    An epoch's work is proportional to the images. The first epoch compiles, so the second one stands for all epochs.
    Building the model and compiling the first step are counted once, unscaled.
    """
    answer = {**answer, "request": request}
    epochs = EPOCHS.get(job, 0)
    images = request.get("train", 0) + request.get("val", 0)
    if "seconds" not in answer or not epochs or (request["epochs"], images) == (epochs, plan.images):
        return answer
    seconds = answer["setup_seconds"] + epochs * answer["epochs"][1] * plan.images / images
    return {**answer, "measured_seconds": answer["seconds"], "seconds": seconds, "scaled": True}
