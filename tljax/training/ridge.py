"""A head that is solved instead of trained: the optimum of a ridge regression on the features that the head reads.

The targets are 1 for a picture's own class and -1 for the others; the classes' offsets are not penalized. Weights of
the classes multiply the squared errors of their pictures, wherever these are added up: in the regression, in the means
that it takes off, and where the penalty is chosen. One eigendecomposition serves all penalties. Everything here is
NumPy: the decomposition is in float64, the places of pictures on the axes are in the dtype of the features. Pictures
are read in blocks.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import DTypeLike

from tljax.training import calibration
from tljax.training.calibration import ONE_SIDED, Labels
from tljax.training.grouped import GroupNumbers, LeftOut, count_worth, leave_balanced, leave_each, share_out

# Penalties, in units of the mean eigenvalue of the features' covariance (see `Ridge.unit`).
PENALTIES = 10.0 ** np.arange(-4, 3.01, 0.25)
# With one picture a class there is nothing to choose the penalty by. Each of 0.1 to 1 is nearly as good as the best.
DEFAULT_PENALTY = 0.3
# The scale of a feature comes from these pictures and so many more, in which it varies as the features do on average.
# Else a feature that hardly varies among few pictures would be enlarged without bounds: with five digits a class, 0.74
# instead of 0.67 are right, on what the head of the demo's source reads.
MORE = 5
# A feature that varies by less than this part of the largest mean varies by rounding, and is taken for constant.
ROUNDING = 1e-6
# Pictures whose features differ by less than this part of the largest are taken for copies of each other.
COPY = 1e-5
# Held-out scores that are closer than this are equal but for rounding.
TIE = 1e-9
# Sets of at most so many rows are left out for all penalties at once.
FEW_ROWS = 16
# The most pictures in memory as float64, and the most that are held out to estimate the accuracy.
BLOCK, HELD_OUT = 4096, 5_000

Features = Float[np.ndarray, "n features"]
Scores = Float[np.ndarray, "n classes"]
# How much a picture of each class counts; all ones if there are none.
ClassWeights = Float[np.ndarray, " classes"] | Sequence[float] | None


class HeldOut(NamedTuple):
    """Scores of pictures, each from a head that was solved without it and without one picture of every other class;
    where pictures belong together, without all of its group, and without groups of the classes that it lacks."""

    rows: Int[np.ndarray, " held"]
    """Which of the pictures; none if every class has one picture, or one group, only."""
    scores: Float[np.ndarray, "held classes"]
    groups: GroupNumbers | None = None
    """Those of the rows, if whole groups were left out."""


class SolvedHead(NamedTuple):
    """An ordinary dense head, and what is known about it. Logits are `features @ kernel + bias`."""

    kernel: Float[np.ndarray, "features classes"]
    bias: Float[np.ndarray, " classes"]
    penalty: float
    """In the units of `PENALTIES`."""
    temperature: float
    """What the scores were divided by to become logits."""
    held_out: HeldOut
    """Its scores are logits too."""


class Ridge(NamedTuple):
    """The features of some pictures, centred, scaled and turned to the axes on which their covariance is diagonal: the
    weighted one.

    Several `views` of each picture are rows of their own: those of all pictures' first views come first, then those of
    the second. All views of a picture are left out together.
    """

    features: Features
    labels: Labels
    """Those of the rows."""
    weights: Float[np.ndarray, " rows"]
    views: int
    mean: Float[np.ndarray, " features"]
    scale: Float[np.ndarray, " features"]
    """What the centred features are multiplied by, nearly 1 / standard deviation (`find_scale`), whatever the weights.
    """
    axes: Float[np.ndarray, "features axes"]
    eigenvalues: Float[np.ndarray, " axes"]
    """Weighted sums of squares along the axes."""
    targets: Float[np.ndarray, "axes classes"]
    """The weighted sums of the pictures' places on the axes, times their targets."""
    offsets: Float[np.ndarray, " classes"]
    """The weighted mean target of each class."""

    @property
    def unit(self) -> float:
        """The mean eigenvalue: what a penalty of 1 adds to each."""
        return float(self.eigenvalues.mean()) if len(self.eigenvalues) else 1.0

    @property
    def constant(self) -> float:
        """What the offsets add to the influence of each picture, per weight: 1 / the sum of all weights."""
        return 1 / float(self.weights.sum())

    def shrink(self, penalty: float) -> Float[np.ndarray, " axes"]:
        """1 / (eigenvalue + penalty) of each axis; `penalty` is in the units of `PENALTIES`."""
        shrunk: np.ndarray = 1 / (self.eigenvalues + penalty * self.unit)
        return shrunk

    def turn(self, rows: np.ndarray | slice) -> Float[np.ndarray, "n axes"]:
        """The places of some pictures on the axes, in the dtype of the features."""
        dtype = self.features.dtype
        mean, scale, axes = (x.astype(dtype) for x in (self.mean, self.scale, self.axes))
        turned: np.ndarray = standardize(self.features[rows], mean, scale) @ axes
        return turned

    def errors(
        self, rows: np.ndarray | slice, places: Float[np.ndarray, "n axes"], penalties: np.ndarray
    ) -> Float[np.ndarray, "n penalties classes"]:
        """Target less score of some pictures, of the head that each of `penalties` gives for all pictures."""
        weights = np.concatenate([self.shrink(penalty)[:, None] * self.targets for penalty in penalties], axis=1)
        scores = (places @ weights.astype(places.dtype)).reshape(len(places), len(penalties), -1)
        targets = mark_classes(self.labels[rows], len(self.offsets))
        errors: np.ndarray = (targets - self.offsets)[:, None] - scores
        return errors


