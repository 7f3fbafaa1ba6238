"""The progress of a run: its finished epochs, early stopping, and the finished part of the current epoch."""

import base64
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tljax.config import Monitor
from tljax.training import metrics
from tljax.training.unchosen import Judged
from tljax.trees import Row


class EarlyStopper(NamedTuple):
    """The best score so far (`score`: lower is better), its epoch, the number of epochs since, and whether to stop.
    Epoch 0 is a solved head or, with an infinite score, none yet."""

    best: float = math.inf
    best_epoch: int = 0
    wait: int = 0
    stopped: bool = False


def score(row: Row, monitor: Monitor) -> float:
    """What the best epoch has least of: the validation loss, or the negative accuracy. NaN where the loss is not
    finite, since such a network has no use."""
    if not math.isfinite(row["val_loss"]):
        return math.nan
    return float(row["val_loss"] if monitor == "val_loss" else -row["val_accuracy"])


def update_stopper(stopper: EarlyStopper, *, epoch: int, score: float, patience: int | None) -> EarlyStopper:
    """The stopper after one more epoch; it stops at the `patience`-th epoch in a row without a lower `score`, or never.

    It counts as keras.callbacks.EarlyStopping(restore_best_weights=True, min_delta=0) does. The first epoch is the best
    until another one is lower, whatever its score. A later `score` that is not finite is never the best.
    """
    if stopper == EarlyStopper():
        return EarlyStopper(score if math.isfinite(score) else math.inf, epoch)
    if math.isfinite(score) and score < stopper.best:
        return EarlyStopper(score, epoch)
    wait = stopper.wait + 1
    return stopper._replace(wait=wait, stopped=patience is not None and wait >= patience)


class PartialEpoch(NamedTuple):
    """The finished part of an epoch: its number of training steps, the sums of each step, and the seconds they took."""

    steps: int = 0
    sums: metrics.Sums = metrics.Sums((), (), ())
    seconds: float = 0.0


class Progress(NamedTuple):
    """Everything that a run needs, beside its `TrainState`, to continue as if it had never stopped."""

    history: tuple[Row, ...] = ()
    """One row for every finished epoch, and one with the epoch 0 for a solved head; in a fine-tuning, the rows of its
    source run come first."""
    stopper: EarlyStopper = EarlyStopper()
    partial: PartialEpoch = PartialEpoch()
    """The finished part of the epoch after those of `history`."""
    judged: tuple[Judged, ...] = ()
    """What each row of this run's own history makes of each validation picture, where that is kept. A run that began
    under an older version lacks the first ones."""
    spread: bool = True
    """Whether the padding is spread over the batches of an epoch (`batches.draw_order`). That of a run which began
    under an older version is not."""

    @property
    def epoch(self) -> int:
        """The number of the current epoch; the first is 1."""
        return last_epoch(self.history) + 1

    def is_done(self, last: int) -> bool:
        """Whether no epoch is left to run; `last` is the number of the last one."""
        return self.stopper.stopped or self.epoch > last


def last_epoch(history: Sequence[Row]) -> int:
    """The number of the last epoch of `history`, 0 if there is none."""
    return history[-1]["epoch"] if history else 0


def record_solved(progress: Progress, row: Row, monitor: Monitor, judged: Judged | None = None) -> Progress:
    """The progress after the head was solved, whose metrics are `row`: the best until an epoch has a lower score.

    Without a validation split there is no score, and no epoch will follow.
    """
    best = row["loss"] if row["val_loss"] is None else score(row, monitor)
    return _append(progress, row, EarlyStopper(best, 0), judged)


def finish_epoch(
    progress: Progress, row: Row, patience: int | None, monitor: Monitor, judged: Judged | None = None
) -> Progress:
    """The progress after an epoch that ended with the metrics `row`, and made `judged` of the validation pictures."""
    stopper = update_stopper(progress.stopper, epoch=row["epoch"], score=score(row, monitor), patience=patience)
    return _append(progress, row, stopper, judged)


def _append(progress: Progress, row: Row, stopper: EarlyStopper, judged: Judged | None) -> Progress:
    history, all_judged = (*progress.history, row), (*progress.judged, *([] if judged is None else [judged]))
    return progress._replace(history=history, stopper=stopper, partial=PartialEpoch(), judged=all_judged)


def progress_to_json(progress: Progress) -> dict[str, Any]:
    """`progress` as a dict for JSON, with numbers in full precision. The partial epoch is stored as `begun`, its name
    in checkpoints since the first version."""
    steps, sums, seconds = progress.partial
    begun = {"steps": steps, "sums": [[float(x) for x in part] for part in sums], "seconds": seconds}
    return {
        "history": list(progress.history),
        "stopper": progress.stopper._asdict(),
        "begun": begun,
        "judged": [judged_to_json(epoch) for epoch in progress.judged],
        "spread": progress.spread,
    }


def progress_from_json(value: dict[str, Any]) -> Progress:
    """Undoes `progress_to_json`."""
    begun = value["begun"]
    return Progress(
        tuple(value["history"]),
        EarlyStopper(**value["stopper"]),
        PartialEpoch(begun["steps"], metrics.Sums(*begun["sums"]), begun["seconds"]),
        tuple(map(judged_from_json, value["judged"])),
        value["spread"],
    )


def judged_to_json(judged: Judged) -> dict[str, str]:
    """`judged` as texts: the losses in base64, and 1 for each picture that is predicted right, 0 for each other."""
    losses = base64.b64encode(judged.losses.astype("<f4").tobytes()).decode()
    return {"losses": losses, "right": "".join("01"[int(right)] for right in judged.right)}


def judged_from_json(value: dict[str, str]) -> Judged:
    """Undoes `judged_to_json`.

    Raises:
      ValueError: if the texts hold anything else, or are of different numbers of pictures.
    """
    losses = np.frombuffer(base64.b64decode(value["losses"], validate=True), "<f4").astype(np.float32)
    if len(losses) != len(value["right"]) or not set(value["right"]) <= {"0", "1"}:
        raise ValueError(f"right={value['right']!r:.80} does not say of each of {len(losses)} pictures 0 or 1")
    return Judged(losses, np.array([digit == "1" for digit in value["right"]], bool))
