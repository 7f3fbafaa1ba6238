"""Early stopping counts as Keras does; an epoch counts every example once."""

import math

import jax
import keras
import numpy as np
import pytest

from tljax import loop, metrics
from tljax.data import Batches, Split
from tljax.loop import EarlyStopper, update_stopper


def run_ours(losses: list[float], patience: int) -> tuple[int, int]:
    stopper = EarlyStopper()
    for epoch, val_loss in enumerate(losses, start=1):
        stopper = update_stopper(stopper, epoch=epoch, val_loss=val_loss, patience=patience)
        if stopper.stopped:
            break
    return stopper.best_epoch, epoch


def run_keras(losses: list[float], patience: int) -> tuple[int, int]:
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(loss="mse")
        callback = keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True)
        callback.set_model(model)
        callback.on_train_begin()
        for epoch, val_loss in enumerate(losses):
            callback.on_epoch_end(epoch, {"val_loss": val_loss})
            if model.stop_training:
                break
    return callback.best_epoch + 1, epoch + 1


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_stops_and_chooses_as_keras_does(patience):
    rng = np.random.default_rng(patience)
    for _ in range(15):
        # Few different values: ties are common.
        losses = [float(x) for x in rng.integers(0, 6, 14) + np.linspace(2, 0, 14).round()]
        assert run_ours(losses, patience) == run_keras(losses, patience)


def test_patience_5_stops_at_the_fifth_epoch_without_improvement():
    assert run_ours([1.0, 0.5, *[0.6] * 9], patience=5) == (2, 7)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([math.nan, 2.0, 1.0], 3),
        ([2.0, math.nan, math.nan], 1),
        ([2.0, -math.inf, 1.0], 3),
        ([math.inf, 5.0, math.nan], 2),
        ([math.nan, math.nan], 1),
    ],
)
def test_a_value_that_is_not_finite_is_never_better(losses, best):
    assert run_ours(losses, patience=5)[0] == best


def make_batches(n: int) -> Batches:
    split = Split(np.zeros((n, 2, 2, 3), np.uint8), np.arange(n, dtype=np.int32), tuple(map(str, range(n))))
    return Batches(split, 4)


def count(batch) -> metrics.Sums:
    n = batch["mask"].sum()
    return metrics.Sums(float(batch["label"][batch["mask"]].sum()), float(n), float(n))


@pytest.mark.parametrize("n", [1, 4, 10])
def test_an_epoch_counts_every_example_once(n):
    step = lambda state, batch, key: (state + 1, count(batch))  # noqa: E731
    state, measured, examples = loop.train_epoch(0, make_batches(n), step, None, name="x")
    assert (state, examples) == (-(-n // 4), n)
    assert measured == {"loss": (n - 1) / 2, "accuracy": 1.0}


def test_evaluation_gives_a_prediction_for_every_example():
    step = lambda state, batch, key: (count(batch), batch["label"] + 1)  # noqa: E731
    measured, predicted = loop.evaluate(None, make_batches(10), step, None)
    assert measured["loss"] == 4.5
    np.testing.assert_array_equal(predicted, np.arange(1, 11))


def test_prediction_drops_the_padding():
    labels, pixels = loop.predict(make_batches(6), lambda image, label: (label, image[:, 0, 0, 0]))
    np.testing.assert_array_equal(labels, np.arange(6))
    assert pixels.shape == (6,)
