"""What curves show: the axis, the lines, the points that are named instead of drawn."""

import math

import numpy as np
import pytest

from tljax.report.axes import Axis, choose_axis, name_hidden
from tljax.report.curves import Course, changes_rate, find_axis, keep_trained, list_changes, list_lines, rates

NAN, INF = math.nan, math.inf
# The losses of the demo's from_scratch: training, then validation.
FROM_SCRATCH = [
    *(34.55, 2.34, 1.55, 1.26, 1.02, 0.63, 0.26, 0.043, 1.76, 0.7, 0.6, 0.49, 0.17, 0.07, 0.03, 0.001, 0.0),
    *(3.79, 1.57, 1.41, 1.42, 1.14, 0.71, 0.47, 1.16, 1.7, 1.1, 1.15, 0.5, 0.7, 1.73, 1.56, 1.38, 4.93),
]


@pytest.mark.parametrize(
    ("values", "low", "high", "log"),
    [
        ([2.3, 1.5, 1.1, 0.9, 0.8], 0, 2.3, False),
        ([0.37, 0.34, 0.30, 0.36], 0.30, 0.37, False),
        (FROM_SCRATCH, 0, 4.93, False),
        # A solved head and what was tuned after it: training has nothing left to learn, validation counts.
        ([0.04, 0.03, 0.001, 0.0, 0.37, 0.30, 0.35, 0.31], 0, 0.37, False),
        # From 7 to 0.001 in steps alike.
        (np.geomspace(7, 0.001, 40).tolist(), 0.001, 7, True),
        # It has diverged, at once and late.
        ([1.2, 0.8, 5, 80, 3000, 1.1, 0.9, 7, 900, NAN], 0.8, 3000, True),
        ([2 / n**0.5 for n in range(1, 31)] + [80, 3000, INF], 0, 2, False),
        # Two values are no curve with an outlier.
        ([34, 0.3], 0.3, 34, True),
        # Training has reached losses of 1e-9, which would leave little room for the others.
        ([*np.geomspace(7, 0.01, 40).tolist(), *[1e-9] * 9], 0.01, 7, True),
        # Most values are 0, which has no logarithm.
        ([0.0] * 10 + [5.0, 5.0], 0, 5, False),
        ([-1.0, 3.0, -2.0], -2, 3, False),
        ([0.5], 0.495, 0.5, False),
        ([0.0, 0.0], 0, 1, False),
        ([None, NAN, INF, -INF, 0.2, 0.6], 0, 0.6, False),
    ],
)
def test_the_axis_shows_the_part_that_matters(values, low, high, log):
    axis = choose_axis(values)
    ends = np.log([low, high]) if log else np.array([low, high])
    found = np.log(axis[:2]) if log else np.array(axis[:2])
    assert axis.log == log and axis.label("loss") == ("loss (log)" if log else "loss")
    # A twentieth of it is margin at each end.
    np.testing.assert_allclose(found, ends + 0.05 * np.ptp(ends) * np.array([-1, 1]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("values", [[], [None], [NAN, INF]])
def test_an_axis_without_numbers_is_there(values):
    assert choose_axis(values) == Axis(0, 1)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0.16, 0.9, 1.0], 0, 1),
        ([0.95, 0.97, 1.0], 0.95, 1),
        ([0.001] + [0.01] * 9, 0, 0.01),
        ([1.0, 1.0], 0.99, 1),
        ([0.01] * 11 + [0.9], 0, 0.9),
    ],
)
def test_an_accuracy_s_axis_is_linear_and_whole(values, low, high):
    margin = 0.05 * (high - low)
    assert choose_axis(values, limit=1.0) == pytest.approx((low - margin, high + margin, False))


def test_what_an_axis_does_not_show_is_named():
    axis = Axis(0.1, 5)
    assert name_hidden(axis, [("train", [(1, 5.0), (2, 0.1)])]) == []
    curves = [("train", [(1, 34.547), (2, 2.0), (3, None)]), ("validation", [(1, 3.8), (2, INF), (3, 0.01)])]
    assert name_hidden(axis, curves) == [
        "off the axis: train, epoch 1: 34.55; validation, epoch 3: 0.01",
        "not a number: train, epoch 3; validation, epoch 2",
    ]
    (said,) = name_hidden(axis, [("a", [(i, 1e6) for i in range(1, 8)])], most=2)
    assert said == "off the axis: a, epoch 1: 1e+06; a, epoch 2: 1e+06; and 5 more"


def row(epoch: int, loss: float | None, val_loss: float | None, **more) -> dict:
    accuracies = {"accuracy": 0.75, "val_accuracy": None if val_loss is None else 0.7}
    return {"stage": "a", "epoch": epoch, "loss": loss, "val_loss": val_loss, "learning_rate": 0.1} | accuracies | more


def test_lines_have_colors_of_their_own_and_the_best_epoch():
    solved = row(0, 0.1, 0.6, learning_rate=None)
    tuned = [row(1, 0.5, 0.4, stage="fine_tune"), row(2, 0.4, NAN, stage="fine_tune")]
    courses = {
        "transfer": Course([solved, *tuned], 1),
        "b": Course([row(1, 9.0, 0.5)], 1),
        "solved": Course([solved], 0),
    }
    courses = keep_trained(courses)
    assert list(courses) == ["transfer", "b"]
    lines = list_lines(courses, "loss")
    assert [(line.name, line.train, line.best) for line in lines] == [
        ("transfer, validation", False, 1), ("transfer, train", True, None),
        ("b, validation", False, 1), ("b, train", True, None),
    ]  # fmt: skip
    assert len({line.color for line in lines}) == 4
    assert lines[0].points[:2] == ((0, 0.6), (1, 0.4)) and lines[1].points == ((0, 0.1), (1, 0.5), (2, 0.4))
    assert find_axis(lines, "loss").high == pytest.approx(0.63)
    assert find_axis(list_lines(courses, "accuracy"), "accuracy")[:2] == pytest.approx((0.6975, 0.7525))
    assert list_changes(courses) == [(0.5, "fine_tune")]
    assert rates(courses["transfer"]) == [(1, 0.1), (2, 0.1)]


def test_without_validation_there_is_no_line_of_it_and_where_all_losses_are_no_numbers_there_is():
    assert [line.name for line in list_lines({"a": Course([row(1, 0.5, None)], 1)}, "loss")] == ["a, train"]
    lines = list_lines({"a": Course([row(1, NAN, NAN)])}, "loss")
    assert [line.name for line in lines] == ["a, validation", "a, train"]
    assert find_axis(lines, "loss") == Axis(0, 1)


def test_rates_are_drawn_where_they_change_within_a_stage():
    def rows(*found):
        return [row(i, 0.5, 0.5, learning_rate=rate) for i, rate in enumerate(found)]

    assert changes_rate(Course(rows(0.1, 0.05)))
    # A solved head is a row without a rate.
    assert not changes_rate(Course(rows(None, 0.1, 0.1)))
    assert not changes_rate(Course([*rows(0.1), rows(0.05)[0] | {"stage": "b"}]))
    assert not changes_rate(Course([*rows(0.1), rows(0.05)[0] | {"cut": "conv4_block1"}]))
