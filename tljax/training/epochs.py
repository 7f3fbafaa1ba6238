"""One epoch: a training pass and an evaluation. A dispatch makes many steps; signals interrupt between dispatches."""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from tljax.data.batches import Examples, move, progress_bar
from tljax.devices.environment import describe_memory
from tljax.devices.processes import max_over_processes
from tljax.training import metrics
from tljax.training.progress import PartialEpoch
from tljax.training.state import Diverged, TrainState

# Target time of one dispatch of many steps: the time between two updates of the progress bar, and until a signal is
# noticed. On a CPU the first step of a dispatch is the slowest, because Linux fills its working memory with zeros: a
# step of everything takes 305 ms alone (32 pixels, batches of 128, two cores), two take 255 ms each, sixteen 220 ms.
DISPATCH_SECONDS = 2.0

# The bar of an epoch on 80 columns: the time that is left of it, of all epochs, and the metrics so far.
EPOCH_BAR = "{desc}: {percentage:3.0f}%|{bar}| {remaining} left{postfix}"

# Returns the number of the signal that interrupts a pass, or 0. Called after every dispatch.
Interrupted = Callable[[], int]


def never() -> int:
    """The `Interrupted` of a pass that no signal interrupts."""
    return 0


def next_size(size: int, seconds: float) -> int:
    """The number of steps of the next dispatch, after one of `size` steps took `seconds`.

    It should take about `DISPATCH_SECONDS`, has at least one step and at most `8 * size`. How an epoch is split into
    dispatches changes only when the progress bar moves and when a signal is noticed.
    """
    return max(1, min(8 * size, int(size * DISPATCH_SECONDS / max(seconds, 1e-9))))


def _run(
    call: Callable[..., tuple[Any, Any]],
    carry: Any,
    examples: Examples,
    order: np.ndarray | None,
    bar: tqdm,
    skip: int = 0,
) -> Generator[tuple[Any, Any]]:
    """Makes a pass over `examples`, without its first `skip` steps, with `call(carry, chunk, start, stop) -> (carry,
    outputs)`. Yields after each dispatch the carry, and the outputs of its steps on the host, [steps, ...]."""
    size, done = 1, bar.n
    with closing(examples.chunks(order, skip)) as chunks:
        for chunk, start in chunks:
            steps = int(chunk.steps)
            while start < steps:
                stop = min(start + size, steps)
                began = time.perf_counter()
                carry, outputs = call(carry, chunk, np.int32(start), np.int32(stop))
                outputs = jax.tree.map(lambda o, start=start, stop=stop: np.asarray(o)[start:stop], outputs)
                size = max_over_processes(next_size(size, time.perf_counter() - began))
                move(bar, stop - start, first=bar.n == done)
                yield carry, outputs
                start = stop


def warm_up(
    state: TrainState,
    training: Examples,
    validation: Examples,
    train_steps: Callable[..., Any],
    eval_steps: Callable[..., Any],
) -> TrainState:
    """Compiles `train_steps` and `eval_steps` by calling them with no steps to make; returns the state unchanged.

    After that, a signal never has to wait for the compiler. `train_steps` may donate the buffers of `state`: use the
    returned one.
    """
    zero = np.int32(0)
    state, _ = train_steps(state, training.blank(), zero, zero)
    jax.block_until_ready(eval_steps(state, validation.blank(), zero, zero))
    return state


