"""What a training run writes after each epoch, and what it resumes from."""

from dataclasses import dataclass, field
from pathlib import Path

from tljax.networks.cut import Cut
from tljax.runs.checkpoints import Checkpoints, Meta
from tljax.runs.files import write_rows
from tljax.runs.learned import Learned, find_learned, write_learned
from tljax.runs.saved_values import PROGRESS_KEYS, check_kept
from tljax.runs.workdir import METRICS
from tljax.training.progress import Progress, progress_from_json, progress_to_json
from tljax.training.state import TrainState
from tljax.trees import Row, Tree


@dataclass
class Journal:
    """Checkpoints and `metrics.jsonl` of one run.

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
    _read_back: bool = False

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
        before any `write`."""
        self.checkpoints.keep_frozen(variables, self.cut, self.frozen)
        before, _ = find_learned(self.workdir)
        # A source that has been deleted since the run began would make its record smaller.
        if before is None or self.learned.whole or not before.whole:
            write_learned(self.workdir, self.learned)
        self._write_rows(progress)
        self._kept = set(self._number(progress))

    def write(self, state: TrainState, progress: Progress) -> None:
        """Writes a checkpoint and the metrics, then deletes the checkpoints that are not needed any more.

        The first checkpoint of this start is read back at once: a folder that is not fit for checkpoints shows early.
        """
        now, best = self._number(progress)
        meta = self.about | progress_to_json(progress) | {"best": best}
        self.checkpoints.save(now, state, self.cut, self.frozen, meta)
        if not self._read_back:
            self.checkpoints.read_back(now)
            self._read_back = True
        self._write_rows(progress)
        self.checkpoints.prune({now, best} | self._kept)
        self._kept = {now, best}

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
