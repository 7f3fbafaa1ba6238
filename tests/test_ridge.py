"""Solved heads: the same as scikit-learn's, and as leaving pictures out by hand; estimates that are true on average."""

import numpy as np
import pytest

from tljax.training import calibration, ridge
from tljax.training.calibration import softmax
from tljax.training.grouped import count_worth, leave_balanced, leave_each
from tljax.training.ridge import PENALTIES, decompose, estimate_accuracy, hold_out, solve_head

# More features than pictures, and fewer.
SIZES = [(30, 50), (90, 20)]
# Without class weights, and with some; one class does not count.
WEIGHTS = [None, (2.0, 0.25, 0.0, 5.0)]


def simulate(n: int, features: int, classes: int = 4, seed: int = 0, spread: float = 0.5):
    """Features of Gaussian classes on different scales, and labels; the classes are not equally frequent."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.integers(0, classes + 1, n), classes - 1)
    labels[: 2 * classes] = np.tile(np.arange(classes), 2)
    centres = np.random.default_rng(99).normal(size=(classes, features)) * spread
    scales = 10.0 ** np.random.default_rng(98).uniform(-0.5, 0.5, features)
    return (centres[labels] + rng.normal(size=(n, features))) * scales + 5, labels


def leave_out(features, labels, rows, penalty: float, classes: int = 4, weights=None) -> np.ndarray:
    """Scores of `rows`, by a ridge regression without them, on the scale of all and with the weights of all."""
    mean, scale = ridge.find_scale(features)
    x, y = (features - mean) * scale, ridge.mark_classes(labels, classes)
    w = np.ones(len(labels)) if weights is None else np.array(weights)[labels]
    alpha = penalty * decompose(features, labels, classes, weights=weights).unit
    rest = np.setdiff1d(np.arange(len(labels)), rows)
    centre, offset = (np.average(z[rest], axis=0, weights=w[rest]) for z in (x, y))
    weighted = (x[rest] - centre).T * w[rest]
    a = weighted @ (x[rest] - centre) + alpha * np.eye(x.shape[1])
    return (x[rows] - centre) @ np.linalg.solve(a, weighted @ (y[rest] - offset)) + offset


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
def test_weights_are_scikit_learn_s_of_samples(n, size):
    from sklearn.linear_model import Ridge

    features, labels = simulate(n, size)
    weights = np.array(WEIGHTS[1])
    head = solve_head(features, labels, 4, weights=WEIGHTS[1])
    mean, scale = ridge.find_scale(features)
    alpha = head.penalty * decompose(features, labels, 4, weights=WEIGHTS[1]).unit
    x, targets = (features - mean) * scale, ridge.mark_classes(labels, 4)
    theirs = Ridge(alpha=alpha, solver="cholesky").fit(x, targets, sample_weight=weights[labels])
    others = simulate(50, size, seed=1)[0]
    scores = (others @ head.kernel + head.bias) * head.temperature
    np.testing.assert_allclose(scores, theirs.predict((others - mean) * scale), rtol=1e-7, atol=1e-9)
    # All weights times two is the same head; all weights of one are no weights, to the bit.
    double = solve_head(features, labels, 4, weights=2 * weights)
    np.testing.assert_allclose(double.kernel, head.kernel, rtol=1e-9, atol=1e-12)
    plain, ones = solve_head(features, labels, 4), solve_head(features, labels, 4, weights=(1.0,) * 4)
    for ours, expected in zip((*ones[:4], *ones.held_out), (*plain[:4], *plain.held_out), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("n", "size"), SIZES)
def test_leaving_each_out_is_exact(n, size, weights, monkeypatch):
    monkeypatch.setattr(ridge, "PENALTIES", PENALTIES[::6])
    features, labels = simulate(n, size)
    each = np.ones(n) if weights is None else np.array(weights)[labels]
    by_hand = [
        ridge.mark_classes(labels, 4) - [leave_out(features, labels, [i], penalty, 4, weights)[0] for i in range(n)]
        for penalty in ridge.PENALTIES
    ]
    solved, places = decompose(features, labels, 4, weights=weights), slice(None)
    turned = solved.turn(places)
    for penalty, expected in zip(ridge.PENALTIES, by_hand, strict=True):
        leverage = each * (1 / each.sum() + np.square(turned) @ solved.shrink(penalty))
        errors = solved.errors(places, turned, np.array([penalty]))[:, 0] / (1 - leverage)[:, None]
        np.testing.assert_allclose(errors, expected, rtol=1e-9, atol=1e-9)
    sums = [np.average(np.square(errors).sum(axis=1), weights=each) for errors in by_hand]
    assert ridge.choose_penalty(solved) == ridge.PENALTIES[np.argmin(sums)]


def test_weights_choose_the_penalty():
    """A class that counts little does not decide how strongly the others are shrunk."""
    features, labels = simulate(90, 20)
    features[labels == 0] = np.random.default_rng(5).normal(size=(np.sum(labels == 0), 20)) * 40
    chosen = [solve_head(features, labels, 4, weights=weights).penalty for weights in (None, (1e-4, 1.0, 1.0, 1.0))]
    assert chosen[0] > chosen[1]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("n", "size"), SIZES)
def test_leaving_one_of_each_class_out_is_exact(n, size, weights):
    features, labels = simulate(n, size)
    groups, first = ridge.form_groups(labels, 4)
    held_out = hold_out(decompose(features, labels, 4, weights=weights), 0.1)
    assert sorted(held_out.rows) == list(range(n)), "each picture once"
    places = {row: i for i, row in enumerate(held_out.rows)}
    for group, is_first in zip(groups, first, strict=True):
        assert sorted(labels[group]) == [0, 1, 2, 3]
        expected = leave_out(features, labels, group, 0.1, 4, weights)[is_first]
        ours = held_out.scores[[places[row] for row in group[is_first]]]
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


# (pictures, features, groups, views): groups with fewer and with more rows than there are axes.
GROUPED = [(40, 60, 12, 1), (70, 12, 20, 1), (70, 5, 4, 1), (30, 8, 6, 2), (24, 60, 2, 1)]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("n", "size", "number", "views"), GROUPED)
def test_leaving_whole_groups_out_is_exact(n, size, number, views, weights, monkeypatch):
    monkeypatch.setattr(ridge, "PENALTIES", PENALTIES[::6])
    monkeypatch.setattr(ridge, "BLOCK", 16)
    features, every = simulate(n * views, size, seed=n)
    labels, groups = every[:n], np.random.default_rng(n).integers(0, number, n)
    every = np.tile(labels, views)
    solved = decompose(features, every, 4, views, weights)

    def solve_without(pictures, penalty: float) -> np.ndarray:
        rows = [view * n + i for view in range(views) for i in pictures]
        return leave_out(features, every, rows, penalty, 4, weights)

    held_out = hold_out(solved, 0.1, groups)
    holders = [len(set(groups[labels == label])) for label in range(4)]
    assert sorted(held_out.rows) == [i for i in range(n) if holders[labels[i]] > 1], "each once"
    np.testing.assert_array_equal(held_out.groups, groups[held_out.rows])
    places = {row: i for i, row in enumerate(held_out.rows)}
    for part in leave_balanced(labels, groups, solved.weights[:n], 5000):
        for pictures, judged in zip(*part, strict=True):
            assert sorted(pictures) == [i for i in range(n) if groups[i] in set(groups[pictures])], "whole groups"
            assert len(set(groups[pictures])) < number
            expected = solve_without(pictures, 0.1)[: len(pictures)][judged]
            ours = held_out.scores[[places[row] for row in pictures[judged]]]
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)
    # Each group alone chooses the penalty, by pictures of classes that others have, too.
    each, sums = solved.weights[:n], []
    for penalty in ridge.PENALTIES:
        sums.append(0.0)
        for group in range(number):
            pictures = np.flatnonzero(groups == group)
            targets = ridge.mark_classes(np.tile(labels[pictures], views), 4)
            counted = np.tile([each[i] * (holders[labels[i]] > 1) for i in pictures], views)
            sums[-1] += float(np.square(solve_without(pictures, penalty) - targets).sum(axis=1) @ counted)
    for few in (ridge.FEW_ROWS, 1):
        monkeypatch.setattr(ridge, "FEW_ROWS", few)
        np.testing.assert_allclose(ridge.sum_errors_by_groups(solved, groups), sums, rtol=1e-6)
    assert ridge.choose_penalty(solved, groups) == ridge.PENALTIES[np.argmin(sums)]


def test_groups_of_one_picture_are_no_groups():
    features, labels = simulate(90, 20)
    plain, alone = (solve_head(features, labels, 4, groups=groups) for groups in (None, np.arange(90)[::-1]))
    for ours, expected in zip((*alone[:4], *alone.held_out), (*plain[:4], *plain.held_out), strict=True):
        np.testing.assert_array_equal(ours, expected)
    # What leaves out groups leaves out the same.
    solved = decompose(features, labels, 4)
    assert ridge.choose_penalty(solved, np.arange(90)) == plain.penalty
    scores = dict(zip(hold_out(solved, 0.1).rows, hold_out(solved, 0.1).scores, strict=True))
    grouped = hold_out(solved, 0.1, np.arange(90))
    np.testing.assert_allclose(grouped.scores, [scores[row] for row in grouped.rows], rtol=1e-9, atol=1e-9)


def test_where_every_class_is_one_group_nothing_chooses_the_penalty():
    features, labels = simulate(30, 20)
    head = solve_head(features, labels, 4, groups=labels)
    assert head.penalty == ridge.choose_penalty(decompose(features, labels, 4), labels) == ridge.DEFAULT_PENALTY
    assert not len(head.held_out.rows) and estimate_accuracy(head.held_out, labels) is None


def test_a_group_of_all_classes_is_left_out_alone_and_others_with_the_classes_that_they_lack():
    def batches(labels, groups, most: int = 5000) -> list[set[int]]:
        labels, groups = np.array(labels), np.array(groups)
        parts = leave_balanced(labels, groups, np.ones(len(labels)), most)
        return sorted((set(groups[pictures].tolist()) for part in parts for pictures in part.pictures), key=sorted)

    assert batches([0, 1] * 6, np.arange(12) // 4) == [{0}, {1}, {2}]
    # One of 2 and 3 groups of a class alone starts again.
    alone = batches([0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 3, 4])
    assert len(alone) == 3 and all(len(one & {0, 1}) == len(one & {2, 3, 4}) == 1 for one in alone)
    assert set.union(*alone) == {0, 1, 2, 3, 4}
    # A class of one group is not judged, and never left without another's last group.
    labels, groups = np.array([0, 0, 1, 1, 2, 0]), np.array([0, 1, 0, 1, 2, 2])
    (part,) = leave_each(labels, groups, np.ones(6))
    assert {int(i) for i in part.pictures[~part.judged]} == {4}
    assert len(batches(np.arange(400) % 2, np.arange(400) // 4, 40)) == 10
    for seed in range(40):
        labels, groups = np.random.default_rng(seed).integers(0, [[3], [4]], (2, 9))
        of = [set(groups[labels == label].tolist()) for label in range(3)]
        assert all(own - batch for batch in batches(labels, groups) for own in of if len(own) > 1)


def test_pictures_of_a_group_are_worth_few():
    """All as many as they are if they have nothing to do with each other, and hardly more than groups if they are
    alike."""
    rng, ones = np.random.default_rng(0), np.ones(2000)
    groups, alike = np.arange(2000) // 20, np.repeat(rng.random(100) < 0.8, 20)
    assert 1200 < count_worth(rng.random(2000) < 0.8, groups, ones, 0.95) < 2500
    assert 70 < count_worth(alike, groups, ones, 0.95) < 130
    # All are right, or all are of one group: that says little.
    assert 100 < count_worth(ones > 0, groups, ones, 0.95) < 250
    assert count_worth(alike, np.zeros(2000, int), ones, 0.95) < 2
    assert count_worth(alike, groups, 3 * ones, 0.95) == pytest.approx(count_worth(alike, groups, ones, 0.95))


@pytest.mark.parametrize("own", [False, True])
def test_the_estimate_by_groups_is_true_where_that_by_pictures_is_too_good(own):
    """Pictures of a group share an offset; a group has all classes or, as patients have, one of its `own`."""
    classes, number, each = 3, 18, 12
    groups, fresh = np.repeat(np.arange(number), each), np.repeat(np.arange(number, number + 300), 2)
    found = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        centres, offsets = 0.3 * rng.normal(size=(classes, 40)), 0.8 * rng.normal(size=(number + 300, classes, 40))

        def draw(of, rng=rng, centres=centres, offsets=offsets):
            labels = of % classes if own else rng.integers(0, classes, len(of))
            return centres[labels] + offsets[of, labels] + rng.normal(size=(len(of), 40)), labels

        (features, labels), (others, others_labels) = draw(groups), draw(fresh)
        row = []
        for known in (None, groups):
            head = solve_head(features, labels, classes, groups=known)
            right = np.mean((others @ head.kernel + head.bias).argmax(1) == others_labels)
            estimate = estimate_accuracy(head.held_out, labels)
            row += [estimate.accuracy - right, estimate.at_least <= right, np.log(head.penalty)]
        found.append(row)
    plain, plain_holds, weak, grouped, grouped_holds, strong = np.mean(found, axis=0)
    assert strong > weak, "what a group has for itself is not to be learned"
    assert plain > 0.09 and plain_holds < 0.3
    assert abs(grouped) < 0.04 and grouped_holds > 0.8


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
    estimate = estimate_accuracy(held_out, labels)
    assert estimate.accuracy == pytest.approx((1.5 + 40) / 43)
    assert estimate.confusions.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 1]]
    # All of them if they count the same, and none counts.
    assert ridge.count_effective(np.full(7, 3.0)) == ridge.count_effective(np.zeros(7)) == 7
    # Two pictures that count 1.5 and one that counts 40 say about as much as one.
    effective = 43**2 / (2 * 1.5**2 + 40**2)
    assert estimate.at_least == pytest.approx(calibration.least_accuracy(estimate.accuracy, effective))
    # With class weights they count 30, 30 and 40.
    weighted = estimate_accuracy(held_out, labels, (1.0, 20.0, 1.0))
    assert weighted.accuracy == estimate.accuracy
    effective = 100**2 / (2 * 30**2 + 40**2)
    assert weighted.at_least == pytest.approx(calibration.least_accuracy(estimate.accuracy, effective))


def test_the_least_accuracy_holds():
    """For each head by itself, on new pictures. An interval around the estimate, which is too low, does not."""
    classes, each = 20, 3
    labels, others = np.repeat(np.arange(classes), each), np.arange(1000) % classes
    least, most = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        centres = 0.45 * rng.normal(size=(classes, 100))
        features, fresh = (np.maximum(centres[of] + rng.normal(size=(len(of), 100)), 0) for of in (labels, others))
        head = solve_head(features, labels, classes)
        right = np.mean((fresh @ head.kernel + head.bias).argmax(1) == others)
        estimate = estimate_accuracy(head.held_out, labels)
        least.append(estimate.at_least <= right)
        most.append(right <= calibration.accuracy_interval(estimate.accuracy, len(labels))[1])
    assert np.mean(least) >= 0.9 > np.mean(most)


def test_a_rare_class_is_named_if_classes_count_the_same():
    """Without weights the accuracy is the share of the large class."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], (900, 12))
    centres = 0.5 * rng.normal(size=(2, 50))
    features, fresh = centres[labels] + rng.normal(size=(912, 50)), centres[1] + rng.normal(size=(500, 50))
    plain, weighted = (solve_head(features, labels, 2, weights=weights) for weights in (None, (0.5, 38.0)))
    assert estimate_accuracy(plain.held_out, labels).accuracy == pytest.approx(900 / 912)
    recalls = [np.mean((fresh @ head.kernel + head.bias).argmax(1) == 1) for head in (plain, weighted)]
    assert recalls[0] < 0.05 and recalls[1] > 0.8


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
    # With as many of each, the first class is named: one of five is right, not what rounding decides.
    even = np.arange(25) % 5
    assert estimate_accuracy(solve_head(np.ones((25, 3)), even, 5).held_out, even).accuracy == 0.2


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
