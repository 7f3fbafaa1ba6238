"""Temperatures, sets of labels with a promised coverage, and calibration errors, on simulated classifiers."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import betabinom, binomtest

from tljax.stages.calibrate import Graded, choose_kept_images, draw_half, leave_out_broken, measure, number_contents
from tljax.training import calibration
from tljax.training.calibration import balanced_accuracy, calibration_error, choose_sets, find_threshold, softmax


def simulate(images: int, seed: int, *, temperature: float = 1.0, classes: int = 5):
    """Logits of a classifier, and labels that are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, classes)) * 4
    cumulated = softmax(logits, temperature).cumsum(axis=1)
    return logits, (rng.random((images, 1)) > cumulated).sum(axis=1).clip(0, classes - 1)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_of_a_simulated_classifier_is_found(true):
    logits, labels = simulate(20_000, 0, temperature=true)
    found = calibration.fit_temperature(logits, labels)
    assert abs(np.log(found / true)) < 0.05
    after, before = (calibration_error(softmax(logits, t), labels) for t in (found, 1.0))
    assert after < 0.015 and (true == 1 or before > 5 * after)


def test_the_temperature_is_scikit_learns():
    """Its objective is the same but for one picture with a random label."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    logits, labels = simulate(3000, 1, temperature=2.0)
    # Weights that pass logits through: predict_proba is softmax(logits).
    network = LogisticRegression().fit(logits, labels)
    network.coef_, network.intercept_ = np.eye(5), np.zeros(5)
    fitted = CalibratedClassifierCV(FrozenEstimator(network), method="temperature").fit(logits, labels)
    theirs = fitted.predict_proba(logits)
    np.testing.assert_allclose(softmax(logits, calibration.fit_temperature(logits, labels)), theirs, atol=2e-3)


def test_no_mistake_is_no_certainty():
    logits = np.eye(3)[np.arange(60) % 3] * 4
    probabilities = softmax(logits, calibration.fit_temperature(logits, np.arange(60) % 3))
    assert 0.95 < probabilities.max() < 0.999


def test_few_pictures_have_no_temperature():
    logits, labels = simulate(49, 0, temperature=3.0)
    assert calibration.fit_temperature(logits, labels) == 1.0
    assert calibration.choose_temperature(logits, labels, np.arange(49)) == (1.0, None)


@pytest.mark.parametrize(("true", "least", "most"), [(1.0, 0, 10), (2.0, 38, 40)])
def test_a_temperature_is_used_where_it_makes_other_pictures_better(true, least, most):
    used = 0
    for seed in range(40):
        logits, labels = simulate(100, seed, temperature=true)
        chosen, tried = calibration.choose_temperature(logits, labels, np.arange(100))
        better = tried.with_temperature < tried.without_temperature
        assert chosen == (calibration.fit_temperature(logits, labels) if better else 1.0)
        used += better
    assert least <= used <= most


def test_a_temperature_is_tried_on_pictures_without_copies_among_those_that_it_is_fitted_on():
    """Each picture is there twice, right in one of ten: each copy knows the other's label."""
    logits, labels = simulate(30, 5, temperature=3.0)
    twice = np.tile(logits, (2, 1)), np.tile(labels, 2), np.tile(np.arange(30), 2)
    found = calibration.cross_validate(*twice)
    folds = np.random.default_rng(0).permutation(30) % calibration.FOLDS
    losses = [
        calibration.cross_entropies(logits[[i]], labels[[i]], calibration._minimize(*fitted))
        for i in range(30)
        if (fitted := (np.tile(logits[folds != folds[i]], (2, 1)), np.tile(labels[folds != folds[i]], 2)))
    ]
    assert found.with_temperature == pytest.approx(np.mean(losses))
    assert found.without_temperature == pytest.approx(-np.log(softmax(logits)[np.arange(30), labels]).mean())


