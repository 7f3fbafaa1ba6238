"""How far a trained network's probabilities can be believed: a temperature, and sets of labels with a known coverage.

Both are fitted on pictures that the network was not trained on. Everything here is NumPy in float64.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

# With fewer pictures than this no temperature is fitted: it would say more about them than about the network.
FEWEST = 50
# Where the fitted temperature may lie.
TEMPERATURES = (0.05, 20.0)
# The parts into which pictures are divided to try a temperature on those that it was not fitted on.
FOLDS = 10
# The parts of a normal distribution below the ends of intervals of 95% with one end, and with two.
ONE_SIDED, TWO_SIDED = 0.95, 0.975
BINS = 15
# Sets of labels of this size and larger are counted together.
LARGEST_SIZE = 10
# Where the largest class has more than so many times the pictures of the smallest, an accuracy alone says too little.
UNEVEN = 2

Logits = Float[np.ndarray, "n classes"]
Labels = Int[np.ndarray, " n"]
Probabilities = Float[np.ndarray, "n classes"]


def softmax(logits: Logits, temperature: float = 1.0) -> Probabilities:
    """Probabilities of logits that are divided by a temperature first."""
    return np.exp(log_softmax(np.asarray(logits, np.float64) / temperature))


def log_softmax(z: Logits) -> Logits:
    """The logarithms of the probabilities of logits."""
    z = z - z.max(axis=1, keepdims=True)
    result: Logits = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return result


def find_best(scores: Float[np.ndarray, "n classes"], most: int) -> Int[np.ndarray, "n k"]:
    """The places of the highest scores of each row, the highest first; of equal ones, the first. There are `most`, or
    as many as there are classes."""
    left, rows = np.array(scores), np.arange(len(scores))
    # A sort of all scores takes ten times as long where there are 1,000.
    best = np.zeros((len(scores), min(most, scores.shape[1])), int)
    for column in best.T:
        column[:] = left.argmax(axis=1)
        left[rows, column] = -np.inf
    return best


def fit_temperature(logits: Logits, labels: Labels, default: float = 1.0) -> float:
    """The temperature with the least cross-entropy on these pictures; `default` if they are fewer than `FEWEST`.

    The method is Guo et al., On Calibration of Modern Neural Networks (2017), with one addition: one more picture, the
    mean of all, counts with its label drawn at random. Without it, a network that makes no mistake on these pictures
    would be declared certain of everything.
    """
    return _minimize(logits, labels) if len(labels) >= FEWEST else default


def _minimize(logits: Logits, labels: Labels) -> float:
    from scipy.optimize import minimize_scalar

    z, true = np.asarray(logits, np.float64), np.arange(len(labels))

    def cross_entropy(log_temperature: float) -> float:
        logs = log_softmax(z / math.exp(log_temperature))
        return float(-(logs[true, labels].sum() + logs.mean(axis=1).mean()))

    found = minimize_scalar(cross_entropy, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(math.exp(found.x))


class LogLoss(NamedTuple):
    """Mean cross-entropies (nats) of pictures with logits as they are, and with temperatures that were fitted on
    others."""

    without_temperature: float
    with_temperature: float


def choose_temperature(logits: Logits, labels: Labels, groups: Int[np.ndarray, " n"]) -> tuple[float, LogLoss | None]:
    """`fit_temperature`, or 1 if that makes no better probabilities, and what says so: None for fewer pictures than
    `FEWEST`. Pictures of one group, as copies of one are, are never fitted on and tried at once."""
    if len(labels) < FEWEST:
        return 1.0, None
    found = cross_validate(logits, labels, groups)
    return (_minimize(logits, labels) if found.with_temperature < found.without_temperature else 1.0), found


def cross_validate(logits: Logits, labels: Labels, groups: Int[np.ndarray, " n"]) -> LogLoss:
    """What temperatures are worth: each of `FOLDS` parts of the pictures is tried with the temperature of the others. A
    fixed seed draws the parts, of which each group of pictures lies in one."""
    names, places = np.unique(groups, return_inverse=True)
    folds = np.random.default_rng(0).permutation(len(names))[places] % FOLDS
    with_temperature = np.empty(len(labels))
    for fold in np.unique(folds):
        tried = folds == fold
        temperature = _minimize(logits[~tried], labels[~tried]) if not tried.all() else 1.0
        with_temperature[tried] = cross_entropies(logits[tried], labels[tried], temperature)
    return LogLoss(float(cross_entropies(logits, labels).mean()), float(with_temperature.mean()))


def cross_entropies(logits: Logits, labels: Labels, temperature: float = 1.0) -> Float[np.ndarray, " n"]:
    """The cross-entropy (nats) of each picture, whose logits are divided by a temperature first."""
    logs = log_softmax(np.asarray(logits, np.float64) / temperature)
    own: Float[np.ndarray, " n"] = -logs[np.arange(len(labels)), labels]
    return own


def true_probabilities(probabilities: Probabilities, labels: Labels) -> Float[np.ndarray, " n"]:
    """The probability of each picture's own label, in rising order: the scores from which `find_threshold` chooses."""
    return np.sort(probabilities[np.arange(len(labels)), labels])