def solve_head(
    features: Float[np.ndarray, "rows features"],
    labels: Labels,
    classes: int,
    views: int = 1,
    weights: ClassWeights = None,
    groups: GroupNumbers | None = None,
) -> SolvedHead:
    """The head of `classes` classes that a ridge regression gives for these pictures.

    `features` [views * n, features] may be memory-mapped; `labels` [n] are those of the pictures. Held-out scores are
    those of the first views. The scale of the features comes from these pictures, without their labels. The `weights`
    stay the same where pictures are left out. Those of one of the `groups` [n] are left out together.

    Raises:
      ValueError: if a feature is not finite.
    """
    ridge = decompose(features, np.tile(labels, views), classes, views, weights)
    groups = None if groups is None or len(np.unique(groups)) == len(groups) else groups
    holders = np.bincount(labels) if groups is None else share_out(labels, groups).holders
    penalty = choose_penalty(ridge, groups) if holders.max() > 1 else DEFAULT_PENALTY
    held_out = hold_out(ridge, penalty, groups, HELD_OUT)
    temperature = find_temperature(held_out, labels, classes)
    kernel, bias = weigh_features(ridge, penalty, temperature)
    return SolvedHead(kernel, bias, penalty, temperature, held_out._replace(scores=held_out.scores / temperature))


def count_products(pictures: int, features: int, classes: int, views: int) -> float:
    """About how many additions and multiplications `solve_head` takes the time of. The factors were measured on two
    cores, from 100 to 20,000 pictures with 1,024 and 2,048 features: they come to 0.7 to 2.3 times the time."""
    rows, axes = pictures * views, min(pictures * views, features)
    return 10.0 * rows * features * axes + 70 * axes**3 + 16.0 * rows * axes * len(PENALTIES) * classes


def find_temperature(held_out: HeldOut, labels: Labels, classes: int) -> float:
    """The temperature that makes logits of scores, fitted on those that were held out. It is bounded in units of their
    spread, which is small with many classes.

    Where there are too few of them, it is 2 / (4 + log(classes)): the own class's target is 2 above the others, and 4
    above an even chance is about what fits with two to nine pictures of each of five classes.
    """
    default = 2 / (4 + math.log(classes))
    spread = float(held_out.scores.std(axis=1).mean()) if len(held_out.rows) else 0.0
    if not spread:
        return default
    own = labels[held_out.rows]
    return spread * calibration.fit_temperature(held_out.scores / spread, own, default / spread)


