"""Scores of classes, curves and thresholds as scikit-learn has them; intervals, and what is 0 of 0."""

import warnings

import numpy as np
import pytest
from sklearn import metrics

from tljax.report import classes
from tljax.report.classes import Confusion, Share
from tljax.training.calibration import accuracy_interval


def draw_table(seed: int, n: int, count: int, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions, which are the label with the probability `right`, at least."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count, n)
    return labels, np.where(rng.random(n) < right, labels, rng.integers(0, count, n))


# Random ones, with classes that have no picture or are never predicted; one class, all right, all wrong.
TABLES = [(*draw_table(i, n, count, 0.5), count) for i, (n, count) in enumerate([(200, 5), (12, 10), (1, 3), (999, 2)])]
HALVES = np.arange(8) % 2
TABLES += [(HALVES, HALVES, 3), (HALVES, 1 - HALVES, 2), (np.zeros(9, int), np.zeros(9, int), 1)]


@pytest.mark.parametrize(("labels", "predicted", "count"), TABLES)
def test_scores_are_scikit_learns(labels, predicted, count):
    found = classes.score_classes(labels, predicted, count)
    *theirs, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(count), zero_division=np.nan
    )
    assert [score.support for score in found] == support.tolist()
    assert [score.predicted for score in found] == np.bincount(predicted, minlength=count).tolist()
    for name, values in zip(("precision", "recall", "f1"), theirs, strict=True):
        ours = [getattr(score, name) for score in found]
        # 0 of 0 is None.
        assert [share is None for share in ours] == np.isnan(values).tolist(), name
        assert [share.value for share in ours if share] == pytest.approx(values[~np.isnan(values)].tolist())
        assert all(share.low <= share.value <= share.high for share in ours if share and share.low is not None)


def test_intervals_are_wilsons_and_those_of_few_pictures_are_left_out():
    labels = np.repeat([0, 1, 2], [20, 4, 5])
    predicted = np.where(np.arange(29) < 16, 0, 1)
    first, second, third = classes.score_classes(labels, predicted, 3)
    assert first.recall == Share(0.8, *accuracy_interval(0.8, 20))
    assert first.precision == Share(1.0, *accuracy_interval(1.0, 16))
    # 16 of 20 pictures that are of the class or predicted so.
    assert first.f1 == pytest.approx(Share(2 * 16 / 36, *(2 * x / (1 + x) for x in accuracy_interval(0.8, 20))))
    assert second.recall == Share(1.0, None, None) and second.precision == Share(4 / 13, *accuracy_interval(4 / 13, 13))
    assert third.precision is None and third.recall == Share(0.0, *accuracy_interval(0.0, 5))
    assert third.f1 == Share(0.0, 0.0, pytest.approx(2 * third.recall.high / (1 + third.recall.high)))
    empty = np.array([], int)
    assert classes.score_classes(empty, empty, 2) == [(0, 0, None, None, None)] * 2


def test_a_picture_without_a_prediction_is_missed_and_confused_with_none():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, -1, -1, 0])
    scores = classes.score_classes(labels, predicted, 2)
    assert [score.support for score in scores] == [2, 2] and [score.predicted for score in scores] == [2, 0]
    assert scores[0].recall.value == 0.5 and scores[0].precision.value == 0.5 and scores[1].precision is None
    assert classes.most_confused(labels, predicted, 2) == [Confusion(1, 0, 1, 0.5)]
    with pytest.raises(ValueError, match=r"^a label is 2; with 2 classes it must be from 0 to 1$"):
        classes.score_classes(labels + 1, predicted, 2)
    with pytest.raises(ValueError, match=r"^a prediction is -2; with 2 classes it must be from -1 to 1$"):
        classes.most_confused(labels, predicted - 1, 2)
    with pytest.raises(ValueError, match=r"^4 labels and 3 predictions"):
        classes.score_classes(labels, predicted[:3], 2)


