"""The rules of a recipe: from how much data there is to the stages of a lesson.

The idea, that nobody tunes anything, is the BiT-HyperRule's (Kolesnikov et al., "Big Transfer", arXiv:1912.11370,
section 3.3). The numbers are ours, from few and short runs at 32 pixels.
"""

import dataclasses
from typing import NamedTuple

from tljax.config import Head, Optimizer, Stage
from tljax.data.splits import Extent

# From scratch a network sees this many pictures, each between `EPOCHS` times.
PICTURES = 1_500_000
EPOCHS = (30, 300)
# A tenth of a class is validated on: with fewer pictures of a class than this, fine-tuning is guesswork.
FEW_LABELS = 20
# Fine-tuning sees as many pictures as BiT does in 500 steps, each between `TUNE_EPOCHS` times.
TUNE_PICTURES = 256_000
TUNE_EPOCHS = (10, 20)


class Choice(NamedTuple):
    """The stages of a lesson by name, and why they are as they are, a line each."""

    stages: dict[str, Stage]
    reasons: tuple[str, ...]


def choose_stages(extent: Extent, pretrained: bool, devices: int) -> Choice:
    """The stages for data of this `extent`: transfer from source weights if there are any, else from scratch.

    A batch is at least one picture on each of so many `devices`.
    """
    return _transfer(extent, devices) if pretrained else _from_scratch(extent, devices)


def _from_scratch(extent: Extent, devices: int) -> Choice:
    epochs, batch = _within(PICTURES // extent.images, EPOCHS), choose_batch(extent.images, 128, devices)
    warmup = max(1, epochs // 20)
    optimizer = Optimizer("adamw", scale_rate(1e-3, batch), schedule="cosine", warmup_epochs=warmup, weight_decay=0.05)
    stage = Stage(
        "from_scratch",
        cut="conv1",
        epochs=epochs,
        monitor="val_accuracy",
        patience=None,
        batch_size=batch,
        batch_norm="training",
        optimizer=optimizer,
    )
    reasons = (
        f"from scratch, since there are no source weights: {epochs} epochs show {epochs * extent.images:,} pictures "
        f"(about {PICTURES:,}, but each of them {EPOCHS[0]} to {EPOCHS[1]} times)",
        _explain_batch(batch),
        f"{_explain_optimizer(optimizer)}; the rate falls to 0 at the last epoch, so none is left out",
        "BatchNorm with the statistics of each batch: a new network has no others",
    )
    return Choice({"from_scratch": stage}, reasons)


def _transfer(extent: Extent, devices: int) -> Choice:
    solved = Stage(
        "feature_extraction", head=Head(init="ridge"), epochs=0, batch_size=choose_batch(10**9, 256, devices)
    )
    a_class = extent.images / extent.classes
    why_solved = "a new head, solved from one pass through the frozen network: no rate or number of epochs to choose"
    if a_class < FEW_LABELS:
        return Choice(
            {"feature_extraction": solved},
            (
                why_solved,
                f"no fine-tuning: {a_class:.3g} pictures a class are fewer than {FEW_LABELS}, and it takes more to "
                "tell whether it helps",
            ),
        )
    epochs = _within(TUNE_PICTURES // extent.images, TUNE_EPOCHS)
    batch = choose_batch(extent.images, 128, devices)
    optimizer = Optimizer("adam", scale_rate(1e-4, batch), schedule="cosine", warmup_epochs=epochs / 20)
    tuned = Stage(
        "fine_tune",
        cut="conv5_block1",
        epochs=epochs,
        monitor="val_accuracy",
        patience=None,
        batch_size=batch,
        optimizer=optimizer,
    )
    return Choice(
        {"feature_extraction": solved, "fine_tune": tuned},
        (
            why_solved,
            f"then fine-tuning from conv5_block1, since what is before it is computed once; {epochs} epochs show "
            f"{epochs * extent.images:,} pictures (about {TUNE_PICTURES:,}, but each of them {TUNE_EPOCHS[0]} to "
            f"{TUNE_EPOCHS[1]} times)",
            _explain_batch(batch),
            _explain_optimizer(optimizer),
        ),
    )


def choose_batch(images: int, most: int, devices: int) -> int:
    """The largest power of two that makes 16 steps of an epoch, at least 8 and at `most` 128; rounded up to a multiple
    of the `devices`."""
    size = 8
    while size * 2 <= min(most, images / 16):
        size *= 2
    return -(-size // devices) * devices


def scale_rate(rate: float, batch: int) -> float:
    """Adam's learning rate for a `batch`, from the `rate` for 128 pictures: it grows with the square root (Malladi et
    al., arXiv:2205.10287)."""
    return float(f"{rate * (batch / 128) ** 0.5:.3g}")


def limit_epochs(choice: Choice, most: int, why: str) -> Choice:
    """`choice` with at `most` so many epochs in its last stage, if that has any, and a warm-up in proportion."""
    name, stage = list(choice.stages.items())[-1]
    if not stage.epochs:
        return choice
    epochs = min(most, stage.epochs)
    warmup = stage.optimizer.warmup_epochs * epochs / stage.epochs
    shorter = dataclasses.replace(
        stage, epochs=epochs, optimizer=dataclasses.replace(stage.optimizer, warmup_epochs=warmup)
    )
    what = f"{epochs} epochs instead of {stage.epochs}" if most < stage.epochs else f"all {epochs} epochs fit"
    return Choice(choice.stages | {name: shorter}, (*choice.reasons, f"{name}: {what}; {why}"))


def _within(value: int, bounds: tuple[int, int]) -> int:
    return max(bounds[0], min(bounds[1], value))


def _explain_batch(batch: int) -> str:
    return f"{batch} pictures a batch: 16 steps or more an epoch, up to 128 pictures, at least one a device"


def _explain_optimizer(optimizer: Optimizer) -> str:
    return (
        f"{optimizer.name}, rate {optimizer.learning_rate:g} (by the square root of the batch), weight decay "
        f"{optimizer.weight_decay:g}, {optimizer.schedule} after {optimizer.warmup_epochs:g} epochs of warm-up"
    )
