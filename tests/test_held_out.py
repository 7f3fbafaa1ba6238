"""Pictures judged without themselves and what belongs to them: equal to solving again without them."""

import numpy as np
import pytest
from test_ridge import simulate

from tljax.check import held_out
from tljax.check.held_out import halve, judge_all, scale_all
from tljax.training import ridge
from tljax.training.grouped import leave_balanced
from tljax.training.ridge import PENALTIES, decompose, find_scale

WEIGHTS = [None, (2.0, 0.25, 0.0, 5.0)]
# (pictures, features, groups): every picture alone; twins; groups larger than the number of axes; more features than
# pictures; two groups.
CASES = [(60, 12, None), (30, 50, None), (70, 12, 50), (60, 5, 5), (40, 60, 12), (24, 60, 2)]


def make(n: int, size: int, number: int | None):
    """Pictures in groups, of which class 3 has one alone where there are more than two."""
    features, labels = simulate(n, size, seed=n)
    if number is None:
        return features, labels, np.arange(n)
    groups = np.random.default_rng(n).integers(0, number, n)
    if number > 2:
        groups[labels == 3] = 0
    return features, labels, np.unique(groups, return_inverse=True)[1]


def judge_by_hand(features, labels, rows, penalty: float, weights, scale, some=None):
    """Scores of `rows` by a ridge regression of `some` pictures without them, with a penalty that is added as it is."""
    w = np.ones(len(labels)) if weights is None else np.array(weights)[labels]
    x, y = features * scale, ridge.mark_classes(labels, 4)
    rest = np.setdiff1d(np.arange(len(labels)) if some is None else some, rows)
    centre, offset = (np.average(z[rest], axis=0, weights=w[rest]) for z in (x, y))
    weighted = (x[rest] - centre).T * w[rest]
    a = weighted @ (x[rest] - centre) + penalty * np.eye(x.shape[1])
    return (x[rows] - centre) @ np.linalg.solve(a, weighted @ (y[rest] - offset)) + offset


def choose_by_hand(features, labels, groups, weights, scale, some):
    """The penalty with the least squared error among `some` pictures alone, each group left out; None for nothing."""
    w = np.ones(len(labels)) if weights is None else np.array(weights)[labels]
    part = decompose(features[some], labels[some], 4, weights=weights, scale=scale)
    sums = np.zeros(len(ridge.PENALTIES))
    for group in np.unique(groups[some]):
        rows = some[groups[some] == group]
        if w[np.setdiff1d(some, rows)].sum() == 0:
            continue
        others = labels[np.setdiff1d(some, rows)]
        judged = [row for row in rows if labels[row] in others]
        for i, penalty in enumerate(ridge.PENALTIES):
            scores = judge_by_hand(features, labels, rows, penalty * part.unit, weights, scale, some)
            errors = w[rows, None] * np.square(scores - ridge.mark_classes(labels[rows], 4))
            sums[i] += errors[np.isin(rows, judged)].sum()
    return ridge.PENALTIES[np.argmin(sums)] * part.unit if sums.any() else None


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("n", "size", "number"), CASES)
def test_each_picture_is_judged_as_by_solving_again(n, size, number, weights, monkeypatch):
    monkeypatch.setattr(ridge, "PENALTIES", PENALTIES[::6])
    features, labels, groups = make(n, size, number)
    scale, second = find_scale(features)[1], halve(groups)
    found = judge_all(scale_all(features), labels, 4, groups, weights)
    holders = [len(set(groups[labels == label])) for label in range(4)]
    assert sorted(found.rows) == [i for i in range(n) if holders[labels[i]] > 1], "each once"
    unit = decompose(features, labels, 4, weights=weights).unit
    penalties = [
        choose_by_hand(features, labels, groups, weights, scale, np.flatnonzero(second != half)) for half in (0, 1)
    ]
    penalties = [ridge.DEFAULT_PENALTY * unit if penalty is None else penalty for penalty in penalties]
    places = {row: i for i, row in enumerate(found.rows)}
    each = np.ones(n) if weights is None else np.array(weights)[labels]
    batches = [ridge.form_groups(labels, 4)] if number is None else leave_balanced(labels, groups, each, n)
    for part in batches:
        for pictures, judged in zip(*part, strict=True):
            assert sorted(pictures) == [i for i in range(n) if groups[i] in set(groups[pictures])], "whole groups"
            for half in (0, 1):
                mine = judged & (second[pictures] == half)
                expected = judge_by_hand(features, labels, pictures, penalties[half], weights, scale)[mine]
                ours = found.scores[[places[row] for row in pictures[mine]]]
                np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_the_penalty_of_a_half_does_not_know_its_labels():
    """Whatever labels the second half has, the penalty for it stays."""
    features, labels, groups = make(90, 20, 70)
    scaled, second = scale_all(features), halve(groups)
    other = np.where(second, (labels + 1) % 4, labels)
    chosen = [held_out.choose_alone(scaled, some, 4, groups, None, ~second) for some in (labels, other)]
    assert chosen[0] == chosen[1] and np.array_equal(second, halve(groups))
    assert 0.2 < second.mean() < 0.8
    assert all(len(set(second[groups == group])) == 1 for group in range(groups.max() + 1))


@pytest.mark.parametrize(("n", "groups"), [(0, None), (1, None), (12, np.zeros(12, int))])
def test_nothing_is_judged_where_nothing_else_is_there(n, groups):
    features, labels = simulate(90, 20)
    found = judge_all(scale_all(features[: max(n, 2)])._replace(features=features[:n]), labels[:n], 4, groups)
    assert found.scores.shape == (0, 4) and len(found.rows) == 0


def test_of_many_features_the_directions_in_which_pictures_vary_are_used(monkeypatch):
    """Where the features have no more directions than are used, fewer numbers say the same."""
    rng = np.random.default_rng(0)
    low, labels = simulate(200, 6)
    features = (low @ rng.normal(size=(6, 40))).astype(np.float32)
    whole = judge_all(scale_all(features.astype(np.float64)), labels, 4)
    monkeypatch.setattr(held_out, "MOST_AXES", 6)
    monkeypatch.setattr(held_out, "MANY_PICTURES", 199)
    monkeypatch.setattr(held_out, "SAMPLED", 64)
    monkeypatch.setattr(held_out, "BLOCK", 64)
    scaled = scale_all(features)
    assert scaled.features.shape == (200, 6) and scaled.features.dtype == np.float32
    few = judge_all(scaled, labels, 4)
    np.testing.assert_array_equal(few.rows, whole.rows)
    assert np.abs(few.scores - whole.scores).max() < 0.02, "penalties are in steps of a quarter of a decade"


def test_progress_is_reported():
    features, labels = simulate(90, 20)
    seen: list[float] = []
    judge_all(scale_all(features), labels, 4, report=seen.append)
    assert seen[-1] == 1 and seen == sorted(seen)
