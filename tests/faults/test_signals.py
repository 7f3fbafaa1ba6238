"""SIGTERM and Ctrl-C in every phase of a run of one or two processes, sent to one process or to all.

The long form takes all combinations: `pytest tests/faults/test_signals.py -m long -s`
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from harness import SIGNALS, Run, command, environment, newest, outcome, start_together
from tiny_runs import make_source

from tljax.config import Config, Data
from tljax.data import datasets
from tljax.runs import checkpoints
from tljax.stages import from_config
from tljax.storage import signals
from tljax.training import epochs, features

STEPS = 13
PHASES = ("reading", "compiling", "training", "evaluating", "saving")
SAVED = ("training", "evaluating", "saving")
# Most seconds from the signal to the end: time for a step and a save, or for a library that holds the main thread, and
# for closing.
IN_TIME = 6


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    env, found = environment(folder / "cache", SLOW="0.15"), {}

    def run(processes: int):
        if processes not in found:
            runs = start_together(processes, "augmented.py", folder / str(processes), env)
            assert [run.wait() for run in runs] == [0] * processes, runs[0].lines
            found[processes] = outcome(folder / str(processes))
        return found[processes], env

    return run


def stop(folder: Path, undisturbed, processes: int, every: bool, phase: str, number: int, delay: float) -> dict:
    """Sends a signal `delay` seconds after a run enters `phase` (the second time, if the phase is one of `SAVED`).

    Not each of its epochs has a checkpoint. Then the run goes on to its end. Returns the stopped run's exit codes,
    seconds from the signal, lost steps and last process's lines, and whether the outcome is the same.
    """
    expected, env = undisturbed(processes)
    env = env | {"SAVE_SECONDS": "1"}
    runs = start_together(processes, "augmented.py", folder, env)
    assert runs[0].wait_for(f"PHASE {phase}", 2 if phase in SAVED else 1)
    time.sleep(delay)
    started = time.monotonic()
    for run in runs if every else runs[-1:]:
        os.kill(run.process.pid, number)
    codes = [run.wait(120) for run in runs]
    seconds, made, saved = time.monotonic() - started, runs[0].steps, newest(folder)
    # Checkpoints count an epoch's evaluation as a step.
    kept = saved - saved // (STEPS + 1)
    again = start_together(processes, "augmented.py", folder, env)
    assert [run.wait() for run in again] == [0] * processes, again[0].lines
    same = outcome(folder) == expected
    return {"codes": codes, "seconds": seconds, "lost": made - kept, "same": same, "lines": runs[-1].lines}


def check(found: dict, phase: str, number: int, every: bool, processes: int) -> None:
    code = SIGNALS[number]
    # In a phase that saves nothing, the other processes end because one is gone, with another code.
    together = phase in SAVED or every or processes == 1
    assert (set(found["codes"]) == {code}) if together else (found["codes"][-1] == code and 0 not in found["codes"])
    assert found["same"], found
    if phase in SAVED:
        assert found["lost"] == 0, found
    if together:
        assert found["seconds"] < IN_TIME, found


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Config and outcome of a run, in this process, that trains the head of a tiny network."""
    folder = tmp_path_factory.mktemp("head")
    digits = Data(name="digits", classes=("5", "6", "7"), max_images=40)
    config = Config(pretrained=str(make_source(folder / "source")), batch_size=8, epochs=3, data=digits)
    from_config.run(config, folder / "whole")
    return config, outcome(folder / "whole")


# For each phase: module and name of the function that is entered, at which of its calls the signal comes, and the
# number of the newest checkpoint when the run has stopped. An epoch counts five steps and an evaluation.
MOMENTS = {
    "reading": (datasets, "load_dataset", 1, 0),
    "computing": (features, "compute", 1, 0),
    "compiling": (epochs, "warm_up", 1, 0),
    "before the first step": (epochs, "_run", 1, 1),
    "training": (epochs, "next_size", 13, 9),
    "evaluating": (epochs, "try_evaluate", 2, 11),
    "saving": (checkpoints.Checkpoints, "save", 2, 12),
}


@pytest.mark.parametrize("phase", MOMENTS)
def test_a_signal_saves_what_is_done(tmp_path, head, monkeypatch, phase):
    config, expected = head
    module, function, times, kept = MOMENTS[phase]
    count, plain = itertools.count(1), getattr(module, function)

    def signalled(*arguments, **settings):
        if next(count) == times:
            signal.raise_signal(signal.SIGTERM)
        return plain(*arguments, **settings)

    # The process of the test must not end.
    monkeypatch.setattr(signals, "_end_unless_deferred", lambda number: None)
    handlers = [signal.getsignal(number) for number in signals.SIGNALS]
    with monkeypatch.context() as patch:
        # A dispatch makes one step, whatever the speed of the machine.
        patch.setattr(epochs, "DISPATCH_SECONDS", 0)
        patch.setattr(module, function, signalled)
        patch.setattr(signals._Received, "number", 0)
        signals.listen()
        with pytest.raises(SystemExit) as stopped:
            from_config.run(config, tmp_path / "run")
        assert stopped.value.code == 143
    for number, handler in zip(signals.SIGNALS, handlers, strict=True):
        signal.signal(number, handler)
    assert newest(tmp_path / "run") == kept
    from_config.run(config, tmp_path / "run")
    assert outcome(tmp_path / "run") == expected


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("processes", "every"), [(1, True), (2, False), (2, True)])
def test_every_phase(tmp_path, undisturbed, phase, number, processes, every):
    delay = random.Random(f"{phase} {number} {processes} {every}").uniform(0, 0.3)
    found = stop(tmp_path / "run", undisturbed, processes, every, phase, number, delay)
    print(f"{phase} {SIGNALS[number]} {processes} {every}: {found['codes']} {found['seconds']:.2f} s, "
          f"{found['lost']} steps lost, {'same' if found['same'] else 'DIFFERENT'}")  # fmt: skip
    check(found, phase, number, every, processes)


