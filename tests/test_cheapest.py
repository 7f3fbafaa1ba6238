"""The cheapest candidate that is about as good as the best: its difference by hand, and what is promised of it."""

import math

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import t

from tljax.report.blocks import Chart
from tljax.report.cheapest import Candidate, SeedVariance, choose_answer, measure_difference
from tljax.report.depth import UnitResult, chart_places, describe_answer
from tljax.report.figures import draw_places
from tljax.report.paired import mcnemar

NO_SEEDS = SeedVariance(0.0, 0)


def draw(rng: np.random.Generator, accuracies: list[float], seeds: list[int], pictures: int = 200, luck: float = 0.0):
    """Candidates that cost 1, 2, 3 seconds: networks find the same pictures difficult, and vary by their seed."""
    hard, found = rng.normal(size=pictures), []
    for i, (accuracy, number) in enumerate(zip(accuracies, seeds, strict=True)):
        own = np.clip(accuracy + luck * rng.normal(size=(number, 1)), 0.01, 0.99)
        noise = rng.normal(size=(number, pictures))
        found.append(Candidate(str(i), math.sqrt(0.7) * hard + math.sqrt(0.3) * noise < ndtri(own), i + 1.0))
    return found


def test_a_difference_is_that_of_bonett_and_price():
    """Two networks: one more picture on which each alone is right, Student's t, and McNemar's p if that is more."""
    rng = np.random.default_rng(0)
    one, other = draw(rng, [0.8, 0.7], [1, 1])
    first, second = int((one.right & ~other.right).sum()), int((other.right & ~one.right).sum())
    a, b = (first + 1) / 202, (second + 1) / 202
    found, error = measure_difference(one, other, NO_SEEDS), math.sqrt((a + b - (a - b) ** 2) / 202)
    assert found.value == pytest.approx((first - second) / 200) and found.error == pytest.approx(error)
    side = t.ppf(0.975, 199) * error
    assert (found.low, found.high) == pytest.approx((a - b - side, a - b + side))
    assert found.p == max(mcnemar(one.right[0], other.right[0]), 2 * t.sf((a - b) / error, 199))
    # Each picture alone is a group; copies of all pictures, known as such, say no more.
    assert measure_difference(one, other, NO_SEEDS, np.arange(200)[::-1])[:4] == pytest.approx(found[:4])
    twice = [Candidate(each.name, np.tile(each.right, 2), 1.0) for each in (one, other)]
    copies = measure_difference(*twice, NO_SEEDS, np.tile(np.arange(200), 2))
    assert copies[:4] == pytest.approx(found[:4])
    assert measure_difference(*twice, NO_SEEDS).error < 0.75 * found.error


@pytest.mark.parametrize(("alike", "widest"), [(0.0, 0.12), (0.8, 0.4)])
def test_few_groups_widen_a_difference_as_far_as_their_pictures_differ_together(alike, widest):
    """Two networks of 0.5 and 0.45 on 7 groups of 26 pictures; that large a share of what decides is the group's."""
    groups, found = np.repeat(np.arange(7), 26), []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        of_groups, alone = rng.normal(size=(3, 7))[:, groups], rng.normal(size=(3, 182))
        shared, *own = math.sqrt(alike) * of_groups + math.sqrt(1 - alike) * alone
        rights = [
            math.sqrt(0.6) * shared + math.sqrt(0.4) * x < ndtri(p) for x, p in zip(own, (0.5, 0.45), strict=True)
        ]
        found.append(measure_difference(*(Candidate("", right[None], 1.0) for right in rights), NO_SEEDS, groups))
    assert np.mean([one.low <= 0.05 <= one.high for one in found]) > 0.92
    assert np.mean([one.high - one.low for one in found]) / 2 < widest


def test_equal_networks_differ_by_nothing_within_an_interval():
    (one,) = draw(np.random.default_rng(0), [0.8], [1])
    found = measure_difference(one, one, NO_SEEDS)
    assert found.value == 0 and found.low < 0 < found.high and found.p == 1


def test_seeds_widen_a_difference():
    one, other = draw(np.random.default_rng(0), [0.8, 0.7], [3, 2])
    apart = one.right.mean(axis=0) - other.right.mean(axis=0)
    sums = np.append(apart, [1, -1])
    of_pictures = np.square(sums - sums.mean()).sum() / 202**2
    found = measure_difference(one, other, SeedVariance(0.0009, 3))
    of_seeds = 0.0009 * (1 / 3 + 1 / 2)
    assert found.error == pytest.approx(math.sqrt(of_pictures + of_seeds))
    freedom = (of_pictures + of_seeds) ** 2 / (of_pictures**2 / 199 + of_seeds**2 / 3)
    assert found.high - found.low == pytest.approx(2 * t.ppf(0.975, freedom) * found.error)


