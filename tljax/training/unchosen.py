"""How good the best epoch is on pictures that did not choose it.

The best of many epochs that are alike is the luckiest one, so its accuracy on the pictures that chose it is too high. A
bootstrap measures it elsewhere. Everything here is NumPy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from tljax.config import Monitor
from tljax.training.calibration import Labels, Logits, accuracy_interval, cross_entropies
from tljax.training.grouped import GroupNumbers

# With fewer validation pictures than this, accuracies are given with intervals, and what each epoch makes of each
# picture is kept.
MANY = 1000
# Two seeds differ by about 0.003 with 50 pictures and 30 epochs, a fiftieth of the interval.
BAGS = 1000


class Judged(NamedTuple):
    """What an epoch makes of each validation picture: its cross-entropies (float32, nats), and which are `right`."""

    losses: Float[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]


class Unchosen(NamedTuple):
    """The accuracy to expect on other pictures of the same kind, with an interval of at least 95%."""

    accuracy: float
    low: float
    high: float


def judge_pictures(logits: Logits, labels: Labels) -> Judged:
    """What an epoch with these `logits` makes of each picture."""
    return Judged(cross_entropies(logits, labels).astype(np.float32), logits.argmax(axis=1) == labels)


def undo_choice(
    judged: Sequence[Judged],
    monitor: Monitor,
    accuracy: float,
    groups: GroupNumbers | None = None,
    worth: float | None = None,
    counted: Bool[np.ndarray, " n"] | None = None,
) -> Unchosen | None:
    """The accuracy that the best epoch has on pictures that did not choose it; None from a single picture.

    `judged` are all epochs that could be chosen, `monitor` is what chooses, and `accuracy` is that of the chosen one on
    the same pictures. Each of `BAGS` bags holds as many pictures, drawn with replacement. The epoch that is best in the
    bag is measured on the pictures outside it, and the estimate is the mean: Tsamardinos, Greasidou and Borboudakis,
    Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation (2018).

    A bag has 63% of the pictures and chooses a little worse than all of them, so this is too low where epochs differ,
    as `accuracy` is too high where they are alike. The interval therefore reaches from the lower end of Wilson's for
    one to the upper end for the other. `benchmarks/unchosen.py` measures how often it is right.

    Where pictures belong together, bags are of whole `groups`, and intervals are those of as many pictures as these are
    `worth`. All pictures choose; of those outside a bag only the `counted` ones are measured, to which `accuracy` and
    `worth` belong then.
    """
    right, outside = measure_outside(judged, monitor, groups, counted)
    if not outside.any():
        return None
    expected = float(right.sum() / outside.sum())
    intervals = [accuracy_interval(value, worth or len(judged[0].right)) for value in (expected, accuracy)]
    return Unchosen(expected, min(low for low, _ in intervals), max(high for _, high in intervals))


def measure_outside(
    judged: Sequence[Judged],
    monitor: Monitor,
    groups: GroupNumbers | None = None,
    counted: Bool[np.ndarray, " n"] | None = None,
) -> tuple[Int[np.ndarray, " bags"], Int[np.ndarray, " bags"]]:
    """How many pictures outside each bag the epoch that is best in it predicts right, and how many are outside; of the
    `counted` ones, if not of all."""
    numbers = None if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = draw_bags(len(judged[0].right)) if numbers is None else draw_bags(int(numbers.max()) + 1)[:, numbers]
    best = _sum_scores(judged, monitor, counts).argmin(axis=1)
    outside = (counts == 0) & (True if counted is None else counted)
    right = np.stack([epoch.right for epoch in judged])[best] & outside
    return right.sum(axis=1), outside.sum(axis=1)


def draw_bags(pictures: int) -> Int[np.ndarray, "bags n"]:
    """How often each picture is in each bag; always the same bags for a number of pictures."""
    return np.random.default_rng(0).multinomial(pictures, np.full(pictures, 1 / pictures), BAGS)


def _sum_scores(
    judged: Sequence[Judged], monitor: Monitor, counts: Int[np.ndarray, "bags n"]
) -> Float[np.ndarray, "bags epochs"]:
    """What the best epoch has least of, in each bag: the summed losses, or minus the number of right predictions. As
    in `progress.score`, an epoch with a loss that is not finite is never the best."""
    losses = np.stack([epoch.losses for epoch in judged], axis=1).astype(np.float64)
    finite = np.isfinite(losses).all(axis=0)
    values = losses if monitor == "val_loss" else -np.stack([epoch.right for epoch in judged], axis=1).astype(float)
    return np.where(finite, counts @ np.where(finite, values, 0), np.inf)
