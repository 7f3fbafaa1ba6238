"""SIGTERM and Ctrl-C in every phase, to one of one or two processes or to all.

The long form takes all of them: `pytest tests/faults/test_signals.py -m long -s`
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from harness import SIGNALS, environment, newest, outcome, start_together

STEPS = 13
PHASES = ("reading", "compiling", "training", "evaluating", "saving")
SAVED = ("training", "evaluating", "saving")
# Seconds from the signal to the end: a step and a save, or what the main thread may be held by a library, and closing.
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
    """A run that gets the signal in its second time in the phase; what became of it, and of one that goes on."""
    expected, env = undisturbed(processes)
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
    # Where nothing is to be saved, the others of several processes end because one is gone.
    together = phase in SAVED or every or processes == 1
    assert (set(found["codes"]) == {code}) if together else (found["codes"][-1] == code and 0 not in found["codes"])
    assert found["same"], found
    if phase in SAVED:
        assert found["lost"] == 0, found
    if together:
        assert found["seconds"] < IN_TIME, found


@pytest.mark.parametrize(
    ("phase", "number"),
    [("compiling", signal.SIGTERM), ("training", signal.SIGINT), ("evaluating", signal.SIGTERM)],
)
def test_a_run_that_is_told_to_stop(tmp_path, undisturbed, phase, number):
    found = stop(tmp_path / "run", undisturbed, 1, True, phase, number, 0.05)
    check(found, phase, number, True, 1)
    assert any("the same command goes on from here" in line for line in found["lines"])


def test_of_two_processes_one_is_told(tmp_path, undisturbed):
    check(stop(tmp_path / "run", undisturbed, 2, False, "training", signal.SIGTERM, 0.1), "training", 15, False, 2)


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("processes", "every"), [(1, True), (2, False), (2, True)])
def test_every_phase(tmp_path, undisturbed, phase, number, processes, every):
    rng = random.Random(f"{phase} {number} {processes} {every}")
    for i in range(3):
        found = stop(tmp_path / str(i), undisturbed, processes, every, phase, number, rng.uniform(0, 0.3))
        print(f"{phase} {SIGNALS[number]} {processes} {every}: {found['codes']} {found['seconds']:.2f} s, "
              f"{found['lost']} steps lost, {'same' if found['same'] else 'DIFFERENT'}")  # fmt: skip
        check(found, phase, number, every, processes)


@pytest.mark.long
def test_of_two_processes_one_is_killed(tmp_path, undisturbed):
    """The other ends with an error once it has heard nothing for the heartbeat; the same commands go on."""
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
