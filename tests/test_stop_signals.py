"""A signal ends a process with nothing to save at once, and is only noted where something is to be saved."""

import signal
import subprocess
import sys

import pytest

from tljax.devices import processes
from tljax.storage import signals


@pytest.fixture(autouse=True)
def nothing_received(monkeypatch):
    monkeypatch.setattr(signals._Received, "number", 0)


def receive(number: int) -> None:
    """Calls the handler as Python does. A real signal would also wake a thread that ends it (`signals.PATIENCE`)."""
    signals._handle(number, None)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_ends_at_once_with_the_code_that_shells_expect(number, code):
    with pytest.raises(signals.Stopped) as stopped:
        receive(number)
    assert stopped.value.code == stopped.value.exit_code == code
    assert (stopped.value.name, stopped.value.together) == (signal.Signals(number).name, False)


def test_while_it_is_deferred_it_is_only_noted():
    reached = False
    with pytest.raises(signals.Stopped) as stopped, signals.defer():
        receive(signal.SIGTERM)
        assert signals.noted() == signal.SIGTERM == processes.interrupted()
        reached = True
    assert reached and stopped.value.code == 143


def test_the_first_signal_counts():
    with pytest.raises(signals.Stopped) as stopped, signals.defer():
        receive(signal.SIGINT)
        receive(signal.SIGTERM)
    assert stopped.value.code == 130


def test_a_block_without_a_signal_ends_as_any_other():
    with signals.defer():
        assert signals.noted() == processes.interrupted() == 0
    assert not signals._Received.deferred


@pytest.mark.parametrize("debug", [False, True])
def test_a_signal_in_a_callback_of_the_garbage_collector_is_not_lost(debug):
    """Python prints what is raised there, and goes on."""
    script = """
import gc, os, signal, sys, time
from tljax.startup import one_line
from tljax.storage import signals
signals.PATIENCE = 300
signals.listen()
gc.disable()

def stop(phase, _):
    gc.callbacks.clear()
    os.kill(os.getpid(), signal.SIGINT)

try:
    # As the command line has it. One long sleep would miss a signal that comes just before it.
    with one_line(sys.argv[1] == "True"):
        gc.callbacks.append(stop)
        gc.collect()
        for _ in range(1_000):
            time.sleep(0.01)
except signals.Stopped as stopped:
    print("stopped by", stopped.name)
    raise
"""
    done = subprocess.run([sys.executable, "-c", script, str(debug)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (130, "stopped by SIGINT\n", "")


def test_a_signal_while_jax_is_imported_ends_in_a_line():
    """What was imported in part cannot be imported again."""
    script = """
import signal, sys
sys.modules["jax"] = None
from tljax.startup import end_at_once
from tljax.storage import signals
end_at_once(signals.Stopped(signal.SIGTERM), "")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (143, "main.py: stopped by SIGTERM\n")
