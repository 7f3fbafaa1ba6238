"""Readers beside a run that writes many checkpoints a second, is stopped, killed and begun anew: none of them calls it
damaged, and no start fails because of them.

`pytest tests/faults/test_readers.py -m long -s -n0`
"""

import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from harness import HERE, Run, command, environment, newest
from test_predicting import wait_for
from tiny_runs import make_source, save_digits

from tljax.commands.show import show
from tljax.runs import checkpoints, readers

# What nobody may be told of a run that is well.
WRONG = re.compile(r"damaged|delete|run that stage again|not the folder of a run|Error|Traceback|other logits")
# A head on activations that are computed once: an epoch is short. Learning is slow, so that every epoch is the best and
# no checkpoint stays for long.
SETTINGS = (
    "--config.epochs=100000",
    "--config.patience=100000",
    "--config.data.max_images=40",
    "--config.head.init=glorot",
    "--config.optimizer.learning_rate=1e-5",
)
READS = 10_000


class Writer:
    """A run that is stopped by a signal and started again, sometimes anew, until it is told to end."""

    def __init__(self, folder: Path, source: Path, env: dict[str, str]):
        self.folder, self.env, self.rng = folder, env, random.Random(0)
        self.settings = (*SETTINGS, f"--config.pretrained={source}")
        self.ended = threading.Event()
        self.starts: Counter[str] = Counter()
        self.epochs = 0
        self.failed: list[str] = []
        self.thread = threading.Thread(target=self._go_on, daemon=True)

    def _go_on(self) -> None:
        while not (self.ended.is_set() or self.failed):
            anew = self.starts["in all"] % 4 == 3
            run = Run(command("head.py", self.folder, *self.settings, *["--overwrite"] * anew), self.env)
            self.starts.update(["in all", *["anew"] * anew])
            if not run.wait_for("PHASE saving", 2):
                self.failed += run.lines[-5:]
                break
            self.ended.wait(self.rng.uniform(0, 30))
            number = (signal.SIGTERM, signal.SIGKILL)[self.starts["in all"] % 2]
            run.process.send_signal(number)
            if (code := run.wait()) != (143 if number == signal.SIGTERM else -9):
                self.failed += [f"exit code {code}", *run.lines[-5:]]
            self.starts[number.name] += 1
            self.epochs += run.lines.count("PHASE saving")


def ask(command_line: list[str], env: dict[str, str]) -> str:
    """What `main.py` answers, all in lines."""
    line = [sys.executable, str(HERE.parents[1] / "main.py"), *command_line]
    done = subprocess.run(line, capture_output=True, text=True, env=env)
    return done.stdout + done.stderr


def slow_down(monkeypatch) -> Counter[str]:
    """Makes each read wait for up to 0.4 s before the arrays, as on a slow disk. Returns how often a run was read."""
    rng, tries = random.Random(1), Counter[str]()
    read_best, restore = readers._read_best, checkpoints.Checkpoints.restore_variables

    def count_tries(workdir: Path) -> object:
        tries["begun"] += 1
        found = read_best(workdir)
        tries["ended"] += 1
        return found

    def restore_late(kept: checkpoints.Checkpoints, number: int) -> object:
        time.sleep(rng.uniform(0, 0.4))
        return restore(kept, number)

    monkeypatch.setattr(readers, "_read_best", count_tries)
    monkeypatch.setattr(checkpoints.Checkpoints, "restore_variables", restore_late)
    return tries


def read(kind: str, folder: Path, pictures: Path, env: dict[str, str]) -> str:
    """What a reader of the run is told."""
    try:
        if kind == "show":
            return show(folder)
        if kind == "read_run":
            readers.read_run(folder)
            return "read"
        return ask([kind, str(folder), str(pictures if kind == "predict" else pictures.with_name("model.onnx"))], env)
    except (OSError, ValueError) as error:
        return str(error)


@pytest.mark.long
def test_ten_thousand_reads_beside_runs(tmp_path, monkeypatch):
    env = environment(tmp_path / "cache", XLA_FLAGS="")
    folder, pictures = tmp_path / "run", save_digits(tmp_path / "pictures")
    tries = slow_down(monkeypatch)
    writer = Writer(folder, make_source(tmp_path / "source"), env)
    writer.thread.start()
    wait_for(lambda: newest(folder))
    said, wrong, seconds, started = Counter[str](), [], [], time.monotonic()
    for number in range(READS):
        kind = ("predict", "export")[number // 500 % 2] if number % 500 == 499 else ("show", "read_run")[number % 2]
        asked = time.monotonic()
        text = read(kind, folder, pictures, env)
        seconds += [time.monotonic() - asked] if kind == "read_run" else []
        wrong += [f"{kind}: {text}"] if WRONG.search(text) else []
        said[f"{kind}: {re.sub(r'[0-9]+', 'N', text.replace(str(tmp_path), '')).splitlines()[0][:150]}"] += 1
        if number % 500 == 499:
            print(number + 1, f"{time.monotonic() - started:.0f} s", dict(tries), writer.epochs, wrong[-1:], flush=True)
        if writer.failed:
            break
    writer.ended.set()
    writer.thread.join(300)
    print(f"\n{said.total()} reads, {len(wrong)} wrong, {dict(tries)}; {dict(writer.starts)}, {writer.epochs} epochs")
    print(f"longest read {max(seconds):.1f} s, {time.monotonic() - started:.0f} s in all")
    print(*said.most_common(), sep="\n")
    assert not wrong and not writer.failed, (wrong[:5], writer.failed)
    assert tries["begun"] > len(seconds) and writer.starts["anew"], "it was tried"
