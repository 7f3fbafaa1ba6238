"""The command line: a config and a workdir make a run, a command reads what a run has left.

main.py --config configs/X.py --workdir DIR [--config.SETTING=VALUE ...]
main.py COMMAND ...
"""

import argparse
import ast
import contextlib
import difflib
import importlib
import importlib.util
import os
import runpy
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from tljax.arguments import add_check, add_export, add_predict, add_report, add_show
from tljax.config import AnyConfig, Recipe
from tljax.flags import VALUES, describe_unknown, spell_out
from tljax.startup import end_at_once, one_line, prepare_outputs, start_devices
from tljax.storage import signals


class Command(NamedTuple):
    """A command. Its module has `run(flags)`; it is imported only when it runs."""

    module: str
    about: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    computes: bool = False
    """Whether it needs JAX's devices."""


COMMANDS = {
    "show": Command("tljax.commands.show", "prints what a finished run or lesson came to", add_show),
    "check": Command(
        "tljax.commands.check", "looks for twins, leaks, shortcuts and wrong labels in data", add_check, computes=True
    ),
    "report": Command("tljax.commands.report", "writes a page that shows runs and lessons side by side", add_report),
    "export": Command(
        "tljax.commands.export", "writes a trained run as a file of other programs", add_export, computes=True
    ),
    "predict": Command("tljax.commands.predict", "classifies pictures with a trained run", add_predict, computes=True),
}


def shipped_configs() -> dict[str, Path]:
    """The configs that come with this program by name: beside its code where it is installed, else in `configs/`."""
    package = Path(__file__).parent
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def describe_config(path: Path) -> str:
    """What a config is for: the first line of its docstring. Nothing of the file is run."""
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]


def usage() -> str:
    """The help text of the program."""
    configs = "\n".join(f"  {name:<18} {describe_config(path)}" for name, path in shipped_configs().items())
    commands = "\n".join(f"  {name:<18} {row.about}; {name} --help says more" for name, row in COMMANDS.items())
    return f"""\
usage: main.py --config FILE --workdir DIR [--config.SETTING=VALUE ...]
       main.py COMMAND ...

A config is run: it trains, evaluates and reports into its workdir. The same command again goes on from there.
  --config FILE      the name of a shipped config, below, or a file of your own with a function get_config()
  --config FILE --help
                     lists all its settings with their defaults
  --overwrite        deletes the run that is in the workdir first
  --debug            shows the traceback of an error
  --version          says which version this is

Shipped configs:
{configs}

Commands:
{commands}
"""


def find_config(name: str) -> Path:
    """A config by its path, or a shipped one by its name.

    Raises:
      SystemExit: with a line that names the nearest config, or the shipped ones, if there is no such file.
    """
    shipped = shipped_configs()
    if not os.path.isfile(name) and name not in shipped:
        sys.exit(f"main.py: --config {name}: there is no such file{suggest_configs(name, shipped)}")
    return Path(name) if os.path.isfile(name) else shipped[name]


def suggest_configs(name: str, shipped: Iterable[str]) -> str:
    """What to type instead of the `name` of a config that is not there, as the end of a sentence: the nearest file
    beside it or shipped config."""
    beside = {path.stem.lower(): str(path) for path in Path(name).parent.glob("*.py")}
    known = {stem: stem for stem in shipped}
    known = beside | known if Path(name).parent == Path() else known | beside
    if near := difflib.get_close_matches(Path(name).stem.lower(), known, 1):
        return f"; the nearest is --config {known[near[0]]}, and main.py --help lists the shipped configs"
    return f", and no shipped config but {', '.join(shipped)}"


def load_defaults(name: str, debug: bool) -> Any:
    """What `get_config()` of a config returns: the defaults of all settings. It may import files beside it.

    Raises:
      SystemExit: with a line that says where the config fails.
    """
    path = find_config(name)
    sys.path.append(str(path.parent.resolve()))
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        if get_config is None:
            sys.exit(f"main.py: --config {name}: it has no function get_config()")
        config = get_config()
    except SystemExit as ended:
        sys.exit(str(ended) if str(ended).startswith("main.py: ") else f"main.py: --config {name}: it ends the program")
    except Exception as error:
        if debug:
            raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" line {lines[-1]}:" if lines else ""
        sys.exit(f"main.py: --config {name}:{where} {type(error).__name__}: {' '.join(str(error).split())}")
    if not isinstance(config, AnyConfig | Recipe):
        kinds = "no Config, no Lesson and no Recipe"
        sys.exit(f"main.py: --config {name}: get_config() returned {config!r:.80}, which is {kinds}")
    return config


