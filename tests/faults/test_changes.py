"""The data of a stopped run changes before it goes on: that is refused, whatever sizes and times the files have.

The long form changes it after a SIGKILL in every epoch of every stage: `pytest tests/faults/test_changes.py -m long -s`
"""

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness import Run as Process
from harness import command, environment
from PIL import Image
from tiny_runs import make_lesson, make_source, read_rows, small

from tljax import mirror_gain
from tljax.config import Data
from tljax.model import load
from tljax.stages import lessons
from tljax.stages.from_config import run
from tljax.storage import file_index

# The source learns from the first three classes, the other stages from the last three.
CLASSES = ("0", "1", "2", "5", "6", "7")
EACH = 12


def make_pictures(folder: Path) -> Path:
    """Small noisy pictures of six classes, a different gray each. All files have one size."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(EACH):
            image = rng.integers(0, 60, (32, 32, 3)) + 35 * k
            Image.fromarray(image.astype(np.uint8)).save(folder / name / f"{i}.bmp")
    return folder


def rewrite(path: Path, content: bytes) -> None:
    """Changes a file in place, with the times that it had."""
    before = path.stat()
    assert len(content) == before.st_size
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def invert(path: Path) -> None:
    content = path.read_bytes()
    rewrite(path, content[:54] + bytes(255 - value for value in content[54:]))


def swap_folders(one: Path, other: Path) -> None:
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


def exchange(one: Path, other: Path) -> None:
    content = one.read_bytes()
    rewrite(one, other.read_bytes())
    rewrite(other, content)


def in_both(change: Callable[[Path, Path], None]) -> Callable[[Path], None]:
    """`change(class, another class)` for the source's classes and for those of the other stages."""

    def changed(folder: Path) -> None:
        change(folder / "0", folder / "1")
        change(folder / "5", folder / "6")

    return changed


def add(one: Path, other: Path) -> None:
    for name in "xyz":
        Image.new("RGB", (32, 32), "red").save(one / f"{name}.bmp")


CHANGES: dict[str, Callable[[Path], None]] = {
    "two classes swapped": in_both(swap_folders),
    "all pictures inverted": lambda folder: [invert(path) for path in folder.glob("*/*.bmp")] and None,
    "all pictures of one name exchanged": in_both(
        lambda one, other: [exchange(path, other / path.name) for path in one.glob("*.bmp")] and None
    ),
    "pictures added": in_both(add),
    "pictures dropped": in_both(lambda one, _: [path.unlink() for path in sorted(one.glob("*.bmp"))[:4]] and None),
    "pictures renamed": in_both(
        lambda one, _: [path.rename(path.with_name(f"z{path.name}")) for path in one.glob("*.bmp")] and None
    ),
    "pictures edited, with the old times": in_both(
        lambda one, _: [invert(path) for path in one.glob("*.bmp")] and None
    ),
}
# All refuse alike in a lesson; the long form tries each in every stage.
FEW_CHANGES = "two classes swapped", "pictures edited, with the old times"
REFUSED = "(other (images|pictures) than now|the data has changed since)"


def name_data(folder: Path, **settings) -> Data:
    return Data(name=f"folder:{folder}", image_size=32, **settings)


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(file_index, "TICK", 0)
    return make_pictures(tmp_path / "pictures")


