"""Each picture judged by a head that saw neither it nor what belongs to it: its twins, its group.

Heads are solved (`ridge`), and pictures are left out of them exactly. The penalty is chosen without them, too: groups
are dealt into two halves, and the penalty for one half is chosen on the other alone, where each group is left out in
turn. The scale of the features alone comes from all pictures; labels have no part in it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tljax.check.result import Report
from tljax.training import ridge
from tljax.training.calibration import Labels
from tljax.training.grouped import GroupNumbers, number_groups, share_out
from tljax.training.ridge import BLOCK, DEFAULT_PENALTY, ClassWeights, Features, HeldOut, find_scale, standardize

# The most features of so many pictures. Else the directions in which `SAMPLED` pictures vary most stand for them.
MOST_AXES, MANY_PICTURES, SAMPLED = 512, 5_000, 16_384


class Scaled(NamedTuple):
    """Features, and what they are multiplied by, whoever is left out."""

    features: Features
    scale: Float[np.ndarray, " features"]


def scale_all(features: Features) -> Scaled:
    """The scale of all pictures; of many pictures with many features, fewer directions of it.

    Raises:
      ValueError: if a feature is not finite.
    """
    mean, scale = find_scale(features)
    n, size = features.shape
    if n <= MANY_PICTURES or size <= MOST_AXES:
        return Scaled(features, scale)
    gram, sample = np.zeros((size, size)), features[:: -(-n // SAMPLED)]
    for start in range(0, len(sample), BLOCK):
        x = standardize(sample[start : start + BLOCK], mean, scale).astype(np.float32)
        gram += x.T @ x
    _, axes = np.linalg.eigh(gram)
    axes = axes[:, -MOST_AXES:].astype(np.float32)
    turned = np.empty((n, MOST_AXES), np.float32)
    for start in range(0, n, BLOCK):
        turned[start : start + BLOCK] = standardize(features[start : start + BLOCK], mean, scale) @ axes
    return Scaled(turned, np.ones(MOST_AXES))


def judge_all(
    scaled: Scaled,
    labels: Labels,
    classes: int,
    groups: GroupNumbers | None = None,
    weights: ClassWeights = None,
    report: Report = lambda done: None,
) -> HeldOut:
    """Scores of each picture (near 1 for its class, near -1 for others) by a head without its group, and without groups
    of the classes that it lacks, as `ridge.hold_out` has them. Pictures of a class that one group has alone are not
    judged. `weights` are those of the classes."""
    groups = number_groups(len(labels), groups)
    if len(labels) < 2 or groups.max() == 0:
        return HeldOut(np.zeros(0, int), np.zeros((0, classes)), groups[:0])
    solved = ridge.decompose(scaled.features, labels, classes, weights=weights, scale=scaled.scale)
    report(0.4)
    second = halve(groups)
    chosen = [choose_alone(scaled, labels, classes, groups, weights, second != half) for half in (False, True)]
    report(0.7)
    alone = groups.max() == len(groups) - 1
    penalties = [DEFAULT_PENALTY if penalty is None else penalty / solved.unit for penalty in chosen]
    one, other = (ridge.hold_out(solved, penalty, None if alone else groups) for penalty in penalties)
    report(1.0)
    return HeldOut(one.rows, np.where(second[one.rows, None], other.scores, one.scores), groups[one.rows])


def halve(groups: GroupNumbers) -> Bool[np.ndarray, " n"]:
    """Which pictures are in the second half. Groups count from 0; a fixed seed draws them, whatever their labels."""
    side = np.random.default_rng(0).permutation(int(groups.max()) + 1) % 2 == 1
    return np.asarray(side[groups])


def choose_alone(
    scaled: Scaled,
    labels: Labels,
    classes: int,
    groups: GroupNumbers,
    weights: ClassWeights,
    rows: Bool[np.ndarray, " n"],
) -> float | None:
    """The penalty that `ridge.choose_penalty` finds for some pictures alone, as a number that is added to eigenvalues:
    it does not grow with the pictures. None where no class that counts is in two groups of them."""
    own, their = labels[rows], groups[rows]
    shared = np.flatnonzero(share_out(own, their).holders > 1) if len(own) else np.zeros(0, int)
    if not (np.ones(classes) if weights is None else np.asarray(weights))[shared].any():
        return None
    part = ridge.decompose(scaled.features[rows], own, classes, weights=weights, scale=scaled.scale)
    alone = len(np.unique(their)) == len(their)
    return ridge.choose_penalty(part, None if alone else their) * part.unit
