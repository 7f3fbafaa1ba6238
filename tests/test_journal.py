"""When a run writes checkpoints, and that a run comes to the same whichever epochs have one."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import TIMES, read_rows, small

from tljax.config import Optimizer
from tljax.networks.cut import Cut
from tljax.runs import checkpoints, journal, readers
from tljax.runs.journal import Journal
from tljax.runs.learned import NOTHING
from tljax.stages.from_config import run
from tljax.training.progress import PartialEpoch, Progress, finish_epoch
from tljax.training.state import Diverged, TrainState

SEVERAL = small(
    "from_scratch", epochs=6, monitor="val_accuracy", optimizer=Optimizer(learning_rate=0.01, ema_decay=0.5)
)


class Kept:
    """The checkpoints of a run as the weight that each holds, and a clock that each save moves by 2 seconds."""

    def __init__(self):
        self.numbers: dict[int, float] = {}
        self.order: list[int] = []
        self.now = 1000.0

    def save(self, number, state, cut, frozen, meta):
        self.numbers[number] = float(state.variables["params"]["head"])
        self.order.append(number)
        self.now += 2

    def read_back(self, number):
        assert number in self.numbers

    def prune(self, keep):
        self.numbers = {number: value for number, value in self.numbers.items() if number in keep}


@pytest.fixture
def kept(monkeypatch):
    found = Kept()
    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=lambda: found.now))
    monkeypatch.setattr(journal, "SAVE_SECONDS", 15.0)
    return found


def begin(kept, folder) -> Journal:
    return Journal(folder, kept, Cut(("conv1", "head"), "head"), {}, {}, (), 9, NOTHING)


def state_after(epoch: int) -> TrainState:
    variables = {"params": {"conv1": jnp.zeros(()), "head": jnp.full((), epoch)}}
    return TrainState(jnp.int32(epoch), variables, ())


def run_epochs(kept, written: Journal, losses, seconds: float) -> Progress:
    """The progress after epochs with these validation losses, each so many `seconds` long; epoch n leaves weight n."""
    progress = Progress()
    for epoch, loss in enumerate(losses, start=1):
        kept.now += seconds
        row = {"epoch": epoch, "val_loss": loss, "val_accuracy": 0.5}
        progress = finish_epoch(progress, row, None, "val_loss")
        written.record(state_after(epoch), progress)
    return progress


@pytest.mark.parametrize(
    ("seconds", "saved"),
    # A checkpoint's number is ten times its epoch. The best epoch is the fourth.
    [(15, [10, 20, 30, 40, 50, 60]), (8, [10, 30, 40, 50]), (6, [10, 40]), (4, [10, 40, 50]), (1, [10])],
)
def test_checkpoints_are_so_many_seconds_apart(tmp_path, kept, seconds, saved):
    written = begin(kept, tmp_path)
    progress = run_epochs(kept, written, [3, 2.5, 2.2, 1, 2, 2.5], seconds)
    assert kept.order == saved
    written.save(state_after(6), progress)
    assert {40: 4.0, 60: 6.0}.items() <= kept.numbers.items()
    assert kept.order == sorted({*saved, 40, 60})
    # What is there is not written again.
    written.save(state_after(6), progress)
    assert kept.order == sorted({*saved, 40, 60})
    assert [row["epoch"] for row in read_rows(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_part_of_an_epoch_is_saved_with_the_best_epoch_before_it(tmp_path, kept):
    written = begin(kept, tmp_path)
    progress = run_epochs(kept, written, [3, 2, 2.5], 1)._replace(partial=PartialEpoch(4))
    written.record(state_after(3), progress)
    assert kept.order == [10]
    written.save(state_after(3), progress)
    assert kept.order == [10, 20, 34] and kept.numbers[20] == 2.0


@pytest.mark.parametrize(("error", "processes", "saved"), [(OSError, 1, [10, 40]), (Diverged, 2, [10, 40]),
                                                           (OSError, 2, [10])])  # fmt: skip
def test_an_error_does_not_cost_the_best_epoch(tmp_path, kept, monkeypatch, error, processes, saved):
    """Unless it may be that of one process, which the others would wait for."""
    monkeypatch.setattr(journal, "jax", SimpleNamespace(tree=jax.tree, process_count=lambda: processes))
    written = begin(kept, tmp_path)
    with pytest.raises(error, match="wrong"), written.keeping_best():
        run_epochs(kept, written, [3, 2.5, 2.2, 1, 2], 1)
        raise error("wrong")
    assert kept.order == saved


def test_nothing_is_saved_before_the_first_step(tmp_path, kept):
    begin(kept, tmp_path).save(state_after(0), Progress())
    assert not kept.order


def digests(folder):
    with checkpoints.open_checkpoints(folder) as found:
        return {number: found.read_meta(number)["digest"] for number in found.numbers}


def rows_without_times(folder):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(folder)]


@pytest.fixture(scope="module")
def an_epoch_a_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(SEVERAL, folder)
    # Neither the first nor the last epoch is the best.
    assert 1 < int(np.argmax([row["val_accuracy"] for row in read_rows(folder)])) + 1 < 6
    return folder


@pytest.mark.parametrize("dies", [False, True])
def test_a_run_that_seldom_saves_comes_to_the_same(tmp_path, monkeypatch, an_epoch_a_checkpoint, dies):
    """Also if it dies after it wrote the best epoch, and before it wrote the newest."""
    save, left = checkpoints.Checkpoints.save, [2]

    def die_at_the_third(self, *arguments):
        if not left[0]:
            raise OSError("no space left")
        left[0] -= 1
        save(self, *arguments)

    monkeypatch.setattr(journal, "SAVE_SECONDS", 1e9)
    if dies:
        with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
            patch.setattr(checkpoints.Checkpoints, "save", die_at_the_third)
            run(SEVERAL, tmp_path / "run")
        assert len(digests(tmp_path / "run")) == 2
    run(SEVERAL, tmp_path / "run")
    assert digests(tmp_path / "run") == digests(an_epoch_a_checkpoint)
    assert rows_without_times(tmp_path / "run") == rows_without_times(an_epoch_a_checkpoint)


def test_a_run_keeps_the_order_that_it_began_with(tmp_path, monkeypatch, an_epoch_a_checkpoint):
    """An older version left the padding last, and did not say so: 60 pictures are three batches of 16 and one of 12."""
    config = small("from_scratch", epochs=2)
    before = checkpoints.META_BEFORE["spread"]
    for name, epochs in (("run", 1), ("whole", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(journal, "Progress", lambda earlier: Progress(earlier, spread=before))
            config.epochs = epochs
            run(config, tmp_path / name)
    run(config, tmp_path / "run")
    assert rows_without_times(tmp_path / "run") == rows_without_times(tmp_path / "whole")
    assert [readers.read_run(folder)[1]["spread"] for folder in (tmp_path / "run", an_epoch_a_checkpoint)] == [
        False,
        True,
    ]
    run(config, tmp_path / "new")
    assert rows_without_times(tmp_path / "new") != rows_without_times(tmp_path / "whole")
