"""Epochs: run the steps over the batches, stop early, hand every epoch to whoever records it."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from tljax import metrics
from tljax.batches import Examples
from tljax.mesh import largest
from tljax.state import TrainState

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


def next_size(size: int, seconds: float) -> int:
    """How many steps the next dispatch makes after one of `size` steps took `seconds`: what takes about
    `DISPATCH_SECONDS`, at least one, and not more than eight times as many. How an epoch is parted changes nothing
    but when the progress bar moves and a signal is heard."""
    return max(1, min(8 * size, int(size * DISPATCH_SECONDS / max(seconds, 1e-9))))


def _run(
    call: Callable[..., tuple[Any, Any]], carry: Any, examples: Examples, order: np.ndarray | None, bar: tqdm
) -> Iterator[tuple[Any, Any]]:
    """A pass over `examples` with `call(carry, chunk, start, stop) -> (carry, outputs)`: after each dispatch the carry
    and the outputs of its steps on the host, [steps, ...]."""
    size = 1
    for chunk in examples.chunks(order):
        start, steps = 0, int(chunk.steps)
        while start < steps:
            stop = min(start + size, steps)
            began = time.perf_counter()
            carry, outputs = call(carry, chunk, np.int32(start), np.int32(stop))
            outputs = jax.tree.map(lambda o, start=start, stop=stop: np.asarray(o)[start:stop], outputs)
            size = largest(next_size(size, time.perf_counter() - began))
            bar.update(stop - start)
            yield carry, outputs
            start = stop


def _bar(examples: Examples, name: str) -> tqdm:
    return tqdm(total=examples.steps, desc=name, unit="step", leave=False, disable=None, dynamic_ncols=True)


def train_epoch(
    state: TrainState, examples: Examples, order: np.ndarray, run: Callable[..., Any], key: jax.Array, *, name: str
) -> tuple[TrainState, dict[str, float]]:
    """One pass over `examples` in `order` with `run(state, chunk, start, stop, key) -> (state, sums)`, which makes
    those steps of the chunk; `name` stands before the progress bar.

    Returns the state, and mean loss and accuracy as they were before each update, which is what Keras reports.
    """
    parts: list[metrics.Sums] = []
    with _bar(examples, name) as bar:
        for new_state, sums in _run(partial(run, key=key), state, examples, order, bar):
            state = new_state
            parts.append(sums)
            bar.set_postfix({k: f"{v:.4f}" for k, v in metrics.compute(_concatenate(parts)).items()}, refresh=False)
    return state, metrics.compute(_concatenate(parts))


def evaluate(
    state: TrainState, examples: Examples, run: Callable[..., Any], key: jax.Array
) -> tuple[dict[str, float], np.ndarray]:
    """Mean loss and accuracy over `examples` with `run(state, chunk, start, stop, key) -> (sums, predicted)`, and the
    predicted label of every example, int [n]."""
    call = lambda _, *chunk: ((), run(state, *chunk, key))  # noqa: E731
    with _bar(examples, "evaluation") as bar:
        parts = [outputs for _, outputs in _run(call, (), examples, None, bar)]
    sums, predicted = _concatenate(parts)
    return metrics.compute(sums), predicted.reshape(-1)[: len(examples)]


def _concatenate(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


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
) -> tuple[TrainState, dict[str, float]]:
    """Trains on the one set of examples, evaluates on the other, and prints a line.

    Returns the state and `loss`, `accuracy`, `val_loss`, `val_accuracy`, `seconds` of the whole epoch, and
    `images_per_second` of training.
    """
    started = time.perf_counter()
    state, trained = train_epoch(state, training, order, train_steps, key, name=name)
    speed = len(training) / (time.perf_counter() - started)
    validated, _ = evaluate(state, validation, eval_steps, key)
    row = trained | {f"val_{metric}": value for metric, value in validated.items()}
    seconds = time.perf_counter() - started
    numbers = "  ".join(f"{metric} {value:.4f}" for metric, value in row.items())
    print(f"{name}  {numbers}  {seconds:.1f} s  {speed:.0f} images/s", flush=True)
    return state, row | {"seconds": round(seconds, 3), "images_per_second": round(speed, 1)}