def restore(kept: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(kept, place)


def list_files(workdir: Path) -> list[Path]:
    """The files of a run, but for the lock that a kill has left."""
    return sorted(path for path in workdir.rglob("*") if path.name != ".lock")


def try_changes(
    pictures: Path, workdir: Path, go_on: Callable[[], object], names: Collection[str] = tuple(CHANGES)
) -> None:
    """The changes `names`, each on its own: `go_on` is refused, and leaves the folder of the run as it was."""
    kept = workdir.with_name("kept"), workdir.with_name("kept_pictures")
    shutil.copytree(workdir, kept[0])
    shutil.copytree(pictures, kept[1])
    for name in names:
        restore(kept[0], workdir)
        restore(kept[1], pictures)
        CHANGES[name](pictures)
        before = list_files(workdir)
        with pytest.raises(ValueError, match=REFUSED):
            go_on()
            pytest.fail(f"{name}: it goes on without a word")
        assert list_files(workdir) == before, name
    restore(kept[1], pictures)


def test_a_run_refuses_other_pictures_than_it_began_with(tmp_path, pictures):
    source = str(make_source(tmp_path / "source"))
    config = small("feature_extraction", pretrained=source, data=name_data(pictures, classes=CLASSES[3:]))
    run(config, tmp_path / "run")
    longer = replace(config, epochs=2)
    try_changes(pictures, tmp_path / "run", lambda: run(longer, tmp_path / "run"))
    restore(tmp_path / "kept", tmp_path / "run")
    # Copies with new times and inodes are the same pictures.
    run(longer, tmp_path / "run")
    assert [row["epoch"] for row in read_rows(tmp_path / "run")] == [1, 2]


def test_what_mirror_images_gain_is_measured_on_the_pictures_of_the_run(tmp_path, pictures, monkeypatch):
    data = name_data(pictures, classes=CLASSES[3:])
    run(small("feature_extraction", pretrained=str(make_source(tmp_path / "source")), data=data), tmp_path / "run")
    model, measure, measured = load(tmp_path / "run"), mirror_gain._measure, []
    monkeypatch.setattr(mirror_gain, "_measure", lambda *some: measured.append(1) or measure(*some))
    first = mirror_gain.measure_gain(model, tmp_path / "run")
    assert mirror_gain.measure_gain(model, tmp_path / "run") == first and len(measured) == 1
    for path in pictures.glob("*/*.bmp"):
        invert(path)
    with pytest.raises(ValueError, match="other validation pictures now than the run had"):
        mirror_gain.measure_gain(model, tmp_path / "run")


class _Stopped(Exception):
    pass


def test_a_lesson_has_one_data_set(tmp_path, pictures, monkeypatch):
    lesson = make_lesson()
    lesson.data = name_data(pictures, classes=CLASSES[3:])
    for stage in lesson.stages.values():
        stage.epochs = 1
    run_stage = lessons.run_stage

    def stop_before(config, *arguments, **settings):
        if config.stage == "fine_tune":
            raise _Stopped
        return run_stage(config, *arguments, **settings)

    with monkeypatch.context() as stopping:
        stopping.setattr(lessons, "run_stage", stop_before)
        with pytest.raises(_Stopped):
            run(lesson, tmp_path / "run")
    try_changes(pictures, tmp_path / "run", lambda: run(lesson, tmp_path / "run"), FEW_CHANGES)
    restore(tmp_path / "kept", tmp_path / "run")
    assert run(lesson, tmp_path / "run")["fine_tune"]["known_to_source"] == {"validation": 0}


# Three epochs in each of four stages, and epochs of one run. In the first of all, nothing has been learned yet.
POINTS = [("tiny.py", epoch) for epoch in range(2, 13)] + [("augmented.py", epoch) for epoch in (2, 3, 4)]


@pytest.mark.long
@pytest.mark.parametrize(("config", "epoch"), POINTS)
def test_every_change_in_every_epoch_after_a_kill(tmp_path, config, epoch):
    pictures = make_pictures(tmp_path / "pictures")
    data = f"--config.data.name=folder:{pictures}", "--config.data.image_size=32"
    env = environment(tmp_path / "cache")
    first = Process(command(config, tmp_path / "run", *data), env | {"SLOW": "0.3"})
    assert first.wait_for("PHASE training", times=epoch), first.lines
    first.process.kill()
    first.process.wait()

    def go_on() -> None:
        process = Process(command(config, tmp_path / "run", *data), env)
        code = process.wait()
        raise ValueError("\n".join(process.lines) if code == 1 else "it goes on without a word")

    try_changes(pictures, tmp_path / "run", go_on)
    restore(tmp_path / "kept", tmp_path / "run")
    process = Process(command(config, tmp_path / "run", *data), env)
    assert process.wait() == 0, process.lines
