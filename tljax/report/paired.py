"""Whether one trained network is better than another on the same pictures, or that may be chance."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr

from tljax.data.layouts import join_names
from tljax.report.choice import Right
from tljax.text import count_words, printable

# With a smaller p, a difference is not put down to chance.
SIGNIFICANT = 0.05
# How often one of two equal networks comes out better where its epoch was chosen on the pictures on which both are
# compared; at most 0.05 where none was. Measured by `benchmarks/equal_networks.py`.
CHOSEN_BETTER = "3 to 19%"


class Pair(NamedTuple):
    """Two networks on the same pictures. `better` is right on more of them or, if both are right on as many, is the
    later one."""

    better: str
    worse: str
    better_only: int
    """The number of pictures on which `better` alone is right."""
    worse_only: int
    p: float
    adjusted: float
    """`p` after Holm's correction for all pairs that were compared."""


class Compared(NamedTuple):
    """The pictures on which networks are compared."""

    split: str
    number: int
    chose: Collection[str] = ()
    """The networks whose epoch was chosen on them."""
    grouped: bool = False
    """Whether some of them belong together."""


def mcnemar(first: Right, second: Right) -> float:
    """The p of McNemar's exact test, two-sided: how probable so large a difference is between two networks that are
    equally good. `first` and `second` say which pictures each is right on.

    Only the pictures on which one alone is right count; each network would have half of them (McNemar, Note on the
    sampling error of the difference between correlated proportions, 1947). Without any, p is 1.

    Raises:
      ValueError: if they are not as many.
    """
    return _binomial(*_count_single(first, second))


def _count_single(first: Right, second: Right) -> tuple[int, int]:
    """On how many pictures the first alone is right, and the second alone."""
    if first.shape != second.shape:
        raise ValueError(f"{len(first):,} and {len(second):,} pictures: both networks must have answered the same ones")
    return int((first & ~second).sum()), int((second & ~first).sum())


def _binomial(first: int, second: int) -> float:
    """How probable it is that tosses of a fair coin are divided at least as unevenly."""
    return min(1.0, 2 * float(bdtr(min(first, second), first + second, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The `p_values` of several tests, adjusted so that a chance of 5% holds for all of them together (Holm, A simple
    sequentially rejective multiple test procedure, 1979)."""
    adjusted, most, left = [1.0] * len(p_values), 0.0, len(p_values)
    for place in np.argsort(p_values, kind="stable"):
        most = max(most, min(1.0, left * p_values[place]))
        adjusted[place] = most
        left -= 1
    return adjusted


def compare(rights: Mapping[str, Right]) -> list[Pair]:
    """All pairs of networks, in the order of `rights`, which says which pictures each of them is right on.

    Raises:
      ValueError: with both names, if two of them have not as many pictures.
    """
    names, counts = list(combinations(rights, 2)), []
    for first, second in names:
        try:
            counts.append(_count_single(rights[first], rights[second]))
        except ValueError as error:
            raise ValueError(f"{first} and {second}: {error}") from error
    p_values = [_binomial(*count) for count in counts]
    tests = zip(names, counts, p_values, holm(p_values), strict=True)
    return [_order(*test) for test in tests]


def _order(names: tuple[str, str], counts: tuple[int, int], p: float, adjusted: float) -> Pair:
    (first, second), (first_only, second_only) = names, counts
    if first_only > second_only:
        return Pair(first, second, first_only, second_only, p, adjusted)
    return Pair(second, first, second_only, first_only, p, adjusted)


def describe(pairs: Sequence[Pair], compared: Compared) -> list[str]:
    """What a comparison says, in sentences: on which pictures, what chose an epoch on them, then one for each pair.
    Empty without a pair."""
    if not pairs:
        return []
    return [_introduce(compared), *(printable(_describe_pair(pair, len(pairs), compared)) for pair in pairs)]


def _introduce(compared: Compared) -> str:
    where, chose = count_words(compared.number, f"{compared.split} picture"), list(compared.chose)
    if chose:
        where += f", which also chose the epoch{'s' * (len(chose) > 1)} of {join_names(chose)}"
    groups = "; it counts pictures, not groups, whose pictures are often right or wrong together: p is too small"
    about = "it compares trained networks of one seed, not methods"
    return printable(f"McNemar's exact test on the {where}: {about}{groups * compared.grouped}")


def _describe_pair(pair: Pair, pairs: int, compared: Compared) -> str:
    if not pair.better_only:
        return f"{pair.better} and {pair.worse} are right on the same pictures"
    wrong = (
        f"and wrong on {pair.worse_only:,} that it gets right"
        if pair.worse_only
        else "and wrong on none that it gets right"
    )
    counts = (
        f"{pair.better} is right on {count_words(pair.better_only, 'picture')} that {pair.worse} gets wrong, {wrong}"
    )
    if pair.better_only == pair.worse_only:
        return f"{counts}: as good on these pictures"
    holm_over = f", Holm over {pairs} pairs" * (pairs > 1)
    if pair.adjusted >= SIGNIFICANT:
        return f"{counts}: that may be chance (p {_write(pair.adjusted)}{holm_over})"
    return f"{counts}: better, and not by chance (p {_write(pair.adjusted)}{holm_over}){_warn(pair, compared)}"


def _warn(pair: Pair, compared: Compared) -> str:
    """What to subtract from a verdict whose pictures chose the epoch of the better one alone."""
    if pair.better not in compared.chose or pair.worse in compared.chose:
        return ""
    return (
        f"; the epoch of {pair.better} was chosen on these pictures: of two equal networks one comes out 'better' in "
        f"{CHOSEN_BETTER} of such cases"
    )


def _write(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"
