"""Early stopping counts epochs as Keras's callback does, and the progress of a run survives JSON."""

import json
import math

import numpy as np
import pytest

from tljax.training import metrics
from tljax.training.progress import (
    EarlyStopper,
    PartialEpoch,
    Progress,
    finish_epoch,
    judged_from_json,
    progress_from_json,
    progress_to_json,
    record_solved,
    update_stopper,
)
from tljax.training.unchosen import Judged

NAN, INF = math.nan, math.inf


def run_stopper(losses: list[float], patience: int) -> tuple[int | None, int]:
    """The epoch at which training stops, or None, and the best epoch; both count from 1."""
    stopper = EarlyStopper()
    for epoch, loss in enumerate(losses, start=1):
        stopper = update_stopper(stopper, epoch=epoch, score=loss, patience=patience)
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
        # With few different values ties are common.
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
    stopper = update_stopper(EarlyStopper(), epoch=1, score=NAN, patience=2)
    assert stopper == EarlyStopper(best=INF, best_epoch=1, wait=0, stopped=False)


def test_epochs_may_go_on_from_those_of_an_earlier_run():
    stopper = update_stopper(EarlyStopper(), epoch=11, score=1.0, patience=1)
    stopper = update_stopper(stopper, epoch=12, score=1.5, patience=1)
    assert stopper == EarlyStopper(best=1.0, best_epoch=11, wait=1, stopped=True)


def test_progress_survives_json():
    stopper = update_stopper(EarlyStopper(), epoch=1, score=NAN, patience=2)
    sums = metrics.Sums(*np.float32([[0.1, 0.2], [1, 2], [3, 4]]))
    judged = Judged(np.array([0.1, 1e-38, NAN, INF], np.float32), np.array([True, False, False, True]))
    progress = Progress(({"epoch": 1, "loss": 0.1},), stopper, PartialEpoch(2, sums, 1.5), (judged, judged))
    again = progress_from_json(json.loads(json.dumps(progress_to_json(progress))))
    assert again.history == progress.history and again.stopper == stopper
    np.testing.assert_array_equal(again.partial.sums, np.float64(sums))
    assert [tuple(part.tobytes() for part in epoch) for epoch in again.judged] == [
        (judged.losses.tobytes(), judged.right.tobytes())
    ] * 2


@pytest.mark.parametrize("change", [{"right": "10"}, {"right": "12"}, {"losses": "AAAA"}, {"losses": "?"}])
def test_what_says_nothing_of_each_picture_is_refused(change):
    with pytest.raises(ValueError):
        judged_from_json({"losses": "AACAPw==", "right": "1"} | change)


def test_a_solved_head_and_each_epoch_add_what_they_made_of_the_pictures():
    judged = [Judged(np.float32([loss]), np.array([True])) for loss in (3, 2, 1)]
    progress = record_solved(Progress(), {"epoch": 0, "val_loss": 3.0}, "val_loss", judged[0])
    for epoch in (1, 2):
        progress = finish_epoch(progress, {"epoch": epoch, "val_loss": 1.0}, None, "val_loss", judged[epoch])
    assert [float(epoch.losses[0]) for epoch in progress.judged] == [3, 2, 1]


def test_an_epoch_that_is_done_is_followed_by_the_next():
    progress = Progress(
        ({"epoch": 1, "val_loss": 2.0},), EarlyStopper(2.0, 1), PartialEpoch(4, metrics.Sums(*[[]] * 3), 1.0)
    )
    assert progress.epoch == 2 and not progress.is_done(2)
    after = finish_epoch(progress, {"epoch": 2, "val_loss": 1.0}, patience=1, monitor="val_loss")
    assert after.partial == PartialEpoch() and after.stopper == EarlyStopper(1.0, 2)
    assert after.is_done(2) and not after.is_done(3)
    assert finish_epoch(after, {"epoch": 3, "val_loss": 1.0}, patience=1, monitor="val_loss").is_done(9)


@pytest.mark.parametrize("patience", [1, 3, 20])
def test_the_highest_accuracy_is_the_best_where_that_is_monitored_as_in_keras(patience):
    from keras.callbacks import EarlyStopping

    rng = np.random.default_rng(patience)
    for _ in range(100):
        # With few pictures ties are common.
        rows = [
            {"epoch": i, "val_loss": 1.0, "val_accuracy": a} for i, a in enumerate(rng.integers(0, 9, 12) / 8, start=1)
        ]
        progress = Progress()
        callback = EarlyStopping("val_accuracy", patience=patience, mode="max", restore_best_weights=True)
        model = Model()
        callback.set_model(model)
        callback.on_train_begin()
        for row in rows:
            model.epoch = row["epoch"]
            progress = finish_epoch(progress, row, patience, "val_accuracy")
            callback.on_epoch_end(row["epoch"] - 1, row)
            assert progress.stopper.stopped == model.stop_training
            if model.stop_training:
                break
        callback.on_train_end()
        assert progress.stopper.best_epoch == model.epoch


def test_an_accuracy_without_a_finite_loss_is_never_the_best():
    progress = finish_epoch(Progress(), {"epoch": 1, "val_loss": 1.0, "val_accuracy": 0.1}, None, "val_accuracy")
    after = finish_epoch(progress, {"epoch": 2, "val_loss": NAN, "val_accuracy": 0.9}, None, "val_accuracy")
    assert after.stopper.best_epoch == 1
    diverged = finish_epoch(Progress(), {"epoch": 1, "val_loss": INF, "val_accuracy": 0.9}, None, "val_accuracy")
    assert diverged.stopper.best == INF


def test_without_patience_it_never_stops():
    progress = Progress()
    for epoch in range(1, 100):
        progress = finish_epoch(progress, {"epoch": epoch, "val_loss": float(epoch)}, None, "val_loss")
    assert progress.stopper.best_epoch == 1 and not progress.stopper.stopped
