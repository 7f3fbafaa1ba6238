"""The rules of a recipe: from how much data there is to the stages of a lesson.

The idea, that nobody tunes anything, is the BiT-HyperRule's (Kolesnikov et al., "Big Transfer", arXiv:1912.11370,
section 3.3). The numbers are ours, from runs at 32 pixels: docs/results.md.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from tljax.config import Head, Optimizer, Stage, StageName
from tljax.data.datasets import Extent
from tljax.networks.architectures import Architecture
from tljax.training.calibration import is_uneven
from tljax.training.places import LossDifference, choose_latest

# From scratch a network sees this many pictures, each between `EPOCHS` times.
SCRATCH_PICTURES = 1_500_000
EPOCHS = (30, 300)
# From scratch, kernels shrink by this times the rate in a step, and so much of each target is spread over all classes.
DECAY = 0.5
SMOOTHING = 0.1
# From scratch, how pictures are changed, from so many epochs on: half of them by TrivialAugment. In 30 epochs this, the
# decay and the smoothing came to 0.853; with a decay of 0.05, all of them changed, or none, came to 0.829. In five
# epochs nothing of it pays (docs/results.md).
AUGMENT = "flip,shift,trivial=0.5"
AUGMENT_EPOCHS = 15
MIRRORED = "where mirror images mean something else, as with digits or text, give --config.data.augment="
# A tenth of a class is validated on: where a quarter of the classes have fewer pictures than this, fine-tuning is
# guesswork.
FEW_LABELS = 20
# Fine-tuning sees as many pictures as BiT does in 500 steps, each between `TUNE_EPOCHS` times.
TUNE_PICTURES = 256_000
TUNE_EPOCHS = (10, 20)
# Fine-tuning trains so many blocks and the head: all blocks of conv5 in Keras's lesson.
TUNED = 3
# A new network is of this variant: it gave 0.01 more (docs/results.md), and its running statistics forget their first
# values in 50 steps, where those of v1 take 500.
VARIANT: Final = "v1.5"
WHY_VARIANT = (
    "v1.5, since its running statistics of BatchNorm are right after 50 steps (v1: 500); Keras's network is v1"
)
# Up to so many pictures are transferred in eight views instead of two. With 100 and 250 they gave 0.006 more
# (docs/results.md); at 224 pixels their activations are 0.8 MB a view.
FEW_PICTURES = 1_000


# With fewer pictures a class it is not asked where a solved head reads best: what was left out cannot tell.
LEAST_ASKED = 5
AT_THE_END = "its head reads at the end of the network"


class HeadPlace(NamedTuple):
    """The unit at which the solved head reads, and why."""

    unit: str
    why: str


class Choice(NamedTuple):
    """The stages of a lesson by name, and why they are as they are, a line each."""

    stages: dict[str, Stage]
    reasons: tuple[str, ...]


class AugmentationChoice(NamedTuple):
    """How training pictures are changed: settings of the data, and why."""

    settings: dict[str, Any]
    why: str


class Limit(NamedTuple):
    """At most so many epochs, 0 if not one fits, and why."""

    epochs: int
    why: str


def choose_stages(
    extent: Extent,
    source: Architecture | None,
    devices: int,
    limit: Limit | None = None,
    place: HeadPlace | None = None,
) -> Choice:
    """The stages for data of this `extent`: transfer from weights of the network `source`, or from scratch without one.

    A batch is at least one picture on each of so many `devices`. A `limit` holds for the stage that trains. The solved
    head reads at the `place`; None: at the end of the network.
    """
    return _transfer(extent, source, devices, limit, place) if source else _from_scratch(extent, devices, limit)


def why_not_asked(extent: Extent) -> str | None:
    """Why pictures that are left out do not choose where the solved head reads; None if they do."""
    a_class = find_quartile(extent)
    if a_class >= LEAST_ASKED:
        return None
    return (
        f"pictures that are left out can tell from {LEAST_ASKED} a class on, and a quarter of the classes have at most "
        f"{a_class:.3g}"
    )


def choose_place(differences: Mapping[str, LossDifference]) -> HeadPlace:
    """The last of the places whose loss on pictures that were left out differs from the least by at most one standard
    error; the head if no picture could be left out."""
    if not differences:
        return HeadPlace("head", f"{AT_THE_END}: each class is one group of pictures, and none can be left out")
    unit = choose_latest(differences)
    best = min(differences, key=lambda each: differences[each].mean)
    mean, error = differences[unit]
    least = "is the least" if unit == best else f"is {mean:.3f} ± {error:.3f} above the least, at {best}"
    return HeadPlace(
        unit,
        f"its head reads at {unit}: the last of {', '.join(differences)} where the loss of training pictures that were "
        f"left out is within one standard error of the least (there it {least}; the errors are approximate)",
    )


def choose_augmentation(stages: dict[str, Stage], images: int) -> AugmentationChoice:
    """The augmentation for the stages that were chosen, and so many training pictures."""
    scratch = stages.get("from_scratch")
    if scratch is None and images <= FEW_PICTURES:
        why = (
            "each picture goes through the frozen network in eight views, mirrored and shifted, once where "
            f"config.cache has room; {MIRRORED}shift --config.data.views=8"
        )
        return AugmentationChoice({"augment": "flip,shift", "views": 8}, why)
    if scratch is None:
        why = (
            "each picture and its mirror image go through the frozen network, once where config.cache has room: two "
            f"views; {MIRRORED}none"
        )
        return AugmentationChoice({"augment": "flip", "views": 2}, why)
    if scratch.epochs < AUGMENT_EPOCHS:
        why = f"pictures are not changed: that pays from about {AUGMENT_EPOCHS} epochs on"
        return AugmentationChoice({"augment": "none", "views": None}, why)
    why = (
        "pictures are mirrored and shifted, and half of them changed by TrivialAugment, anew in every epoch, since a "
        f"new network learns them by heart else; {MIRRORED}{AUGMENT.removeprefix('flip,')}"
    )
    return AugmentationChoice({"augment": AUGMENT, "views": None}, why)


def _from_scratch(extent: Extent, devices: int, limit: Limit | None) -> Choice:
    epochs, why_epochs = _choose_epochs(extent.images, SCRATCH_PICTURES, EPOCHS, limit)
    batch = choose_batch(extent.images, devices)
    optimizer = Optimizer("adamw", scale_rate(1e-3, batch), "cosine", epochs / 20, weight_decay=DECAY)
    trained = _train("from_scratch", "conv1", epochs, batch, optimizer)
    stage = replace(trained, batch_norm="training", zero_init_residual=True, label_smoothing=SMOOTHING)
    reasons = (
        f"from scratch, since there are no source weights: {why_epochs}",
        explain_batch(batch),
        explain_optimizer(optimizer),
        "BatchNorm with the statistics of each batch: a new network has no others; its blocks start as their shortcuts",
        f"label smoothing of {SMOOTHING:g}, since a new network becomes surer than it is right",
    )
    return Choice({"from_scratch": stage}, reasons)


def _transfer(
    extent: Extent, source: Architecture, devices: int, limit: Limit | None, place: HeadPlace | None
) -> Choice:
    batch = choose_batch(extent.images, devices)
    solved, why_solved = solve_stage(extent, batch, place)
    if why_not := _find_obstacle(extent, limit):
        return Choice({"feature_extraction": solved}, (*why_solved, f"no fine-tuning: {why_not}"))
    epochs, why_epochs = _choose_epochs(extent.images, TUNE_PICTURES, TUNE_EPOCHS, limit)
    cut = choose_cut(source if place is None else source.end_before(place.unit))
    tuned = tune_stage(cut, epochs, batch)
    reasons = (
        *why_solved,
        f"then fine-tuning from {cut}, the last {TUNED} blocks at most, since what is before it is computed once "
        f"where config.cache has room: {why_epochs}",
        explain_batch(batch),
        explain_optimizer(tuned.optimizer),
    )
    return Choice({"feature_extraction": solved, "fine_tune": tuned}, reasons)


def tune_stage(cut: str, epochs: int, batch: int) -> Stage:
    """The stage that fine-tunes from a `cut`."""
    optimizer = Optimizer("adam", scale_rate(1e-4, batch), "cosine", epochs / 20)
    return _train("fine_tune", cut, epochs, batch, optimizer)


def count_tuning(images: int) -> tuple[int, str]:
    """The epochs of a fine-tuning without a limit, and the reason."""
    return _choose_epochs(images, TUNE_PICTURES, TUNE_EPOCHS, None)


def explain_scratch(images: int) -> str:
    """Why training from scratch has as many epochs as it has without a limit."""
    return _choose_epochs(images, SCRATCH_PICTURES, EPOCHS, None)[1]


def _find_obstacle(extent: Extent, limit: Limit | None) -> str | None:
    """Why the last blocks are not fine-tuned; None if they are."""
    a_class = find_quartile(extent)
    if a_class < FEW_LABELS:
        return (
            f"whether it helps shows from {FEW_LABELS} pictures a class on, and a quarter of the classes have at most "
            f"{a_class:.3g}"
        )
    if not extent.validation:
        return "no pictures are left to validate on"
    return f"not one epoch fits into {limit.why}" if limit and limit.epochs < 1 else None


def choose_cut(source: Architecture) -> str:
    """The first of the last `TUNED` blocks of the network `source`, whose head may read earlier than that of the whole
    network; the stem if there is no block."""
    stem, *blocks, _ = source.units
    return (blocks[-TUNED:] or [stem])[0]


def find_quartile(extent: Extent) -> float:
    """The lower quartile of the numbers of pictures of the classes; their mean if they were not counted."""
    return float(np.quantile(extent.by_class, 0.25)) if extent.by_class else extent.images / extent.classes


def solve_stage(extent: Extent, batch: int, place: HeadPlace | None = None) -> tuple[Stage, tuple[str, ...]]:
    """The stage that solves a head, and why it is as it is."""
    head = Head("head" if place is None else place.unit, "ridge")
    solved = Stage("feature_extraction", head=head, epochs=0, batch_size=batch)
    why: tuple[str, ...] = (
        "a new head, solved from one pass through the frozen network: no rate or number of epochs to choose",
    )
    why += () if place is None else (place.why,)
    if not (extent.by_class and is_uneven(extent.by_class)):
        return solved, why
    least, most = min(extent.by_class), max(extent.by_class)
    why_weighted = (
        f"its classes count the same (class_weights=balanced), since they have {least:,} to {most:,} pictures: else "
        "the rare ones would hardly be named"
    )
    return replace(solved, class_weights="balanced"), (*why, why_weighted)


def _train(stage: StageName, cut: str, epochs: int, batch: int, optimizer: Optimizer) -> Stage:
    """A stage whose learning rate falls until its last epoch, so that none is left out."""
    return Stage(
        stage,
        cut=cut,
        epochs=epochs,
        monitor="val_accuracy",
        patience=None,
        batch_size=batch,
        optimizer=optimizer,
    )


def _choose_epochs(images: int, pictures: int, bounds: tuple[int, int], limit: Limit | None) -> tuple[int, str]:
    """The number of epochs, and the reason."""
    least, most = bounds
    wanted = max(least, min(most, pictures // images))
    rule = f"so many that the network sees {pictures:,} pictures in all, but each {least} to {most} times"
    if limit is None:
        return wanted, f"{wanted} epochs ({rule})"
    if limit.epochs >= wanted:
        return wanted, f"{wanted} epochs ({rule}), which fit into {limit.why}"
    fit = max(limit.epochs, 1)
    return fit, f"epochs: {fit} instead of {wanted}, since more do not fit into {limit.why}"


def choose_batch(images: int, devices: int) -> int:
    """The largest power of two that leaves 16 steps of an epoch, but 8 to 128; rounded up to a multiple of the
    `devices`."""
    size = 8
    while size * 2 <= min(128, images / 16):
        size *= 2
    return -(-size // devices) * devices


def scale_rate(rate: float, batch: int) -> float:
    """Adam's learning rate for a `batch`, from the `rate` for 128 pictures: it grows with the square root (Malladi et
    al., arXiv:2205.10287)."""
    return float(f"{rate * (batch / 128) ** 0.5:.3g}")


def explain_batch(batch: int) -> str:
    return f"batches of {batch}: from 8 to 128 pictures, so that an epoch has 16 steps, and one on each device at least"


def explain_optimizer(optimizer: Optimizer) -> str:
    return (
        f"{optimizer.name}, rate {optimizer.learning_rate:g} (by the square root of the batch), weight decay "
        f"{optimizer.weight_decay:g}, {optimizer.schedule} after {optimizer.warmup_epochs:g} epochs of warm-up"
    )