def test_the_cheapest_within_one_standard_error_is_chosen():
    rng = np.random.default_rng(0)
    wrong, right = np.zeros((1, 300), bool), rng.random((1, 300)) < 0.9
    near, far = right.copy(), right.copy()
    near[0, np.flatnonzero(right)[:1]] = False
    # 0.013 lower, which is 1.6 standard errors.
    far[0, np.flatnonzero(right)[:4]] = False
    rows = [Candidate("wrong", wrong, 1), Candidate("far", far, 2), Candidate("near", near, 3)]
    best = Candidate("best", right, 9)
    answer = choose_answer([*rows, best, Candidate("dear", near, 20)])
    assert (answer.chosen.name, answer.best.name, answer.pairs) == ("near", "best", 10)
    assert answer.difference == measure_difference(best, rows[2], NO_SEEDS) and answer.of_one_seed
    assert ("wrong", "best") in {(worse.name, worse.than) for worse in answer.worse}
    assert ("near", "best") not in {(worse.name, worse.than) for worse in answer.worse}
    # The cheaper one of two that are equal is the best.
    assert choose_answer([Candidate("dear", right, 20), best]).best is best
    alone = choose_answer([best])
    assert alone.chosen is alone.best is best and not alone.worse and not alone.pairs
    with pytest.raises(ValueError, match=r"^2 candidates: there must be one, and all must have judged the same pict"):
        choose_answer([best, Candidate("few", right[:, :9], 1)])
    with pytest.raises(ValueError, match=r"^0 candidates: "):
        choose_answer([])


@pytest.mark.parametrize(("seeds", "luck"), [([1] * 5, 0.0), ([1, 1, 1, 3, 3], 0.02), ([3] * 5, 0.02)])
def test_what_is_said_of_an_answer_holds(seeds, luck):
    """Where five are equally good none is called worse in 95 of 100 cases; else the interval has the true
    difference, although the best was chosen by the same pictures."""
    wrongly = sum(
        bool(choose_answer(draw(np.random.default_rng(i), [0.7] * 5, seeds, luck=luck)).worse) for i in range(100)
    )
    # 5 of 100, by chance up to 11.
    assert wrongly <= 11
    held, accuracies = [], [0.6, 0.66, 0.7, 0.71, 0.72]
    for i in range(100):
        answer = choose_answer(draw(np.random.default_rng(i), accuracies, seeds, luck=luck))
        if answer.chosen is not answer.best:
            true = accuracies[int(answer.best.name)] - accuracies[int(answer.chosen.name)]
            held.append(answer.difference.low <= true <= answer.difference.high)
    assert len(held) > 25 and np.mean(held) > 0.9


def test_an_answer_is_one_sentence():
    rng = np.random.default_rng(0)
    right = rng.random((1, 500)) < 0.9
    near = right.copy()
    near[0, np.flatnonzero(right)[:1]] = False
    rows = [
        Candidate("head", np.zeros((1, 500), bool), 1.2),
        Candidate("ne\nar", near, 30),
        Candidate("all", right, 600),
    ]
    answer = choose_answer(rows)
    low, high = answer.difference.low, answer.difference.high
    assert describe_answer(answer) == (
        rf"train ne\nar: accuracy {near.mean():.3f} on 500 validation pictures, 30 s; the best, all, has "
        rf"{right.mean():.3f} for 10 min, which is +0.002 ({low:+.3f} to {high:+.3f}) and within one standard error; "
        "worse than another, and not by chance (Holm over 3 pairs of networks of one seed): head"
    )
    alone = describe_answer(choose_answer(rows[:1]))
    assert alone == "train head: accuracy 0.000 on 500 validation pictures, 1 s; nothing was compared with it"
    seeds = choose_answer([Candidate("a", np.repeat(right, 3, 0), 1), Candidate("b", np.repeat(near, 3, 0), 2)])
    assert describe_answer(seeds) == (
        f"train a: accuracy {right.mean():.3f} on 500 validation pictures over 3 seeds, 1 s, which is the best, and "
        "none that is cheaper is within one standard error of it; no other is worse beyond chance (Holm over 1 pair)"
    )


def test_accuracies_and_prices_by_unit_are_charts(tmp_path):
    units = ["conv2_block3", "conv3_block1", "conv3_block2", "head"]
    places = [UnitResult(unit, 0.5 + i / 10, 0.4, 0.9, 1.5 * i) for i, unit in enumerate(units)]
    accuracy, price = chart_places(places)
    assert isinstance(accuracy, Chart) and isinstance(price, Chart)
    assert [mark.text for mark in accuracy.marks] == ["conv2_block3", "conv3_block1", "head"]
    assert accuracy.series[0].points == [(i, 0.5 + i / 10) for i in range(4)]
    assert price.series[0].points == [(0, 0.0), (1, 1.5), (2, 3.0), (3, 4.5)]
    draw_places(tmp_path / "places.png", places)
    assert (tmp_path / "places.png").read_bytes().startswith(b"\x89PNG")
