"""python main.py --config configs/X.py --workdir DIR [--config.SETTING=VALUE ...]"""

import argparse
import contextlib
import logging
import os
import runpy
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from tljax import preemption


def parse_flags(arguments: list[str]) -> Any:
    """Reads `--config FILE`, whose `get_config()` gives the defaults, then everything else against them."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", metavar="FILE")
    known, rest = first.parse_known_args(arguments)
    if known.config is None:
        sys.exit("main.py: --config FILE is needed, for example --config configs/demo.py (see configs/)")
    if not Path(known.config).is_file():
        sys.exit(f"main.py: --config {known.config}: there is no such file")
    get_config = runpy.run_path(known.config).get("get_config")
    if get_config is None:
        sys.exit(f"main.py: --config {known.config}: it has no function get_config()")
    defaults = get_config()

    @dataclass
    class Flags:
        config: type(defaults)  # type: ignore[valid-type]
        """Settings of this config file."""
        workdir: Path
        """Folder that the run is written to."""
        overwrite: bool = False
        """Replace the run that is in the workdir."""
        debug: bool = False
        """Show the traceback of an error."""
        coordinator_address: str | None = None
        """HOST:PORT of process 0, where JAX does not find out by itself that there are several processes."""
        num_processes: int | None = None
        """How many there are."""
        process_id: int | None = None
        """Which of them this is, from 0."""

    return tyro.cli(
        Flags,
        args=rest,
        default=Flags(defaults, tyro.MISSING),
        prog=f"main.py --config {known.config}",
        description=__doc__,
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def leave_out_cut_off_reads(unraisable: Any) -> None:
    """Prints what Python cannot raise. After an error TensorStore's threads end reads and writes whose loop is closed:
    not these."""
    if not str(unraisable.exc_value).startswith(("Event loop is closed", "Encountered error while reading array")):
        sys.__unraisablehook__(unraisable)


def main(arguments: list[str]) -> None:
    """Runs what the command line asks for; an error is one line, or with --debug a traceback."""
    preemption.listen()
    flags = parse_flags(arguments)
    # TFDS and Orbax warn about their own workings. What fails in their threads is raised here too.
    logging.getLogger("absl").setLevel(logging.ERROR if flags.debug else logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = leave_out_cut_off_reads if not flags.debug else sys.__unraisablehook__
    import jax

    from tljax import lesson, mesh, programs

    try:
        mesh.join(flags.coordinator_address, flags.num_processes, flags.process_id)
        preemption.listen()
        programs.set_up()
        with contextlib.ExitStack() as stack:
            if not mesh.leads():
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            lesson.run(flags.config, flags.workdir, overwrite=flags.overwrite)
    except preemption.Stopped as stopped:
        # Whoever reads this may have been ended by the same signal.
        with contextlib.suppress(OSError):
            print(
                f"main.py: stopped by {stopped.name}; the same command goes on from here", file=sys.stderr, flush=True
            )
        if jax.distributed.is_initialized() and not stopped.together:
            os._exit(stopped.exit_code)
        raise
    except Exception as error:
        if flags.debug:
            traceback.print_exc()
        elif isinstance(error, (ValueError, OSError)):
            print(f"main.py: {error}", file=sys.stderr, flush=True)
        else:
            print(f"main.py: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr, flush=True)
        # In an orderly exit this process would wait for the others, which wait for it in the middle of their work.
        os._exit(1) if jax.distributed.is_initialized() else sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
