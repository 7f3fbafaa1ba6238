"""What a training run writes as its epochs end, and what it resumes from."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp

from tljax.devices.processes import leads, max_over_processes
from tljax.networks.cut import Cut
from tljax.runs.checkpoints import FROZEN, Checkpoints, Meta
from tljax.runs.files import write_rows
from tljax.runs.learned import Learned, find_learned, write_learned
from tljax.runs.saved_values import PROGRESS_KEYS, check_kept
from tljax.runs.workdir import METRICS
from tljax.training.progress import Progress, progress_from_json, progress_to_json
from tljax.training.state import Diverged, TrainState
from tljax.trees import Row, Tree

# Seconds from one checkpoint to the next, at least. One of ResNet50 with Adam's moments, 280 MB, takes two, an epoch on
# few pictures half of one. A kill loses no more than this and an epoch.
SAVE_SECONDS = 15.0


@dataclass
class Journal:
    """Checkpoints and `metrics.jsonl` of one run.

    The first epoch has a checkpoint, then the first one that ends `SAVE_SECONDS` after the last checkpoint, and so on.
    If the best epoch has none, its state is copied, and the next save writes it too, or an error that ends the run.

    It keeps the newest checkpoint and the best epoch's. While the run is at work, it also keeps those that were the
    newest and the best before the last save.
    """

    workdir: Path
    checkpoints: Checkpoints
    cut: Cut
    frozen: dict[str, str]
    """Digests of the frozen leaves."""
    about: Meta
    """What the run is about: a part of the meta of every checkpoint. A run resumes only with the same `about`."""
    earlier: tuple[Row, ...]
    """The metrics of the epochs of the source run, if this run continues one."""
    steps: int
    """Training steps per epoch."""
    learned: Learned
    """What the weights have learned from when this run is over."""
    _kept: set[int] = field(default_factory=set)
    _saved_at: float | None = None
    """When this start wrote its last checkpoint, by the monotonic clock."""
    _best: tuple[TrainState, Progress] | None = None
    """The best epoch, while it has no checkpoint. The state has trainable variables only."""

    def read(self, shapes: TrainState) -> tuple[TrainState | None, Progress]:
        """The state and the progress of the newest good checkpoint; if there is none, None and the initial progress.

        `shapes` gives the state's shapes and dtypes; `Checkpoints.restore_newest` describes the state.

        Raises:
          ValueError: if the checkpoints belong to another run, or hold no progress.
          OSError: if the system does not allow reading them now.
        """
        found = self.checkpoints.restore_newest(shapes, self.cut, self.frozen, self.about)
        if found is None:
            return None, Progress(self.earlier)
        check_kept(found[1], PROGRESS_KEYS, self.workdir)
        return found[0], progress_from_json(found[1])

    def begin(self, variables: Tree, progress: Progress) -> None:
        """Writes the frozen variables, what the run learns from, and the metrics of the finished epochs. To be called
        before anything else is written."""
        self.checkpoints.keep_frozen(variables, self.cut, self.frozen)
        before, _ = find_learned(self.workdir)
        # A source that has been deleted since the run began would make its record smaller.
        if before is None or self.learned.whole or not before.whole:
            write_learned(self.workdir, self.learned)
        self._write_rows(progress)
        self._kept = set(self._number(progress))

    def record(self, state: TrainState, progress: Progress) -> None:
        """Writes a checkpoint after an epoch, or after a part of one, if it is time for one, and the metrics."""
        now, best = self._number(progress)
        # The leader's clock decides: all processes save together.
        if max_over_processes(leads() and self._is_time()):
            self.save(state, progress)
        elif now == best:
            # The next step may use the memory of this state for its own; the copy before this one is not needed.
            trained, self._best = state._replace(variables=self.cut.split(state.variables)[1]), None
            self._best = jax.tree.map(jnp.copy, trained), progress
        self._write_rows(progress)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Writes a checkpoint unless it is there, before it that of the best epoch if it has none, and deletes those
        that are not needed any more.

        The first checkpoint of this start is read back at once: a folder that is not fit for checkpoints shows early.
        """
        now, best = self._number(progress)
        if now in (FROZEN, *self.checkpoints.numbers):
            return
        if self._best is not None and now != best:
            self._write(*self._best)
        self._write(state, progress)
        if self._saved_at is None:
            self.checkpoints.read_back(now)
        self.checkpoints.prune({now, best} | self._kept)
        self._kept, self._best, self._saved_at = {now, best}, None, time.monotonic()

    @contextmanager
    def keeping_best(self) -> Iterator[None]:
        """A block with the epochs. If an error ends it, the best one is written before, unless it has a checkpoint."""
        try:
            yield
        except Exception as error:
            # All processes save together, and another error may be that of one alone.
            if self._best is not None and (jax.process_count() == 1 or isinstance(error, Diverged)):
                # What went wrong first is what to say.
                with suppress(OSError, Diverged):
                    self._write(*self._best)
            raise

    def _is_time(self) -> bool:
        return self._saved_at is None or time.monotonic() - self._saved_at >= SAVE_SECONDS

    def _write(self, state: TrainState, progress: Progress) -> None:
        now, best = self._number(progress)
        meta = self.about | progress_to_json(progress) | {"best": best}
        self.checkpoints.save(now, state, self.cut, self.frozen, meta)

    def best_number(self, progress: Progress) -> int:
        """The number of the checkpoint with the best epoch."""
        return self._number(progress)[1]

    def read_best(self, progress: Progress) -> Tree:
        """The variables of the best epoch. Deletes all checkpoints but the best epoch's and the newest."""
        variables, _ = self.checkpoints.restore_variables(self.best_number(progress))
        self.checkpoints.prune(set(self._number(progress)))
        return variables

    def _number(self, progress: Progress) -> tuple[int, int]:
        """The checkpoint's number for `progress`, and that for its best epoch. A solved head counts one."""
        own = [row["epoch"] for row in progress.history[len(self.earlier) :]]
        until_best = [epoch for epoch in own if epoch <= progress.stopper.best_epoch]
        now, best = (sum(self.steps + 1 if epoch else 1 for epoch in epochs) for epochs in (own, until_best))
        return now + progress.partial.steps, best

    def _write_rows(self, progress: Progress) -> None:
        write_rows(self.workdir / METRICS, progress.history[len(self.earlier) :])
