"""A signal ends what has nothing to save, and waits for what has."""

import signal

import pytest

from tljax.devices import processes
from tljax.storage import signals


@pytest.fixture(autouse=True)
def listening(monkeypatch):
    """This process is to live on, and to hear signals as before."""
    monkeypatch.setattr(signals, "_end_unless_deferred", lambda number: None)
    monkeypatch.setattr(signals._Received, "number", 0)
    handlers = [signal.getsignal(number) for number in signals.SIGNALS]
    signals.listen()
    yield
    for number, handler in zip(signals.SIGNALS, handlers, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_ends_at_once_with_the_code_that_shells_expect(number, code):
    with pytest.raises(signals.Stopped) as stopped:
        signal.raise_signal(number)
    assert stopped.value.code == stopped.value.exit_code == code
    assert (stopped.value.name, stopped.value.together) == (signal.Signals(number).name, False)


def test_while_it_is_deferred_it_is_only_noted(capfd):
    reached = False
    with pytest.raises(signals.Stopped) as stopped, signals.deferred():
        signal.raise_signal(signal.SIGTERM)
        assert signals.noted() == signal.SIGTERM == processes.interrupted()
        reached = True
    assert reached and stopped.value.code == 143


def test_the_first_signal_counts():
    with pytest.raises(signals.Stopped) as stopped, signals.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 130


def test_a_block_without_a_signal_ends_as_any_other():
    with signals.deferred():
        assert signals.noted() == processes.interrupted() == 0
    assert not signals._Received.deferred
