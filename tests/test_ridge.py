"""Solved heads: the same as scikit-learn's, and as leaving pictures out by hand; estimates that are true on average."""

import numpy as np
import pytest

from tljax.training import ridge
from tljax.training.calibration import softmax
from tljax.training.ridge import PENALTIES, decompose, estimate_accuracy, hold_out, solve_head

# More features than pictures, and fewer.
SIZES = [(30, 50), (90, 20)]


def simulate(n: int, features: int, classes: int = 4, seed: int = 0, spread: float = 0.5):
    """Features of Gaussian classes on different scales, and labels; the classes are not equally frequent."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.integers(0, classes + 1, n), classes - 1)
    labels[: 2 * classes] = np.tile(np.arange(classes), 2)
    centres = np.random.default_rng(99).normal(size=(classes, features)) * spread
    scales = 10.0 ** np.random.default_rng(98).uniform(-0.5, 0.5, features)
    return (centres[labels] + rng.normal(size=(n, features))) * scales + 5, labels


def leave_out(features, labels, rows, penalty: float, classes: int = 4) -> np.ndarray:
    """Scores of `rows`, by a ridge regression without them, on the scale of all."""
    mean, scale = ridge.find_scale(features)
    x, y = (features - mean) * scale, ridge.mark_classes(labels, classes)
    alpha = penalty * decompose(features, labels, classes).unit
    rest = np.setdiff1d(np.arange(len(labels)), rows)
    centre, offset = x[rest].mean(axis=0), y[rest].mean(axis=0)
    a = (x[rest] - centre).T @ (x[rest] - centre) + alpha * np.eye(x.shape[1])
    return (x[rows] - centre) @ np.linalg.solve(a, (x[rest] - centre).T @ (y[rest] - offset)) + offset


@pytest.mark.parametrize(("n", "size"), SIZES)
def test_it_is_scikit_learn_s_ridge(n, size):
    """The penalty by leave-one-out, the weights, and the predictions for other pictures."""
    from sklearn.linear_model import RidgeClassifierCV

    features, labels = simulate(n, size)
    head = solve_head(features, labels, 4)
    mean, scale = ridge.find_scale(features)
    unit = decompose(features, labels, 4).unit
    theirs = RidgeClassifierCV(alphas=PENALTIES * unit).fit((features - mean) * scale, labels)
    np.testing.assert_allclose(head.penalty * unit, theirs.alpha_, rtol=1e-9)
    others = simulate(50, size, seed=1)[0]
    scores = (others @ head.kernel + head.bias) * head.temperature
    np.testing.assert_allclose(scores, theirs.decision_function((others - mean) * scale), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("n", "size"), SIZES)
def test_leaving_each_out_is_exact(n, size, monkeypatch):
    monkeypatch.setattr(ridge, "PENALTIES", PENALTIES[::6])
    features, labels = simulate(n, size)
    by_hand = [
        sum(
            np.square(ridge.mark_classes(labels[[i]], 4) - leave_out(features, labels, [i], penalty)).sum()
            for i in range(n)
        )
        for penalty in ridge.PENALTIES
    ]
    solved, places = decompose(features, labels, 4), slice(None)
    turned = solved.turn(places)
    for penalty, expected in zip(ridge.PENALTIES, by_hand, strict=True):
        leverage = 1 / n + np.square(turned) @ solved.shrink(penalty)
        errors = solved.errors(places, turned, np.array([penalty]))[:, 0] / (1 - leverage)[:, None]
        np.testing.assert_allclose(np.square(errors).sum(), expected, rtol=1e-9)
    assert ridge.choose_penalty(solved) == ridge.PENALTIES[np.argmin(by_hand)]


@pytest.mark.parametrize(("n", "size"), SIZES)
def test_leaving_one_of_each_class_out_is_exact(n, size):
    features, labels = simulate(n, size)
    groups, first = ridge.form_groups(labels, 4)
    held_out = hold_out(decompose(features, labels, 4), 0.1)
    assert sorted(held_out.rows) == list(range(n)), "each picture once"
    places = {row: i for i, row in enumerate(held_out.rows)}
    for group, is_first in zip(groups, first, strict=True):
        assert sorted(labels[group]) == [0, 1, 2, 3]
        expected = leave_out(features, labels, group, 0.1)[is_first]
        ours = held_out.scores[[places[row] for row in group[is_first]]]
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("each", "low", "high"), [(2, -0.14, 0.0), (5, -0.05, 0.02)])
def test_the_estimated_accuracy_is_nearly_the_true_one_on_average(each, low, high):
    """It is that of heads with one picture less of each class. Leaving out single pictures is far too low."""
    true, estimated, alone = [], [], []
    others, others_labels = simulate(2000, 20, 5, seed=1000, spread=0.6)
    labels = np.repeat(np.arange(5), each)
    for seed in range(60):
        many, many_labels = simulate(400, 20, 5, seed=seed, spread=0.6)
        features = many[np.concatenate([np.flatnonzero(many_labels == label)[:each] for label in range(5)])]
        head = solve_head(features, labels, 5)
        true.append(np.mean((others @ head.kernel + head.bias).argmax(1) == others_labels))
        estimated.append(estimate_accuracy(head.held_out, labels).accuracy)
        singles = [leave_out(features, labels, [i], head.penalty, 5)[0] for i in range(len(labels))]
        alone.append(np.mean(np.argmax(singles, axis=1) == labels))
    assert low < np.mean(estimated) - np.mean(true) < high
    assert np.mean(alone) < np.mean(estimated) - 0.08


def test_classes_of_different_sizes_count_as_often_as_they_are():
    """Class 0 has one picture, which stays; class 2 has more than there is room for."""
    labels = np.array([0, *[1] * 3, *[2] * 40])
    groups, first = ridge.form_groups(labels, 3)
    assert set(labels[groups].ravel()) == {1, 2} and first.sum() == 43
    held_out = ridge.HeldOut(np.array([1, 2, 4]), np.array([[0.0, 1, 0], [0, 0, 1], [0, 0, 1]]))
    # Half of class 1 is right, all of class 2; they have 3 and 40 pictures.
    assert estimate_accuracy(held_out, labels).accuracy == pytest.approx((1.5 + 40) / 43)


def test_most_pictures_are_not_held_out(monkeypatch):
    monkeypatch.setattr(ridge, "HELD_OUT", 20)
    features, labels = simulate(200, 10)
    held_out = solve_head(features, labels, 4).held_out
    assert len(held_out.rows) == 20 == len(set(held_out.rows))


def test_blocks_change_nothing(monkeypatch):
    features, labels = simulate(90, 20)
    whole = solve_head(features, labels, 4)
    monkeypatch.setattr(ridge, "BLOCK", 7)
    parts = solve_head(features, labels, 4)
    np.testing.assert_allclose(parts.kernel, whole.kernel, rtol=1e-9)
    np.testing.assert_allclose(parts.held_out.scores, whole.held_out.scores, rtol=1e-9)


def test_single_precision_chooses_the_same():
    features, labels = simulate(90, 20)
    wide, narrow = (solve_head(x, labels, 4) for x in (features, features.astype(np.float32)))
    assert wide.penalty == narrow.penalty
    scores = [features @ head.kernel + head.bias for head in (wide, narrow)]
    np.testing.assert_allclose(*scores, atol=1e-4 * np.abs(scores[0]).max())


@pytest.mark.parametrize(("n", "size"), SIZES)
def test_pictures_are_left_out_in_double_precision_whatever_the_features_have(n, size):
    """Leaving out divides by what the smoother leaves of 1, which is little where the penalty is small."""
    features, labels = simulate(n, size)
    solved, penalty = decompose(features.astype(np.float32), labels, 4), 0.01
    groups, _ = ridge.form_groups(labels, 4)
    places = solved.turn(groups.ravel())
    errors = solved.errors(groups.ravel(), places, np.array([penalty]))[:, 0].reshape(len(groups), 4, 4)
    places = places.reshape(len(groups), 4, -1)
    assert places.dtype == np.float32
    wide = places.astype(np.float64)
    smoother = 1 / n + (wide / (solved.eigenvalues + penalty * solved.unit)) @ wide.transpose(0, 2, 1)
    expected = np.linalg.solve(np.eye(4) - smoother, errors)
    np.testing.assert_allclose(ridge.leave_out(solved, groups, places, penalty), expected, rtol=1e-9, atol=1e-9)


def test_constant_features_have_no_weight():
    features, labels = simulate(30, 10)
    rounded = 30 + np.tile([0, 1e-6], 15)
    padded = np.column_stack([features, np.zeros(30), np.full(30, 7.0), rounded])
    head = solve_head(padded, labels, 4)
    assert (head.kernel[10:] == 0).all()
    # Nothing to learn from: each class is as likely as it was frequent.
    nothing = solve_head(np.ones((30, 3)), labels, 4)
    assert (nothing.kernel == 0).all()
    assert np.argmax(nothing.bias) == np.bincount(labels).argmax()


def test_the_scale_is_drawn_to_that_of_all_features():
    features = np.random.default_rng(0).normal(size=(20, 3)) * [1.0, 0.01, 5.0]
    variance = features.var(axis=0)
    mean, scale = ridge.find_scale(features)
    np.testing.assert_allclose(mean, features.mean(axis=0))
    np.testing.assert_allclose(scale**-2, (20 * variance + 5 * variance.mean()) / 25)


def test_one_picture_a_class_has_no_estimate_and_the_default_penalty():
    features, labels = simulate(400, 30, spread=1.0)
    rows = [np.flatnonzero(labels == label)[0] for label in range(4)]
    head = solve_head(features[rows], labels[rows], 4)
    assert (head.penalty, head.temperature) == (ridge.DEFAULT_PENALTY, 2 / (4 + np.log(4)))
    assert estimate_accuracy(head.held_out, labels[rows]) is None
    predicted = (features @ head.kernel + head.bias).argmax(1)
    assert np.mean(predicted == labels) > 0.5


def test_a_class_without_a_picture_is_never_predicted():
    features, labels = simulate(60, 10)
    head = solve_head(features[labels < 3], labels[labels < 3], 4)
    assert not ((features @ head.kernel + head.bias).argmax(1) == 3).any()


def test_logits_are_calibrated_on_held_out_scores():
    features, labels = simulate(600, 20)
    others, others_labels = simulate(3000, 20, seed=1)
    head = solve_head(features, labels, 4)
    probabilities = softmax(others @ head.kernel + head.bias)
    right = probabilities.argmax(1) == others_labels
    assert abs(probabilities.max(1).mean() - right.mean()) < 0.05 and head.temperature != 2 / (4 + np.log(4))


def test_copies_are_counted():
    """Their features differ by rounding."""
    rng = np.random.default_rng(0)
    features = simulate(50, 30)[0].astype(np.float32)
    copies = (np.concatenate([features[:3], features[:2]]) * (1 + 1e-7 * rng.normal(size=(5, 30)))).astype(np.float32)
    assert ridge.count_copies(np.concatenate([features, copies])) == 5
    assert ridge.count_copies(features) == 0
    assert ridge.count_copies(np.ones((9, 4))) == 8


def test_pictures_that_differ_by_rounding_alone_teach_nothing():
    rng = np.random.default_rng(0)
    features = (np.abs(rng.normal(size=30)) * (1 + 2e-7 * rng.normal(size=(10, 30)))).astype(np.float32)
    head = solve_head(features, np.arange(10) % 2, 2)
    assert (head.kernel == 0).all()


def test_with_many_classes_logits_are_calibrated_too():
    """Scores lie closer together the more classes there are."""
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(300, 64)), np.repeat(np.arange(300), 3)
    head = solve_head(centres[labels] + 0.5 * rng.normal(size=(900, 64)), labels, 300)
    others = softmax((centres + 0.5 * rng.normal(size=centres.shape)) @ head.kernel + head.bias)
    right = others.argmax(1) == np.arange(300)
    assert right.mean() > 0.5 and abs(others.max(1).mean() - right.mean()) < 0.15


def test_features_that_are_not_finite_are_refused():
    features, labels = simulate(30, 10)
    features[3, 4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        solve_head(features, labels, 4)