def find_threshold(scores: Float[np.ndarray, " n"], coverage: float) -> float:
    """The least probability with which a label belongs to the set of a picture.

    For a picture drawn like those of `scores` (of `true_probabilities`), the set of all labels with at least this
    probability has the right one with a probability of at least `coverage` (0 to 1): split conformal prediction with
    the threshold score of Sadinle et al., Least Ambiguous Set-Valued Classifiers (2019).

    Raises:
      ValueError: if `coverage` is not between 0 and 1, or there are too few pictures to promise it.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage of {coverage:g} is none: it lies between 0 and 1, such as 0.95")
    # Rounding must not turn the 1 of 10 pictures and 0.9 into 0.
    rank = math.floor((len(scores) + 1) * (1 - coverage) + 1e-9)
    if rank < 1:
        most = math.floor(1000 * len(scores) / (len(scores) + 1)) / 1000
        raise ValueError(
            f"a coverage of {coverage:g} needs at least {math.ceil(1 / (1 - coverage) - 1 - 1e-9)} pictures that the "
            f"sets are fitted on; this run has {len(scores)}"
            f"{f'. A coverage of {most:g} at most can be promised' if most else ''}"
        )
    return float(scores[min(rank, len(scores)) - 1])


def choose_sets(probabilities: Probabilities, threshold: float) -> Bool[np.ndarray, "n classes"]:
    """Which labels are in the set of each picture: those of at least the threshold, and always the most likely one."""
    chosen = probabilities >= threshold
    chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] = True
    return chosen


def calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """The expected calibration error (Guo et al., 2017): by how much the highest probabilities differ from the share
    of right predictions, on average over `BINS` bins of equal width."""
    places, confidence, right = _put_in_bins(probabilities, labels)
    gaps = np.bincount(places, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def describe_bins(probabilities: Probabilities, labels: Labels) -> list[tuple[int, float, float]]:
    """The bins of `calibration_error` that have pictures: the number of these, the mean of their highest probabilities,
    and the share of right predictions. Bins of low probabilities come first."""
    places, confidence, right = _put_in_bins(probabilities, labels)
    return [
        (int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean()))
        for inside in (places == i for i in np.unique(places))
    ]


def _put_in_bins(
    probabilities: Probabilities, labels: Labels
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The bin of each picture, its highest probability, and whether that is the one of its label."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return np.minimum((confidence * BINS).astype(int), BINS - 1), confidence, right


def count_sizes(chosen: Bool[np.ndarray, "n classes"]) -> list[int]:
    """How many sets of labels (of `choose_sets`) have one label, two, and so on; the last number, the `LARGEST_SIZE`th
    if there are so many classes, counts larger sets too."""
    largest = min(LARGEST_SIZE, chosen.shape[1])
    sizes = np.minimum(chosen.sum(axis=1), largest)
    return [int(n) for n in np.bincount(sizes, minlength=largest + 1)[1:]]


def balanced_accuracy(confusions: Int[np.ndarray, "classes classes"]) -> float:
    """The mean over the classes of the share of their pictures that are predicted right. `confusions[i, j]` is how many
    pictures of class i were given the label j; a class without a picture does not count."""
    images = confusions.sum(axis=1)
    return float(np.mean(np.diag(confusions)[images > 0] / images[images > 0]))


def is_uneven(counts: Collection[int]) -> bool:
    """Whether the largest of some classes has more than `UNEVEN` times the pictures of the smallest."""
    return max(counts) > UNEVEN * min(counts)


def count_confusions(labels: Labels, predicted: Labels, classes: int) -> Int[np.ndarray, "classes classes"]:
    """How many pictures of class i (row) were given the label j (column)."""
    found = np.zeros((classes, classes), int)
    np.add.at(found, (labels, predicted), 1)
    return found


def class_accuracies(confusions: Int[np.ndarray, "classes classes"]) -> list[float | None]:
    """The share of each class's pictures that are predicted right; None for a class without a picture."""
    images = confusions.sum(axis=1)
    return [float(right / n) if n else None for right, n in zip(np.diag(confusions), images, strict=True)]


def accuracy_interval(accuracy: float, images: float) -> tuple[float, float]:
    """Between which accuracies a network with this `accuracy` on so many images lies: Wilson's interval of 95%
    (Wilson, Probable Inference, 1927)."""
    low, high = _wilson(accuracy, images, 1.96)
    return max(0.0, low), min(1.0, high)


def least_accuracy(accuracy: float, images: float) -> float:
    """What the accuracy of a network with this `accuracy` on so many images is at least: the lower end of Wilson's
    interval, of which 95% lie above."""
    return max(0.0, _wilson(accuracy, images, 1.645)[0])


def _wilson(accuracy: float, images: float, z: float) -> tuple[float, float]:
    """Both ends of Wilson's interval, `z` standard deviations wide on each side."""
    middle = accuracy + z * z / (2 * images)
    half = z * math.sqrt(accuracy * (1 - accuracy) / images + z * z / (4 * images * images))
    scale = 1 + z * z / images
    return (middle - half) / scale, (middle + half) / scale
