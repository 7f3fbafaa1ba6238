"""A solved head in a run: an event of its own before the epochs, from few labels, on shorter networks."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, make_source, read_rows, read_summary, small

from tljax.commands.show import show
from tljax.config import Config, Data, Head, Lesson, Optimizer, Stage
from tljax.data import datasets
from tljax.model import load
from tljax.runs import checkpoints, readers
from tljax.runs.reference import read_reference
from tljax.stages import train
from tljax.stages.from_config import run
from tljax.training.ridge import solve_head
from tljax.weights.pretrained import load_weights

FEW = Data(name="digits", classes=("5", "6", "7"), labels_per_class=20)
ALL = Data(name="digits", classes=("5", "6", "7"), validation_split="none")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    return str(make_source(tmp_path_factory.mktemp("solve") / "source"))


def solved(source: str, data: Data = FEW, at: str = "conv5_block1", **settings) -> Config:
    settings = {"epochs": 0} | settings
    return small("feature_extraction", pretrained=source, data=data, head=Head(at=at, init="ridge"), **settings)


@pytest.fixture(scope="module")
def few(source, tmp_path_factory) -> Path:
    """A head that is solved from 20 labels a class on what the last block would read, and not trained."""
    workdir = tmp_path_factory.mktemp("few") / "run"
    run(solved(source), workdir)
    return workdir


def test_the_head_is_that_of_the_features(few, source):
    """The features are those that the source itself computes before the unit, at all positions."""
    weights, _ = readers.read_run(few)
    dataset = datasets.load_dataset(FEW, seed=0)
    # In the source as it is, conv5_block1 reads only every second position.
    features = load(few).features(dataset.train.images)
    head = solve_head(features, dataset.train.labels, 3)
    ours, theirs = (
        features @ np.asarray(kernel) + np.asarray(bias)
        for kernel, bias in ((weights["params"]["head"][k] for k in ("kernel", "bias")), (head.kernel, head.bias))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    (row,) = read_rows(few)
    assert (row["epoch"], row["solved"]["penalty"], row["solved"]["pictures"]) == (0, head.penalty, 60)
    logits = load(few)(dataset.validation.images)
    assert row["val_accuracy"] == np.mean(logits.argmax(1) == dataset.validation.labels) > 0.6


def test_a_solved_head_is_a_run_like_any_other(few, source, tmp_path, capsys):
    summary = read_summary(few)
    assert (summary["best_epoch"], summary["epochs"], summary["frozen_leaves_unchanged"]) == (0, 0, 78)
    assert summary["labels"] == {"train": 60, "validation": 0}
    assert not summary["calibration"]["fitted_on"]["seen_by_early_stopping"]
    assert summary["last"]["accuracy"] == summary["accuracy"] == read_rows(few)[0]["val_accuracy"]
    assert "(the solved head)\n" in show(few)
    with checkpoints.open_checkpoints(few) as kept:
        assert kept.numbers == {1}
    assert load(few).reference.best == 1
    run(solved(source), few)
    assert "finished before" in capsys.readouterr().out

    # More epochs go on from it; it stays the best unless one of them is better.
    shutil.copytree(few, tmp_path / "more")
    run(solved(source, epochs=2), tmp_path / "more")
    said = capsys.readouterr().out
    assert "goes on after epoch 0" in said and "epoch 1/2" in said and "head solved" not in said
    rows, summary = read_rows(tmp_path / "more"), read_summary(tmp_path / "more")
    assert [row["epoch"] for row in rows] == [0, 1, 2] and summary["epochs"] == 2
    assert summary["best_epoch"] == min(rows, key=lambda row: row["val_loss"])["epoch"]
    assert summary["labels"] == {"train": 60, "validation": 54}
    # The solved head could have been the best, and it is known what it made of each picture.
    assert "unchosen" in summary and "unchosen" not in read_summary(few)
    with checkpoints.open_checkpoints(tmp_path / "more") as kept:
        assert kept.numbers == {1 + 5 * epoch for epoch in {2, summary["best_epoch"]}}

    # A fine_tune goes on from it, on the same shorter network.
    tuned = small("fine_tune", pretrained=str(few), data=FEW, cut="conv4_block1")
    run(tuned, tmp_path / "tuned")
    assert [row["epoch"] for row in read_rows(tmp_path / "tuned")] == [1]
    assert read_summary(tmp_path / "tuned")["best_epoch"] == 1
    assert load_weights(str(tmp_path / "tuned")).architecture == TINY._replace(stage_sizes=(1, 1, 1))


def test_a_shorter_network_has_a_map_where_the_whole_has_none(few):
    """At 32 pixels the whole network's last map has one position, this one's has four."""
    model, images = load(few), datasets.load_dataset(FEW, seed=0).validation.images[:5]
    assert model.positions == (2, 2)
    logits = model(images)
    for one, row in zip(model.explain(images), logits, strict=True):
        logit = row[model.class_names.index(one.label)]
        np.testing.assert_allclose(one.contributions.sum() + one.bias, logit, atol=1e-5 * np.abs(logits).max())


def test_training_starts_from_the_solved_head(few, source, tmp_path):
    """After one step of Adam no weight has moved by more than its learning rate."""
    config = solved(source, epochs=1, batch_size=64)
    config.optimizer.learning_rate = 1e-3
    run(config, tmp_path / "run")
    with checkpoints.open_checkpoints(tmp_path / "run") as kept:
        trained = kept.restore_variables(3)[0]["params"]["head"]
    first = readers.read_run(few)[0]["params"]["head"]
    for name in ("kernel", "bias"):
        moved = np.abs(np.asarray(trained[name]) - np.asarray(first[name]))
        assert 0.9e-3 < moved.max() < 1.01e-3


@pytest.mark.parametrize("damaged", [False, True])
def test_a_run_that_is_stopped_or_damaged_after_the_solution_comes_to_the_same(
    few, source, tmp_path, monkeypatch, capfd, damaged
):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "check_converged", stop)
        with pytest.raises(KeyboardInterrupt):
            run(solved(source), tmp_path / "run")
    if damaged:
        (file,) = (tmp_path / "run" / "checkpoints" / "1" / "meta").glob("metadata")
        file.write_bytes(file.read_bytes()[:-9])
    run(solved(source), tmp_path / "run")
    said = capfd.readouterr()
    assert ("goes on after epoch 0" in said.out) != damaged
    assert ("checkpoints/1 is damaged" in said.err and "starts over" in said.err) == damaged
    metas = [readers.read_run(folder)[1] for folder in (few, tmp_path / "run")]
    assert metas[0]["digest"] == metas[1]["digest"] and metas[0]["best"] == metas[1]["best"] == 1
    ours, theirs = (read_reference(folder) for folder in (few, tmp_path / "run"))
    np.testing.assert_array_equal(ours.logits, theirs.logits)


def test_without_validation_all_labels_are_learned_from(source, tmp_path, capsys):
    """Class weights count in the head, and nowhere else."""
    run(solved(source, ALL, at="conv4_block1", class_weights={"5": 3.0}), tmp_path / "run")
    summary, said = read_summary(tmp_path / "run"), capsys.readouterr().out
    # 182, 181 and 179 digits; with validation a tenth of each is held out.
    assert summary["labels"] == {"train": 542, "validation": 0} and "validation" not in summary["data"]["splits"]
    held_out = summary["solved"]["held_out"]
    assert summary["accuracy"] == held_out["accuracy"] > 0.9 and held_out["at_least"] < summary["accuracy"]
    assert summary["balanced_accuracy"] == held_out["balanced_accuracy"] >= held_out["worst_class"]["accuracy"]
    assert "class weights: 5 3, 6 1, 7 1" in said and f"worst class {held_out['worst_class']['name']}:" in said
    assert held_out["pictures"] == 542 and "on training pictures, each left out" in said
    assert summary["calibration"]["fitted_on"]["split"] == "train, each left out"
    model = load(tmp_path / "run")
    train = datasets.load_dataset(ALL, seed=0).train
    head = solve_head(model.features(train.images), train.labels, 3, weights=(3.0, 1.0, 1.0))
    logits = model.features(train.images) @ head.kernel + head.bias
    np.testing.assert_allclose(model(train.images), logits, atol=1e-4 * np.abs(logits).max())
    assert len(model.reference.scores) == 542
    (answer,) = model.predict(np.zeros((40, 40, 3), np.uint8), coverage=0.95)
    assert answer.set
    (row,) = read_rows(tmp_path / "run")
    assert row["val_loss"] is None and row["accuracy"] > 0.9


def test_whole_groups_are_left_out_and_validated_on(source, tmp_path, capsys):
    """Digits are grouped by the first figure of their number."""
    split = datasets.load_dataset(FEW, seed=0).validation
    for i, (pixels, label) in enumerate(zip(split.images, split.labels, strict=True)):
        path = tmp_path / "pictures" / FEW.classes[label] / f"{i // 6}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    data = Data(name=f"folder:{tmp_path / 'pictures'}", image_size=32, group="([0-9]+)_")
    run(solved(source, data), tmp_path / "run")
    said, summary = capsys.readouterr().out, read_summary(tmp_path / "run")
    assert "note        9 groups by '([0-9]+)_'" in said and "note        the split val is 1 of the 9 groups" in said
    assert summary["worth"]["groups"] == 1 and summary["worth"]["pictures"] < 6
    assert (summary["solved"]["groups"], summary["solved"]["held_out"]["groups"]) == (8, 8)
    assert "judged on 48 training pictures of 8 groups, each group left out together" in said
    train = datasets.load_dataset(data, seed=0).train
    features = load(tmp_path / "run").features(train.images)
    penalties = [solve_head(features, train.labels, 3, groups=groups).penalty for groups in (train.groups, None)]
    assert summary["solved"]["penalty"] == penalties[0]
    with pytest.raises(ValueError, match=r"data\.group: '\(\[0-9\]\+\)_' before, None now"):
        run(solved(source, replace(data, group=None)), tmp_path / "run")


def test_one_picture_a_class_says_that_nothing_is_known(source, tmp_path, capsys):
    data = Data(name="digits", classes=("5", "6", "7"), validation_split="none", labels_per_class=1)
    run(solved(source, data), tmp_path / "run")
    assert "one picture a class, and none to leave out: nothing says how good it is" in capsys.readouterr().out
    summary = read_summary(tmp_path / "run")
    assert summary["accuracy"] is summary["loss"] is summary["solved"]["held_out"] is None
    assert "loss -, accuracy -" in show(tmp_path / "run")
    model = load(tmp_path / "run")
    with pytest.raises(ValueError, match="this run has 0"):
        model.predict(np.zeros((40, 40, 3), np.uint8), coverage=0.9)


def test_a_lesson_transfers_to_few_labels(tmp_path, capsys):
    """The source learns from all labels of its classes; the table counts the labels of each stage."""
    tune = Stage("fine_tune", cut="conv3_block1", epochs=1, batch_size=16)
    stages = {
        "source": Stage("from_scratch", cut="conv1", epochs=1, batch_size=16),
        "solved": Stage("feature_extraction", head=Head(at="conv4_block1", init="ridge"), epochs=0, batch_size=16),
        "tuned": tune,
    }
    data = Data(name="digits", classes=("5", "6", "7"), labels_per_class=4)
    summaries = run(Lesson(source_classes=("0", "1"), data=data, stages=stages, network="tiny"), tmp_path)
    assert summaries["source"]["labels"]["train"] > 300
    assert [summaries[name]["labels"] for name in ("solved", "tuned")] == [
        {"train": 12, "validation": 0},
        {"train": 12, "validation": 54},
    ]
    rows = [[cell.strip() for cell in line.split("|")] for line in (tmp_path / "report.md").read_text().splitlines()]
    columns = {row[1]: row[5] for row in rows if len(row) == 9}
    assert columns == {"stage": "labels", ":-----": "-----:", "solved": "12", "tuned": "66"} | {
        key: value for key, value in columns.items() if key.startswith(":")
    }
    # Activations before fine_tune's cut are computed on the way to the head's.
    said = capsys.readouterr().out
    assert "left out, since the head reads what conv4_block1 would read: conv4_block1, conv5_block1" in said
    assert said.count("activations at conv3_block1 of 12 images: computed") == 1
    assert "activations at conv3_block1 of 12 images: found in the cache" in said
    tuned = json.loads((tmp_path / "tuned" / "config.json").read_text())["head"]
    assert tuned == {"at": "head", "init": "glorot", "hidden": [], "dropout": 0.0}


def test_what_does_not_go_together_is_refused(source, few, tmp_path):
    data = Data(name="digits", classes=("5", "6", "7"))
    cases = {
        "config.cut='conv3_block1': with config.head.init=ridge the cut is 'head'": solved(source, cut="conv3_block1"),
        "config.head.at='conv6_block1'": solved(source, at="conv6_block1"),
        "config.head.at='conv1'": solved(source, at="conv1"),
        "config.cut='conv5_block1' is no unit of this network, which has conv1,": small(
            "feature_extraction", pretrained=source, data=data, head=Head(at="conv4_block1"), cut="conv5_block1"
        ),
        "config.head.at='conv3_block1': fine_tune uses the head": small(
            "fine_tune", pretrained=str(few), data=data, head=Head(at="conv3_block1")
        ),
        "config.network='resnet50', but": small("fine_tune", pretrained=str(few), data=data, network="resnet50"),
    }
    for message, config in cases.items():
        with pytest.raises(ValueError, match=message.replace(".", "[.]")):
            run(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


# A rate of almost 0: what is trained, and its average, stay the solved head.
def test_training_and_averages_start_from_the_solved_head(source, tmp_path):
    settings = {"optimizer": Optimizer(learning_rate=1e-9, ema_decay=0.5), "epochs": 2, "patience": None}
    run(solved(source, **settings), tmp_path / "run")
    solved_row, *rows = read_rows(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert row["loss"] == pytest.approx(solved_row["loss"], rel=1e-4)
        assert row["val_loss"] == pytest.approx(solved_row["val_loss"], rel=1e-4)


def test_one_class_is_nothing_to_tell_apart(source, tmp_path):
    counted = {"5": 0.0, "6": 0.0}
    with pytest.raises(ValueError, match="all 20 training pictures that count are of the class '7'"):
        run(solved(source, class_weights=counted), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    data = Data(name="digits", classes=("5", "6", "7"), max_images=1, validation_split="none")
    with pytest.raises(ValueError, match=r"all 1 training pictures that count are of the class '[567]'"):
        run(solved(source, data), tmp_path / "run")


def test_in_a_lesson_the_stage_is_named(source, tmp_path):
    stages = {
        "solved": Stage("feature_extraction", head=Head(at="conv5_block1", init="ridge"), epochs=0),
        "tuned": Stage("fine_tune", cut="conv5_block1"),
    }
    with pytest.raises(ValueError, match=r"^config\.stages\.tuned\.cut='conv5_block1' is no unit of this"):
        run(Lesson(pretrained=source, data=FEW, stages=stages), tmp_path)


def test_another_place_of_the_head_is_another_run(few, source):
    with pytest.raises(ValueError, match=r"another config .head\.at: 'conv5_block1' before, 'conv4_block1' now"):
        run(solved(source, at="conv4_block1"), few)
