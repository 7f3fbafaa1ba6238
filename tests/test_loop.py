"""Early stopping counts as Keras's callback does; an epoch counts every example once."""

import json
import math

import numpy as np
import pytest

from tljax import loop, metrics
from tljax.batches import EMPTY, Examples, order, place
from tljax.loop import EarlyStopper, update_stopper
from tljax.mesh import make_mesh

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


def make_examples(n: int, memory: int = 2**20) -> Examples:
    images, labels = np.arange(n, dtype=np.float32)[:, None], np.arange(n, dtype=np.int32)
    return place(images, labels, len(labels), 4, memory, make_mesh())


def make_run(step, calls):
    """`step(carry, batch) -> (carry, outputs)` for the batches `start` to `stop`, outputs stacked, as the steps do."""

    def run(carry, chunk, start, stop, key):
        calls.append((int(start), int(stop)))
        rows = np.asarray(chunk.rows)
        outputs = [(np.zeros(()), np.zeros(()), np.zeros(()), np.zeros(rows.shape[1]))] * len(rows)
        for i in range(start, stop):
            labels = np.take_along_axis(np.asarray(chunk.labels), rows[i][None], axis=0)[0]
            carry, outputs[i] = step(carry, labels, labels != EMPTY)
        loss, correct, examples, predicted = (np.stack(column) for column in zip(*outputs, strict=True))
        return carry, (metrics.Sums(loss, correct, examples), predicted)

    return run


def count(carry, labels, mask):
    return (carry or 0) + 1, (labels[mask].sum(), mask.sum(), mask.sum(), labels + 1)


@pytest.mark.parametrize("memory", [2**20, 0])
@pytest.mark.parametrize("n", [1, 4, 10, 300])
def test_an_epoch_counts_every_example_once(n, memory):
    calls = []
    run = make_run(count, calls)
    train = lambda *arguments, key: (lambda carry, outputs: (carry, outputs[0]))(*run(*arguments, key))  # noqa: E731
    examples = make_examples(n, memory)
    rows = order(n, examples.batch_size, seed=0, epoch=1)
    state, begun = loop.train_epoch(0, examples, rows, train, None, name="x")
    assert state == begun.steps == -(-n // 4)
    assert metrics.compute(begun.sums) == {"loss": (n - 1) / 2, "accuracy": 1.0}
    # Short at first, then as many as take half a second.
    assert calls[0] == (0, 1)
    assert [stop for _, stop in calls[:-1]] == [start for start, _ in calls[1:]]
    assert len(calls) < 10


@pytest.mark.parametrize("memory", [2**20, 0])
@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_epoch_that_was_broken_off_goes_on_to_the_same_end(memory, stop_after):
    examples = make_examples(300, memory)
    rows = order(300, examples.batch_size, seed=0, epoch=1)
    batches = []

    def remember(carry, labels, mask):
        batches.append(labels.tolist())
        return count(carry, labels / 7, mask)

    def train(*arguments, key):
        carry, outputs = make_run(remember, [])(*arguments, key)
        return carry, outputs[0]

    state, whole = loop.train_epoch(0, examples, rows, train, None, name="x")
    all_batches = batches.copy()
    batches.clear()
    state, begun, stops = 0, loop.NOTHING, 0
    while begun.steps < examples.steps:
        interrupted = iter([False] * (stop_after - 1) + [True]).__next__
        state, begun = loop.train_epoch(
            state, examples, rows, train, None, name="x", begun=begun, interrupted=interrupted
        )
        saved = json.dumps(loop.progress_to_json(loop.Progress(begun=begun)))
        begun = loop.progress_from_json(json.loads(saved)).begun
        stops += 1
    assert stops > 1 and state == examples.steps
    assert batches == all_batches
    assert metrics.compute(begun.sums) == metrics.compute(whole.sums)


def test_progress_survives_json():
    stopper = update_stopper(EarlyStopper(), epoch=1, val_loss=NAN, patience=2)
    sums = metrics.Sums(*np.float32([[0.1, 0.2], [1, 2], [3, 4]]))
    progress = loop.Progress(({"epoch": 1, "loss": 0.1},), stopper, loop.Begun(2, sums, 1.5))
    again = loop.progress_from_json(json.loads(json.dumps(loop.progress_to_json(progress))))
    assert again.history == progress.history and again.stopper == stopper
    np.testing.assert_array_equal(again.begun.sums, np.float64(sums))


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_loss_that_is_not_finite_names_its_step(value):
    examples = make_examples(300)

    def diverge(carry, labels, mask):
        return count(carry, np.full(4, value if carry == 17 else 1.0), mask)

    def train(*arguments, key):
        carry, outputs = make_run(diverge, [])(*arguments, key)
        return carry, outputs[0]

    with pytest.raises(ValueError, match=f"epoch 3/9: the loss of step 18 is {value}: .*learning_rate"):
        loop.train_epoch(0, examples, order(300, 4, seed=0, epoch=1), train, None, name="epoch 3/9")


def test_evaluation_gives_a_prediction_for_every_example():
    run = make_run(count, [])
    evaluate = lambda state, *chunk: run(state, *chunk)[1]  # noqa: E731
    measured, predicted = loop.evaluate(None, make_examples(10), evaluate, None)
    assert measured["loss"] == 4.5
    np.testing.assert_array_equal(predicted, np.arange(1, 11))


@pytest.mark.parametrize(
    ("size", "seconds", "following"),
    [(1, 20.0, 1), (1, 0.5, 1), (1, 0.25, 2), (1, 0.001, 8), (64, 0.1, 320), (64, 2.0, 16), (64, 0.0, 512)],
)
def test_dispatches_grow_to_half_a_second(size, seconds, following):
    assert loop.next_size(size, seconds) == following