def decompose(
    features: Features,
    labels: Labels,
    classes: int,
    views: int = 1,
    weights: ClassWeights = None,
    scale: Float[np.ndarray, " features"] | None = None,
) -> Ridge:
    """Takes the scale of the features, unless it is given, and finds the axes on which their weighted covariance is
    diagonal.

    With fewer pictures than features the eigenvectors come from the products of the pictures with each other, which
    are fewer and have the same eigenvalues.

    Raises:
      ValueError: if a feature is not finite.
    """
    mean, scale, each, offsets, gram, products, x = _add_up(features, labels, classes, weights, np.float64, scale)
    eigenvalues, vectors = _eigenvectors(gram, max(features.shape))
    axes = vectors if x is None else x.T @ (vectors / np.sqrt(eigenvalues))
    return Ridge(features, labels, each, views, mean, scale, axes, eigenvalues, axes.T @ products, offsets)


class Normal(NamedTuple):
    """The normal equations of a ridge regression."""

    mean: Float[np.ndarray, " features"]
    scale: Float[np.ndarray, " features"]
    weights: Float[np.ndarray, " n"]
    offsets: Float[np.ndarray, " classes"]
    gram: Float[np.ndarray, "m m"]
    """Weighted products of the standardized features with each other or, with fewer pictures than features, of the
    pictures."""
    products: Float[np.ndarray, "features classes"]
    """Those of the features with the centred targets."""
    pictures: Float[np.ndarray, "n features"] | None
    """Standardized, times the roots of their weights, where the products are those of the pictures."""


def _add_up(
    features: Features,
    labels: Labels,
    classes: int,
    weights: ClassWeights,
    dtype: DTypeLike,
    scale: Float[np.ndarray, " features"] | None = None,
) -> Normal:
    """The normal equations of some pictures; in blocks of them where there are more than features, whose products are
    of the `dtype`. The scale is theirs, unless it is given.

    Raises:
      ValueError: if a feature is not finite.
    """
    n, size = features.shape
    each = np.ones(n) if weights is None else np.asarray(weights, np.float64)[labels]
    mean, own = find_scale(features, each)
    scale = own if scale is None else scale
    offsets = 2 * np.bincount(labels, each, minlength=classes) / each.sum() - 1
    # Squares of these count as the weights do.
    roots = np.sqrt(each)[:, None]
    if n <= size:
        x = standardize(features, mean, scale) * roots
        products = x.T @ ((mark_classes(labels, classes) - offsets) * roots)
        return Normal(mean, scale, each, offsets, x @ x.T, products, x)
    gram, products = np.zeros((size, size)), np.zeros((size, classes))
    for block in _blocks(n):
        x = standardize(features[block], mean.astype(dtype), scale.astype(dtype)) * roots[block].astype(dtype)
        gram += x.T @ x
        products += x.T @ ((mark_classes(labels[block], classes) - offsets) * roots[block])
    return Normal(mean, scale, each, offsets, gram, products, None)


def solve_with(
    features: Features, labels: Labels, classes: int, penalty: float, weights: ClassWeights = None
) -> tuple[Float[np.ndarray, "features classes"], Float[np.ndarray, " classes"]]:
    """Kernel and bias of the head of a known penalty, in the units of `PENALTIES`, whose logits are scores. It is
    solved by Cholesky, which takes a twentieth of the time of eigenvectors, and products are of the dtype of the
    features.

    Raises:
      ValueError: if a feature is not finite.
    """
    from scipy.linalg import solve

    mean, scale, each, offsets, gram, products, x = _add_up(features, labels, classes, weights, features.dtype)
    # There are as many eigenvalues as features that vary, and fewer than pictures.
    axes = min(len(features) - 1, np.count_nonzero(scale))
    gram[np.diag_indices_from(gram)] += penalty * (np.trace(gram) / axes if axes else 1.0)
    if x is None:
        solved = solve(gram, products, assume_a="pos")
    else:
        targets = (mark_classes(labels, classes) - offsets) * np.sqrt(each)[:, None]
        solved = x.T @ solve(gram, targets, assume_a="pos")
    kernel = solved * scale[:, None]
    return kernel, offsets - mean @ kernel


def weigh_features(
    ridge: Ridge, penalty: float, temperature: float = 1.0
) -> tuple[Float[np.ndarray, "features classes"], Float[np.ndarray, " classes"]]:
    """Kernel and bias of the head of a penalty, in the units of `PENALTIES`, whose scores are divided by a temperature
    to become logits."""
    kernel = (ridge.axes @ (ridge.shrink(penalty)[:, None] * ridge.targets)) * ridge.scale[:, None] / temperature
    return kernel, ridge.offsets / temperature - ridge.mean @ kernel


