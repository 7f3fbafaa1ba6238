"""`main.py` with a tiny network, saying on standard error where it is: `PHASE name` as it enters each, `STEPS n` after
each dispatch, n being the steps of this process's stage.

    python tests/faults/one_run.py --config tests/faults/tiny.py --workdir DIR [...]

SLOW=seconds in the environment makes every phase take that much longer, so that it can be met. With STATUS it says
after each epoch how much memory it has, how many open files, and how often the steps were compiled.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_disable_most_optimizations", True)

from runs import TINY

import main
from tljax import checkpoint, data, features, lesson, loop

SLOW = float(os.environ.get("SLOW", 0))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def phase(name: str, module: Any, function: str) -> None:
    """`function` says that it is entered."""
    plain = getattr(module, function)

    def announced(*arguments: Any, **settings: Any) -> Any:
        say(f"PHASE {name}")
        time.sleep(SLOW)
        return plain(*arguments, **settings)

    setattr(module, function, announced)


def count_steps(train_epoch: Callable[..., Any]) -> Callable[..., Any]:
    def counted(state: Any, examples: Any, order: Any, run: Any, *arguments: Any, **settings: Any) -> Any:
        def counted_run(*chunk: Any, **key: Any) -> Any:
            state, sums = run(*chunk, **key)
            say(f"STEPS {int(state.step)}")
            time.sleep(SLOW / 4)
            return state, sums

        return train_epoch(state, examples, order, counted_run, *arguments, **settings)

    return counted


def report_status(run_epoch: Callable[..., Any]) -> Callable[..., Any]:
    def reported(*arguments: Any, train_steps: Any, eval_steps: Any, **settings: Any) -> Any:
        result = run_epoch(*arguments, train_steps=train_steps, eval_steps=eval_steps, **settings)
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
        compiled = f"{train_steps._cache_size()} {eval_steps._cache_size()}"
        say(f"STATUS {memory} {len(os.listdir('/proc/self/fd'))} {compiled}")
        return result

    return reported


phase("reading", data, "load")
phase("computing", features, "compute")
phase("compiling", loop, "warm_up")
loop.train_epoch = count_steps(loop.train_epoch)
phase("training", loop, "train_epoch")
phase("evaluating", loop, "_evaluate")
phase("saving", checkpoint, "save")
if "STATUS" in os.environ:
    loop.run_epoch = report_status(loop.run_epoch)
lesson.run = partial(lesson.run, network=TINY)
if __name__ == "__main__":
    main.main(sys.argv[1:])
