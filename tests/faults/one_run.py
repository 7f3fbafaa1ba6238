"""`main.py` with a tiny network. It says on standard error where it is.

It says `PHASE name` as it enters a phase, and `STEPS n` after each dispatch, n being the steps of its stage so far.

    python tests/faults/one_run.py --config tests/faults/tiny.py --workdir DIR [...]

KILLED_AT=name in the environment kills it when half of the file of this name is written.
SLOW=seconds in the environment makes every phase take that much longer, so that a signal can come in it. Every epoch
has a checkpoint, or with SAVE_SECONDS=seconds those that end so long after the last one. With STATUS in
the environment it says after each epoch how much memory (MiB) and how many open files it has, and how often each kind
of step was compiled.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_disable_most_optimizations", True)

import tiny_runs  # noqa: F401, adds the network of the configs beside this file

from tljax import cli
from tljax.data import datasets
from tljax.runs import checkpoints, files, journal
from tljax.training import epochs, features

SLOW = float(os.environ.get("SLOW", 0))

journal.SAVE_SECONDS = float(os.environ.get("SAVE_SECONDS", 0))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def phase(name: str, module: Any, function: str) -> None:
    """Makes `function` of `module` say when it is entered, and then wait `SLOW` seconds."""
    plain = getattr(module, function)

    def announced(*arguments: Any, **settings: Any) -> Any:
        say(f"PHASE {name}")
        time.sleep(SLOW)
        return plain(*arguments, **settings)

    setattr(module, function, announced)


def count_steps(train_epoch: Callable[..., Any]) -> Callable[..., Any]:
    def counted(state: Any, done: Any, examples: Any, order: Any, run: Any, **settings: Any) -> Any:
        def counted_run(*chunk: Any) -> Any:
            state, sums = run(*chunk)
            say(f"STEPS {int(state.step)}")
            time.sleep(SLOW / 4)
            return state, sums

        return train_epoch(state, done, examples, order, counted_run, **settings)

    return counted


def report_status(train_epoch: Callable[..., Any], try_evaluate: Callable[..., Any]) -> tuple[Any, Any]:
    """Both functions, wrapped so that they print a line after each evaluation of an epoch."""
    programs: dict[str, Any] = {}

    def trained(state: Any, done: Any, examples: Any, order: Any, train_steps: Any, **settings: Any) -> Any:
        programs["train"] = train_steps.func
        return train_epoch(state, done, examples, order, train_steps, **settings)

    def evaluated(state: Any, examples: Any, eval_steps: Any, interrupted: Any) -> Any:
        result = try_evaluate(state, examples, eval_steps, interrupted)
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
        if "train" in programs and interrupted is not epochs.never:
            compiled = f"{programs['train']._cache_size()} {eval_steps._cache_size()}"
            say(f"STATUS {memory} {len(os.listdir('/proc/self/fd'))} {compiled}")
        return result

    return trained, evaluated


def die_at(name: str) -> Callable[[Path, bytes], None]:
    """What kills this process when half of a file is written, in place of `files.write_through`."""
    plain = files.write_through

    def write(path: Path, content: bytes) -> None:
        if path.name != f"{name}.tmp":
            return plain(path, content)
        plain(path, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    return write


if "KILLED_AT" in os.environ:
    files.write_through = die_at(os.environ["KILLED_AT"])
phase("reading", datasets, "load_dataset")
phase("computing", features, "compute")
phase("compiling", epochs, "warm_up")
epochs.train_epoch = count_steps(epochs.train_epoch)
phase("training", epochs, "train_epoch")
phase("evaluating", epochs, "try_evaluate")
phase("saving", checkpoints.Checkpoints, "save")
if "STATUS" in os.environ:
    epochs.train_epoch, epochs.try_evaluate = report_status(epochs.train_epoch, epochs.try_evaluate)
if __name__ == "__main__":
    cli.main(sys.argv[1:])
