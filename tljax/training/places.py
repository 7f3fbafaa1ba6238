"""Where in a network a solved head reads, chosen by the pictures that were left out. Everything here is NumPy.

The heads of two places were judged on the same pictures, each from a head without it. So their losses are compared
picture by picture. The standard errors are approximate: the heads share most of the pictures that they learned from.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tljax.networks.architectures import Architecture
from tljax.training.calibration import Labels, cross_entropies
from tljax.training.grouped import GroupNumbers, number_groups
from tljax.training.ridge import HeldOut

Losses = Float[np.ndarray, " held"]


class LossDifference(NamedTuple):
    """How much more the loss at a place is than at the best one, in nats."""

    mean: float
    error: float
    """The standard error of the mean over pictures, or over groups of them."""


def list_places(architecture: Architecture) -> tuple[str, ...]:
    """The units at which a recipe considers a head: the first block of each stage but the first, the middle of the
    last stage but one, and the head. In ResNet50 these are conv3_block1, conv4_block1, conv4_block4, conv5_block1 and
    head."""
    sizes = architecture.stage_sizes
    starts = [f"conv{stage}_block1" for stage in range(3, len(sizes) + 2)]
    middle = [f"conv{len(sizes)}_block{1 + sizes[-2] // 2}"] if len(sizes) > 1 else []
    chosen = {*starts, *middle, "head"}
    return tuple(unit for unit in architecture.units if unit in chosen)


def measure_losses(held_out: HeldOut, labels: Labels) -> Losses:
    """The cross-entropy of each picture that was left out, in nats; `labels` are those of all pictures."""
    return cross_entropies(held_out.scores, labels[held_out.rows])


def compare_losses(losses: Mapping[str, Losses], groups: GroupNumbers | None = None) -> dict[str, LossDifference]:
    """The difference of each place from that with the least mean loss. `groups` [held] are those of the pictures."""
    least = min(losses.values(), key=lambda each: float(each.mean()))
    return {
        unit: LossDifference(float((own - least).mean()), paired_error(own - least, groups))
        for unit, own in losses.items()
    }


def paired_error(differences: Losses, groups: GroupNumbers | None = None) -> float:
    """The standard error of the mean of paired differences. Pictures of a group differ together: then it is that of
    the sums over groups (Kish, Survey Sampling, 1965). It is infinite for one picture, or one group."""
    n = len(differences)
    sums = np.bincount(number_groups(n, groups), differences - differences.mean())
    number = len(sums)
    return float(np.sqrt(number / (number - 1) * np.square(sums).sum()) / n) if number > 1 else np.inf


def choose_latest(differences: Mapping[str, LossDifference]) -> str:
    """The last of the places, in their order, whose loss differs from the least by at most one standard error."""
    return [unit for unit, difference in differences.items() if difference.mean <= difference.error][-1]
