"""Compares tljax with Keras on TensorFlow and with PyTorch, each in its own process, taking turns.

    python benchmarks/compare.py --peers PEERS_ENVIRONMENT/bin/python --out benchmarks/results.json

In each round every contestant does the job once while the others wait, so that a slower hour of the machine slows all
of them. The results file keeps every measurement, earlier ones of other jobs too, and a table is written beside it.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from contestants import JOBS, Contestant, Plan, complete, open_contestants, requests, split_images
from protocol import BATCH, CLASSES, output_file
from summary import ROWS, make_table, summarize, unit_of

LARGE_IMAGES = 64
# Five batches to train and one to validate. A smaller batch at the end of an epoch would be one more shape to compile,
# and that time does not scale with the number of images.
WHOLE_BATCHES = 6 * BATCH
# Seconds before each request: the threads of the library that was measured before may go on spinning for a moment.
PAUSE = 1.0
# A higher load average means that other processes disturb the times. OpenMP, and so PyTorch, loses most: all of its
# threads wait for the one that was interrupted.
BUSY = 0.5


def save_arrays(path: Path, images: int) -> None:
    """Writes random images and labels to `path` (.npz). The work does not depend on what the pictures show."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"large_images": rng.integers(0, 256, (LARGE_IMAGES, 224, 224, 3), np.uint8)}
    for split, n in split_images(images).items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, CLASSES, n, np.int32)
    np.savez(path, **arrays)


def measure(job: str, contestants: list[Contestant], rounds: int, plan: Plan) -> list[dict[str, dict[str, Any]]]:
    """For each round, the answers of all contestants that support the job, by name."""
    measured = []
    for number in range(1, rounds + 1):
        answers = {}
        for contestant in contestants:
            for name, request in requests(job, contestant, plan).items():
                time.sleep(PAUSE)
                answer = contestant.ask(request)
                if not answer.get("unsupported"):
                    answers[name] = complete(answer, request, job, plan)
                    _print_answer(f"{job}  round {number}/{rounds}  {name}", answers[name], job)
        measured.append(answers)
    return measured


def measure_peaks(contestants: list[Contestant], plan: Plan) -> list[dict[str, dict[str, Any]]]:
    """The peak memory of step_all. Each contestant runs it in a fresh process that does nothing else."""
    answers = {}
    for contestant in contestants:
        contestant.stop()
        step = contestant.ask({"job": "step_all", "seconds": plan.seconds})
        answers[contestant.name] = step if "error" in step else contestant.ask({"job": "peak"})
        contestant.stop()
        _print_answer(f"peak  {contestant.name}", answers[contestant.name], "peak")
    return [answers]


def describe_machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def save(out: Path, results: dict[str, Any]) -> str:
    """Writes `out` and the table beside it, and returns the table."""
    rows = [row for row in ROWS if row.job in results["jobs"]]
    results["summary"] = [summarize(row, results["jobs"][row.job]["rounds"]) for row in rows]
    table = make_table(results["summary"])
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(out)
    out.with_suffix(".md").write_text(table + "\n")
    return table


def _print_answer(title: str, answer: dict[str, Any], job: str) -> None:
    key, unit, _ = unit_of(job)
    value = f"{answer[key]:,.1f} {unit}" if key in answer else f"error: {answer.get('error')}"
    print(f"{title}  {value}{' (scaled)' if answer.get('scaled') else ''}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="the Python of the environment with TensorFlow and PyTorch")
    parser.add_argument(
        "--out", type=output_file, required=True, help="results.json; kept and completed if it is there"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=60_000, help="of a whole job; a sixth is for validation")
    parser.add_argument("--peer-images", type=int, default=6144, help="to measure a peer's whole job at, two epochs")
    parser.add_argument("--full", action="store_true", help="measure the peers' whole jobs at all images and epochs")
    parser.add_argument("--seconds", type=float, default=10, help="to repeat a forward pass or a step in each round")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    flags = parser.parse_args()
    if not flags.full and flags.peer_images % WHOLE_BATCHES:
        parser.error(f"--peer-images must be a multiple of {WHOLE_BATCHES}")
    if flags.out.suffix != ".json":
        parser.error(f"--out {flags.out}: must end in .json; the table beside it ends in .md")
    plan = Plan(flags.images, flags.images if flags.full else min(flags.peer_images, flags.images), flags.seconds)
    results = json.loads(flags.out.read_text()) if flags.out.exists() else {"jobs": {}}
    machine = describe_machine()
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"warning: the machine is busy (load {load:.1f}), so the times will be wrong", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.npz"
        save_arrays(arrays, plan.images)
        # torch.compile keeps compiled programs on disk. In an empty folder it starts with none, as the others do.
        environment = {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor")}
        contestants = open_contestants(flags.peers, arrays, environment)
        try:
            for job in sorted(flags.jobs, key=JOBS.index):
                started = datetime.now().astimezone().isoformat(timespec="seconds")
                is_peak = job == "peak"
                rounds = measure_peaks(contestants, plan) if is_peak else measure(job, contestants, flags.rounds, plan)
                versions = {c.library: c.versions for c in contestants if c.versions}
                about = {"date": started, "machine": machine, "versions": versions, "plan": plan._asdict()}
                results["jobs"][job] = {**about, "rounds": rounds}
                save(flags.out, results)
        finally:
            for contestant in contestants:
                contestant.stop()
    print(f"\n{save(flags.out, results)}")


if __name__ == "__main__":
    main()
