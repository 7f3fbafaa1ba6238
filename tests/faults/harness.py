"""Starts runs of `one_run.py`, stops them in all ways, and digests their results.

    PYTHONPATH=.:tests python tests/faults/harness.py FOLDER ...

prints digests of the results in these folders, so that two versions can be compared.
"""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from processes import find_port
from tiny_runs import TIMES

from tljax.runs import checkpoints, files
from tljax.runs.evidence import read_evidence
from tljax.runs.reference import read_reference
from tljax.trees import sha256

HERE = Path(__file__).parent


def command(config: str, folder: Path, *arguments: str) -> list[str]:
    return [
        sys.executable,
        str(HERE / "one_run.py"),
        "--config",
        str(HERE / config),
        "--workdir",
        str(folder),
        *arguments,
    ]


def environment(cache: Path, **more: str) -> dict[str, str]:
    return os.environ | {"TLJAX_CACHE_DIR": str(cache)} | more


def outcome(folder: Path) -> dict[str, str]:
    """SHA-256 of the results of a finished run, by stage.

    It covers every leaf of the newest and the best checkpoint, progress, metrics, summary, reference, predictions and
    evidence, all without times.
    """

    def without_times(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without_times(v) for k, v in value.items() if k not in TIMES}
        return [without_times(v) for v in value] if isinstance(value, list) else value

    found = {}
    for stage in sorted(path.parent for path in folder.glob(f"*/{checkpoints.FOLDER}")) or [folder]:
        with checkpoints.open_checkpoints(stage) as kept:
            meta = kept.read_meta(max(kept.numbers))
            _, best = kept.restore_variables(meta["best"])
        rows = files.read_rows(stage / "metrics.jsonl")
        summary = files.read_json(stage / "summary.json")
        kept = {name: sha256(np.asarray(value)) for name, value in read_reference(stage)._asdict().items()}
        predicted = {path.name: files.read_rows(path) for path in stage.glob("*predictions.jsonl")}
        evidence = {name: sha256(np.asarray(value)) for name, value in read_evidence(stage)._asdict().items()}
        parts = without_times([meta, best["digest"], rows, summary, kept, predicted, evidence])
        found[str(stage.relative_to(folder))] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return found


class Run:
    """A process of `one_run.py`, and the lines that it prints."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str]):
        self.process = subprocess.Popen(
            arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.lines: list[str] = []
        self.changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip())
                self.changed.notify_all()
        with self.changed:
            self.lines.append("END")
            self.changed.notify_all()

    def wait_for(self, text: str, times: int = 1, timeout: float = 300) -> bool:
        """Waits until the process has printed the line `text` so many `times`; False if it ended before."""
        with self.changed:
            met = self.changed.wait_for(lambda: self.lines.count(text) >= times or self.lines[-1:] == ["END"], timeout)
        assert met, self.lines[-20:]
        return self.lines.count(text) >= times

    def wait(self, timeout: float = 300) -> int:
        code = self.process.wait(timeout)
        self.wait_for("END")
        return code

    @property
    def steps(self) -> int:
        """The number of steps of its stage, as it printed last."""
        return next((int(line.split()[1]) for line in reversed(self.lines) if line.startswith("STEPS ")), 0)


def start_together(count: int, config: str, folder: Path, env: dict[str, str], *arguments: str) -> list[Run]:
    """Starts a run of `count` processes."""
    if count == 1:
        return [Run(command(config, folder, *arguments), env)]
    port = find_port()
    places = [
        (f"--coordinator_address=localhost:{port}", f"--num_processes={count}", f"--process_id={i}")
        for i in range(count)
    ]
    return [Run(command(config, folder, *arguments, *place), env) for place in places]


def is_saving(folder: Path) -> bool:
    """Whether a checkpoint in `folder`, or in a stage's folder in it, is half written."""
    with suppress(FileNotFoundError):
        return any(list(folder.glob(f"{pattern}checkpoints/*orbax-checkpoint-tmp*")) for pattern in ("", "*/"))
    return False


def kill_at_random(run: Run, folder: Path, longest: float, rng: random.Random, in_save: bool) -> bool | None:
    """Sends SIGKILL after up to `longest` seconds or, with `in_save`, in the middle of one of its next saves.

    Returns whether the run was in a save, or None if it ended before.
    """
    end = time.monotonic() + rng.uniform(0, longest)
    skip = rng.randrange(4)
    saving = False
    while run.process.poll() is None:
        if in_save:
            saving, before = is_saving(folder), saving
            if saving and not before:
                if skip == 0:
                    time.sleep(rng.uniform(0, 0.03))
                    break
                skip -= 1
            time.sleep(0.0005)
        else:
            if time.monotonic() > end:
                break
            time.sleep(0.002)
    if run.process.poll() is not None:
        return None
    run.process.kill()
    run.process.wait()
    return is_saving(folder)


def kill_until_done(
    config: str,
    folder: Path,
    env: dict[str, str],
    longest: float,
    rng: random.Random,
    most: int,
    saves: Callable[[], bool],
) -> dict[str, Any]:
    """Starts a run again and again, kills it at most `most` times, then lets it end.

    `saves` says before each kill whether it is to come in a save.
    """
    kills = in_saves = 0
    said: list[str] = []
    while True:
        run = Run(command(config, folder), env)
        if kills < most:
            killed = kill_at_random(run, folder, longest, rng, saves())
            if killed is not None:
                kills, in_saves = kills + 1, in_saves + killed
                said += run.lines
                continue
        assert run.wait() == 0, run.lines[-20:]
        said += run.lines
        damaged = [line for line in said if "damaged" in line]
        return {"kills": kills, "in_saves": in_saves, "unreadable": damaged}


def newest(folder: Path) -> int:
    """The number of the newest checkpoint in a stage's folder, 0 if there is none."""
    numbers = [int(path.name) for path in (folder / checkpoints.FOLDER).glob("*") if re.fullmatch(r"\d+", path.name)]
    return max(numbers, default=0)


SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130}


if __name__ == "__main__":
    print(json.dumps({folder: outcome(Path(folder)) for folder in sys.argv[1:]}, indent=1))
