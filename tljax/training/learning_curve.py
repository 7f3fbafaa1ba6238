"""How the accuracy of a solved head grows with the labels, and what twice as many would bring.

Heads are solved from nested draws of up to half of the labels and from all of them, and judged on the same validation
pictures. To each draw a curve error = a + b n^-c is fitted, n being labels a class (Cortes and others, Learning curves:
asymptotic values and rate of convergence, 1993; Hestness and others, Deep learning scaling is predictable, empirically,
2017). It is carried on by a factor of two and no further. Everything here is NumPy in float64.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from tljax.training import ridge
from tljax.training.calibration import Labels, accuracy_interval
from tljax.training.grouped import GroupNumbers, number_groups
from tljax.training.ridge import ClassWeights, Features
from tljax.trees import Row

DRAWS = 20
# Shares of the labels: half of them, and each so much smaller than the one before, down to the least. Curves over more
# than three doublings said no more about the next one, and one or two labels a class bend them.
STEP, SMALLEST_PART = math.sqrt(0.5), 1 / 8
# With fewer labels a class there is no curve: half of them would be two.
FEWEST_LABELS = 5
# Where the exponent may lie: at 0.1 the next doubling brings nearly as much as the last one, at 1 half of it.
EXPONENTS = np.geomspace(0.1, 1.0, 20)
# Draws of validation pictures.
RESAMPLES = 200
# From more pictures only one draw of a size chooses its penalty, and the others take it. Where half of the labels are
# more, sizes are halved each time.
MANY_ROWS = 1000
# By which share of it a gain is wrong because no curve is exactly such a power.
INEXACT = 1 / 3
# How many standard deviations an interval of 95% has on each side.
NORMAL_SIDE = 1.96
# A curve is none if it misses the mean accuracy of a size by so much, and by so many standard deviations.
MISSED, MISSED_BY = 0.02, 4.0
# How many places of a curve are drawn.
CURVE_PLACES = 25


class Labelled(NamedTuple):
    """Pictures by what a head reads of them; `groups` says which belong together."""

    features: Features
    labels: Labels
    groups: GroupNumbers | None = None

    def take(self, rows: Int[np.ndarray, " k"]) -> "Labelled":
        """Some of the pictures."""
        groups = None if self.groups is None else self.groups[rows]
        return Labelled(self.features[rows], self.labels[rows], groups)


class Growth(NamedTuple):
    """Which validation pictures are right, by heads of nested draws and by that of all labels."""

    sizes: Float[np.ndarray, " sizes"]
    """Labels a class, rising; the last size is that of all."""
    right: Bool[np.ndarray, "draws sizes n"]
    """The last size is the same in each draw."""
    labels: Labels
    """Those of the validation pictures."""
    groups: GroupNumbers | None = None
    """Those of the validation pictures."""


class Curves(NamedTuple):
    """error = floor + fall * (size / all)^-exponent, `all` being the largest size that was measured."""

    floor: Float[np.ndarray, "*curves"]
    fall: Float[np.ndarray, "*curves"]
    exponent: Float[np.ndarray, "*curves"]

    def errors(self, parts: Float[np.ndarray, " sizes"]) -> Float[np.ndarray, "*curves sizes"]:
        """The errors at so many times all labels."""
        found: np.ndarray = self.floor[..., None] + self.fall[..., None] * parts ** -self.exponent[..., None]
        return found


class Point(NamedTuple):
    """An accuracy by labels a class; between `low` and `high` lie 95%."""

    labels: float
    accuracy: float
    low: float
    high: float


class Doubled(NamedTuple):
    """What twice as many labels would add to the accuracy, with an interval of 95%."""

    value: float
    low: float
    high: float


class Need(NamedTuple):
    """A class: how many of its validation `pictures` are right with half of the labels, on average over draws, and with
    all. It is `low` if it is below the mean of the classes beyond what is chance, and rises."""

    label: int
    half: float
    all: float
    pictures: int
    low: bool


class LearningCurve(NamedTuple):
    """Accuracy against labels a class."""

    measured: list[Point]
    """The mean over the draws of each size, with the range in which 95% of the draws lie, and the accuracy with all
    labels, with Wilson's interval."""
    fitted: list[Point]
    """The curve up to twice as many labels, and the band in which the accuracy of a head lies. Nothing where there is
    no curve."""
    twice: Doubled | None
    without: Literal["", "few", "flat", "bad"]
    """Why there is no curve: fewer than `FEWEST_LABELS` a class, no rise beyond chance, or no such power."""
    classes: list[Need]


