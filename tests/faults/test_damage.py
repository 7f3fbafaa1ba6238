"""A damaged checkpoint is named, and the run goes on from the one before to the same results as without damage.

The long form damages five hundred checkpoints: `pytest tests/faults/test_damage.py -m long -s`
"""

import errno
import random
import re
import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from harness import outcome
from PIL import Image
from tiny_runs import make_source

from tljax.config import Config, Data, Head, Optimizer
from tljax.runs import checkpoints, files
from tljax.runs.integrity import CHECKSUMS, sum_files
from tljax.stages import from_config
from tljax.storage import signals
from tljax.training.progress import last_epoch

WAYS = ("flip", "truncate", "delete")


def make_config(stage: str, folder: Path) -> Config:
    data = Data(name="digits", classes=("5", "6", "7"), max_images=40)
    settings = {"batch_size": 8, "epochs": 6, "patience": 9, "data": data, "optimizer": Optimizer(learning_rate=1e-2)}
    if stage == "from_scratch":
        settings["optimizer"] = Optimizer("sgd", 1e-2, "cosine", ema_decay=0.9, weight_decay=1e-3)
        return Config(
            stage=stage, cut="conv1", network="tiny", batch_norm="training", head=Head(hidden=(8,)), **settings
        )
    head = Head(at="conv5_block1", init="ridge")
    return Config(stage="feature_extraction", pretrained=str(folder / "source"), head=head, **settings)


def run(config: Config, folder: Path) -> None:
    from_config.run(config, folder)


@pytest.fixture(scope="module")
def stop(tmp_path_factory):
    """For a stage: the folder of a run stopped after four of six epochs, its config, and the outcome of all six."""
    folder = tmp_path_factory.mktemp("stopped")
    make_source(folder / "source")

    @cache
    def stop(stage: str) -> tuple[Path, Config, dict[str, str]]:
        config, rows = make_config(stage, folder), folder / f"{stage}_four" / "metrics.jsonl"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(signals.Stopped):
            patch.setattr(signals, "noted", lambda: 15 * (rows.exists() and last_epoch(files.read_rows(rows)) == 4))
            run(config, rows.parent)
        run(config, folder / stage)
        return rows.parent, config, outcome(folder / stage)

    return stop


