"""An epoch counts every example once, however it is divided into dispatches and wherever it was interrupted."""

import io
import json
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tljax.data.batches import EMPTY, Examples, draw_order, move, place_examples, progress_bar
from tljax.devices.mesh import make_mesh
from tljax.training import epochs, metrics
from tljax.training.progress import PartialEpoch, Progress, progress_from_json, progress_to_json

NAN, INF = math.nan, math.inf


def make_examples(n: int, memory: int = 2**20) -> Examples:
    images, labels = np.arange(n, dtype=np.float32)[:, None], np.arange(n, dtype=np.int32)
    return place_examples(images, labels, len(labels), 4, memory, make_mesh())


def make_run(step, calls):
    """Makes `run`, which does `step(carry, labels, mask) -> (carry, outputs)` for the batches `start` to `stop`.

    It stacks the outputs, as `steps.train_steps` does, and adds its bounds to `calls`.
    """

    def run(carry, chunk, start, stop):
        calls.append((int(start), int(stop)))
        rows = np.asarray(chunk.rows)
        outputs = [(np.zeros(()), np.zeros(()), np.zeros(()), np.zeros((rows.shape[1], 2)))] * len(rows)
        for i in range(start, stop):
            labels = np.take_along_axis(np.asarray(chunk.labels), rows[i][None], axis=0)[0]
            carry, outputs[i] = step(carry, labels, labels != EMPTY)
        loss, correct, examples, logits = (np.stack(column) for column in zip(*outputs, strict=True))
        return carry, (metrics.Sums(loss, correct, examples), logits)

    return run


def count(carry, labels, mask):
    return (carry or 0) + 1, (labels[mask].sum(), mask.sum(), mask.sum(), np.stack([labels + 1, labels], axis=1))


