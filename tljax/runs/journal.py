"""What a training run writes as it goes, an epoch at a time, and what it goes on from."""

from dataclasses import dataclass, field
from pathlib import Path

from tljax.networks.cut import Cut
from tljax.runs.checkpoints import Checkpoints, Meta
from tljax.runs.files import write_rows
from tljax.runs.workdir import METRICS
from tljax.training.progress import Progress, progress_from_json, progress_to_json
from tljax.training.state import TrainState
from tljax.trees import Row, Tree


@dataclass
class Journal:
    """Checkpoints and `metrics.jsonl` of one run. The newest and the best epoch are kept, and those before them until
    the next are there."""

    workdir: Path
    checkpoints: Checkpoints
    cut: Cut
    frozen: dict[str, str]
    """Digests of the frozen leaves."""
    about: Meta
    """What every checkpoint says of the run, the same in all of them."""
    earlier: tuple[Row, ...]
    """The epochs of the run that this one goes on from."""
    steps: int
    """Those of an epoch."""
    _kept: set[int] = field(default_factory=set)

    def read(self, shapes: TrainState) -> tuple[TrainState | None, Progress]:
        """The newest good state, None if there is none, and how far it is.

        Raises:
          ValueError: if what is there belongs to another run.
        """
        found = self.checkpoints.restore_newest(shapes, self.cut, self.frozen, self.about)
        if found is None:
            return None, Progress(self.earlier)
        return found[0], progress_from_json(found[1])

    def begin(self, variables: Tree, progress: Progress) -> None:
        """Writes what stands there from the start: the frozen half, and the epochs that are done."""
        self.checkpoints.keep_frozen(variables, self.cut, self.frozen)
        self._write_rows(progress)
        self._kept = set(self._number(progress))

    def write(self, state: TrainState, progress: Progress) -> None:
        """A checkpoint, the rows of the epochs, and nothing left that is not needed any more."""
        now, best = self._number(progress)
        meta = self.about | progress_to_json(progress) | {"best": best}
        self.checkpoints.save(now, state, self.cut, self.frozen, meta)
        self._write_rows(progress)
        self.checkpoints.prune({now, best} | self._kept)
        self._kept = {now, best}

    def read_best(self, progress: Progress) -> Tree:
        """The variables of the best epoch; what was kept until now beside it and the newest is deleted."""
        variables, _ = self.checkpoints.restore_variables(self._number(progress)[1])
        self.checkpoints.prune(set(self._number(progress)))
        return variables

    def _number(self, progress: Progress) -> tuple[int, int]:
        """The number of the checkpoint of `progress`, and of its best epoch's."""
        epochs = (len(progress.history), progress.stopper.best_epoch)
        now, best = (max(0, n - len(self.earlier)) * (self.steps + 1) for n in epochs)
        return now + progress.partial.steps, best

    def _write_rows(self, progress: Progress) -> None:
        write_rows(self.workdir / METRICS, progress.history[len(self.earlier) :])
