"""Where a run is: its epochs, when it stops early, and what is done of the epoch under way."""

import math
from typing import Any, NamedTuple

from tljax.training import metrics
from tljax.trees import Row


class EarlyStopper(NamedTuple):
    """The best validation loss so far, its epoch (0: none yet), epochs since, and whether to stop."""

    best: float = math.inf
    best_epoch: int = 0
    wait: int = 0
    stopped: bool = False


def update_stopper(stopper: EarlyStopper, *, epoch: int, val_loss: float, patience: int) -> EarlyStopper:
    """Counts as keras.callbacks.EarlyStopping(restore_best_weights=True, min_delta=0): stops at the `patience`-th
    epoch in a row without a lower `val_loss`.

    The first epoch is the best until another is lower, whatever its value; a value that is not finite never beats
    one that is.
    """
    if stopper.best_epoch == 0:
        return EarlyStopper(val_loss if math.isfinite(val_loss) else math.inf, epoch)
    if math.isfinite(val_loss) and val_loss < stopper.best:
        return EarlyStopper(val_loss, epoch)
    wait = stopper.wait + 1
    return stopper._replace(wait=wait, stopped=wait >= patience)


class PartialEpoch(NamedTuple):
    """What is done of an epoch: training steps, the sums of each of them, the seconds they took."""

    steps: int = 0
    sums: metrics.Sums = metrics.Sums((), (), ())
    seconds: float = 0.0


class Progress(NamedTuple):
    """All that a run takes, beside its state, to go on as if it had never stopped."""

    history: tuple[Row, ...] = ()
    """A row for every epoch that is done; where the source was a run, its epochs come first."""
    stopper: EarlyStopper = EarlyStopper()
    partial: PartialEpoch = PartialEpoch()
    """The epoch after those of `history`."""

    @property
    def epoch(self) -> int:
        """The number of the epoch under way, from 1."""
        return len(self.history) + 1

    def is_done(self, last: int) -> bool:
        """Whether there is no epoch left to run, `last` being the last one."""
        return self.stopper.stopped or len(self.history) >= last


def finish_epoch(progress: Progress, row: Row, patience: int) -> Progress:
    """The progress after an epoch, of which `row` says what came out."""
    stopper = update_stopper(progress.stopper, epoch=row["epoch"], val_loss=row["val_loss"], patience=patience)
    return Progress((*progress.history, row), stopper)


def progress_to_json(progress: Progress) -> dict[str, Any]:
    """As JSON, every number to its last digit. `begun` is what checkpoints have called the partial epoch from the
    first."""
    steps, sums, seconds = progress.partial
    begun = {"steps": steps, "sums": [[float(x) for x in part] for part in sums], "seconds": seconds}
    return {"history": list(progress.history), "stopper": progress.stopper._asdict(), "begun": begun}


def progress_from_json(value: dict[str, Any]) -> Progress:
    """Undoes `progress_to_json`."""
    begun = value["begun"]
    return Progress(
        tuple(value["history"]),
        EarlyStopper(**value["stopper"]),
        PartialEpoch(begun["steps"], metrics.Sums(*begun["sums"]), begun["seconds"]),
    )
