"""What gets a process ready: outputs that can be printed to, JAX with its types, devices and compilation cache, and
errors as one line."""

import contextlib
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

from tljax.storage import signals
from tljax.text import join_lines, printable

# JAX's own generator, whatever a program or JAX_DEFAULT_PRNG_IMPL has chosen: a run that goes on draws as it began.
RANDOM_NUMBERS = "threefry2x32"
NO_FLOAT64 = "JAX_ENABLE_X64 is ignored: runs compute in float32 and bfloat16"


def prepare_outputs() -> None:
    """Makes standard output and error safe to print to: where they are closed (`>&-`), nobody reads them."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            file = open(os.devnull, "w")  # noqa: SIM115, it stays open as long as the process
            if file.fileno() != number:
                os.dup2(file.fileno(), number)
            setattr(sys, name, file)
        # Names of files and classes may hold letters that this terminal cannot write.
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            # A line that goes through a pipe, as to `tee`, is seen when it is printed.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)


def start_devices() -> None:
    """Gets JAX ready to compile and to compute, for all that this process does."""
    import jax

    from tljax.storage import compilation

    use_float32()
    jax.config.update("jax_default_prng_impl", RANDOM_NUMBERS)
    check_devices()
    compilation.set_up()


def use_float32() -> None:
    """Turns off JAX's 64-bit mode, in which a run would have other types than its checkpoints."""
    import jax

    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        print(NO_FLOAT64)
        jax.config.update("jax_enable_x64", False)


@contextlib.contextmanager
def as_on_the_command_line() -> Iterator[None]:
    """A block in which JAX computes as on the command line: in 32 bits, with JAX's own random numbers; compiled
    programs are kept from then on. What the calling program has set for its own computations stays."""
    import jax

    from tljax.storage import compilation

    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        print(NO_FLOAT64)
    with in_float32(), jax.default_prng_impl(RANDOM_NUMBERS):
        check_devices()
        compilation.set_up()
        yield


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """A block, or as a decorator a function, in which JAX's 64-bit mode is off. The mode of the program that calls it
    stays as it is."""
    import jax

    with jax.enable_x64(False):
        yield


def check_devices() -> None:
    """Raises ValueError if JAX finds no device of the kind that JAX_PLATFORMS asks for."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}: there is no such device, or JAX is installed "
            f"without it; install jax[cuda13] or jax[tpu], or unset JAX_PLATFORMS ({reason})"
        ) from error


@contextlib.contextmanager
def one_line(debug: bool) -> Iterator[None]:
    """A block whose errors end the process with one line, or with a traceback if `debug`."""
    # TFDS and Orbax log their inner workings. Errors of their threads are raised here too.
    logging.getLogger("absl").setLevel(logging.ERROR if debug else logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if not debug:
        # Pillow warns of tags in damaged files; whether such a file is read is said elsewhere.
        warnings.filterwarnings("ignore", module=r"PIL\.")
    sys.unraisablehook = signals.raise_again if debug else leave_out_cut_off_reads
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        elif isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|Out of memory allocating", str(error)):
            print(f"main.py: {out_of_memory(error)}", file=sys.stderr, flush=True)
        elif isinstance(error, (ValueError, OSError)):
            print(printable(f"main.py: {error}"), file=sys.stderr, flush=True)
        else:
            lines = f"main.py: {type(error).__name__}: {error} (--debug shows where)".split("\n")
            print(join_lines(*lines), file=sys.stderr, flush=True)
        if not debug:
            # Libraries warn while the process ends. The error stays the last line.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        import jax

        # An orderly exit would wait for the other processes, and they wait for this one.
        os._exit(1) if jax.distributed.is_initialized() else sys.exit(1)


def out_of_memory(error: Exception) -> str:
    """What to do when a device has no memory left. JAX raises a RuntimeError whose text begins with the status code."""
    needed = re.search(r"allocat\w+ ([\d.]+ ?\w+)", str(error))
    return (
        f"a device is out of memory{f' (it was asked for {needed[1]})' if needed else ''}: use a smaller "
        "--config.batch_size or --config.data.image_size in a new --workdir, or a smaller --config.cache.memory_gib"
    )


def leave_out_cut_off_reads(unraisable: Any) -> None:
    """Prints an exception that Python cannot raise, or sends its signal again, unless it is TensorStore's: after an
    error its threads end reads and writes whose event loop is closed."""
    if not str(unraisable.exc_value).startswith(("Event loop is closed", "Encountered error while reading array")):
        signals.raise_again(unraisable)


def end_at_once(stopped: signals.Stopped, line: str) -> None:
    """Says that a signal has `stopped` the program, and ends it."""
    # The reader of this pipe may have been ended by the same signal.
    with contextlib.suppress(OSError):
        print(f"main.py: stopped by {stopped.name}{line}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    # A signal may have come while JAX was imported: it cannot be imported again.
    if stopped.together and sys.modules["jax"].distributed.is_initialized():
        raise stopped
    # An orderly exit would wait for the other processes and for the compiler, and it crashes when the compiler ends.
    os._exit(stopped.exit_code)
