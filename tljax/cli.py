"""The command line: a config and a workdir run, a subcommand reads what a run left.

main.py --config configs/X.py --workdir DIR [--config.SETTING=VALUE ...]
main.py COMMAND ...
"""

import argparse
import contextlib
import importlib
import logging
import os
import runpy
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from tljax.storage import signals


class Command(NamedTuple):
    """A subcommand. Its module has `add_arguments(parser)` and `run(flags)`, and is imported when it is asked for."""

    module: str
    about: str


COMMANDS = {"show": Command("tljax.commands.show", "prints what a finished run or lesson came to")}

USAGE = f"""\
usage: main.py --config FILE --workdir DIR [--config.SETTING=VALUE ...]
       main.py COMMAND ...

A config runs: it trains, evaluates and reports into its workdir; the same command again goes on from there.
  --config FILE     a file of configs/ or your own, with a function get_config()
  --config FILE --help
                    lists all its settings with their defaults
  --overwrite       replaces the run that is in the workdir
  --debug           shows the traceback of an error
  --version         says which version this is

A command reads what is there:
{chr(10).join(f"  {name:<17} {command.about}; {name} --help says more" for name, command in COMMANDS.items())}
"""


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
        description="main.py --config FILE --workdir DIR [--config.SETTING=VALUE ...]",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks for; an error is one line, or with --debug a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments[:1]:
        print(f"tljax {version('tljax')}")
    elif arguments[:1] in (["--help"], ["-h"]):
        print(USAGE)
    elif arguments and not arguments[0].startswith("-"):
        run_command(*arguments)
    else:
        run_config(arguments)


def run_command(name: str, *arguments: str) -> None:
    """A subcommand."""
    if name not in COMMANDS:
        choices = ", ".join(COMMANDS)
        sys.exit(f"main.py: {name!r} is no command; take one of {choices}, or --config FILE to run something")
    module = importlib.import_module(COMMANDS[name].module)
    parser = argparse.ArgumentParser(f"main.py {name}", description=COMMANDS[name].about)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    module.add_arguments(parser)
    flags = parser.parse_args(arguments)
    with one_line(flags.debug):
        module.run(flags)


def run_config(arguments: list[str]) -> None:
    """What a config says."""
    signals.listen()
    flags = parse_flags(arguments)
    import jax

    from tljax.commands import from_config
    from tljax.devices import processes
    from tljax.storage import compilation

    try:
        with one_line(flags.debug):
            processes.join(flags.coordinator_address, flags.num_processes, flags.process_id)
            signals.listen()
            compilation.set_up()
            with contextlib.ExitStack() as stack:
                if not processes.leads():
                    stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
                from_config.run(flags.config, flags.workdir, overwrite=flags.overwrite)
    except signals.Stopped as stopped:
        # Whoever reads this may have been ended by the same signal.
        with contextlib.suppress(OSError):
            print(
                f"main.py: stopped by {stopped.name}; the same command goes on from here", file=sys.stderr, flush=True
            )
        if jax.distributed.is_initialized() and not stopped.together:
            os._exit(stopped.exit_code)
        raise


@contextlib.contextmanager
def one_line(debug: bool) -> Iterator[None]:
    """A block whose errors end the process with one line, or with a traceback where that is asked for."""
    # TFDS and Orbax warn about their own workings. What fails in their threads is raised here too.
    logging.getLogger("absl").setLevel(logging.ERROR if debug else logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = sys.__unraisablehook__ if debug else leave_out_cut_off_reads
    try:
        yield
    except Exception as error:
        if debug:
            traceback.print_exc()
        elif isinstance(error, (ValueError, OSError)):
            print(f"main.py: {error}", file=sys.stderr, flush=True)
        else:
            print(f"main.py: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr, flush=True)
        if not debug:
            # What libraries warn about while this process ends is no part of the answer.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        import jax

        # In an orderly exit this process would wait for the others, which wait for it in the middle of their work.
        os._exit(1) if jax.distributed.is_initialized() else sys.exit(1)


def leave_out_cut_off_reads(unraisable: Any) -> None:
    """Prints what Python cannot raise. After an error TensorStore's threads end reads and writes whose loop is closed:
    not these."""
    if not str(unraisable.exc_value).startswith(("Event loop is closed", "Encountered error while reading array")):
        sys.__unraisablehook__(unraisable)