def test_copies_are_never_on_both_sides():
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 2**32, (60, 4), np.uint32)
    contents = number_contents({"validation": digests[rng.integers(0, 60, 200)], "test": digests[::2]}, {})
    assert [len(numbers) for numbers in contents.values()] == [200, 30]
    validation = contents["validation"]
    one = draw_half(validation)
    assert not np.isin(validation[one], validation[~one]).any() and 70 < one.sum() < 130
    # Without copies, the halves are those of earlier versions.
    drawn = np.random.default_rng(0).permutation(101)
    assert np.flatnonzero(draw_half(np.arange(101)[::-1])).tolist() == sorted(drawn[:51])


def test_groups_are_never_on_both_sides_nor_are_copies_in_other_groups():
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 2**32, (40, 4), np.uint32)
    digests[7] = digests[21]
    groups = {"validation": np.arange(30) // 3, "test": np.arange(10) // 5 + 9}
    contents = number_contents({"validation": digests[:30], "test": digests[30:]}, groups)
    # Groups 2 and 7 have a copy of each other; group 9 is in both splits.
    expected = np.where(groups["validation"] == 7, 2, groups["validation"])
    same = contents["validation"][:, None] == contents["validation"]
    np.testing.assert_array_equal(same, expected[:, None] == expected)
    assert np.isin(contents["test"], contents["validation"]).tolist() == [True] * 5 + [False] * 5
    half = draw_half(contents["validation"])
    assert 12 <= half.sum() <= 20 and not set(expected[half]) & set(expected[~half])


@pytest.mark.parametrize(("coverage", "images"), [(0.9, 40), (0.95, 200), (0.8, 9)])
def test_sets_have_the_right_label_as_often_as_promised(coverage, images):
    """The number of 300 pictures that is covered follows a beta-binomial distribution (Vovk, 2012). Over 200 draws its
    mean is known closely."""
    covered = []
    for seed in range(200):
        logits, labels = simulate(images + 300, seed, temperature=2.0)
        fit, rest = slice(images), slice(images, None)
        temperature = calibration.fit_temperature(logits[fit], labels[fit])
        scores = calibration.true_probabilities(softmax(logits[fit], temperature), labels[fit])
        chosen = choose_sets(softmax(logits[rest], temperature), find_threshold(scores, coverage))
        covered.append(chosen[np.arange(300), labels[rest]].sum())
    left_out = int((images + 1) * (1 - coverage) + 1e-9)
    expected = betabinom(300, images + 1 - left_out, left_out)
    # Three standard errors of the mean. The most likely label always counts, so there can be more.
    assert np.mean(covered) >= expected.mean() - 3 * expected.std() / np.sqrt(200)
    assert np.mean(covered) >= 300 * coverage - 3 * expected.std() / np.sqrt(200)
    assert np.quantile(covered, 0.05) >= expected.ppf(0.02)


def test_a_coverage_that_cannot_be_promised_is_refused():
    scores = np.linspace(0.1, 0.9, 19)
    assert find_threshold(scores, 0.95) == scores[0] and find_threshold(scores, 0.9) == scores[1]
    assert find_threshold(scores[:9], 0.9) == scores[0]
    with pytest.raises(ValueError, match=r"0.95 needs at least 19 pictures .* has 18. A coverage of 0.947 at most"):
        find_threshold(scores[:18], 0.95)
    assert find_threshold(scores, 1e-12) == scores[-1]
    with pytest.raises(ValueError, match="it lies between 0 and 1"):
        find_threshold(scores, 95)


def test_the_most_likely_label_is_always_in_the_set():
    chosen = choose_sets(np.array([[0.4, 0.35, 0.25], [0.9, 0.06, 0.04]]), 0.95)
    assert chosen.tolist() == [[True, False, False], [True, False, False]]
    assert choose_sets(np.array([[0.4, 0.35, 0.25]]), 0.3).tolist() == [[True, True, False]]


def test_the_calibration_error_of_known_bins():
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.55, 0.45]] * 10)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 5 + [1] * 5)
    assert calibration_error(probabilities, labels) == pytest.approx((10 * 0.3 + 10 * 0.05) / 20)