def train_epoch(
    state: TrainState,
    done: PartialEpoch,
    examples: Examples,
    order: np.ndarray,
    train_steps: Callable[..., Any],
    *,
    name: str,
    ahead: "Ahead | None" = None,
    interrupted: Interrupted = never,
    announce: bool = False,
) -> tuple[TrainState, PartialEpoch]:
    """Trains on `examples` in `order`, from the step after `done` to the end of the pass or until `interrupted`.

    `train_steps(state, chunk, start, stop) -> (state, sums)` makes the steps `start` to `stop - 1` of a chunk. `name`
    labels the progress bar, which also says how long it takes to the end of what is `ahead`. With `announce`, a line
    says once how fast the steps are.

    Returns the new state and the finished part of the epoch. The sums of a step are those before its update, which
    Keras reports too.

    Raises:
      Diverged: if the loss of a step is not finite; the message names the step.
    """
    if done.steps >= examples.steps:
        return state, done
    started = time.perf_counter() - done.seconds
    sums = done.sums
    with progress_bar(examples.steps, name, unit=" steps", done=done.steps, layout=EPOCH_BAR) as bar:
        bar.set_postfix_str(describe_left(bar, ahead))
        steps = _run(train_steps, state, examples, order, bar, done.steps)
        with closing(steps):
            began = time.perf_counter()
            for number, (new_state, new_sums) in enumerate(steps):
                state = new_state
                seconds, began = time.perf_counter() - began, time.perf_counter()
                # The first dispatch uses its memory for the first time, which may take seconds: it counts only where
                # nobody would wait for a second one.
                if announce and seconds >= DISPATCH_SECONDS * (0.125 if number else 10):
                    bar.write(describe_pace(name, examples.steps, seconds / len(new_sums.loss)))
                    announce = False
                _check_finite(new_sums, len(sums.loss), name)
                sums = metrics.Sums(*(np.append(*pair).astype(float) for pair in zip(sums, new_sums, strict=True)))
                means = (f"{name} {value:.4f}" for name, value in metrics.means(sums).items())
                bar.set_postfix_str(", ".join(filter(None, (describe_left(bar, ahead), *means))))
                if interrupted():
                    break
    return state, PartialEpoch(len(sums.loss), sums, time.perf_counter() - started)


class Ahead(NamedTuple):
    """The `epochs` that come after one, and the seconds that an epoch took; None while none has ended."""

    epochs: int
    seconds: float | None


def describe_left(bar: tqdm, ahead: Ahead | None) -> str:
    """How long all epochs take from here, such as "all 12:40"; empty before that is known, and in the last epoch.
    `bar` is that of the epoch."""
    rate = bar.format_dict["rate"]
    whole = bar.total / rate if rate else None
    if not ahead or not ahead.epochs or (one := ahead.seconds or whole) is None:
        return ""
    rest = (one if whole is None else whole) * (1 - bar.n / bar.total)
    return f"all {tqdm.format_interval(rest + ahead.epochs * one)}"


def describe_pace(name: str, steps: int, step_seconds: float) -> str:
    """A line with the measured `step_seconds`, the time that an epoch of `steps` will take, and the memory used."""
    seconds = steps * step_seconds
    epoch = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return (
        f"{name}: {step_seconds:.2g} s a step, about {epoch} for an epoch of {steps}; memory so far {describe_memory()}"
    )


def _check_finite(sums: metrics.Sums, done: int, name: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(sums.loss))
    if len(wrong):
        step = done + int(wrong[0]) + 1
        raise Diverged(
            f"{name}: the loss of step {step} is {sums.loss[wrong[0]]}: there, or in the gradients of the step before, "
            "the training diverged; what was saved before stands. Try a smaller --config.optimizer.learning_rate"
        )


class Evaluation(NamedTuple):
    """The result of an evaluation: mean `loss` and `accuracy`, the logits of every example, and the seconds that it
    took."""

    means: dict[str, float]
    logits: Float[np.ndarray, "n classes"]
    seconds: float

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """The label of every example."""
        return self.logits.argmax(axis=1)


def evaluate(state: TrainState, examples: Examples, eval_steps: Callable[..., Any]) -> Evaluation:
    """Evaluates all `examples` with `eval_steps(state, chunk, start, stop) -> (sums, logits)`."""
    evaluation = try_evaluate(state, examples, eval_steps, never)
    assert evaluation is not None, "nothing interrupts it"
    return evaluation


def try_evaluate(
    state: TrainState, examples: Examples, eval_steps: Callable[..., Any], interrupted: Interrupted
) -> Evaluation | None:
    """Does the same as `evaluate`, but stops and returns None if it is `interrupted`."""
    if interrupted():
        return None
    began = time.perf_counter()
    call = lambda _, *chunk: ((), eval_steps(state, *chunk))  # noqa: E731
    parts = []
    bar = progress_bar(examples.steps, "evaluation", unit=" steps")
    with bar, closing(_run(call, (), examples, None, bar)) as steps:
        for _, outputs in steps:
            parts.append(outputs)
            if interrupted():
                return None
    sums, logits = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    logits = logits.reshape(-1, logits.shape[-1])[: len(examples)]
    return Evaluation(metrics.means(sums), logits, time.perf_counter() - began)
