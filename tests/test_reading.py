"""Readers beside a run: what it deletes meanwhile is read anew, nothing is called damaged that is not, nothing is
written."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count, cycle, permutations
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import numpy as np
import optax
import pytest
from tiny_runs import TINY, make_source

from tljax.cli import main
from tljax.commands.predict import describe_model
from tljax.commands.show import show
from tljax.model import find_reference, load
from tljax.networks.cut import Cut
from tljax.networks.resnet import ResNet
from tljax.runs import checkpoints, files, readers, workdir
from tljax.runs.reference import REFERENCE, Reference, read_reference, write_reference
from tljax.runs.workdir import LOCK, claim, is_at_work
from tljax.training.state import create_state
from tljax.weights.pretrained import load_weights

NETWORK = ResNet(3, architecture=TINY)
SUMMARY_ROW = {"stage": "fine_tune", "loss": 0.5, "accuracy": 0.9, "seconds": 1.0, "params": {"trainable": 3}}
ROW = {"stage": "fine_tune", "loss": 0.5, "accuracy": 0.9, "val_accuracy": 0.9, "learning_rate": 0.1}
GO_ON = "to go on, type the command that began this once more, with the same --workdir"
T = TypeVar("T")
HOLD = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
CLAIM = "import sys; from pathlib import Path; from tljax.runs.workdir import claim\nwith claim(Path(sys.argv[1])): {}"


@contextmanager
def process(code: str, argument: Path) -> Iterator[subprocess.Popen]:
    """A block beside a process that has printed an empty line and waits."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(argument)], **pipes) as started:
        assert started.stdout is not None and started.stdout.readline() == b"\n"
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def run_at_work(folder: Path) -> Iterator[None]:
    """A block in which another process holds the lock of a run in `folder`."""
    with process(HOLD, folder / LOCK):
        yield
    (folder / LOCK).unlink()


