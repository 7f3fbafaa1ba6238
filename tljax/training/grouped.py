"""Pictures that belong together, where heads are solved without them and where accuracies are believed: which are left
out at once, and how many pictures they are worth. Everything here is NumPy."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from tljax.training.calibration import TWO_SIDED, Labels
from tljax.trees import Row

GroupNumbers = Int[np.ndarray, " n"]


def number_groups(pictures: int, groups: GroupNumbers | None) -> GroupNumbers:
    """The groups of so many pictures by numbers from 0; without groups each picture is one."""
    return np.arange(pictures) if groups is None else np.unique(groups, return_inverse=True)[1]


class LeftOut(NamedTuple):
    """Rows of pictures, each of which is left out at once, and which of the pictures are judged there."""

    pictures: Int[np.ndarray, "k members"]
    judged: Bool[np.ndarray, "k members"]


class Shares(NamedTuple):
    """Groups with their pictures and their classes, and in how many groups each class is."""

    members: list[Int[np.ndarray, " m"]]
    classes: list[Int[np.ndarray, " c"]]
    holders: Int[np.ndarray, " classes"]


def share_out(labels: Labels, groups: GroupNumbers) -> Shares:
    """The groups of some pictures, in the order of their numbers."""
    _, own = np.unique(groups, return_inverse=True)
    order = np.argsort(own, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(own[order])) + 1)
    pairs = np.unique(np.stack([own, labels]), axis=1)
    classes = np.split(pairs[1], np.flatnonzero(np.diff(pairs[0])) + 1)
    return Shares(members, classes, np.bincount(pairs[1]))


def leave_each(labels: Labels, groups: GroupNumbers, weights: Float[np.ndarray, " n"]) -> list[LeftOut]:
    """Each group by itself. Judged are pictures of classes that other groups have, too."""
    shares = share_out(labels, groups)
    batches = [(rows, np.ones(len(rows), bool)) for rows in shares.members if _is_rest(weights, rows)]
    return _by_size(labels, batches, shares.holders)


def leave_balanced(
    labels: Labels, groups: GroupNumbers, weights: Float[np.ndarray, " n"], most: float
) -> list[LeftOut]:
    """Groups that are left out at once, so that all classes are as frequent in the rest as before, nearly: a group and,
    for each class that it lacks, one more that has it. Every group is judged once, until `most` pictures are.

    Where each picture is a group, these are `ridge.form_groups`; a group of all classes is left out alone.
    """
    shares = share_out(labels, groups)
    done, batches, judged = np.zeros(len(shares.members), bool), [], 0
    for batch in _draw_batches(shares, done):
        rows = np.concatenate([shares.members[group] for group in batch])
        fresh = np.repeat(~done[batch], [len(shares.members[group]) for group in batch])
        done[batch] = True
        if _is_rest(weights, rows):
            batches.append((rows, fresh))
            judged += int((shares.holders[labels[rows[fresh]]] > 1).sum())
        if judged >= most:
            break
    return _by_size(labels, batches, shares.holders)


def _is_rest(weights: Float[np.ndarray, " n"], rows: np.ndarray) -> bool:
    """Whether a head can be solved without these rows: some that count are left."""
    return bool(weights.any()) and float(weights.sum() - weights[rows].sum()) > 1e-9 * float(weights.sum())


def _draw_batches(shares: Shares, done: Bool[np.ndarray, " groups"]) -> Iterator[list[int]]:
    """Batches of groups, the first of each not `done` yet: who takes one marks it."""
    drawn = np.random.default_rng(0).permutation(len(done)).tolist()
    shared = np.flatnonzero(shares.holders > 1).tolist()
    queues = {label: Queue([], 0, 0) for label in shared}
    for group in drawn:
        for label in shares.classes[group].tolist():
            if label in queues:
                queues[label].groups.append(group)
    for first in drawn:
        if not done[first] and (shares.holders[shares.classes[first]] > 1).any():
            batch, taken = [first], np.zeros(len(shares.holders), int)
            taken[shares.classes[first]] += 1
            for label in shared:
                if not taken[label]:
                    queues[label], group = _find_next(shares, queues[label], done, taken)
                    batch += group
                    for own in group:
                        taken[shares.classes[own]] += 1
            yield batch


class Queue(NamedTuple):
    """The groups that have a class. Up to `fresh` all are done, and of these `again` have been taken once more."""

    groups: list[int]
    fresh: int
    again: int


def _find_next(shares: Shares, queue: Queue, done: np.ndarray, taken: np.ndarray) -> tuple[Queue, list[int]]:
    """The next group of a queue that is not done or else, in turn, one that is; none if each of them is the last of a
    class beside those `taken`."""
    groups, fresh, again = queue

    def may_go(group: int) -> bool:
        its = shares.classes[group]
        return bool(((taken[its] + 1 < shares.holders[its]) | (shares.holders[its] == 1)).all())

    while fresh < len(groups) and done[groups[fresh]]:
        fresh += 1
    found = next((group for group in islice(groups, fresh, None) if not done[group] and may_go(group)), None)
    if found is not None:
        return Queue(groups, fresh, again), [found]
    turns = (again + i for i in range(len(groups)))
    turn = next((turn for turn in turns if may_go(groups[turn % len(groups)])), None)
    if turn is None:
        return Queue(groups, fresh, again), []
    return Queue(groups, fresh, turn + 1), [groups[turn % len(groups)]]


def _by_size(
    labels: Labels, batches: list[tuple[np.ndarray, np.ndarray]], holders: Int[np.ndarray, " classes"]
) -> list[LeftOut]:
    """Batches of rows and which of them are judged (bool), where another group has their class: those of one size
    together."""
    found = []
    for size in sorted({len(rows) for rows, _ in batches}):
        several = [batch for batch in batches if len(batch[0]) == size]
        rows, judged = (np.stack(parts) for parts in zip(*several, strict=True))
        found.append(LeftOut(rows, judged & (holders[labels[rows]] > 1)))
    return found


def describe_worth(right: Bool[np.ndarray, " n"], groups: GroupNumbers | None) -> Row:
    """What a summary says about the groups of pictures that an accuracy is measured on: their number, and how many
    pictures they are worth (`count_worth`), as `worth`. Empty without groups."""
    if groups is None:
        return {}
    pictures = min(count_worth(right, groups, np.ones(len(right)), TWO_SIDED), len(right))
    return {"worth": {"groups": len(np.unique(groups)), "pictures": pictures}}


def join_groups(one: GroupNumbers, other: GroupNumbers) -> GroupNumbers:
    """Groups of pictures that hang together by either of two numbers, of which both begin at 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = int(one.max(initial=0) + other.max(initial=0)) + 2
    ends = (one, int(one.max(initial=0)) + 1 + other)
    _, joined = connected_components(coo_array((np.ones(len(one)), ends), shape=(nodes, nodes)), directed=False)
    return np.asarray(joined[one])


def count_worth(
    right: Bool[np.ndarray, " n"], groups: GroupNumbers, weights: Float[np.ndarray, " n"], level: float
) -> float:
    """How many pictures that have nothing to do with each other say as much about an accuracy as these, of which those
    of a group are right or wrong together.

    The variance is that of the sums over groups (Kish, Survey Sampling, 1965), with one more group that is half right:
    else it would be 0 where all are right. Few groups do not say much about their variance: Student's t instead of the
    normal quantile at this `level` (Korn and Graubard, 1998).
    """
    from scipy.special import ndtri, stdtrit

    weights = weights if weights.any() else np.ones(len(weights))
    _, own = np.unique(groups, return_inverse=True)
    number = int(own.max()) + 1
    more = weights.sum() / number
    share = (weights @ right + more / 2) / (weights.sum() + more)
    sums = np.append(np.bincount(own, weights * (right - share)), more * (0.5 - share))
    variance = (number + 1) / number * np.square(sums).sum() / (weights.sum() + more) ** 2
    t = stdtrit(max(number - 1, 1), level)
    return float(share * (1 - share) / variance * (ndtri(level) / t) ** 2)
