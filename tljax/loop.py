"""Epochs: run the steps over the batches, stop early, hand every epoch to whoever records it."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from tljax import metrics
from tljax.data import Batches
from tljax.state import TrainState


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


def train_epoch(
    state: TrainState, batches: Batches, step: Callable[..., Any], key: jax.Array, *, name: str
) -> tuple[TrainState, dict[str, float], int]:
    """One pass over `batches` with `step(state, batch, key) -> (state, sums)`; `name` stands before the progress bar.

    Returns the state, mean loss and accuracy as they were before each update, which is what Keras reports, and the
    number of examples.
    """
    total, pending = metrics.ZERO, metrics.ZERO
    with tqdm(batches, desc=name, unit="step", leave=False, disable=None, dynamic_ncols=True) as bar:
        for batch in bar:
            state, sums = step(state, batch, key)
            # The sums of the step before are ready by now: reading them does not make the device wait.
            total, pending = metrics.merge(total, pending), sums
            if total.examples:
                bar.set_postfix({k: f"{v:.4f}" for k, v in metrics.compute(total).items()}, refresh=False)
    total = metrics.merge(total, pending)
    return state, metrics.compute(total), int(total.examples)


def evaluate(
    state: TrainState, batches: Batches, step: Callable[..., Any], key: jax.Array
) -> tuple[dict[str, float], np.ndarray]:
    """Mean loss and accuracy over `batches` with `step(state, batch, key) -> (sums, predicted)`, and the predicted
    label of every example, int [n]."""
    total, predictions = metrics.ZERO, []
    for batch in tqdm(batches, desc="evaluation", unit="step", leave=False, disable=None, dynamic_ncols=True):
        sums, predicted = step(state, batch, key)
        total = metrics.merge(total, sums)
        predictions.append(np.asarray(predicted)[batch["mask"]])
    return metrics.compute(total), np.concatenate(predictions)


def run_epoch(
    state: TrainState,
    train_batches: Batches,
    validation_batches: Batches,
    *,
    train_step: Callable[..., Any],
    eval_step: Callable[..., Any],
    key: jax.Array,
    name: str,
) -> tuple[TrainState, dict[str, float]]:
    """Trains on the one set of batches, evaluates on the other, and prints a line.

    Returns the new state and `loss, accuracy, val_loss, val_accuracy, seconds` (of the whole epoch) and
    `images_per_second` (of the training).
    """
    started = time.perf_counter()
    state, trained, examples = train_epoch(state, train_batches, train_step, key, name=name)
    train_seconds = time.perf_counter() - started
    validated, _ = evaluate(state, validation_batches, eval_step, key)
    row = trained | {f"val_{metric}": value for metric, value in validated.items()}
    seconds = time.perf_counter() - started
    numbers = "  ".join(f"{metric} {value:.4f}" for metric, value in row.items())
    print(f"{name}  {numbers}  {seconds:.1f} s  {examples / train_seconds:.0f} images/s", flush=True)
    return state, row | {
        "seconds": round(seconds, 3),
        "images_per_second": round(examples / train_seconds, 1),
    }


def predict(batches: Batches, step: Callable[[Any, Any], Any]) -> tuple[np.ndarray, ...]:
    """What `step(image, label)` gives for every example of `batches`, each of its outputs in one array."""
    parts = [
        [np.asarray(output)[batch["mask"]] for output in step(batch["image"], batch["label"])]
        for batch in tqdm(batches, desc="prediction", unit="step", leave=False, disable=None, dynamic_ncols=True)
    ]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))
