"""Which pictures a page shows."""

import numpy as np
import pytest

from tljax.report.choice import changed, least_confident_right, most_confident_mistakes, spread_over_classes

PROBABILITY = np.array([0.9, 0.5, 0.9, 0.7, 0.5, 0.99, np.nan, np.nan])
RIGHT = np.array([False, True, False, False, True, True, False, True])


@pytest.mark.parametrize(("most", "expected"), [(12, [0, 2, 3, 6]), (1, [0]), (0, [])])
def test_the_most_confident_mistakes_come_first_and_equal_ones_by_row(most, expected):
    assert most_confident_mistakes(PROBABILITY, RIGHT, most).tolist() == expected


@pytest.mark.parametrize(("most", "expected"), [(12, [1, 4, 5, 7]), (2, [1, 4])])
def test_the_least_confident_right_ones_come_first(most, expected):
    assert least_confident_right(PROBABILITY, RIGHT, most).tolist() == expected


def test_nothing_is_chosen_of_nothing():
    none = np.zeros(0), np.zeros(0, bool), 12
    assert most_confident_mistakes(*none).tolist() == least_confident_right(*none).tolist() == []
    assert spread_over_classes(np.zeros(0, int), 6).tolist() == []


def test_what_a_later_stage_fixed_and_broke():
    fixed, broken = changed(np.array([True, True, False, False, True]), np.array([True, False, True, False, False]))
    assert fixed.tolist() == [2] and broken.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5]),
        ([1, 0, 2, 1, 1, 1, 1, 1], [1, 0, 3, 4, 5, 2]),
        ([2, 2], [0, 1]),
        (list(range(11, 0, -1)), [10, 8, 6, 4, 2, 0]),
    ],
)
def test_training_pictures_are_spread_over_the_classes(labels, expected):
    assert spread_over_classes(np.array(labels), 6).tolist() == expected
