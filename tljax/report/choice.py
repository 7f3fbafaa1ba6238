"""Which pictures a page shows: pure functions of what was predicted."""

import numpy as np
from jaxtyping import Bool, Float, Int

ChosenRows = Int[np.ndarray, " k"]
Right = Bool[np.ndarray, " n"]


def most_confident_mistakes(probability: Float[np.ndarray, " n"], right: Right, most: int) -> ChosenRows:
    """The rows of up to so many wrong predictions with the highest `probability`, the highest first. Of equal ones the
    first rows come first, and a probability that is no number comes last."""
    wrong = np.flatnonzero(~right)
    chosen: ChosenRows = wrong[np.argsort(-probability[wrong], kind="stable")[:most]]
    return chosen


def least_confident_right(probability: Float[np.ndarray, " n"], right: Right, most: int) -> ChosenRows:
    """The rows of up to so many right predictions with the lowest `probability`, the lowest first. Of equal ones the
    first rows come first, and a probability that is no number comes last."""
    hits = np.flatnonzero(right)
    chosen: ChosenRows = hits[np.argsort(probability[hits], kind="stable")[:most]]
    return chosen


def changed(before_right: Right, after_right: Right) -> tuple[ChosenRows, ChosenRows]:
    """The rows that a later stage fixed, wrong before and right after, and those that it broke."""
    return np.flatnonzero(~before_right & after_right), np.flatnonzero(before_right & ~after_right)


def spread_over_classes(labels: Int[np.ndarray, " n"], most: int) -> ChosenRows:
    """Up to so many rows of as many classes as can be: the first row of each class, then the second, and so on. Of more
    classes, some are chosen, spread over all of them. The rows are ordered by class."""
    classes = np.unique(labels)
    if len(classes) > most:
        classes = classes[np.linspace(0, len(classes) - 1, most).astype(int)]
    of_class = {label: np.flatnonzero(labels == label)[:most] for label in classes}
    in_turn = sorted((place, label, row) for label, rows in of_class.items() for place, row in enumerate(rows))
    return np.array([row for _, row in sorted((label, row) for _, label, row in in_turn[:most])], int)