def _eigenvectors(gram: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors, without those that are rounding in products of up to `longest` numbers."""
    values, vectors = np.linalg.eigh(gram)
    real = values > values[-1] * longest * np.finfo(np.float64).eps
    return values[real], vectors[:, real]


def find_scale(
    features: Features, weights: Float[np.ndarray, " n"] | None = None
) -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, " features"]]:
    """The weighted mean of each feature, and 1 / its standard deviation, in which all pictures count the same.

    The deviation is drawn to that of all features (`MORE`). Where a feature is constant but for rounding, the second
    number is 0.

    Raises:
      ValueError: if a feature is not finite.
    """
    n, size = features.shape
    # Sums of differences from some mean: sums of squares would lose digits where the mean is large.
    origin = features[:BLOCK].mean(axis=0, dtype=np.float64)
    weights = np.ones(n) if weights is None else weights
    sums, squares, weighted = np.zeros((3, size))
    for block in _blocks(n):
        x = features[block] - origin
        sums += x.sum(axis=0)
        squares += np.einsum("nf,nf->f", x, x)
        x *= weights[block, None]
        weighted += x.sum(axis=0)
    if not np.isfinite(squares).all():
        raise ValueError("the features that the head reads are not finite: the source's weights are damaged")
    mean, variance = origin + weighted / weights.sum(), np.maximum(squares / n - np.square(sums / n), 0)
    constant = variance <= (ROUNDING * np.abs(mean).max(initial=0)) ** 2
    drawn = (n * variance + MORE * variance.mean()) / (n + MORE)
    return mean, np.where(constant, 0, 1 / np.sqrt(np.where(constant, 1, drawn)))


def mark_classes(labels: Labels, classes: int) -> Scores:
    """The targets: 1 for a picture's own class, -1 for the others."""
    return np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)


def standardize(
    features: Features, mean: Float[np.ndarray, " features"], scale: Float[np.ndarray, " features"]
) -> Features:
    """(features - mean) * scale, in the widest of their dtypes."""
    centred = features - mean
    centred *= scale
    return centred


def choose_penalty(ridge: Ridge, groups: GroupNumbers | None = None) -> float:
    """The penalty of `PENALTIES` with the least squared error, weighted, when each picture, or group, in turn is left
    out.

    For a linear smoother that error is exactly e / (1 - h), e being the error with the picture and h its leverage, the
    diagonal of the matrix that makes scores of targets (Allen, 1974; Golub, Heath and Wahba, 1979). A leverage grows
    with the picture's weight.
    """
    if ridge.views > 1 or groups is not None:
        sums = sum_errors_by_groups(ridge, groups)
        return float(PENALTIES[np.argmin(sums)]) if sums.any() else DEFAULT_PENALTY
    return float(PENALTIES[np.argmin(_sum_errors(ridge, np.arange(len(ridge.labels))))])


def _sum_errors(ridge: Ridge, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, " penalties"]:
    """The weighted squared error of some rows for each of `PENALTIES`, where each of them is left out alone."""
    shrunk, sums = _shrink_by_all(ridge), np.zeros(len(PENALTIES))
    for block in _blocks(len(rows)):
        places = ridge.turn(rows[block])
        weights = ridge.weights[rows[block], None].astype(places.dtype)
        rest = 1 - weights * (ridge.constant + np.square(places) @ shrunk.astype(places.dtype))
        for some in _split_penalties(ridge):
            errors = ridge.errors(rows[block], places, PENALTIES[some]) / rest[:, some, None]
            sums[some] += (np.square(errors) * weights[:, None]).sum(axis=(0, 2))
    return sums


def _shrink_by_all(ridge: Ridge) -> Float[np.ndarray, "axes penalties"]:
    return np.stack([ridge.shrink(penalty) for penalty in PENALTIES], axis=1)