def beside(
    ask: Callable[[], T], change: Callable[[], object], prepare: Callable[[], object] = lambda: None, every: int = 1
) -> Iterator[T]:
    """What is answered while a `change` is made before the first line that runs in a reader, then before the second,
    and so on to the last, or so `every` few lines; each time from what `prepare` leaves."""
    for moment in count(0, every):
        lines = count()

        def trace(frame, event, _, moment=moment, lines=lines):
            if not frame.f_globals.get("__name__", "").startswith(("tljax.commands", "tljax.runs")):
                return None
            if event == "line" and next(lines) == moment:
                sys.settrace(None)
                change()
            return trace

        prepare()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            answer = ask()
        finally:
            sys.settrace(before)
        yield answer
        if next(lines) <= moment:
            return


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Checkpoints 1 to 3 of a run, each of them the best when it was written."""
    folder = make_source(tmp_path_factory.mktemp("written") / "run")
    variables, meta = readers.read_run(folder)
    cut = Cut(NETWORK.units, "conv1")
    state = create_state(variables, optax.identity(), cut)
    with checkpoints.open_checkpoints(folder, own=True) as kept:
        for number in (2, 3):
            kept.save(number, state, cut, {}, meta | {"best": number})
    return folder


@pytest.fixture
def run(written, tmp_path) -> Path:
    """A run whose newest checkpoint is 1."""
    shutil.copytree(written / "checkpoints" / "1", tmp_path / "run" / "checkpoints" / "1")
    return tmp_path / "run"


def move_on(written: Path, run: Path, number: int) -> None:
    """Does what a run does after an epoch: checkpoint `number` comes, all others go."""
    folder = run / "checkpoints"
    others = [path for path in folder.iterdir() if path.name != str(number)]
    coming = folder / f"{number}.orbax-checkpoint-tmp-1"
    shutil.copytree(written / "checkpoints" / str(number), coming)
    coming.rename(folder / str(number))
    for path in others:
        gone = path.rename(path.with_name(path.name + checkpoints.DELETED))
        shutil.rmtree(gone)


def damage(run: Path) -> None:
    for path in (run / "checkpoints" / "1" / "variables").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def test_whether_a_run_of_another_process_is_at_work(tmp_path, monkeypatch):
    assert is_at_work(tmp_path) is False
    with process(CLAIM.format("print(flush=True); input()"), tmp_path) as started:
        assert is_at_work(tmp_path) is True
        started.kill()
        started.wait()
        assert (tmp_path / LOCK).exists() and is_at_work(tmp_path) is False
    with claim(tmp_path):
        assert is_at_work(tmp_path) is False
    monkeypatch.setattr(workdir, "HELD", tmp_path / "none")
    assert is_at_work(tmp_path) is False
    (tmp_path / LOCK).touch()
    assert is_at_work(tmp_path) is None


def test_no_run_fails_to_start_for_a_reader(tmp_path):
    """Whatever of it a reader has done: a lock would last as long as its file is open."""

    def begin() -> None:
        with claim(tmp_path):
            show_or_nothing(tmp_path)

    # As a killed run leaves it.
    left = (tmp_path / LOCK).touch
    assert set(beside(lambda: is_at_work(tmp_path), begin, left)) == {False}
    assert set(beside(begin, lambda: is_at_work(tmp_path))) == {None}


def show_or_nothing(run: Path) -> str:
    try:
        return show(run)
    except FileNotFoundError as error:
        return str(error)


@pytest.mark.parametrize("held", [True, False])
def test_what_a_run_deletes_in_the_middle_of_a_read_is_read_anew(written, run, monkeypatch, held):
    """Also where the system does not say that a run is at work."""
    restore, read = checkpoints.Checkpoints.restore_variables, []

    def restore_late(kept, number):
        read.append(number)
        if number < 3:
            move_on(written, run, number + 1)
        return restore(kept, number)

    monkeypatch.setattr(checkpoints.Checkpoints, "restore_variables", restore_late)
    if not held:
        assert readers.read_run(run)[1]["best"] == 3
    else:
        with run_at_work(run):
            assert readers.read_run(run)[1]["best"] == 3
    assert read == [1, 2, 3]


def test_reads_beside_a_run_that_writes_and_deletes(written, run):
    numbers = cycle((2, 3, 1))
    found = beside(lambda: readers.read_run(run)[1]["best"], lambda: move_on(written, run, next(numbers)), every=400)
    assert set(found) == {1, 2, 3}


def test_damage_is_told_at_once_and_not_while_a_run_is_at_work(run, monkeypatch):
    damage(run)
    with (
        monkeypatch.context() as patch,
        pytest.raises(ValueError, match=f"checkpoints/1 is damaged: .*; delete {run} to run that again"),
    ):
        patch.setattr(readers, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pytest.fail))
        readers.read_run(run)
    monkeypatch.setattr(readers, "AGAIN_SECONDS", 0)
    with (
        run_at_work(run),
        pytest.raises(OSError, match=f"^{run} is in training, and could not be read just now") as told,
    ):
        readers.read_run(run)
    assert not re.search(r"damaged|delete|\n", str(told.value)) and str(told.value).endswith("; try again")


@pytest.mark.parametrize("holder", [".", ".."])
def test_a_run_without_a_finished_epoch_is_waited_for(run, holder):
    """The lock is its own, or that of its lesson."""
    shutil.rmtree(run / "checkpoints" / "1")
    with pytest.raises(ValueError, match="checkpoints holds no finished epoch: run that stage again"):
        readers.read_run(run)
    for _ in range(2):
        with (
            run_at_work(run / holder),
            pytest.raises(ValueError, match=f"^{run} is in training and has no finished epoch"),
        ):
            readers.read_run(run)
        # The second time without the folder.
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    assert not (run / "checkpoints").exists()


def test_a_reader_says_that_the_run_is_in_training(run, tmp_path, capsys):
    said = "it is in training: these are the weights of its solved head; later ones may come"
    with run_at_work(run):
        weights, model = load_weights(str(run)), load(run)
        main(["export", str(run), str(tmp_path / "model.onnx")])
    assert f"\n{run}: {said}\n" in capsys.readouterr().out
    assert model.unchecked == f"{run} keeps no {REFERENCE}: it is in training"
    assert f"\n{run}: {said}\nunchecked" in describe_model(model)
    write_reference(run, make_reference(best=2))
    assert find_reference(weights, run)[1] == f"{run} went on after its {REFERENCE} was written, and is in training"
    assert not load(run).notes and load(run).unchecked.endswith("and has not ended")


def make_reference(best: int) -> Reference:
    images, logits = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 3), np.float32)
    return Reference(best, "float32", images, logits, 1.0, np.array([0.5]))


def test_a_reference_that_comes_and_goes_is_there_or_not(tmp_path):
    kept, path = tmp_path / "kept", tmp_path / "run" / REFERENCE
    for folder in (kept, path.parent):
        folder.mkdir()
    write_reference(kept, make_reference(1))

    def come() -> None:
        shutil.copy(kept / REFERENCE, kept / "copy").replace(path)

    def read() -> int | None:
        found = read_reference(path.parent)
        return None if found is None else found.best

    assert set(beside(read, path.unlink, come)) == set(beside(read, come, partial(path.unlink, True))) == {None, 1}


def test_a_summary_that_comes_and_goes_is_there_or_not(tmp_path):
    """That of a run or of a lesson, and those of its stages."""
    own, stage = tmp_path / "summary.json", tmp_path / "stage" / "summary.json"
    stage.parent.mkdir()

    def have(*paths: Path) -> str:
        for path in (own, stage):
            path.unlink(missing_ok=True)
        for path in paths:
            path.write_text(json.dumps(SUMMARY_ROW))
        return show_or_nothing(tmp_path)[:7]

    for before, after in permutations([(), (own,), (stage,), (own, stage)], 2):
        if len({*before} ^ {*after}) > 1:
            continue
        said = {have(*before), have(*after)}
        found = set(beside(lambda: show_or_nothing(tmp_path)[:7], partial(have, *after), partial(have, *before)))
        assert found == said


def test_show_says_what_is_in_training_and_what_has_only_begun(tmp_path, monkeypatch):
    def begin(name: str) -> None:
        (tmp_path / "lesson" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "lesson" / name / "config.json").write_text("{}")

    lesson = tmp_path / "lesson"
    begin(".")
    interrupted = "interrupted: lesson, before it had a result; to go on, type the command"
    with pytest.raises(FileNotFoundError, match=f"no run is finished there; {interrupted}"):
        show(lesson)
    with run_at_work(lesson):
        assert show(lesson) == "in training: lesson"
        begin("head")
        begin("tune")
        assert show(lesson) == f"{lesson} is in training\nbegun, not finished: head, tune; the lesson comes to it"
        with run_at_work(lesson / "head"):
            assert show(lesson) == "in training: head\nbegun, not finished: tune; the lesson comes to it"
            assert show(lesson / "head") == "in training: head"
    files.write_json(lesson / "head" / "summary.json", SUMMARY_ROW)
    with run_at_work(lesson / "tune"):
        assert show(lesson).endswith("|\nin training: tune")
    assert show(lesson).endswith(f"|\ninterrupted: tune, before it had a result\n{GO_ON}")
    # It was finished, got more epochs, and was stopped in them.
    rows = [ROW | {"epoch": epoch, "val_loss": loss} for epoch, loss in ((1, 0.5), (2, 0.25), (3, math.inf))]
    files.write_rows(lesson / "tune" / "metrics.jsonl", rows)
    best = "its lowest val_loss is 0.2500, in epoch 2, with val_accuracy 0.9000"
    assert show(lesson).endswith(f"|\ninterrupted: tune, after epoch 2: {best}\n{GO_ON}")
    (lesson / "tune" / "metrics.jsonl").write_text("[")
    assert "interrupted: tune, before it had a result" in show(lesson)
    (lesson / "tune" / ".lock").touch()
    monkeypatch.setattr(workdir, "HELD", lesson / "nowhere")
    assert "begun, not finished: tune, before it had a result" in show(lesson)
    monkeypatch.undo()
    with run_at_work(lesson / "head"):
        assert show(lesson / "head").endswith(f"\n{lesson / 'head'} is in training: this may change")


def test_a_reader_writes_nothing(run, tmp_path):
    files.write_json(run / "summary.json", SUMMARY_ROW)

    def snapshot() -> dict[Path, tuple[int, bytes]]:
        paths = [run, *run.rglob("*")]
        return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}

    # As a kill leaves them.
    for left in ("2.orbax-checkpoint-tmp-1", "2.deleted"):
        (run / "checkpoints" / left).mkdir()
    before = snapshot()
    load(run)
    show(run)
    main(["export", str(run), str(tmp_path / "model.onnx")])
    assert snapshot() == before
    shutil.rmtree(run / "checkpoints")
    with suppress(OSError), checkpoints.open_checkpoints(run) as kept:
        assert not kept.numbers
    assert not (run / "checkpoints").exists()