def parse_flags(arguments: list[str]) -> Any:
    """Reads `--config FILE`, whose `get_config()` gives the defaults, then everything else against them."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", metavar="FILE")
    known, rest = first.parse_known_args(arguments)
    if known.config is None:
        sys.exit(f"main.py: --config FILE is needed: a file, or one of {', '.join(shipped_configs())}")
    defaults = load_defaults(known.config, debug="--debug" in rest)

    @dataclass
    class Flags:
        config: type(defaults)  # type: ignore[valid-type]
        """Settings of this config file."""
        workdir: Path
        """Folder that the run is written to."""
        overwrite: bool = False
        """Delete the run that is in the workdir first."""
        debug: bool = False
        """Show the traceback of an error."""
        coordinator_address: str | None = None
        """HOST:PORT of process 0, for several processes that JAX does not find by itself."""
        num_processes: int | None = None
        """Number of processes."""
        process_id: int | None = None
        """Number of this process, from 0."""

    flags, unknown = tyro.cli(
        Flags,
        args=list(map(spell_out, rest)),
        default=Flags(defaults, tyro.MISSING),
        return_unknown_args=True,
        prog=f"main.py --config {known.config}",
        description="main.py --config FILE --workdir DIR [--config.SETTING=VALUE ...]",
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff,),
        registry=VALUES,
    )
    if unknown:
        sys.exit(f"main.py: {describe_unknown(unknown, flags, known.config)}")
    return flags


def main(arguments: list[str] | None = None) -> None:
    """The program. An error is printed as one line, or as a traceback with --debug."""
    began, arguments = time.perf_counter(), sys.argv[1:] if arguments is None else arguments
    prepare_outputs()
    if importlib.util.find_spec("fcntl") is None:
        sys.exit("main.py: tljax runs on Linux and macOS; on Windows, use it in WSL")
    try:
        if "--version" in arguments[:1]:
            print(f"tljax {version('tljax')}")
        elif arguments[:1] in (["--help"], ["-h"]):
            print(usage())
        elif arguments and not arguments[0].startswith("-"):
            run_command(*arguments)
        else:
            run_config(arguments, began)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has closed it, as `| head` does. Python would report that once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)


def run_command(name: str, *arguments: str) -> None:
    """Runs the command `name` with its `arguments`. Ends the program with one line if there is no such command."""
    if name not in COMMANDS:
        choices = ", ".join(COMMANDS)
        sys.exit(f"main.py: {name!r} is no command; take one of {choices}, or --config FILE to run something")
    parser = argparse.ArgumentParser(f"main.py {name}", description=COMMANDS[name].about)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    COMMANDS[name].add_arguments(parser)
    flags = parser.parse_args(arguments)
    signals.listen()
    try:
        with one_line(flags.debug):
            if COMMANDS[name].computes:
                with contextlib.redirect_stdout(sys.stderr):
                    start_devices()
            importlib.import_module(COMMANDS[name].module).run(flags)
    except signals.Stopped as stopped:
        end_at_once(stopped, "")


def run_config(arguments: list[str], began: float) -> None:
    """Runs what a config says, in this process and in all that work with it. A time limit counts from when it
    `began`."""
    signals.listen()
    flags = parse_flags(arguments)
    from tljax.devices import processes
    from tljax.stages import from_config

    try:
        with one_line(flags.debug):
            processes.join(flags.coordinator_address, flags.num_processes, flags.process_id)
            signals.listen()
            start_devices()
            with contextlib.ExitStack() as stack:
                if not processes.leads():
                    stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
                from_config.run(flags.config, flags.workdir, overwrite=flags.overwrite, began=began)
    except BrokenPipeError:
        print("main.py: nobody reads its output any more; the same command goes on from what is saved", file=sys.stderr)
        raise
    except signals.Stopped as stopped:
        end_at_once(stopped, "; the same command goes on from what is saved")
