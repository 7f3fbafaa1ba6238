"""What a network makes of each class: precision, recall and F1, confusions, and thresholds of two classes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from tljax.training.calibration import accuracy_interval

# With fewer pictures a share has no interval: one of 95% would hold in as few as 79 of 100 cases. From so many on it
# holds in 87 or more, 95 on average (docs/numbers.md).
FEWEST_OF_A_SHARE = 5

Classes = Int[np.ndarray, " n"]


class Share(NamedTuple):
    """A share of some pictures (0 to 1), and its interval of 95%; None and None for few pictures."""

    value: float
    low: float | None
    high: float | None


class ClassScore(NamedTuple):
    """What a network makes of one class. What would be 0 of 0 is None."""

    support: int
    """The number of pictures of the class."""
    predicted: int
    """The number of pictures that it is predicted for."""
    precision: Share | None
    """Which share of `predicted` are of the class."""
    recall: Share | None
    """Which share of `support` are predicted right."""
    f1: Share | None


def score_classes(labels: Classes, predicted: Classes, classes: int) -> list[ClassScore]:
    """Precision, recall and F1 of each of so many `classes`. `predicted` is -1 where a picture has none of them.

    Raises:
      ValueError: if a label or a prediction is no class, or there are not as many of both.
    """
    _check(labels, predicted, classes)
    support = np.bincount(labels, minlength=classes)
    taken = np.bincount(predicted[predicted >= 0], minlength=classes)
    right = np.bincount(labels[labels == predicted], minlength=classes)
    return [score_class(int(n), int(k), int(hits)) for n, k, hits in zip(support, taken, right, strict=True)]


def _check(labels: Classes, predicted: Classes, classes: int) -> None:
    if labels.shape != predicted.shape:
        raise ValueError(f"{len(labels):,} labels and {len(predicted):,} predictions: each picture must have both")
    for name, values, least in (("label", labels, 0), ("prediction", predicted, -1)):
        if values.size and not least <= values.min() <= values.max() < classes:
            wrong = values[(values < least) | (values >= classes)][0]
            raise ValueError(f"a {name} is {wrong}; with {classes:,} classes it must be from {least} to {classes - 1}")


def score_class(support: int, predicted: int, right: int) -> ClassScore:
    """The score of a class of so many pictures (`support`), which is predicted for so many, of which so many are of it
    (`right`)."""
    recall, precision = _share(right, support), _share(right, predicted)
    return ClassScore(support, predicted, precision, recall, _f1(_share(right, support + predicted - right)))


def _share(part: int, whole: int) -> Share | None:
    """A share with Wilson's interval."""
    if not whole:
        return None
    low, high = accuracy_interval(part / whole, whole) if whole >= FEWEST_OF_A_SHARE else (None, None)
    return Share(part / whole, low, high)


def _f1(overlap: Share | None) -> Share | None:
    """F1, from which share of the pictures that are of a class, or predicted so, are both. F1 = 2x / (1 + x) rises with
    this share x, so the ends of its interval become those of F1's: Lam, Gopal and Qian, Confidence intervals for the F1
    score: a comparison of four methods (2023), "Wilson indirect"."""
    if overlap is None:
        return None
    value, low, high = (None if x is None else 2 * x / (1 + x) for x in overlap)
    assert value is not None
    return Share(value, low, high)


class Confusion(NamedTuple):
    """How many pictures of the class `true` are taken for the class `taken_for`, and which share of the former's
    pictures that is."""

    true: int
    taken_for: int
    pictures: int
    share: float


def most_confused(labels: Classes, predicted: Classes, classes: int, most: int = 10) -> list[Confusion]:
    """The most frequent confusions, at most so many, the most frequent one first; the order of the classes decides
    between those that are as frequent. A picture without a prediction (-1) is not confused.

    Raises:
      ValueError: as `score_classes`.
    """
    _check(labels, predicted, classes)
    support = np.bincount(labels, minlength=classes)
    wrong = (labels != predicted) & (predicted >= 0)
    cells, counts = np.unique(labels[wrong].astype(np.int64) * classes + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    pairs = [(*divmod(int(cells[i]), classes), int(counts[i])) for i in order]
    return [Confusion(true, taken_for, n, n / int(support[true])) for true, taken_for, n in pairs]


def top_k_accuracy(labels: Classes, ranked: Int[np.ndarray, "n ranks"], k: int) -> float | None:
    """Which share of the pictures has its label among the first `k` of its `ranked` classes, the most probable one
    first; None without a picture."""
    return float((ranked[:, :k] == labels[:, None]).any(axis=1).mean()) if len(labels) else None


class PrecisionRecall(NamedTuple):
    """Precision and recall of the positive class where pictures with at least a threshold are called positive, for each
    threshold that makes a difference, the highest one first."""

    thresholds: Float[np.ndarray, " thresholds"]
    precision: Float[np.ndarray, " thresholds"]
    recall: Float[np.ndarray, " thresholds"]

    @property
    def f1(self) -> Float[np.ndarray, " thresholds"]:
        """0 where both are."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)

    @property
    def average_precision(self) -> float:
        """The mean of the precisions, each counted by how much recall it adds, as scikit-learn has it."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))


def precision_recall_curve(
    scores: Float[np.ndarray, " n"], is_positive: Bool[np.ndarray, " n"]
) -> PrecisionRecall | None:
    """Precision and recall at every threshold. `scores` are the probabilities of the positive class. None where no
    picture is positive: there is no recall.

    Raises:
      ValueError: if a score is no finite number, or there are not as many of both.
    """
    if scores.shape != is_positive.shape:
        raise ValueError(f"{len(scores):,} scores and {len(is_positive):,} labels: each picture must have both")
    if bad := int((~np.isfinite(scores)).sum()):
        raise ValueError(f"{bad:,} of {len(scores):,} scores are no finite numbers; probabilities are from 0 to 1")
    if not is_positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order], np.cumsum(is_positive[order])
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    return PrecisionRecall(falling[last].astype(np.float64), hits[last] / (last + 1), hits[last] / hits[-1])


class Threshold(NamedTuple):
    """From which probability on a picture is called positive, and what comes of it."""

    value: float
    precision: float
    recall: float
    f1: float


# What is to be said beside a threshold that was chosen on the pictures that it is measured on.
CHOSEN_THRESHOLD = "the threshold was chosen on these pictures, so its precision, recall and F1 are too high for others"


def choose_threshold(curve: PrecisionRecall) -> Threshold:
    """The threshold with the best F1, of several the highest, as `read_threshold` gives it."""
    return read_threshold(curve, int(curve.f1.argmax()))


def read_threshold(curve: PrecisionRecall, place: int) -> Threshold:
    """The threshold at a `place` of a curve, ready to copy: the shortest number with which the same pictures are called
    positive. With the last one all of them are, as with 0."""
    precision, recall, f1 = (float(row[place]) for row in (curve.precision, curve.recall, curve.f1))
    high = float(curve.thresholds[place])
    is_last = place == len(curve.thresholds) - 1
    value = min(high, 0.0) if is_last else _shorten(float(curve.thresholds[place + 1]), high)
    return Threshold(value, precision, recall, f1)


def _shorten(low: float, high: float) -> float:
    """The shortest number above `low` and at most `high`, near the middle if that is as short."""
    rounded = (round(value, digits) for digits in range(1, 18) for value in ((low + high) / 2, high))
    return next((value for value in rounded if low < value <= high), high)