@pytest.mark.parametrize("arguments", [["--config", "zero_shot", "--workdir", "W"], ["predict", "W", "W"]])
def test_a_stopped_program_is_not_taken_apart(arguments):
    """Where XLA still compiles in threads of its own, Python's orderly end waits for it and then crashes."""
    script = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from tljax import cli
from tljax.commands import predict
from tljax.stages import from_config

class Compiler:
    def __del__(self, abort=os.abort):
        abort()

compiler = Compiler()
from_config.run = predict.run = lambda *_, **__: signal.raise_signal(signal.SIGINT)
cli.main({arguments!r})
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 130 and "stopped by SIGINT" in ended.stderr, ended


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_signal_to_all_processes(tmp_path, number):
    """As a terminal sends Ctrl-C and schedulers send SIGTERM, in the first epoch.

    The processes that decode images get it too; they block it, so that the run can save first.
    """
    weights = f"--config.pretrained={make_source(tmp_path / 'source')}"
    streamed = (
        "--config.head.init=glorot",
        "--config.cache.no_features",
        "--config.cache.memory_gib=0",
        "--config.cache.disk_gib=0",
    )
    env = environment(tmp_path / "cache", SLOW="0.2")
    run = Run(command("head.py", tmp_path / "run", weights, *streamed), env)
    assert run.wait_for("STEPS 1"), run.lines
    blocked = find_blocked(run)
    assert blocked and all({15, 2} <= signals for signals in blocked), blocked
    os.killpg(run.process.pid, number)
    assert run.wait() == SIGNALS[number], run.lines
    assert f"main.py: stopped by {number.name}; the same command goes on from what is saved" in run.lines
    assert not any("Traceback" in line for line in run.lines), run.lines
    assert newest(tmp_path / "run") == run.steps
    wait_for_end(run)

    # A killed run cannot tell the processes that decode; they must notice and end.
    done, run = run.steps, Run(command("head.py", tmp_path / "run", weights, *streamed), env)
    assert run.wait_for(f"STEPS {done + 1}"), run.lines
    run.process.kill()
    run.process.wait()
    wait_for_end(run)


def find_blocked(run: Run) -> list[set[int]]:
    """The signals that each process which decodes for the run blocks."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(process.name)) == run.process.pid and b"spawn_main" in (process / "cmdline").read_bytes():
                (line,) = [x for x in (process / "status").read_text().splitlines() if x.startswith("SigBlk")]
                mask = int(line.split()[1], 16)
                found.append({n for n in range(1, 65) if mask >> (n - 1) & 1})
    return found


def wait_for_end(run: Run) -> None:
    """Waits until all processes of the run have ended."""
    end = time.monotonic() + 120
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(run.process.pid, 0)
            time.sleep(0.1)
        raise AssertionError("a process is left")


@pytest.mark.long
def test_of_two_processes_one_is_killed(tmp_path, undisturbed):
    """The other ends with an error when the heartbeat times out, and the same commands go on."""
    expected, env = undisturbed(2)
    runs = start_together(2, "augmented.py", tmp_path / "run", env)
    assert runs[0].wait_for("PHASE training", 3)
    started = time.monotonic()
    runs[1].process.kill()
    assert runs[0].wait(120) not in (0, 143, 130)
    print(f"the other ended after {time.monotonic() - started:.1f} s")
    again = start_together(2, "augmented.py", tmp_path / "run", env)
    assert [run.wait() for run in again] == [0, 0]
    assert outcome(tmp_path / "run") == expected


@pytest.mark.long
def test_two_processes_agree_on_what_is_damaged(tmp_path, undisturbed):
    """The damaged file is one that only the leader checks, because no process reads it."""
    expected, env = undisturbed(2)
    runs = start_together(2, "augmented.py", tmp_path / "run", env)
    assert runs[0].wait_for("PHASE training", 3)
    os.kill(runs[0].process.pid, signal.SIGTERM)
    assert [run.wait() for run in runs] == [143, 143]
    number = newest(tmp_path / "run")
    path = tmp_path / "run" / checkpoints.FOLDER / str(number) / "_CHECKPOINT_METADATA"
    path.write_bytes(b" " + path.read_bytes())
    again = start_together(2, "augmented.py", tmp_path / "run", env)
    assert [run.wait() for run in again] == [0, 0], again[0].lines
    assert any(f"checkpoints/{number} is damaged: _CHECKPOINT_METADATA" in line for line in again[0].lines)
    assert outcome(tmp_path / "run") == expected
