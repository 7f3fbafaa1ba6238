"""SIGTERM and Ctrl-C: training saves after the steps under way, all else ends at once; checkpoints stay intact."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# After a signal, a library (mostly the compiler) may block the main thread this many seconds; then the process ends.
PATIENCE = 2.0


class Stopped(SystemExit):
    """Ends the process because of a signal, with exit code 143 for SIGTERM and 130 for Ctrl-C.

    `together` says that all processes of the run end now, so that each can shut down in order.
    """

    def __init__(self, number: int, together: bool = False):
        self.exit_code = 128 + number
        super().__init__(self.exit_code)
        self.name = signal.Signals(number).name
        self.together = together


class _Received:
    """State of the process, since signals go to the process: the first signal, and whether signals are only noted."""

    number = 0
    deferred = False
    pipe: tuple[int, int] | None = None


def listen() -> None:
    """Installs the handlers of `SIGNALS`.

    Call it in the main thread, and again after anything that installs a handler of its own, such as
    `jax.distributed.initialize`.
    """
    if _Received.pipe is None:
        _Received.pipe = read, write = os.pipe()
        os.set_blocking(write, False)
        # Python writes the number of a signal to this pipe at once, even while a library blocks the main thread.
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(read,), daemon=True).start()
        sys.unraisablehook = raise_again
    for number in SIGNALS:
        signal.signal(number, _handle)


def noted() -> int:
    """The number of the first signal that came, 0 if none has."""
    return _Received.number


@contextmanager
def defer() -> Iterator[None]:
    """A block in which a signal is only noted. The code in the block asks for it with `noted` and ends by itself.

    Raises:
      Stopped: at the end of the block, if a signal came.
    """
    _Received.deferred = True
    try:
        yield
    finally:
        # The block has dealt with a noted signal. `_end_unless_deferred` must not cut off the orderly exit.
        _Received.deferred = bool(noted())
    if noted():
        raise Stopped(noted())


def _handle(number: int, _: Any) -> None:
    if _Received.number:
        return
    _Received.number = number
    if not _Received.deferred:
        raise Stopped(number)


def raise_again(swallowed: Any) -> None:
    """Sends a signal once more whose `Stopped` has come where Python raises nothing, such as a callback of the garbage
    collector: JAX has one."""
    if isinstance(swallowed.exc_value, Stopped):
        arguments = _Received.number, threading.main_thread().ident
        threading.Thread(target=_send_again, args=arguments, daemon=True).start()
        # Last: what is raised in here is lost, too, and Python handles no signal between this line and the return.
        _Received.number = 0
    else:
        sys.__unraisablehook__(swallowed)


def _send_again(number: int, thread: int) -> None:
    while _Received.number:
        time.sleep(0.01)
    signal.pthread_kill(thread, number)


def _watch(read: int) -> None:
    """Reads signals in its own thread: in the main thread Python handles them only between two calls of a library."""
    first = 0.0
    while True:
        for number in os.read(read, 64):
            if number not in SIGNALS:
                continue
            if not first:
                first = time.monotonic()
                threading.Thread(target=_end_unless_deferred, args=(number,), daemon=True).start()
                if _Received.deferred:
                    # The process that reads stderr may have been ended by the same signal.
                    with suppress(OSError):
                        print(
                            f"\n{signal.Signals(number).name}: saving after the steps under way",
                            file=sys.stderr,
                            flush=True,
                        )
            # Some schedulers send a signal twice. Only a later Ctrl-C shows that a user wants an end at once.
            elif number == signal.SIGINT and time.monotonic() > first + 1:
                os._exit(128 + number)


def _end_unless_deferred(number: int) -> None:
    time.sleep(PATIENCE)
    if not _Received.deferred:
        os._exit(128 + number)