def draw_nested(labels: Labels, groups: GroupNumbers | None, share: float, seed: int) -> Int[np.ndarray, " drawn"]:
    """The places, in rising order, of a share of each class, to half a picture, and of one picture at least: classes
    keep their proportions. A smaller share draws some of those that a larger one draws. With `groups` a share of the
    groups is drawn, each of which counts for the class that it has most of."""
    own, kinds = _find_kinds(labels, np.arange(len(labels)) if groups is None else groups)
    drawn = []
    for kind in np.unique(kinds):
        places = np.flatnonzero(kinds == kind)
        number = max(1, math.ceil(share * len(places) - 0.5))
        drawn.append(np.random.default_rng((seed, int(kind))).permutation(places)[:number])
    return np.flatnonzero(np.isin(own, np.concatenate(drawn)))


def describe_curve(curve: LearningCurve) -> Row:
    """The curve as JSON holds it."""
    measured, fitted, needs = (
        [each._asdict() for each in part] for part in (curve.measured, curve.fitted, curve.classes)
    )
    twice = curve.twice and curve.twice._asdict()
    return {"measured": measured, "fitted": fitted, "twice": twice, "without": curve.without, "classes": needs}


def read_curve(row: Row) -> LearningCurve:
    """The curve that `describe_curve` described."""
    measured, fitted = ([Point(**each) for each in row[name]] for name in ("measured", "fitted"))
    twice, needs = row["twice"] and Doubled(**row["twice"]), [Need(**each) for each in row["classes"]]
    return LearningCurve(measured, fitted, twice, row["without"], needs)


def _find_kinds(labels: Labels, groups: GroupNumbers) -> tuple[GroupNumbers, Labels]:
    """The groups of pictures by numbers from 0, and the class that each group has most of."""
    names, own = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), int)
    np.add.at(counts, (own, labels), 1)
    return own, counts.argmax(axis=1)


def choose_shares(labels: Labels, groups: GroupNumbers | None) -> list[float]:
    """The shares of the labels that are drawn, rising: each has more labels than the one before. None with fewer than
    `FEWEST_LABELS`, or groups, a class."""
    if count_each(labels, groups) < FEWEST_LABELS:
        return []
    step = STEP**2 if len(labels) / 2 > MANY_ROWS else STEP
    shares = 0.5 * step ** np.arange(round(math.log(2 * SMALLEST_PART, step)) + 1)
    return sorted({len(draw_nested(labels, groups, share, 0)): float(share) for share in shares}.values())


def measure_growth(
    train: Labelled, validation: Labelled, classes: int, weights: ClassWeights = None, draws: int = DRAWS
) -> Growth:
    """Solves heads of `classes` classes from `draws` nested draws of each size, and of all labels.

    Raises:
      ValueError: if a feature is not finite.
    """
    sizes, right = [], []
    for share in [*choose_shares(train.labels, train.groups), 1.0]:
        penalty, found, drawn = None, [], []
        for seed in range(draws if share < 1 else 1):
            some = train.take(draw_nested(train.labels, train.groups, share, seed)) if share < 1 else train
            kernel, bias, penalty = _solve(some, classes, weights, penalty)
            scores = validation.features @ kernel.astype(validation.features.dtype) + bias
            found.append(ridge.name_labels(scores) == validation.labels)
            drawn.append(len(some.labels) / classes)
        sizes.append(np.mean(drawn))
        right.append(np.broadcast_to(found, (draws, len(validation.labels))))
    return Growth(np.array(sizes), np.stack(right, axis=1), validation.labels, validation.groups)


