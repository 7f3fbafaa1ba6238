"""Epochs: run the steps over the batches, stop early, hand every epoch to whoever records it, break off where asked."""

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from tljax import metrics
from tljax.batches import Examples, order, progress_bar
from tljax.config import Config
from tljax.mesh import largest
from tljax.state import TrainState

Row = dict[str, Any]
# Of a dispatch of many steps to the device: the time between two movements of the progress bar.
DISPATCH_SECONDS = 0.5


class EarlyStopper(NamedTuple):
    """The best validation loss so far, its epoch (0: none yet), epochs since, and whether to stop."""

    best: float = math.inf
    best_epoch: int = 0
    wait: int = 0
    stopped: bool = False


def update_stopper(stopper: EarlyStopper, *, epoch: int, val_loss: float, patience: int) -> EarlyStopper:
    """Counts as keras.callbacks.EarlyStopping(restore_best_weights=True, min_delta=0): stops at the `patience`-th
    epoch in a row without a lower `val_loss`.

    The first epoch is the best until another is lower, whatever its value; a value that is not finite never beats
    one that is.
    """
    if stopper.best_epoch == 0:
        return EarlyStopper(val_loss if math.isfinite(val_loss) else math.inf, epoch)
    if math.isfinite(val_loss) and val_loss < stopper.best:
        return EarlyStopper(val_loss, epoch)
    wait = stopper.wait + 1
    return stopper._replace(wait=wait, stopped=wait >= patience)


class Begun(NamedTuple):
    """What is done of an epoch: training steps, the sums of each of them, the seconds they took."""

    steps: int = 0
    sums: metrics.Sums = metrics.Sums((), (), ())
    seconds: float = 0.0


NOTHING = Begun()


class Progress(NamedTuple):
    """Where a run is: all that it takes, beside the state, to go on as if it had never stopped."""

    history: tuple[Row, ...] = ()
    """A row for every epoch that is done; where the source was a run, its epochs come first."""
    stopper: EarlyStopper = EarlyStopper()
    begun: Begun = NOTHING
    """Of the epoch after these."""


def progress_to_json(progress: Progress) -> dict[str, Any]:
    """As JSON, every number to its last digit."""
    steps, sums, seconds = progress.begun
    begun = {"steps": steps, "sums": [[float(x) for x in part] for part in sums], "seconds": seconds}
    return {"history": list(progress.history), "stopper": progress.stopper._asdict(), "begun": begun}


def progress_from_json(value: dict[str, Any]) -> Progress:
    """Undoes `progress_to_json`."""
    begun = value["begun"]
    return Progress(
        tuple(value["history"]),
        EarlyStopper(**value["stopper"]),
        Begun(begun["steps"], metrics.Sums(*begun["sums"]), begun["seconds"]),
    )


def next_size(size: int, seconds: float) -> int:
    """How many steps the next dispatch makes after one of `size` steps took `seconds`: what takes about
    `DISPATCH_SECONDS`, at least one, and not more than eight times as many. How an epoch is parted changes nothing
    but when the progress bar moves and a signal is heard."""
    return max(1, min(8 * size, int(size * DISPATCH_SECONDS / max(seconds, 1e-9))))


def _run(
    call: Callable[..., tuple[Any, Any]],
    carry: Any,
    examples: Examples,
    order: np.ndarray | None,
    bar: tqdm,
    skip: int = 0,
) -> Generator[tuple[Any, Any]]:
    """A pass over `examples`, without its first `skip` steps, with `call(carry, chunk, start, stop) -> (carry,
    outputs)`: after each dispatch the carry and the outputs of its steps on the host, [steps, ...]."""
    size = 1
    with closing(examples.chunks(order, skip)) as chunks:
        for chunk, start in chunks:
            steps = int(chunk.steps)
            while start < steps:
                stop = min(start + size, steps)
                began = time.perf_counter()
                carry, outputs = call(carry, chunk, np.int32(start), np.int32(stop))
                outputs = jax.tree.map(lambda o, start=start, stop=stop: np.asarray(o)[start:stop], outputs)
                size = largest(next_size(size, time.perf_counter() - began))
                bar.update(stop - start)
                yield carry, outputs
                start = stop


def warm_up(
    state: TrainState,
    training: Examples,
    validation: Examples,
    *,
    train_steps: Callable[..., Any],
    eval_steps: Callable[..., Any],
    key: jax.Array,
) -> TrainState:
    """Makes no step with either: the compiler is through with both before the first one, and nobody who wants to stop
    the run waits for it. Returns the state as it was."""
    zero = np.int32(0)
    state, _ = train_steps(state, training.blank(), zero, zero, key=key)
    jax.block_until_ready(eval_steps(state, validation.blank(), zero, zero, key))
    return state


