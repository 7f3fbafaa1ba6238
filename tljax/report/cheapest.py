"""Which of several ways to train is the answer: the cheapest that is about as good as the best on the same pictures."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import stdtr, stdtrit

from tljax.report.paired import SIGNIFICANT, holm, mcnemar
from tljax.training.calibration import TWO_SIDED
from tljax.training.grouped import GroupNumbers, number_groups
from tljax.training.learning_curve import vary_heads


class Candidate(NamedTuple):
    """A way to train, which validation pictures its networks are right on, and what one of them takes in seconds."""

    name: str
    right: Bool[np.ndarray, "seeds n"]
    seconds: float

    @property
    def accuracy(self) -> float:
        """The mean over its seeds."""
        return float(self.right.mean())


class Difference(NamedTuple):
    """By how much one candidate is more accurate than another, with an interval of 95%, and the probability of so large
    a difference between two that are equally good."""

    value: float
    error: float
    """One standard error."""
    low: float
    high: float
    p: float


class Worse(NamedTuple):
    """A candidate that is less accurate than another, and not by chance: `p` is Holm's over all pairs."""

    name: str
    than: str
    p: float


class Cheapest(NamedTuple):
    """What to train. `difference` is by how much the best is more accurate; it may be the `chosen` one."""

    chosen: Candidate
    best: Candidate
    difference: Difference
    worse: list[Worse]
    pairs: int
    """How many pairs were compared."""
    of_one_seed: bool
    """Nothing is known of other seeds: networks were compared, not ways to train."""


def choose_answer(candidates: Sequence[Candidate], groups: GroupNumbers | None = None) -> Cheapest:
    """The cheapest candidate whose difference from the most accurate one is at most one standard error (Breiman and
    others, Classification and Regression Trees, 1984). The best of several is the luckiest too: its difference is a
    little too large, and the interval was measured with that (tests/test_cheapest.py).

    With `groups` of validation pictures that belong together, what is counted are these. Seeds vary alike for all
    candidates: those that have one are given the variance of the others.

    Raises:
      ValueError: if there is no candidate, or they have not judged the same number of pictures.
    """
    if not candidates or len({candidate.right.shape[1] for candidate in candidates}) > 1:
        raise ValueError(f"{len(candidates)} candidates: there must be one, and all must have judged the same pictures")
    seeds = vary_seeds(candidates)
    best = max(candidates, key=lambda candidate: (candidate.accuracy, -candidate.seconds))
    apart = {candidate.name: measure_difference(best, candidate, seeds, groups) for candidate in candidates}
    as_good = [one for one in candidates if one is best or apart[one.name].value <= apart[one.name].error]
    chosen = min(as_good, key=lambda candidate: candidate.seconds)
    names = list(combinations(candidates, 2))
    adjusted = holm([measure_difference(*pair, seeds, groups).p for pair in names])
    worse = [_order(*pair, p) for pair, p in zip(names, adjusted, strict=True) if p < SIGNIFICANT]
    return Cheapest(chosen, best, apart[chosen.name], worse, len(names), not seeds.freedom)


def _order(one: Candidate, other: Candidate, p: float) -> Worse:
    worse, better = sorted((one, other), key=lambda candidate: candidate.accuracy)
    return Worse(worse.name, better.name, p)


class SeedVariance(NamedTuple):
    """The variance of the accuracies of networks that differ by their seed, and how many differences say so."""

    value: float
    freedom: int


def vary_seeds(candidates: Sequence[Candidate]) -> SeedVariance:
    """That of all candidates with several seeds together; none if there are none."""
    several = [candidate.right for candidate in candidates if len(candidate.right) > 1]
    freedom = sum(len(right) - 1 for right in several)
    return SeedVariance(sum((len(r) - 1) * vary_heads(r) for r in several) / max(freedom, 1), freedom)


def find_design_effect(
    apart: Float[np.ndarray, " n"], sums: Float[np.ndarray, " groups"], sizes: Int[np.ndarray, " groups"]
) -> float:
    """How many pictures of a group count as one: by how much the variance of the mean difference is larger than if
    pictures were independent (Kish, Survey Sampling, 1965); from 1 to the mean size of the groups."""
    alone = float(np.square(apart - apart.mean()).sum())
    together = float(np.square(sums - sizes * apart.mean()).sum())
    return min(max(together / alone, 1.0), float(sizes.mean())) if alone else 1.0


def measure_difference(
    one: Candidate, other: Candidate, seeds: SeedVariance, groups: GroupNumbers | None = None
) -> Difference:
    """By how much `one` is more accurate than `other`, each on average over its seeds.

    The variance is that over pictures, or their groups, of paired differences, with two more that are 1 and -1
    (Bonett and Price, Adjusted Wald intervals for paired data, 2012), which have the size of `find_design_effect`,
    and that of seeds. The interval and p are Student's with Satterthwaite's degrees of freedom; between two networks
    p is at least McNemar's.
    """
    apart = one.right.mean(axis=0) - other.right.mean(axis=0)
    own = number_groups(len(apart), groups)
    sums, sizes = np.bincount(own, apart), np.bincount(own)
    units = len(sizes)
    more = find_design_effect(apart, sums, sizes)
    sums, sizes = np.append(sums, [more, -more]), np.append(sizes, [more, more])
    middle = sums.sum() / sizes.sum()
    of_pictures = float(np.square(sums - sizes * middle).sum() / sizes.sum() ** 2)
    of_seeds = seeds.value * (1 / len(one.right) + 1 / len(other.right))
    error = math.sqrt(of_pictures + of_seeds)
    freedom = error**4 / (of_pictures**2 / max(units - 1, 1) + of_seeds**2 / max(seeds.freedom, 1))
    side = float(stdtrit(freedom, TWO_SIDED)) * error
    p = 2 * float(stdtr(freedom, -abs(middle) / error))
    if groups is None and len(one.right) == len(other.right) == 1:
        p = max(p, mcnemar(one.right[0], other.right[0]))
    return Difference(float(apart.mean()), error, middle - side, middle + side, p)