@pytest.mark.parametrize(("classes", "temperature"), [(2, 1.0), (5, 3.0), (40, 0.3)])
def test_bins_are_those_of_the_calibration_error(classes, temperature):
    """And those of scikit-learn, which leaves out bins without pictures too."""
    from sklearn.calibration import calibration_curve

    logits, labels = simulate(500, 0, temperature=2.0, classes=classes)
    probabilities = softmax(logits, temperature)
    counts, confidence, right = np.array(calibration.describe_bins(probabilities, labels)).T
    assert counts.sum() == 500
    assert (counts * np.abs(confidence - right)).sum() / 500 == pytest.approx(calibration_error(probabilities, labels))
    hits, highest = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    expected = calibration_curve(hits, highest, n_bins=calibration.BINS)
    np.testing.assert_allclose((right, confidence), expected)


@pytest.mark.parametrize(
    ("classes", "sizes", "counts"),
    [(3, [1, 1, 2, 3], [2, 1, 1]), (10, [1, 10], [1, *[0] * 8, 1]), (12, [9, 10, 11, 12], [*[0] * 8, 1, 3])],
)
def test_sizes_of_sets_are_counted(classes, sizes, counts):
    assert calibration.count_sizes(np.arange(classes) < np.array(sizes)[:, None]) == counts


def test_balanced_accuracy_counts_classes_alike():
    assert balanced_accuracy(np.array([[90, 10, 0], [1, 1, 0], [0, 0, 0]])) == pytest.approx((0.9 + 0.5) / 2)


def test_confusions_are_those_of_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix

    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, (2, 50))
    found = calibration.count_confusions(labels, predicted, 5)
    np.testing.assert_array_equal(found, confusion_matrix(labels, predicted, labels=range(5)))
    assert calibration.balanced_accuracy(found) == pytest.approx(balanced_accuracy_score(labels, predicted))
    accuracies = calibration.class_accuracies(found)
    assert accuracies[4] is None
    assert accuracies[:4] == pytest.approx([np.mean(predicted[labels == i] == i) for i in range(4)])


@pytest.mark.parametrize(("right", "images"), [(0, 7), (23, 25), (25, 25), (640, 1000)])
def test_the_least_accuracy_is_scipy_s_wilson_bound(right, images):
    """95% to one side are 90% between two."""
    expected = binomtest(right, images).proportion_ci(0.9, method="wilson").low
    assert calibration.least_accuracy(right / images, images) == pytest.approx(expected, abs=1e-4)


def test_classes_are_uneven_if_one_has_more_than_twice_the_pictures():
    assert calibration.is_uneven([50, 101, 70]) and calibration.is_uneven([0, 5])
    assert not calibration.is_uneven([50, 100, 70]) and not calibration.is_uneven([5])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_left_out_and_said(bad, capsys):
    logits, labels = simulate(60, seed=0)
    pictures = Graded("test", logits, labels, np.arange(60))
    assert leave_out_broken(pictures) is pictures and not capsys.readouterr().out
    broken = logits.copy()
    broken[[3, 7], 1] = bad
    left = leave_out_broken(pictures._replace(logits=broken))
    said = (
        "WARNING the outputs for 2 of 60 pictures (test) are no finite numbers: probabilities are judged without them\n"
    )
    assert capsys.readouterr().out == said and 3 not in left.contents and len(left.labels) == 58
    assert np.isfinite(measure(left, 1.0, np.sort(np.full(60, 0.5)))["calibration_error"]["with_temperature"])
    assert measure(leave_out_broken(pictures._replace(logits=logits * np.nan)), 1.0, np.zeros(0)) == {}
    # Whoever predicts compares with pictures whose outputs are numbers.
    split = SimpleNamespace(images=np.arange(60), ids=range(60), rows=np.arange(60))
    images, kept = choose_kept_images(split, logits)
    assert images.tolist() == np.linspace(0, 59, 8).astype(int).tolist()
    images, kept = choose_kept_images(split, broken)
    assert np.isfinite(kept).all() and len(images) == 8 and not {3, 7} & set(images.tolist())
    assert not len(choose_kept_images(split, logits * np.nan)[0])