def test_the_most_frequent_confusions_come_first_then_those_of_earlier_classes():
    labels, predicted = draw_table(3, 500, 6, 0.6)
    matrix = metrics.confusion_matrix(labels, predicted, labels=range(6))
    cells = [(-matrix[i, j], i, j) for i in range(6) for j in range(6) if i != j and matrix[i, j]]
    found = classes.most_confused(labels, predicted, 6, most=20)
    assert len({pair.pictures for pair in found}) < len(found) == 20
    assert [(-pair.pictures, pair.true, pair.taken_for) for pair in found] == sorted(cells)[:20]
    assert all(pair.share == pair.pictures / matrix[pair.true].sum() for pair in found)
    assert classes.most_confused(labels, labels, 6) == []


def test_top_k_accuracy_is_scikit_learns():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((300, 12)), rng.integers(0, 12, 300)
    ranked = np.argsort(-scores, axis=1)[:, :5]
    for k in (1, 3, 5):
        theirs = metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(12))
        assert classes.top_k_accuracy(labels, ranked, k) == pytest.approx(theirs)
    assert classes.top_k_accuracy(labels[:0], ranked[:0], 5) is None


def draw_scores(seed: int, n: int, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, of which few digits make many alike, and which pictures are positive."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    positive[0] = True
    return rng.beta(np.where(positive, 3.0, 1.0), 2.0).round(digits), positive


CURVES = [draw_scores(i, n, digits) for i, (n, digits) in enumerate([(200, 12), (200, 1), (5, 2), (1, 3), (2000, 6)])]
RISING = np.linspace(0, 1, 6)
CURVES += [(np.full(6, 0.5), RISING < 0.3), (RISING, np.ones(6, bool)), (RISING, RISING > 0.5)]


@pytest.mark.parametrize(("scores", "positive"), CURVES)
def test_precision_and_recall_at_every_threshold_are_scikit_learns(scores, positive):
    curve = classes.precision_recall_curve(scores, positive)
    precision, recall, thresholds = metrics.precision_recall_curve(positive, scores)
    # They begin with the lowest, and end with a point without a threshold.
    assert curve.thresholds[::-1].tolist() == thresholds.tolist()
    assert curve.precision[::-1] == pytest.approx(precision[:-1]) and curve.recall[::-1] == pytest.approx(recall[:-1])
    assert curve.average_precision == pytest.approx(metrics.average_precision_score(positive, scores))
    best = classes.choose_threshold(curve)
    assert best.f1 == pytest.approx(max(metrics.f1_score(positive, scores >= t, zero_division=0) for t in thresholds))


@pytest.mark.parametrize(("scores", "positive"), CURVES)
def test_a_threshold_to_copy_is_short_and_calls_the_same_pictures_positive(scores, positive):
    curve = classes.precision_recall_curve(scores, positive)
    for place, exact in enumerate(curve.thresholds):
        found = classes.read_threshold(curve, place)
        assert ((scores >= float(repr(found.value))) == (scores >= exact)).all()
        assert found[1:] == pytest.approx((curve.precision[place], curve.recall[place], curve.f1[place]))
    assert classes.read_threshold(curve, len(curve.thresholds) - 1).value == 0


def test_of_thresholds_that_do_the_same_the_shortest_is_given_the_middle_one_if_as_short():
    curve = classes.precision_recall_curve(np.array([0.9123456, 0.4654321, 0.4654320]), np.array([True, True, False]))
    assert [classes.read_threshold(curve, place).value for place in range(3)] == [0.7, 0.4654321, 0.0]
    near = np.array([0.1 + 2**-50, 0.1])
    curve = classes.precision_recall_curve(near, np.array([True, False]))
    assert near[1] < classes.choose_threshold(curve).value <= near[0]


def test_without_a_positive_picture_there_is_no_curve_and_a_score_that_is_no_number_is_named():
    assert classes.precision_recall_curve(np.array([0.5]), np.array([False])) is None
    assert classes.precision_recall_curve(np.array([]), np.array([], bool)) is None
    # Nothing positive is called so first: F1 is 0 there, and no division is warned of.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curve = classes.precision_recall_curve(np.array([0.9, 0.1]), np.array([False, True]))
        assert curve.f1.tolist() == [0.0, pytest.approx(2 / 3)]
    with pytest.raises(ValueError, match=r"^1 of 2 scores are no finite numbers"):
        classes.precision_recall_curve(np.array([0.5, np.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"^2 scores and 1 labels"):
        classes.precision_recall_curve(np.array([0.5, 0.5]), np.array([True]))