def run_and_stop(config: Config, folder: Path) -> None:
    """Runs `config` until before its first step, where it is told to stop."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(signals.Stopped):
        patch.setattr(signals, "noted", lambda: 15)
        run(config, folder)


def find_saved(folder: Path) -> list[Path]:
    """The folders of the checkpoints, the newest last."""
    paths = (path for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    return sorted(paths, key=lambda path: int(path.name))


def damage(path: Path, way: str, rng: random.Random) -> None:
    if way == "delete":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    if way == "truncate":
        del content[rng.randrange(max(1, len(content))) :]
    elif content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def try_one(stop, stage: str, way: str, rng: random.Random, tmp_path: Path, capfd) -> tuple[str, bool, str]:
    """Damages a file in a copy of a stopped run and lets the run go on.

    Returns the damage, whether it was named, and whether the results are the same.
    """
    folder = tmp_path / stage
    shutil.rmtree(folder, ignore_errors=True)
    four, config, expected = stop(stage)
    shutil.copytree(four, folder)
    saved = find_saved(folder)
    # Mostly the newest, which the run would go on from.
    chosen = rng.choices(saved, [1] * (len(saved) - 1) + [4])[0]
    path = rng.choice(sorted(path for path in chosen.rglob("*") if path.is_file()))
    before = path.read_bytes()
    damage(path, way, rng)
    if path.exists() and path.read_bytes() == before:
        return "nothing", True, "same"
    capfd.readouterr()
    run(config, folder)
    said = "".join(capfd.readouterr())
    if path.name == CHECKSUMS:
        named = any(f"checkpoints/{chosen.name}{what}" in said for what in (" is damaged", " has no ", ": "))
    else:
        named = f"checkpoints/{chosen.name} is damaged" in said
    same = outcome(folder) == expected
    return f"{path.relative_to(folder)} {way}", named, "same" if same else "DIFFERENT"


@pytest.mark.parametrize("way", WAYS)
def test_a_run_with_a_damaged_checkpoint_comes_to_the_same(stop, tmp_path, capfd, way):
    what, named, became = try_one(stop, "feature_extraction", way, random.Random(way), tmp_path, capfd)
    assert named and became == "same", what


@pytest.mark.parametrize("way", ["flip", *(pytest.param(way, marks=pytest.mark.long) for way in WAYS[1:])])
def test_damage_where_nothing_is_read_is_named(stop, tmp_path, capfd, way):
    four, config, expected = stop("feature_extraction")
    folder = tmp_path / "run"
    shutil.copytree(four, folder)
    newest = find_saved(folder)[-1]
    damage(newest / "_CHECKPOINT_METADATA", way, random.Random(0))
    run(config, folder)
    assert f"checkpoints/{newest.name} is damaged: _CHECKPOINT_METADATA or SHA256SUMS" in capfd.readouterr().err
    assert outcome(folder) == expected


@pytest.mark.parametrize("left", [True, False])
def test_a_list_that_a_kill_prevented_is_made_again(stop, tmp_path, capfd, left):
    four, config, _ = stop("feature_extraction")
    folder = tmp_path / "run"
    shutil.copytree(four, folder)
    path = find_saved(folder)[-1] / CHECKSUMS
    content = path.read_bytes()
    path.unlink()
    if left:
        path.with_name(f"{path.name}.tmp").write_bytes(content[:9])
    for said in (f"checkpoints/{path.parent.name} has no SHA256SUMS", ""):
        run_and_stop(config, folder)
        captured = capfd.readouterr()
        assert said in captured.out and not captured.err and "goes on after epoch 4" in captured.out
        assert path.read_bytes() == content


def test_a_kill_while_checkpoints_are_deleted_leaves_no_part_of_one_among_the_others(
    stop, tmp_path, monkeypatch, capfd
):
    four, config, expected = stop("feature_extraction")
    folder, plain = tmp_path / "run", shutil.rmtree
    shutil.copytree(four, folder)

    def kill(path, **settings):
        next(path for path in Path(path).rglob("*") if path.is_file()).unlink()
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(checkpoints.shutil, "rmtree", lambda *a, **k: (kill if Path(a[0]).exists() else plain)(*a, **k))
        run(config, folder)
    assert list((folder / "checkpoints").glob("*.deleted"))
    for saved in find_saved(folder):
        assert sum_files(saved, CHECKSUMS) == (saved / CHECKSUMS).read_text()
    capfd.readouterr()
    run_and_stop(config, folder)
    assert not list((folder / "checkpoints").glob("*.deleted"))
    run(config, folder)
    assert not capfd.readouterr().err
    assert outcome(folder) == expected


def test_a_file_that_somebody_put_there_is_no_damage(stop, tmp_path, capfd):
    four, config, expected = stop("feature_extraction")
    folder = tmp_path / "run"
    shutil.copytree(four, folder)
    newest = find_saved(folder)[-1]
    (newest / ".DS_Store").touch()
    run(config, folder)
    captured = capfd.readouterr()
    assert f"checkpoints/{newest.name}: .DS_Store is not in SHA256SUMS" in captured.out and not captured.err
    assert outcome(folder) == expected


@pytest.mark.parametrize("item", ["variables", "progress"])
def test_arrays_that_orbax_reads_without_a_word_are_found_by_their_digests(stop, tmp_path, capfd, item):
    """The newest checkpoint gets the arrays of the one before, which are intact."""
    four, config, expected = stop("feature_extraction")
    folder = tmp_path / "run"
    shutil.copytree(four, folder)
    before, newest = find_saved(folder)[-2:]
    shutil.rmtree(newest / item)
    shutil.copytree(before / item, newest / item)
    run(config, folder)
    captured = capfd.readouterr()
    assert re.search(f"checkpoints/{newest.name} is damaged: .* differ from what was saved", captured.err)
    assert "goes on after epoch 3\n" in captured.out
    assert (folder / "checkpoints" / f"{newest.name}.damaged").is_dir()
    assert outcome(folder) == expected


def test_other_source_weights_are_refused_and_change_nothing(stop, tmp_path):
    four, config, _ = stop("feature_extraction")
    folder, source = tmp_path / "run", Path(config.pretrained)
    shutil.copytree(four, folder)
    files = {path: path.read_bytes() for path in (folder / "checkpoints").rglob("*") if path.is_file()}
    source.rename(tmp_path / "source")
    try:
        make_source(source, seed=1)
        with pytest.raises(ValueError, match="run: this run began with other source weights"):
            run(config, folder)
    finally:
        shutil.rmtree(source)
        (tmp_path / "source").rename(source)
    assert {path: path.read_bytes() for path in (folder / "checkpoints").rglob("*") if path.is_file()} == files


# Every change of the data is in test_changes.py.
@pytest.mark.parametrize("what", [pytest.param("data", marks=pytest.mark.long), "network"])
def test_other_images_are_refused_and_change_nothing(tmp_path, what):
    """Under the same config, a file is gone or a class is new."""
    pictures = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for i in range(36):
        (pictures / f"{i // 12}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(pictures / f"{i // 12}" / f"{i}.png")
    shutil.move(pictures / "2", tmp_path / "2")
    source = make_source(tmp_path / "source")
    data = Data(name=f"folder:{pictures}", image_size=32)
    config = Config(pretrained=str(source), data=data, batch_size=8, epochs=1)
    run(config, tmp_path / "run")
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    if what == "data":
        (pictures / "0" / "3.png").unlink()
    else:
        shutil.move(tmp_path / "2", pictures / "2")
    config.epochs = 2
    said = {"data": r"other pictures than now \(train: \d+ then, \d+ now"}.get(
        what, "the classes 0, 1, and the data has 0, 1, 2 now"
    )
    with pytest.raises(ValueError, match=f"run: this run began with {said}"):
        run(config, tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


def test_what_the_system_does_not_let_it_read_is_not_damaged(stop, tmp_path, monkeypatch):
    four, config, _ = stop("feature_extraction")
    shutil.copytree(four, tmp_path / "run")

    def refuse(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(ocp.CheckpointManager, "restore", refuse)
    with pytest.raises(OSError, match=r"cannot be read now \(OSError: .*Too many open files"):
        run(config, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("*.damaged"))


@pytest.mark.long
@pytest.mark.parametrize("hundred", range(5))
def test_a_hundred(stop, tmp_path, capfd, hundred):
    rng, named_or_not, became = random.Random(hundred), Counter(), Counter()
    for i in range(100):
        stage, way = ("from_scratch", "feature_extraction")[i % 2], WAYS[i % 3]
        what, named, ended = try_one(stop, stage, way, rng, tmp_path, capfd)
        named_or_not["named" if named else f"not named: {what}"] += 1
        became[ended] += 1
    with capfd.disabled():
        print(f"\n{dict(named_or_not)}, {dict(became)}")
    assert named_or_not["named"] == became["same"] == 100
