"""SIGTERM and Ctrl-C: who trains is told and saves at the next step; all else ends at once, its checkpoints stand."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds that a library, the compiler mostly, may hold the main thread before the process ends without it.
PATIENCE = 2.0


class Stopped(SystemExit):
    """The process ends because of a signal, with 143 for SIGTERM and 130 for Ctrl-C. `together`: all processes of the
    run do, in order."""

    def __init__(self, number: int, together: bool = False):
        self.exit_code = 128 + number
        super().__init__(self.exit_code)
        self.name = signal.Signals(number).name
        self.together = together


class _Received:
    """Signals belong to the process, and so does this: which one came first, and whether it is only to be noted."""

    number = 0
    deferred = False
    pipe: tuple[int, int] | None = None


def listen() -> None:
    """From now on `SIGNALS` are handled. To be called in the main thread, and again after anything that sets up a
    handler of its own, such as `jax.distributed.initialize`."""
    if _Received.pipe is None:
        _Received.pipe = read, write = os.pipe()
        os.set_blocking(write, False)
        # The number is written there when a signal comes, whatever holds the main thread.
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(read,), daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, _handle)


def noted() -> int:
    """The signal that came, 0 if none."""
    return _Received.number


@contextmanager
def deferred() -> Iterator[None]:
    """A block in which a signal is only noted: what is in there asks for it and brings things to a good end."""
    _Received.deferred = True
    try:
        yield
    finally:
        # Of a signal that was noted, what is in there has taken care: nothing is to end the process in an orderly exit.
        _Received.deferred = bool(noted())
    if noted():
        raise Stopped(noted())


def _handle(number: int, _: Any) -> None:
    if _Received.number:
        return
    _Received.number = number
    if not _Received.deferred:
        raise Stopped(number)


def _watch(read: int) -> None:
    """Runs beside the main thread, where Python handles signals only between two calls of a library."""
    first = 0.0
    while True:
        for number in os.read(read, 64):
            if number not in SIGNALS:
                continue
            if not first:
                first = time.monotonic()
                threading.Thread(target=_end_unless_deferred, args=(number,), daemon=True).start()
                if _Received.deferred:
                    # Whoever reads this may have been ended by the same signal.
                    with suppress(OSError):
                        print(f"\n{signal.Signals(number).name}: saving after this step", file=sys.stderr, flush=True)
            # Some schedulers send a signal twice; who presses Ctrl-C again means it.
            elif number == signal.SIGINT and time.monotonic() > first + 1:
                os._exit(128 + number)


def _end_unless_deferred(number: int) -> None:
    time.sleep(PATIENCE)
    if not _Received.deferred:
        os._exit(128 + number)