def _solve(
    some: Labelled, classes: int, weights: ClassWeights, penalty: float | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Kernel and bias of a head, and its penalty: the one of another draw as large, if there is one and its own would
    take long."""
    if penalty is not None and len(some.labels) > MANY_ROWS:
        return *ridge.solve_with(some.features, some.labels, classes, penalty, weights), penalty
    decomposed = ridge.decompose(some.features, some.labels, classes, weights=weights)
    alone = np.bincount(some.labels).max() < 2
    penalty = ridge.DEFAULT_PENALTY if alone else ridge.choose_penalty(decomposed, some.groups)
    return *ridge.weigh_features(decomposed, penalty), penalty


def fit_curves(
    sizes: Float[np.ndarray, " sizes"], errors: Float[np.ndarray, "*curves sizes"], pictures: float
) -> Curves:
    """The curves that fit `errors` on so many pictures best, weighted by their binomial error, that of the mean curve,
    with floors and falls that are not negative. For each of `EXPONENTS` the fit is linear."""
    mean = (errors.reshape(-1, len(sizes)).mean(axis=0) * pictures + 0.5) / (pictures + 1)
    w, x = 1 / (mean * (1 - mean)), (sizes / sizes[-1]) ** -EXPONENTS[:, None]
    # Weighted sums over sizes, of each curve and exponent.
    sw, swx, swxx = w.sum(), x @ w, (x * x) @ w
    swe, swxe = (errors @ w)[..., None], (errors * w) @ x.T
    fall = np.maximum((sw * swxe - swx * swe) / (sw * swxx - swx**2), 0)
    floor = (swe - fall * swx) / sw
    fall, floor = np.where(floor < 0, swxe / swxx, fall), np.maximum(floor, 0)
    loss = -2 * (floor * swe + fall * swxe) + floor**2 * sw + 2 * floor * fall * swx + fall**2 * swxx
    best = loss.argmin(axis=-1)
    floor, fall = (np.take_along_axis(part, best[..., None], -1)[..., 0] for part in (floor, fall))
    return Curves(floor, fall, EXPONENTS[best])


def resample_errors(growth: Growth) -> Float[np.ndarray, "resamples draws sizes"]:
    """The errors of each draw on `RESAMPLES` draws, with replacement, of the validation pictures, or of their groups;
    always the same draws for a number of pictures."""
    number, own = len(growth.labels), number_groups(len(growth.labels), growth.groups)
    units = int(own.max()) + 1
    counts = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), RESAMPLES)[:, own]
    draws, sizes = growth.right.shape[:2]
    right = counts.astype(np.float32) @ growth.right.reshape(draws * sizes, number).T.astype(np.float32)
    found: np.ndarray = 1 - (right / counts.sum(axis=1, keepdims=True)).reshape(-1, draws, sizes).astype(np.float64)
    return found


def find_curve(growth: Growth) -> LearningCurve:
    """The curve through what heads of more and more labels are right on, and what twice as many labels would bring.

    A gain is that of the curves of all draws on average. Its variance is that of the curves of single draws, each on
    drawn validation pictures, and that of the luck of both heads: half samples vary around all labels as these do
    around others (McCarthy, Pseudo-replication: half samples, 1969), and the difference between these labels and twice
    as many has half of that variance. Where heads are nearly always right, drawn pictures do not vary: two more count,
    one that twice as many labels get right and one that they get wrong (Bonett and Price, Adjusted Wald intervals for
    paired data, 2012). No curve is exactly a power (`INEXACT`). docs/numbers.md has how often the interval holds.
    """
    sizes, errors, number = growth.sizes, 1 - growth.right.mean(axis=2), len(growth.labels)
    measured, needs = _describe_sizes(growth), _describe_classes(growth)
    resampled = resample_errors(growth)
    without = "few" if len(sizes) < 3 else _judge(growth, resampled)
    if without:
        return LearningCurve(measured, [], None, without, needs)
    mean, drawn = fit_curves(sizes, errors, number), fit_curves(sizes, resampled, number)
    luck, gain = vary_heads(growth.right[:, -2]), float(_double(mean).mean())
    units = int(number_groups(number, growth.groups).max()) + 1
    unseen = 1 / (units + 2) ** 2
    side = NORMAL_SIDE * math.sqrt(float(_double(drawn).var()) + 2 * unseen + luck / 2 + (INEXACT * gain) ** 2)
    twice, band = Doubled(gain, gain - side, gain + side), _draw_band(sizes, mean, drawn, (luck, unseen))
    return LearningCurve(measured, band, twice, "", needs)


def _double(curves: Curves) -> Float[np.ndarray, "*curves"]:
    """What twice as many labels take from the errors."""
    gains: np.ndarray = curves.fall * (1 - 2.0**-curves.exponent)
    return gains


def vary_heads(right: Bool[np.ndarray, "draws n"]) -> float:
    """The variance of the accuracies that heads of several draws have on all pictures of the kind: what is left of that
    on these pictures without what so few of them add (analysis of variance in two ways)."""
    draws, pictures = right.shape
    accuracies, rest = right.mean(axis=1), right - right.mean(axis=0)
    rest = rest - rest.mean(axis=1, keepdims=True)
    within = np.square(rest).sum() / ((draws - 1) * max(pictures - 1, 1))
    return max(float(accuracies.var(ddof=1) - within / pictures), 0.0)


def _judge(growth: Growth, resampled: Float[np.ndarray, "resamples draws sizes"]) -> Literal["", "flat", "bad"]:
    """Why there is no curve; nothing if there is one."""
    errors = 1 - growth.right.mean(axis=2)
    of_head, draws = vary_heads(growth.right[:, -2]), len(errors)
    rises = resampled[:, :, 0].mean(axis=1) - resampled[:, :, -1].mean(axis=1)
    rise, noise = float((errors[:, 0] - errors[:, -1]).mean()), math.sqrt(rises.var() + of_head)
    if rise <= NORMAL_SIDE * noise:
        return "flat"

    def miss(some: Float[np.ndarray, "*curves sizes"]) -> Float[np.ndarray, "*curves sizes"]:
        parts = growth.sizes / growth.sizes[-1]
        missed: np.ndarray = some - fit_curves(growth.sizes, some, len(growth.labels)).errors(parts)
        return missed

    missed = np.abs(miss(errors).mean(axis=0))
    # The head of all labels is one, those of the other sizes are as many as there are draws.
    luck = errors.var(axis=0, ddof=1) / draws + of_head * (np.arange(len(growth.sizes)) == len(growth.sizes) - 1)
    noises = np.sqrt(miss(resampled).mean(axis=1).var(axis=0) + luck)
    return "bad" if bool(((missed > MISSED) & (missed > MISSED_BY * noises)).any()) else ""


def _describe_sizes(growth: Growth) -> list[Point]:
    accuracies = growth.right.mean(axis=2)
    ends = np.quantile(accuracies, [0.025, 0.975], axis=0)
    ends[:, -1] = accuracy_interval(float(accuracies[0, -1]), len(growth.labels))
    rows = zip(growth.sizes, accuracies.mean(axis=0), *ends, strict=True)
    return [Point(*map(float, row)) for row in rows]


def _draw_band(
    sizes: Float[np.ndarray, " sizes"], mean: Curves, drawn: Curves, variances: tuple[float, float]
) -> list[Point]:
    """The mean curve over places up to twice as many labels, and where the accuracy of a head of so many lies. The
    `variances` are that of heads of all labels, which falls with the labels, and that of what the pictures do not
    show."""
    luck, unseen = variances
    parts = np.geomspace(sizes[0] / sizes[-1], 2, CURVE_PLACES)
    errors, gained = (
        mean.errors(parts).mean(axis=0),
        np.maximum((mean.floor + mean.fall).mean() - mean.errors(parts), 0),
    )
    inexact = np.where(parts > 1, INEXACT * gained.mean(axis=0), 0)
    variance = drawn.errors(parts).reshape(-1, CURVE_PLACES).var(axis=0) + unseen + luck / parts + np.square(inexact)
    low, high = (np.clip(1 - errors + side * np.sqrt(variance), 0, 1) for side in (-NORMAL_SIDE, NORMAL_SIDE))
    rows = zip(parts * sizes[-1], 1 - errors, low, high, strict=True)
    return [Point(*map(float, row)) for row in rows]


def _describe_classes(growth: Growth) -> list[Need]:
    """The classes that have validation pictures, the least accurate first.

    Which class gains most from twice as many labels of all is said best by its accuracy alone: how it rose with fewer
    labels says less, and next to nothing with some ten pictures of a class (`benchmarks/twice_as_many.py`).
    """
    found = []
    kinds = np.unique(growth.labels)
    accuracies = {int(kind): growth.right[:, :, growth.labels == kind].mean(axis=(0, 2)) for kind in kinds}
    mean = float(np.mean([rises[-1] for rises in accuracies.values()]))
    for kind, rises in accuracies.items():
        pictures = int((growth.labels == kind).sum())
        low = accuracy_interval(float(rises[-1]), pictures)[1] < mean and bool(rises[-1] > rises[0])
        found.append(Need(kind, float(rises[-2] if len(rises) > 1 else rises[-1]), float(rises[-1]), pictures, low))
    return sorted(found, key=lambda need: need.all)


def count_each(labels: Labels, groups: GroupNumbers | None) -> float:
    """How many labelled pictures, or groups of them, the classes have: the median."""
    units = labels if groups is None else _find_kinds(labels, groups)[1]
    return float(np.median(np.unique(units, return_counts=True)[1]))
