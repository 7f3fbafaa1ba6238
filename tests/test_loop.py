"""Early stopping counts as Keras's callback does; an epoch counts every example once."""

import math

import numpy as np
import pytest

from tljax import loop, metrics
from tljax.data import Batches, Split
from tljax.loop import EarlyStopper, update_stopper

NAN, INF = math.nan, math.inf


def run_stopper(losses: list[float], patience: int) -> tuple[int | None, int]:
    """The epoch at which it stops, if it does, and the best epoch, both from 1."""
    stopper = EarlyStopper()
    for epoch, loss in enumerate(losses, start=1):
        stopper = update_stopper(stopper, epoch=epoch, val_loss=loss, patience=patience)
        if stopper.stopped:
            return epoch, stopper.best_epoch
    return None, stopper.best_epoch


class Model:
    """As much of a Keras model as the callback touches: its weights are the number of the epoch."""

    def __init__(self):
        self.epoch, self.stop_training = 0, False

    def get_weights(self):
        return self.epoch

    def set_weights(self, epoch):
        self.epoch = epoch


def run_keras(losses: list[float], patience: int) -> tuple[int | None, int]:
    from keras.callbacks import EarlyStopping

    callback = EarlyStopping("val_loss", patience=patience, mode="min", restore_best_weights=True)
    model = Model()
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        model.epoch = epoch + 1
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if model.stop_training:
            break
    callback.on_train_end()
    return epoch + 1 if model.stop_training else None, model.epoch


@pytest.mark.parametrize("patience", [1, 2, 3, 4, 5])
def test_it_stops_where_keras_stops_and_keeps_what_keras_restores(patience):
    rng = np.random.default_rng(patience)
    stops = set()
    for _ in range(300):
        # Few different values: ties are common.
        losses = rng.integers(0, rng.integers(2, 12), 12).astype(float).tolist()
        mine, keras = run_stopper(losses, patience), run_keras(losses, patience)
        assert mine[0] == keras[0], losses
        # Keras restores the best weights at the end of training whether or not it stopped.
        assert mine[1] == keras[1], losses
        stops.add(mine[0])
    assert len(stops) > 3


@pytest.mark.parametrize("patience", [1, 3])
def test_later_numbers_that_are_not_finite_count_as_in_keras(patience):
    rng = np.random.default_rng(0)
    for _ in range(100):
        losses = [3.0, *rng.choice([1.0, 2.0, 3.0, NAN, INF], 8).tolist()]
        assert run_stopper(losses, patience) == run_keras(losses, patience), losses


@pytest.mark.parametrize(
    ("losses", "patience", "stop", "best"),
    [
        ([3.0, 2.0, 1.0], 1, None, 3),
        ([1.0, 1.0], 1, 2, 1),
        ([1.0, 2.0, 0.5, 0.5, 0.6], 2, 5, 3),
        ([1.0, 2.0, 2.0, 0.5], 3, None, 4),
        ([1.0, NAN, 0.5, NAN, NAN], 2, 5, 3),
        ([1.0, INF, NAN], 2, 3, 1),
        ([2.0, -INF, 1.0], 2, None, 3),
        ([INF, 5.0], 1, None, 2),
        ([INF, INF], 1, 2, 1),
    ],
)
def test_it_stops_at_the_patience_th_epoch_in_a_row_without_a_lower_loss(losses, patience, stop, best):
    assert run_stopper(losses, patience) == (stop, best)


@pytest.mark.parametrize(
    ("losses", "stop", "best"), [([NAN], None, 1), ([NAN, 2.0, 1.0], None, 3), ([NAN, NAN, NAN], 3, 1)]
)
def test_a_first_epoch_that_is_nan_is_the_best_until_there_is_a_number(losses, stop, best):
    assert run_stopper(losses, patience=2) == (stop, best)


def test_what_is_kept_of_a_first_nan_is_not_nan():
    stopper = update_stopper(EarlyStopper(), epoch=1, val_loss=NAN, patience=2)
    assert stopper == EarlyStopper(best=INF, best_epoch=1, wait=0, stopped=False)


def test_epochs_may_go_on_from_those_of_an_earlier_run():
    stopper = update_stopper(EarlyStopper(), epoch=11, val_loss=1.0, patience=1)
    stopper = update_stopper(stopper, epoch=12, val_loss=1.5, patience=1)
    assert stopper == EarlyStopper(best=1.0, best_epoch=11, wait=1, stopped=True)


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
