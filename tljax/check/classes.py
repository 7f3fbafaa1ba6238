"""What is wrong with classes: too few pictures, very uneven ones, none in a part, and two that heads take for one."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tljax.check.result import Verdict
from tljax.data.layouts import join_names
from tljax.report.classes import FEWEST_OF_A_SHARE
from tljax.training.calibration import Labels, is_uneven
from tljax.training.ridge import HeldOut

# With fewer pictures a class is hardly learned; with fewer to be judged on, its accuracy says next to nothing.
FEW_OF_CLASS = {"train": 20, "validation": FEWEST_OF_A_SHARE, "test": FEWEST_OF_A_SHARE}
# Two classes are alike if a picture of one has the higher score for it than a picture of the other no more often than
# this, where guessing has a half: as is believed with `WRONG`, the probability that it is false for any pair.
SAME_CLASS, WRONG = 0.6, 0.05
# The most pairs that are looked at: those whose mean scores differ least.
MOST_COMPARED = 1_000

Counts = Mapping[str, Mapping[str, int]]


class ClassPair(NamedTuple):
    """How well held-out heads tell two classes apart: the probability that a picture of `one` gets a higher score for
    it, less that for the other, than a picture of `other` (AUROC), and what it is at most."""

    one: int
    other: int
    told_apart: float
    at_most: float


def judge_classes(counts: Counts, held_out: HeldOut, labels: Labels, class_names: Sequence[str]) -> list[Verdict]:
    """The lines about classes, the worst first. `counts` are the pictures by part (train, validation, test; others do
    not count) and class; `held_out` are scores of pictures with these `labels`."""
    parts = {part: counts[part] for part in FEW_OF_CLASS if any(counts.get(part, {}).values())}
    found = [
        _list_missing(parts, class_names),
        _list_empty(parts, class_names),
        _list_alike(find_alike(held_out, labels), class_names),
        _list_few(parts, class_names),
        _describe_uneven(parts.get("train", {})),
    ]
    return [verdict for verdict in found if verdict.number]


def _list_missing(parts: Counts, class_names: Sequence[str]) -> Verdict:
    """Classes that are judged and not learned."""
    names = [
        name
        for name in class_names
        if "train" in parts and not parts["train"].get(name) and any(part.get(name) for part in parts.values())
    ]
    text = f"no pictures in train, and some elsewhere: {join_names(names)}; nothing can be learned about them: add some"
    return Verdict("class_empty", len(names), text)


def _list_empty(parts: Counts, class_names: Sequence[str]) -> Verdict:
    """Classes that are nowhere, or learned and not judged."""
    others = [part for part in parts if part != "train"]
    here = {part: [name for name in class_names if not parts[part].get(name)] for part in others}
    nowhere = [name for name in class_names if parts and not any(part.get(name) for part in parts.values())]
    here = {part: [name for name in names if name not in nowhere] for part, names in here.items()}
    texts = [f"none in {part}: {join_names(names)}" for part, names in here.items() if names]
    texts += [f"no pictures at all: {join_names(nowhere)}"] if nowhere else []
    number = len({name for names in here.values() for name in names} | set(nowhere))
    return Verdict("class_empty", number, f"{'; '.join(texts)}: what is not there is not measured")


def _list_few(parts: Counts, class_names: Sequence[str]) -> Verdict:
    few = {
        part: [f"{name} {counts[name]}" for name in class_names if 0 < counts.get(name, 0) < FEW_OF_CLASS[part]]
        for part, counts in parts.items()
    }
    texts = [f"fewer than {FEW_OF_CLASS[part]} in {part}: {join_names(names)}" for part, names in few.items() if names]
    names = {text.rsplit(" ", 1)[0] for texts_of_part in few.values() for text in texts_of_part}
    return Verdict("class_few", len(names), f"{'; '.join(texts)}: add pictures of them")


def _describe_uneven(counts: Mapping[str, int]) -> Verdict:
    there = {name: count for name, count in counts.items() if count}
    if not there or not is_uneven(there.values()):
        return Verdict("class_uneven", 0, "")
    least, most = min(there, key=there.__getitem__), max(there, key=there.__getitem__)
    text = (
        f"{most} has {there[most]:,} pictures in train, {least} {there[least]:,}: an accuracy says little about rare "
        "classes; read those of each class, and the balanced one, or try --config.class_weights=balanced"
    )
    return Verdict("class_uneven", len(there), text)


def _list_alike(pairs: Sequence[ClassPair], class_names: Sequence[str]) -> Verdict:
    names = [f"{class_names[pair.one]} and {class_names[pair.other]}" for pair in pairs]
    text = (
        f"a solved head hardly tells {join_names(names, '; ', 5)} apart better than by guessing: are they one class, "
        "or are their labels mixed up?"
    )
    return Verdict("class_alike", len(pairs), text)


def find_alike(held_out: HeldOut, labels: Labels) -> list[ClassPair]:
    """The pairs of classes that held-out heads do not tell apart, the most alike first.

    A pair is alike if its AUROC is at most `SAME_CLASS`, with `WRONG` shared among all pairs (Bonferroni). The variance
    is that of DeLong et al. (1988), over groups as in Obuchowski (1997), with Student's t for few of them.
    """
    own = labels[held_out.rows]
    classes = np.flatnonzero(np.bincount(own, minlength=held_out.scores.shape[1]) > 1)
    number = len(classes) * (len(classes) - 1) // 2
    means = np.stack([held_out.scores[own == one].mean(axis=0) for one in classes]) if number else np.zeros((0, 0))
    pairs = [
        (means[i, one] - means[i, other] - means[j, one] + means[j, other], one, other)
        for (i, one), (j, other) in combinations(enumerate(classes.tolist()), 2)
    ]
    groups = held_out.rows if held_out.groups is None else held_out.groups
    members = {one: np.flatnonzero(own == one) for one in classes.tolist()}
    found = [
        ClassPair(
            one, other, *_compare(held_out.scores, members[one], members[other], (one, other), groups, WRONG / number)
        )
        for _, one, other in sorted(pairs)[:MOST_COMPARED]
    ]
    return sorted((pair for pair in found if pair.at_most <= SAME_CLASS), key=lambda pair: pair.told_apart)


def _compare(
    scores: Float[np.ndarray, "n classes"],
    one: np.ndarray,
    other: np.ndarray,
    pair: tuple[int, int],
    groups: np.ndarray,
    wrong: float,
) -> tuple[float, float]:
    """The AUROC of two classes with the pictures `one` and `other`, and its upper end at this level."""
    from scipy.special import stdtrit

    better, worse = (scores[rows, pair[0]] - scores[rows, pair[1]] for rows in (one, other))
    above = _count_below(better, worse) / len(worse)
    below = 1 - _count_below(worse, better) / len(better)
    share = float(above.mean())
    parts = np.concatenate([(above - share) / len(one), (below - share) / len(other)])
    _, places = np.unique(groups[np.concatenate([one, other])], return_inverse=True)
    sums = np.bincount(places, parts)
    freedom = max(min(len(np.unique(groups[rows])) for rows in (one, other)) - 1, 1)
    # One more picture that is half right in each class: else the variance would be 0 where all are right.
    deviation = np.sqrt(np.square(sums).sum() * (freedom + 1) / freedom + 0.25 / min(len(one), len(other)) ** 2)
    return share, share + float(stdtrit(freedom, 1 - wrong)) * float(deviation)


def _count_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many `others` are below each value; equal ones count half."""
    ordered = np.sort(others)
    counts: np.ndarray = (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right")) / 2
    return counts