def train_epoch(
    state: TrainState,
    examples: Examples,
    order: np.ndarray,
    run: Callable[..., Any],
    key: jax.Array,
    *,
    name: str,
    begun: Begun = NOTHING,
    interrupted: Callable[[], Any] = lambda: False,
) -> tuple[TrainState, Begun]:
    """A pass over `examples` in `order`, or what is left of it after `begun`, with
    `run(state, chunk, start, stop, key) -> (state, sums)`, which makes those steps of the chunk; `name` stands before
    the progress bar. After each dispatch it asks whether it is `interrupted`.

    Returns the state and what is done. The sums are as they were before each update, which is what Keras reports.

    Raises:
      ValueError: if the loss of a step is not finite, naming the step.
    """
    started = time.perf_counter() - begun.seconds
    sums = begun.sums
    with progress_bar(examples.steps, name, unit="step", done=begun.steps) as bar:
        steps = _run(partial(run, key=key), state, examples, order, bar, begun.steps)
        with closing(steps):
            for new_state, new_sums in steps:
                state = new_state
                _check_finite(new_sums, len(sums.loss), name)
                sums = metrics.Sums(*(np.append(*pair).astype(float) for pair in zip(sums, new_sums, strict=True)))
                bar.set_postfix({k: f"{v:.4f}" for k, v in metrics.compute(sums).items()}, refresh=False)
                if interrupted():
                    break
    return state, Begun(len(sums.loss), sums, time.perf_counter() - started)


def _check_finite(sums: metrics.Sums, done: int, name: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(sums.loss))
    if len(wrong):
        step = done + int(wrong[0]) + 1
        raise ValueError(
            f"{name}: the loss of step {step} is {sums.loss[wrong[0]]}: there, or in the gradients of the step before, "
            "the training diverged; what was saved before stands. Try a smaller --config.optimizer.learning_rate"
        )


def evaluate(
    state: TrainState, examples: Examples, run: Callable[..., Any], key: jax.Array
) -> tuple[dict[str, float], np.ndarray]:
    """Mean loss and accuracy over `examples` with `run(state, chunk, start, stop, key) -> (sums, predicted)`, and the
    predicted label of every example, int [n]."""
    evaluated = _evaluate(state, examples, run, key, lambda: False)
    assert evaluated is not None, "nothing interrupts it"
    return evaluated


def _evaluate(
    state: TrainState, examples: Examples, run: Callable[..., Any], key: jax.Array, interrupted: Callable[[], Any]
) -> tuple[dict[str, float], np.ndarray] | None:
    """`evaluate`, None if it was `interrupted`."""
    call = lambda _, *chunk: ((), run(state, *chunk, key))  # noqa: E731
    parts = []
    bar = progress_bar(examples.steps, "evaluation", unit="step")
    with bar, closing(_run(call, (), examples, None, bar)) as steps:
        for _, outputs in steps:
            parts.append(outputs)
            if interrupted():
                return None
    sums, predicted = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    return metrics.compute(sums), predicted.reshape(-1)[: len(examples)]


def run_epoch(
    state: TrainState,
    training: Examples,
    validation: Examples,
    order: np.ndarray,
    *,
    train_steps: Callable[..., Any],
    eval_steps: Callable[..., Any],
    key: jax.Array,
    name: str,
    begun: Begun = NOTHING,
    interrupted: Callable[[], Any] = lambda: False,
) -> tuple[TrainState, Begun, Row | None]:
    """Trains on the one set of examples, evaluates on the other.

    Returns the state, what is done of the training, and `loss`, `accuracy`, `val_loss`, `val_accuracy`, `seconds` of
    the whole epoch, and `images_per_second` of training; None in their place if it was `interrupted`.
    """
    if begun.steps < training.steps:
        state, begun = train_epoch(
            state, training, order, train_steps, key, name=name, begun=begun, interrupted=interrupted
        )
    started = time.perf_counter() - begun.seconds
    validated = None if interrupted() else _evaluate(state, validation, eval_steps, key, interrupted)
    if validated is None:
        return state, begun, None
    row = metrics.compute(begun.sums) | {f"val_{metric}": value for metric, value in validated[0].items()}
    seconds, speed = time.perf_counter() - started, len(training) / begun.seconds
    return state, begun, row | {"seconds": round(seconds, 3), "images_per_second": round(speed, 1)}


def is_done(progress: Progress, last: int) -> bool:
    """Whether there is no epoch left to run, `last` being the last one."""
    return progress.stopper.stopped or len(progress.history) >= last


def run_epochs(
    state: TrainState,
    progress: Progress,
    training: Examples,
    validation: Examples,
    config: Config,
    *,
    last: int,
    record: Callable[[TrainState, Progress], None],
    interrupted: Callable[[], Any] = lambda: False,
    **steps: Any,
) -> tuple[TrainState, Progress]:
    """From `progress` on to the epoch `last`, or until the stopper stops it or it is `interrupted`. `record` is called
    after every epoch, and where it was broken off; `steps` are those of `run_epoch`."""
    while not is_done(progress, last):
        epoch = len(progress.history) + 1
        state, begun, row = run_epoch(
            state,
            training,
            validation,
            order(len(training), training.batch_size, seed=config.seed, epoch=epoch),
            name=f"epoch {epoch}/{last}",
            begun=progress.begun,
            interrupted=interrupted,
            **steps,
        )
        if row is None:
            progress = progress._replace(begun=begun)
        else:
            row = {"stage": config.stage, "epoch": epoch, **row, "learning_rate": config.optimizer.learning_rate}
            stopper = update_stopper(progress.stopper, epoch=epoch, val_loss=row["val_loss"], patience=config.patience)
            progress = Progress((*progress.history, row), stopper)
        record(state, progress)
        if row is not None:
            numbers = "  ".join(f"{name} {row[name]:.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy"))
            print(
                f"epoch {epoch}/{last}  {numbers}  {row['seconds']:.1f} s  {row['images_per_second']:.0f} images/s",
                flush=True,
            )
        if interrupted():
            break
    return state, progress