def _split_penalties(ridge: Ridge) -> list[Int[np.ndarray, " some"]]:
    """The places of `PENALTIES`, as many at a time as the errors of a block of rows are for, whatever the classes."""
    at_once = max(1, BLOCK // len(ridge.offsets))
    return np.array_split(np.arange(len(PENALTIES)), math.ceil(len(PENALTIES) / at_once))


def sum_errors_by_groups(ridge: Ridge, groups: GroupNumbers | None = None) -> Float[np.ndarray, " penalties"]:
    """The weighted squared error of all rows for each of `PENALTIES`, where those of all views of a picture, or of all
    pictures of a group, are left out together. Pictures of a class that one group has alone do not count."""
    pictures = len(ridge.labels) // ridge.views
    if groups is None:
        parts = [LeftOut(np.arange(pictures)[:, None], np.ones((pictures, 1), bool))]
    else:
        parts = leave_each(ridge.labels[:pictures], groups, ridge.weights[:pictures])
    sums = np.zeros(len(PENALTIES))
    for part in parts:
        if part.pictures.shape[1] * ridge.views == 1:
            sums += _sum_errors(ridge, part.pictures[part.judged])
            continue
        for some, rows, places in _read_parts(ridge, part):
            weights = ridge.weights[rows] * np.tile(part.judged[some], ridge.views)
            if rows.shape[1] <= FEW_ROWS:
                sums += _sum_errors_of_sets(ridge, rows, places, weights)
                continue
            errors_without = start_leaving_out(ridge, rows, places)
            for i, penalty in enumerate(PENALTIES):
                sums[i] += (np.square(errors_without(penalty)) * weights[..., None]).sum()
    return sums


def _sum_errors_of_sets(
    ridge: Ridge,
    rows: Int[np.ndarray, "sets rows"],
    places: Float[np.ndarray, "sets rows axes"],
    weights: Float[np.ndarray, "sets rows"],
) -> Float[np.ndarray, " penalties"]:
    """`_sum_errors` of sets of a few rows that are left out together, as `leave_out` has it; each row of a set counts
    by its `weights`. The places are read once for all penalties, and not once for each."""
    sets, members = rows.shape
    shrunk = _shrink_by_all(ridge)
    smoother = np.empty((sets, len(PENALTIES), members, members))
    for a, b in combinations_with_replacement(range(members), 2):
        both = (places[:, a] * places[:, b]).astype(np.float64) @ shrunk + ridge.constant
        smoother[:, :, a, b] = smoother[:, :, b, a] = both
    rest = np.eye(members) - smoother * ridge.weights[rows][:, None, None]
    sums = np.zeros(len(PENALTIES))
    for some in _split_penalties(ridge):
        errors = ridge.errors(rows.ravel(), places.reshape(rows.size, -1), PENALTIES[some])
        by_set = errors.reshape(sets, members, len(some), -1).transpose(0, 2, 1, 3)
        left_out = np.linalg.solve(rest[:, some], by_set)
        sums[some] = (np.square(left_out) * weights[:, None, :, None]).sum(axis=(0, 2, 3))
    return sums


def _read_parts(ridge: Ridge, part: LeftOut) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Some of a part's sets of pictures at a time: which, the rows of all views, and their places on the axes."""
    sets, members = part.pictures.shape
    at_once = max(1, BLOCK // max(1, members * ridge.views))
    for start in range(0, sets, at_once):
        some = slice(start, start + at_once)
        rows = _all_views(ridge, part.pictures[some])
        yield some, rows, ridge.turn(rows.ravel()).reshape(*rows.shape, -1)


def _all_views(ridge: Ridge, pictures: Int[np.ndarray, "groups members"]) -> Int[np.ndarray, "groups rows"]:
    """The rows of all views of some pictures, in groups; the first views of a group come first."""
    count = len(ridge.labels) // ridge.views
    rows = pictures[:, None, :] + count * np.arange(ridge.views)[:, None]
    return rows.reshape(len(pictures), -1)


def leave_out(
    ridge: Ridge,
    rows: Int[np.ndarray, "groups rows"],
    places: Float[np.ndarray, "groups rows axes"],
    penalty: float,
) -> Float[np.ndarray, "groups rows classes"]:
    """Target less score of each row, from a head that is solved without its group.

    For a group S that is exactly (I - H_SS)^-1 e_S, H being the matrix that makes scores of targets and e the errors of
    the head of all rows.
    """
    smoother = ridge.constant + (places * ridge.shrink(penalty)) @ places.transpose(0, 2, 1)
    smoother *= ridge.weights[rows][:, None]
    errors = ridge.errors(rows.ravel(), places.reshape(rows.size, -1), np.array([penalty]))
    left_out: np.ndarray = np.linalg.solve(np.eye(rows.shape[1]) - smoother, errors.reshape(*rows.shape, -1))
    return left_out


def start_leaving_out(
    ridge: Ridge, rows: Int[np.ndarray, "groups rows"], places: Float[np.ndarray, "groups rows axes"]
) -> Callable[[float], Float[np.ndarray, "groups rows classes"]]:
    """`leave_out` for any penalty. Where groups have more rows than there are axes, systems have the size of these:
    with Q = [1, places], I - H_SS is I - Q D Q' W, and its inverse I + Q (1/D - Q' W Q)^-1 Q' W (Woodbury, 1950)."""
    if rows.shape[1] <= places.shape[2] + 1:
        return partial(leave_out, ridge, rows, places)
    gram = np.zeros((len(rows), places.shape[2] + 1, places.shape[2] + 1))
    for block in _blocks(rows.shape[1]):
        gram += _weigh(ridge, rows[:, block], places[:, block]) @ _add_constant(places[:, block])
    return partial(_leave_out_by_axes, ridge, rows, places, gram)


def _leave_out_by_axes(
    ridge: Ridge, rows: np.ndarray, places: np.ndarray, gram: np.ndarray, penalty: float
) -> Float[np.ndarray, "groups rows classes"]:
    errors = ridge.errors(rows.ravel(), places.reshape(rows.size, -1), np.array([penalty])).reshape(*rows.shape, -1)
    blocks = list(_blocks(rows.shape[1]))
    right = sum(_weigh(ridge, rows[:, block], places[:, block]) @ errors[:, block] for block in blocks)
    spread = np.diag(1 / np.append(ridge.constant, ridge.shrink(penalty)))
    more = np.linalg.solve(spread - gram, right)
    left_out: np.ndarray = errors + np.concatenate([_add_constant(places[:, b]) @ more for b in blocks], axis=1)
    return left_out


def _add_constant(places: Float[np.ndarray, "groups rows axes"]) -> Float[np.ndarray, "groups rows more"]:
    return np.concatenate([np.ones((*places.shape[:2], 1)), places], axis=2)


def _weigh(ridge: Ridge, rows: np.ndarray, places: np.ndarray) -> Float[np.ndarray, "groups more rows"]:
    weighted: np.ndarray = _add_constant(places).transpose(0, 2, 1) * ridge.weights[rows][:, None]
    return weighted


def hold_out(ridge: Ridge, penalty: float, groups: GroupNumbers | None = None, most: float = math.inf) -> HeldOut:
    """Scores of pictures that are left out in groups of one of each class, each picture once; of more than `most`,
    about so many.

    To leave out one picture alone would make its class rarer than the others, and the head less likely to name it: with
    few pictures the accuracy would come out far too low. A class that has one picture keeps it. With `groups` of
    pictures that belong together, whole ones are left out, as `leave_balanced` has them, and pictures of a class that
    one group has alone are not judged.
    """
    labels, weights = (all_rows[: len(all_rows) // ridge.views] for all_rows in (ridge.labels, ridge.weights))
    if groups is None:
        parts = [LeftOut(*form_groups(labels, len(ridge.offsets), most))]
    else:
        parts = leave_balanced(labels, groups, weights, most)
    found = [_score_left_out(ridge, part, penalty) for part in parts]
    rows = np.concatenate([np.zeros(0, int), *(part.pictures[part.judged] for part in parts)])
    scores = np.concatenate([np.zeros((0, len(ridge.offsets))), *found])
    return HeldOut(rows, scores, None if groups is None else groups[rows])


def _score_left_out(ridge: Ridge, part: LeftOut, penalty: float) -> Float[np.ndarray, "judged classes"]:
    """The scores of the pictures of a part that are judged, from heads without the pictures beside them."""
    members, classes = part.pictures.shape[1], len(ridge.offsets)
    scores = np.zeros((*part.pictures.shape, classes))
    for some, rows, places in _read_parts(ridge, part):
        left_out = start_leaving_out(ridge, rows, places)(penalty)[:, :members]
        targets = mark_classes(ridge.labels[part.pictures[some].ravel()], classes)
        scores[some] = targets.reshape(left_out.shape) - left_out
    return scores[part.judged]


def form_groups(
    labels: Labels, classes: int, most: float = math.inf
) -> tuple[Int[np.ndarray, "groups members"], np.ndarray]:
    """Rows in groups of one of each class that has two pictures or more, and which of them stand there first (bool).

    A class with fewer pictures than the largest starts again from its first. There are as many groups as `most`
    pictures allow.
    """
    drawn = np.random.default_rng(0).permutation(len(labels))
    by_class = [drawn[labels[drawn] == label] for label in range(classes)]
    by_class = [rows for rows in by_class if len(rows) > 1]
    if not by_class:
        return np.zeros((0, 0), int), np.zeros((0, 0), bool)
    number = int(min(max(map(len, by_class)), np.ceil(most / len(by_class))))
    groups = np.stack([np.resize(rows, number) for rows in by_class], axis=1)
    return groups, np.arange(number)[:, None] < np.array([len(rows) for rows in by_class])


class Estimate(NamedTuple):
    """What held-out pictures suggest."""

    accuracy: float
    at_least: float
    """What the accuracy of this one head on other pictures of the same kind is at least, in about 95% of all cases."""
    pictures: int
    confusions: Int[np.ndarray, "classes classes"]
    """How many of them are of class i and were given the label j."""


def estimate_accuracy(held_out: HeldOut, labels: Labels, weights: ClassWeights = None) -> Estimate | None:
    """The share of right predictions among held-out pictures, each class counted as often as it has pictures; None if
    none is held out. `labels` are those of all pictures, `weights` those that the head was solved with.

    An interval around it would not hold: each of the heads lacks a picture of every class, so with few pictures and
    many classes they are all worse than the head of all pictures. docs/numbers.md has how often `at_least` holds.
    """
    own, classes = labels[held_out.rows], held_out.scores.shape[1]
    if not len(own):
        return None
    predicted = name_labels(held_out.scores)
    times = (np.bincount(labels) / np.maximum(np.bincount(own, minlength=labels.max() + 1), 1))[own]
    right = float(np.average(predicted == own, weights=times))
    # A head that counts few pictures much depends on them: all say as much as fewer that count the same.
    counted = times if weights is None else times * np.asarray(weights, np.float64)[own]
    effective = count_effective(counted)
    if held_out.groups is not None:
        effective = min(effective, count_worth(predicted == own, held_out.groups, counted, ONE_SIDED))
    at_least = calibration.least_accuracy(right, effective)
    return Estimate(right, at_least, len(own), calibration.count_confusions(own, predicted, classes))


def count_effective(weights: Float[np.ndarray, " n"]) -> float:
    """How many pictures of equal weight say as much as those with these weights (Kish, Survey Sampling, 1965)."""
    weights = weights if weights.any() else np.ones(len(weights))
    return float(weights.sum() ** 2 / np.square(weights).sum())


def name_labels(scores: Scores) -> Labels:
    """The class with the highest score of each picture, and the first one of several that are equal but for rounding,
    as they are where features are constant: the head names that one too."""
    labels: Labels = (scores >= scores.max(axis=1, keepdims=True) - TIE).argmax(axis=1)
    return labels


def count_copies(features: Features, groups: GroupNumbers | None = None) -> int:
    """The number of pictures that are copies of others, by their features, which rounding may change a little; with
    `groups`, of others of another group.

    A held-out score takes a copy for a new picture.
    """
    n, size = features.shape
    direction = np.random.default_rng(0).normal(size=size)
    line = np.concatenate([features[block] @ direction for block in _blocks(n)]) if n else np.zeros(0)
    order = np.argsort(line)
    # Copies stand next to each other along any direction.
    largest = max((float(np.abs(features[block]).max()) for block in _blocks(n)), default=0.0)
    close = np.diff(line[order]) <= COPY * largest * math.sqrt(size)
    pairs = [(order[i], order[i + 1]) for i in np.flatnonzero(close)]
    pairs = [(one, other) for one, other in pairs if groups is None or groups[one] != groups[other]]
    return sum(bool(np.abs(features[one] - features[other]).max() <= COPY * largest) for one, other in pairs)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, n, BLOCK))