@pytest.mark.parametrize("memory", [2**20, 0])
@pytest.mark.parametrize("n", [1, 4, 10, 300])
def test_an_epoch_counts_every_example_once(n, memory):
    calls = []
    run = make_run(count, calls)
    train = lambda *arguments: (lambda carry, outputs: (carry, outputs[0]))(*run(*arguments))  # noqa: E731
    examples = make_examples(n, memory)
    rows = draw_order(n, examples.batch_size, seed=0, epoch=1)
    state, done = epochs.train_epoch(0, PartialEpoch(), examples, rows, train, name="x")
    assert state == done.steps == -(-n // 4)
    assert metrics.means(done.sums) == {"loss": (n - 1) / 2, "accuracy": 1.0}
    # The first dispatch is one step; later ones are as many as take two seconds.
    assert calls[0] == (0, 1)
    assert [stop for _, stop in calls[:-1]] == [start for start, _ in calls[1:]]
    assert len(calls) < 10


@pytest.mark.parametrize("memory", [2**20, 0])
@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_epoch_that_was_broken_off_goes_on_to_the_same_end(memory, stop_after):
    examples = make_examples(300, memory)
    rows = draw_order(300, examples.batch_size, seed=0, epoch=1)
    batches = []

    def remember(carry, labels, mask):
        batches.append(labels.tolist())
        return count(carry, labels / 7, mask)

    def train(*arguments):
        carry, outputs = make_run(remember, [])(*arguments)
        return carry, outputs[0]

    state, whole = epochs.train_epoch(0, PartialEpoch(), examples, rows, train, name="x")
    all_batches = batches.copy()
    batches.clear()
    state, done, stops = 0, PartialEpoch(), 0
    while done.steps < examples.steps:
        interrupted = iter([False] * (stop_after - 1) + [True]).__next__
        state, done = epochs.train_epoch(state, done, examples, rows, train, name="x", interrupted=interrupted)
        saved = json.dumps(progress_to_json(Progress(partial=done)))
        done = progress_from_json(json.loads(saved)).partial
        stops += 1
    assert stops > 1 and state == examples.steps
    assert batches == all_batches
    assert metrics.means(done.sums) == metrics.means(whole.sums)
    assert epochs.train_epoch(state, done, examples, rows, train, name="x") == (state, done)


def test_a_slow_epoch_says_once_what_it_will_take(capsys, monkeypatch):
    """The first step, which is slower than the others, does not count."""
    clock, seconds = [0.0], iter([1.5] + [0.25] * 100)
    monkeypatch.setattr(epochs, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(epochs, "DISPATCH_SECONDS", 0.2)
    examples = make_examples(40)

    def train(*arguments):
        clock[0] += next(seconds)
        carry, outputs = make_run(count, [])(*arguments)
        return carry, outputs[0]

    for announce in (True, False):
        epochs.train_epoch(
            0, PartialEpoch(), examples, draw_order(40, 4, seed=0, epoch=1), train, name="x", announce=announce
        )
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"x: 0\.25 s a step, about 2 s for an epoch of 10; memory so far \d+\.\d GiB", line), line
    assert "about 42 min for an epoch of 10000" in epochs.describe_pace("x", 10000, 0.25)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_time_that_is_left_and_a_file_gets_nothing_of_it(monkeypatch):
    monkeypatch.setattr(epochs, "DISPATCH_SECONDS", 0.0)
    examples = make_examples(80)

    def train(carry, chunk, start, stop):
        carry, outputs = make_run(count, [])(carry, chunk, start, stop)
        return carry, outputs[0]

    def run():
        rows, ahead = draw_order(80, 4, seed=0, epoch=1), epochs.Ahead(2, 60.0)
        epochs.train_epoch(0, PartialEpoch(), examples, rows, train, name="epoch 1/3", ahead=ahead)

    terminal, file = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    run()
    shown = [line.strip() for line in terminal.getvalue().split("\r") if line.strip()]
    assert shown[0] == "epoch 1/3:   0%|          | ? left" and shown[1].endswith("| ? left, all 03:00")
    assert re.fullmatch(r"epoch 1/3: 100%\|#+\| 00:00 left, all 02:00, loss [\d.]+, accuracy 1.0000", shown[-1])
    monkeypatch.setattr(sys, "stderr", file)
    run()
    assert file.getvalue() == ""


def test_a_first_batch_that_compiles_does_not_count_for_the_time_that_is_left(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(10, "x", unit=" steps") as bar:
        for seconds, first in ((60, True), (5, False)):
            bar.start_t, bar.last_print_t = bar.start_t - seconds, bar.last_print_t - seconds
            move(bar, 1, first=first)
        assert bar.n == 2 and 0.1 < bar.format_dict["rate"] <= 0.2


@pytest.mark.parametrize(
    ("rate", "ahead", "said"),
    [
        # 40 of 100 steps are made: 30 seconds are left of an epoch of 50, and 9 epochs follow.
        (2.0, epochs.Ahead(9, None), "all 08:00"),
        (2.0, epochs.Ahead(9, 60.0), "all 09:30"),
        (None, epochs.Ahead(9, 60.0), "all 09:36"),
        (None, epochs.Ahead(9, None), ""),
        (2.0, epochs.Ahead(0, 60.0), ""),
        (2.0, None, ""),
    ],
)
def test_the_time_of_all_epochs_is_that_of_this_one_and_of_as_many_as_the_one_before(rate, ahead, said):
    bar = SimpleNamespace(format_dict={"rate": rate}, n=40, total=100)
    assert epochs.describe_left(bar, ahead) == said


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_loss_that_is_not_finite_names_its_step(value):
    examples = make_examples(300)

    def diverge(carry, labels, mask):
        return count(carry, np.full(4, value if carry == 17 else 1.0), mask)

    def train(*arguments):
        carry, outputs = make_run(diverge, [])(*arguments)
        return carry, outputs[0]

    with pytest.raises(ValueError, match=f"epoch 3/9: the loss of step 18 is {value}: .*learning_rate"):
        epochs.train_epoch(0, PartialEpoch(), examples, draw_order(300, 4, seed=0, epoch=1), train, name="epoch 3/9")


def test_evaluation_gives_the_logits_of_every_example():
    run = make_run(count, [])
    evaluate = lambda state, *chunk: run(state, *chunk)[1]  # noqa: E731
    evaluation = epochs.evaluate(None, make_examples(10), evaluate)
    assert evaluation.means["loss"] == 4.5
    np.testing.assert_array_equal(evaluation.logits, np.stack([np.arange(1, 11), np.arange(10)], axis=1))
    np.testing.assert_array_equal(evaluation.predicted, np.zeros(10))


@pytest.mark.parametrize("after", [0, 1])
def test_an_evaluation_that_was_broken_off_is_none(after):
    asked = iter([0] * after + [15]).__next__
    run = make_run(count, [])
    assert epochs.try_evaluate(None, make_examples(10), lambda *chunk: run(*chunk)[1], asked) is None


@pytest.mark.parametrize(
    ("size", "seconds", "following"),
    [(1, 20.0, 1), (1, 2.0, 1), (1, 1.0, 2), (1, 0.001, 8), (64, 0.4, 320), (64, 8.0, 16), (64, 0.0, 512)],
)
def test_dispatches_grow_to_two_seconds(size, seconds, following):
    assert epochs.next_size(size, seconds) == following
