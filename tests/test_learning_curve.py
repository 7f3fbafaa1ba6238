"""Accuracy against labels: the draws, the fits beside SciPy's, and how often what is promised holds."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import nnls

from tljax.report import more_labels
from tljax.report.blocks import Chart, Text
from tljax.report.figures import draw_growth
from tljax.training import learning_curve, ridge
from tljax.training.learning_curve import (
    DRAWS,
    EXPONENTS,
    Doubled,
    Growth,
    Labelled,
    LearningCurve,
    Need,
    Point,
    choose_shares,
    draw_nested,
    find_curve,
    fit_curves,
    measure_growth,
    resample_errors,
    vary_heads,
)


def draw_pictures(counts: tuple[int, ...], seed: int, size: int = 12) -> Labelled:
    """Gaussian classes whose centres are always the same."""
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = np.random.default_rng(0).normal(size=(len(counts), size))
    features = centres[labels] + 1.5 * np.random.default_rng((1, seed)).normal(size=(len(labels), size))
    return Labelled(features.astype(np.float32), labels)


def test_smaller_draws_are_part_of_larger_ones_and_classes_keep_their_proportions():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [80, 16, 3]))
    before: set[int] = set()
    for share, counts in {0.01: [1, 1, 1], 0.125: [10, 2, 1], 0.25: [20, 4, 1], 0.5: [40, 8, 1]}.items():
        drawn = draw_nested(labels, None, share, seed=3)
        assert np.bincount(labels[drawn]).tolist() == counts and (np.diff(drawn) > 0).all()
        assert before <= set(drawn.tolist())
        before = set(drawn.tolist())
        assert set(draw_nested(labels, None, share, seed=4)) != before
    assert draw_nested(labels, None, 1.0, 0).tolist() == list(range(99))


def test_whole_groups_are_drawn():
    labels, groups = np.repeat([0, 1], 30), np.arange(60) // 3 * 7
    # A group of both classes counts for the one that it has more of.
    labels[0] = 1
    for share in (0.2, 0.5):
        drawn = draw_nested(labels, groups, share, seed=0)
        chosen = np.unique(groups[drawn])
        assert len(drawn) == 3 * len(chosen) and (chosen < 70).sum() == (chosen >= 70).sum() == 10 * share


def test_sizes_reach_from_an_eighth_to_a_half_and_few_labels_have_none():
    def sizes(labels: np.ndarray, groups: np.ndarray | None = None) -> list[int]:
        return [len(draw_nested(labels, groups, share, 0)) for share in choose_shares(labels, groups)]

    assert sizes(np.repeat([0, 1], 80)) == [20, 28, 40, 56, 80]
    assert sizes(np.repeat([0, 1], 4)) == [] and sizes(np.repeat([0, 1], 5)) == [2, 4]
    assert sizes(np.repeat([0, 1, 2], [3, 8, 60])) == [10, 13, 18, 25, 35]
    assert sizes(np.repeat([0, 1], 80), np.arange(160) // 20) == []
    assert sizes(np.repeat([0, 1], 1001)) == [250, 500, 1000]


@pytest.mark.parametrize("many", [1000, 20])
def test_heads_of_draws_are_those_of_their_pictures(monkeypatch, many):
    """From many pictures on, draws share the penalty that the first one chooses."""
    monkeypatch.setattr(learning_curve, "MANY_ROWS", many)
    train, validation = draw_pictures((40, 20, 10), 0), draw_pictures((30, 30, 30), 1)
    found = measure_growth(train, validation, 3, draws=3)
    shares = [*choose_shares(train.labels, None), 1.0]
    assert found.right.shape == (3, len(shares), 90) and found.sizes[-1] == 70 / 3
    for i, share in enumerate(shares):
        for seed in range(3):
            rows = draw_nested(train.labels, None, share, seed)
            own = ridge.decompose(train.features[rows], train.labels[rows], 3)
            lead = draw_nested(train.labels, None, share, 0 if len(rows) > many else seed)
            penalty = ridge.choose_penalty(ridge.decompose(train.features[lead], train.labels[lead], 3))
            kernel, bias = ridge.weigh_features(own, penalty)
            right = (validation.features @ kernel + bias).argmax(axis=1) == validation.labels
            assert (found.right[seed, i] == right).all()
            assert found.sizes[i] == len(rows) / 3


@pytest.mark.parametrize(("pictures", "weights"), [(9, None), (9, [1, 3]), (60, None), (60, [1, 3])])
def test_a_known_penalty_needs_no_eigenvectors(pictures, weights):
    rng = np.random.default_rng(pictures)
    features, labels = rng.normal(size=(pictures, 14)), np.arange(pictures) % 2
    features[:, 3] = 2.0
    decomposed = ridge.decompose(features, labels, 2, weights=weights)
    for penalty in (1e-4, 0.3, 1e3):
        for found, right in zip(
            ridge.solve_with(features, labels, 2, penalty, weights),
            ridge.weigh_features(decomposed, penalty),
            strict=True,
        ):
            np.testing.assert_allclose(found, right, rtol=1e-8, atol=1e-10)


def test_a_fit_is_the_least_squares_of_scipy_for_each_exponent():
    rng, sizes = np.random.default_rng(0), np.array([5.0, 7, 10, 14, 20, 40])
    errors = np.clip(rng.normal(0.3, 0.1, (50, 1)) + rng.normal(0, 0.4, (50, 1)) * sizes**-0.5, 0.05, 0.9)
    errors = np.clip(errors + rng.normal(0, 0.02, errors.shape), 0, 1)
    found, mean = fit_curves(sizes, errors, 200), (errors.mean(axis=0) * 200 + 0.5) / 201
    roots = 1 / np.sqrt(mean * (1 - mean))
    for i, error in enumerate(errors):
        fits = [
            (nnls(np.stack([np.ones(6), (sizes / 40) ** -c], 1) * roots[:, None], error * roots), c) for c in EXPONENTS
        ]
        least = min(loss for (_, loss), _ in fits)
        own = found.floor[i] + found.fall[i] * (sizes / 40) ** -found.exponent[i]
        assert np.linalg.norm((own - error) * roots) == pytest.approx(least, abs=1e-9)
        assert found.floor[i] >= 0 and found.fall[i] >= 0


def test_a_power_is_found_again():
    sizes, (c, *_) = np.array([5.0, 10, 20, 40]), EXPONENTS[7:]
    found = fit_curves(sizes, 0.1 + 0.2 * (sizes / 40) ** -c, 1000)
    assert (found.floor, found.fall, found.exponent) == pytest.approx((0.1, 0.2, c))
    assert found.errors(np.array([2.0])) == pytest.approx(0.1 + 0.2 * 2**-c)


def test_validation_pictures_are_drawn_in_whole_groups():
    rng = np.random.default_rng(0)
    growth = Growth(np.array([1.0, 2]), rng.random((3, 2, 12)) < 0.6, np.zeros(12, int), np.arange(12) % 4 * 5)
    found = resample_errors(growth)
    counts = np.random.default_rng(0).multinomial(4, np.full(4, 0.25), learning_curve.RESAMPLES)
    for errors, each in zip(found, counts, strict=True):
        wrong = sum(each[i % 4] * ~growth.right[:, :, i] for i in range(12))
        np.testing.assert_allclose(errors, wrong / (3 * each.sum()), atol=1e-6)


def test_heads_vary_by_more_than_the_pictures_that_judge_them():
    """Heads of 0.6 to 0.8: their accuracies on 50 pictures vary twice as much."""
    rng = np.random.default_rng(0)
    accuracies, found, seen = rng.uniform(0.6, 0.8, (300, DRAWS, 1)), [], []
    for own in accuracies:
        right = rng.random((DRAWS, 50)) < own
        found.append(vary_heads(right))
        seen.append(right.mean(axis=1).var(ddof=1))
    assert np.mean(seen) > 2 * np.mean(found) and np.mean(found) == pytest.approx(0.2**2 / 12, rel=0.15)
    assert vary_heads(np.broadcast_to(rng.random(50) < 0.5, (5, 50))) < 1e-30


def judge(rng: np.random.Generator, accuracies: np.ndarray, pictures: int, luck: float) -> tuple[Growth, float]:
    """Heads of labels with these accuracies, the last two being those of all and of twice as many: which of pictures
    that are more or less difficult they are right on, and what the last one gains. Half samples of labels have the luck
    of all and as much of their own; twice as many have half of it."""
    from scipy.special import ndtri

    sizes = 40 * 2.0 ** np.arange(2 - len(accuracies), 1)
    lucky, other = luck * rng.normal(size=2)
    own = accuracies[:-1] + lucky + luck * rng.normal(size=(DRAWS, len(accuracies) - 1))
    own[:, -1] = accuracies[-2] + lucky
    hard, noise = rng.normal(size=pictures), rng.normal(size=(*own.shape, pictures))
    noise[:, -1] = noise[0, -1]
    right = math.sqrt(0.7) * hard + math.sqrt(0.3) * noise < ndtri(np.clip(own, 0.01, 0.99))[..., None]
    gain = accuracies[-1] + (lucky + other) / 2 - own[0, -1]
    return Growth(sizes, right, np.arange(pictures) % 2), float(gain)


@pytest.mark.parametrize(("floor", "fall", "exponent"), [(0.0, 0.45, 0.1), (0.15, 0.15, 0.5), (0.15, 0.04, 1.0)])
def test_the_gain_of_twice_as_many_lies_in_its_interval(floor, fall, exponent):
    errors = floor + fall * (2.0 ** np.arange(-3, 2)) ** -exponent
    held, said = [], []
    for seed in range(25):
        growth, gain = judge(np.random.default_rng(seed), 1 - errors, 300, 0.01)
        twice = find_curve(growth).twice
        if twice:
            held.append(twice.low <= gain <= twice.high)
            said.append(twice.value - gain)
    assert len(held) > 20 and np.mean(held) > 0.9 and abs(np.mean(said)) < 0.015


def test_few_pictures_promise_little_though_heads_are_nearly_always_right():
    """Without the two pictures more, the interval held in 0.85 of these."""
    errors, held, sides = 0.02 * (2.0 ** np.arange(-3, 2)) ** -0.5, [], []
    for seed in range(60):
        growth, gain = judge(np.random.default_rng(seed), 1 - errors, 50, 0.004)
        if twice := find_curve(growth).twice:
            held.append(twice.low <= gain <= twice.high)
            sides.append(twice.high - twice.value)
    assert len(held) > 20 and np.mean(held) > 0.94 and min(sides) > 1.96 * math.sqrt(2) / 52


def test_where_there_is_no_curve_it_says_so():
    rng = np.random.default_rng(0)
    found = [find_curve(judge(rng, np.full(6, 0.7), 300, 0.01)[0]) for _ in range(20)]
    # By chance alone.
    assert [curve.without for curve in found].count("flat") >= 18
    course = find_curve(judge(rng, np.array([0.5, 0.7, 0.8, 0.6, 0.62, 0.65]), 2000, 0.002)[0])
    assert course.without == "bad" and course.twice is None and not course.fitted
    few = draw_pictures((4, 4), 0)
    curve = find_curve(measure_growth(few, draw_pictures((30, 30), 1), 2))
    assert curve.without == "few" and len(curve.measured) == 1 and not curve.fitted
    assert more_labels.describe_growth(curve, "ab") == [
        "what more pictures would bring is not known: that takes 5 labels a class, or as many groups"
    ]


def test_a_curve_of_pictures_is_carried_on_to_twice_as_many():
    curve = find_curve(measure_growth(draw_pictures((40,) * 4, 0), draw_pictures((150,) * 4, 1), 4))
    assert curve.twice is not None and curve.without == "" and 0 < curve.twice.value < 0.1
    assert [point.labels for point in curve.measured] == [5, 7, 10, 14, 20, 40]
    assert curve.fitted[0].labels == pytest.approx(5) and curve.fitted[-1].labels == pytest.approx(80)
    rises = [point.accuracy for point in curve.fitted]
    assert rises == sorted(rises) and all(0 <= p.low < p.accuracy < p.high <= 1 for p in curve.fitted)
    at_all = np.interp(40, [point.labels for point in curve.fitted], rises)
    assert rises[-1] - at_all == pytest.approx(curve.twice.value, abs=0.002)
    assert learning_curve.read_curve(json.loads(json.dumps(learning_curve.describe_curve(curve)))) == curve
    assert [need.pictures for need in curve.classes] == [150] * 4
    assert [need.all for need in curve.classes] == sorted(need.all for need in curve.classes)


def test_a_class_stands_out_that_is_below_the_others_and_rises():
    rng, labels = np.random.default_rng(0), np.arange(400) % 4
    shares = np.array([[0.8, 0.8, 0.4, 0.6], [0.9, 0.9, 0.5, 0.5], [0.95, 0.95, 0.6, 0.4]])
    right = rng.random((DRAWS, 3, 400)) < shares[:, labels]
    right[:, -1] = right[0, -1]
    needs = learning_curve._describe_classes(Growth(np.array([10.0, 20, 40]), right, labels))
    # The last one falls with the labels.
    assert [(need.label, need.low) for need in needs[:2]] == [(3, False), (2, True)]
    assert not needs[2].low and needs[1].half == pytest.approx(0.5, abs=0.02)


POINTS = [Point(5, 0.4, 0.3, 0.5), Point(10, 0.5, 0.4, 0.6), Point(20, 0.553, 0.5, 0.6)]
NEEDS = [Need(1, 0.3, 0.4, 50, True), Need(0, 0.5, 0.6, 50, False)]
CURVE = LearningCurve(POINTS, [*POINTS, Point(40, 0.6, 0.5, 0.7)], Doubled(0.021, 0.012, 0.034), "", NEEDS)


def test_what_more_would_bring_is_a_sentence():
    gain, needs = more_labels.describe_growth(CURVE, ["cat", "d\no"])
    assert gain == (
        "twice as many pictures, 40 labels a class instead of 20, would bring +0.02 (+0.01 to +0.03) to the accuracy "
        "of 0.55 (95%, for a solved head)"
    )
    assert needs == (
        r"d\no (0.40 right) needs more most, beside more of the others: a head names a class that it has more of "
        "too often"
    )
    fine = CURVE._replace(twice=Doubled(0.004, -0.001, 0.009), classes=[])
    (said,) = more_labels.describe_growth(fine, [])
    assert "bring +0.004 (-0.001 to +0.009) to the accuracy of 0.55, perhaps nothing (95%" in said
    few = CURVE._replace(measured=POINTS[:2])
    assert more_labels.describe_growth(few, "ab")[0].endswith("(95%, roughly, with so few labels, for a solved head)")
    flat = CURVE._replace(twice=None, without="flat", fitted=[], classes=[])
    assert more_labels.describe_growth(flat, []) == [
        "what more pictures would bring is not known: the accuracy does not rise with the labels beyond chance, 0.40 "
        "with 5 a class and 0.55 with 20"
    ]
    (bad,) = more_labels.describe_growth(flat._replace(without="bad"), [])
    assert bad.endswith("no curve fits the accuracy by labels a class, 0.40 with 5, 0.50 with 10, 0.55 with 20")


def test_a_fine_tuning_is_dots_without_a_curve(tmp_path):
    tuned = more_labels.Tuned("fine_tune_all", [Point(5, 0.468, 0.4, 0.5), *POINTS[1:]])
    assert more_labels.read_tuned(json.loads(json.dumps(more_labels.write_tuned(tuned)))) == tuned
    said = "fine_tune_all: accuracy 0.47 with 5 labels a class, 0.50 with 10 and 0.55 with 20 (one network each"
    assert more_labels.describe_tuned(tuned, 1) == [f"{said})"]
    assert more_labels.describe_tuned(tuned, 3) == [f"{said}; that of all labels was chosen, as the best of 3)"]
    two = more_labels.describe_tuned(tuned._replace(points=tuned.points[1:]), 1)
    assert two == ["fine_tune_all: accuracy 0.50 with 10 labels a class and 0.55 with 20 (one network each)"]
    flat = CURVE._replace(twice=None, without="flat", fitted=[])
    for chart in (more_labels.chart_growth(CURVE, tuned)[0], more_labels.chart_growth(flat, tuned)[1]):
        assert isinstance(chart, Chart)
        (dots,) = (series for series in chart.series if series.name == "fine_tune_all, one network each")
        assert dots.points == [(5, 0.468), (10, 0.5), (20, 0.553)] and dots.style == "dots"
    for name, points in (("with.png", tuned), ("without.png", None)):
        draw_growth(tmp_path / name, CURVE, points)
    assert (tmp_path / "with.png").stat().st_size > (tmp_path / "without.png").stat().st_size


def test_what_more_would_bring_is_a_chart(tmp_path):
    (chart,) = more_labels.chart_growth(CURVE)
    assert isinstance(chart, Chart) and [len(series.points) for series in chart.series] == [3, 4, 4, 4]
    text, measured = more_labels.chart_growth(CURVE._replace(twice=None, without="flat", fitted=[]))
    assert isinstance(text, Text) and isinstance(measured, Chart) and len(measured.series) == 1
    for i, curve in enumerate((CURVE, CURVE._replace(twice=None, without="flat", fitted=[]))):
        draw_growth(tmp_path / f"{i}.png", curve)
        assert (tmp_path / f"{i}.png").read_bytes().startswith(b"\x89PNG")
