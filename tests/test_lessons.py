"""Lessons with a tiny network: files that they leave, input that they refuse, and stages that start from others."""

import contextlib
import io
import json
import re
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from processes import run_together
from tiny_runs import (
    DIGITS,
    check_predictions,
    drawing,
    make_lesson,
    make_source,
    read_rows,
    read_summary,
    small,
    train_on_views,
)

from tljax.cli import main
from tljax.commands.show import show
from tljax.config import STAGES, Cache, Config, Data, Lesson, Optimizer, Own, Stage
from tljax.data import batches
from tljax.data.datasets import load_dataset
from tljax.data.decoding import Encoded
from tljax.data.preprocessing import CAFFE
from tljax.model import load
from tljax.report.sentences import plain_sentence
from tljax.runs import checkpoints, files, readers, workdir
from tljax.runs.evidence import read_evidence
from tljax.stages import lessons
from tljax.stages import stage as one_stage
from tljax.stages.from_config import run
from tljax.training.progress import progress_from_json
from tljax.training.unchosen import undo_choice
from tljax.weights import pretrained

ROW = {
    "stage",
    "cut",
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
}


@pytest.fixture(scope="module")
def lesson(tmp_path_factory) -> Path:
    workdir, output = tmp_path_factory.mktemp("runs") / "lesson", io.StringIO()
    with contextlib.redirect_stdout(output), drawing():
        run(make_lesson(), workdir)
    (workdir / "output.txt").write_text(output.getvalue())
    return workdir


def test_four_stages_leave_what_the_readme_names(lesson):
    names = ["source", "zero_shot", "feature_extraction", "fine_tune", "from_scratch"]
    for name in names:
        folder = lesson / name
        assert read_summary(folder)["seconds"] > 0
        assert json.loads((folder / "config.json").read_text())["data"]["name"] == "digits"
        start = json.loads((folder / "environment.jsonl").read_text())
        assert start["versions"]["jax"] == version("jax") and "cpu" in start["devices"] and start["command"]
        pictures = {"predictions.png"} | ({"curves.png"} if name != "zero_shot" else set())
        assert {path.name for path in (folder / "figures").iterdir()} == pictures
        for picture in pictures:
            assert min(Image.open(folder / "figures" / picture).size) > 100
        if name != "zero_shot":
            rows = read_rows(folder)
            assert all(set(row) == ROW for row in rows)
            summary = read_summary(folder)
            keys = {"stage", "loss", "accuracy", "last", "best_epoch", "epochs", "params", "frozen_leaves_unchanged"}
            assert keys <= set(summary)
            best = min(rows, key=lambda row: row["val_loss"])
            assert summary["best_epoch"] == best["epoch"]
            assert summary["last"] == {"loss": rows[-1]["val_loss"], "accuracy": rows[-1]["val_accuracy"]}
            np.testing.assert_allclose(summary["loss"], best["val_loss"], rtol=1e-5)
            with checkpoints.open_checkpoints(folder) as kept:
                judged = progress_from_json(kept.read_meta(max(kept.numbers))).judged
            np.testing.assert_allclose([x.losses.mean() for x in judged], [r["val_loss"] for r in rows], rtol=1e-5)
            np.testing.assert_allclose([x.right.mean() for x in judged], [r["val_accuracy"] for r in rows], rtol=1e-6)
            undone = undo_choice(judged, "val_loss", summary["accuracy"])
            assert undone and summary["unchosen"] == undone._asdict()
            check_predictions(folder / "predictions.jsonl", summary)
            assert not (folder / "test_predictions.jsonl").exists()
    report = (lesson / "report.md").read_text()
    assert [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("|")][2:] == names[1:]
    assert (lesson / "report.html").is_file() and not (lesson / "fine_tune" / "report.html").exists()
    assert f"\nto look at it, open {lesson / 'report.html'}\n" in (lesson / "output.txt").read_text()
    assert {path.name for path in (lesson / "figures").iterdir()} == {"curves.png", "samples.png"}
    assert "\n\n![curves](figures/curves.png)\n\n![samples](figures/samples.png)\n" in report
    assert "report.md, figures/curves.png, figures/samples.png and a folder" in (lesson / "output.txt").read_text()


def test_rows_of_predictions_are_the_pictures_of_the_split(lesson):
    split = load_dataset(DIGITS, seed=0).validation
    for name in STAGES:
        rows = files.read_rows(lesson / name / "predictions.jsonl")
        assert [(row["id"], row["label"]) for row in rows] == list(zip(split.ids, split.labels.tolist(), strict=True))


# Two processes train all units in test_mesh.py.
@pytest.mark.parametrize("stages", [STAGES[:-1], pytest.param(STAGES, marks=pytest.mark.long)])
def test_two_processes_run_the_lesson_as_one(lesson, tmp_path, stages):
    outputs = run_together(2, "one_of_several.py", lesson / "source", tmp_path, ",".join(stages))
    # 60 images in batches of 16: the second process has four empty places in the last batch.
    assert "activations at head of 32 images" in outputs[0]
    assert "activations at head of 28 images" in outputs[1]
    for name in stages:
        left = {path.relative_to(lesson) for path in (lesson / name).glob("*")}
        assert {path.relative_to(tmp_path) for path in (tmp_path / name).glob("*")} == left
        one, two = read_summary(lesson / name), read_summary(tmp_path / name)
        np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
        assert one["accuracy"] == two["accuracy"] and one["params"] == two["params"]
        theirs, ours = (files.read_rows(place / name / "predictions.jsonl") for place in (lesson, tmp_path))
        assert [row["id"] for row in ours] == [row["id"] for row in theirs]
        assert [row["predicted"] for row in ours] == [row["predicted"] for row in theirs]
        np.testing.assert_allclose([row["loss"] for row in ours], [row["loss"] for row in theirs], rtol=1e-3)
        if name != "zero_shot":
            pairs = list(zip(read_rows(lesson / name), read_rows(tmp_path / name), strict=True))
            np.testing.assert_allclose([b["loss"] for _, b in pairs], [a["loss"] for a, _ in pairs], rtol=1e-4)
    assert (tmp_path / "report.md").is_file()
    alone = read_rows(train_on_views(lesson / "source", tmp_path / "alone"))
    together = read_rows(tmp_path / "views")
    for key in ("loss", "val_loss"):
        np.testing.assert_allclose([row[key] for row in together], [row[key] for row in alone], rtol=1e-4)


@pytest.mark.parametrize(
    ("stage", "memory_gib", "said"),
    [
        pytest.param("from_scratch", 0, "", marks=pytest.mark.long),
        # The activations fit, the images do not.
        ("feature_extraction", 2**-13, "activations at head of 60 images: computed in"),
    ],
)
def test_what_is_decoded_in_every_pass_gives_the_same_losses(
    lesson, tmp_path, capsys, monkeypatch, stage, memory_gib, said
):
    kinds, read = set(), batches.read_ahead
    monkeypatch.setattr(batches, "read_ahead", lambda images, places: kinds.add(type(images)) or read(images, places))
    settings = vars(make_lesson().stages[stage])
    weights = None if stage == "from_scratch" else str(lesson / "source")
    cache = Cache(memory_gib=memory_gib, disk_gib=0)
    run(
        Config(**settings, network="tiny", pretrained=weights, data=DIGITS, cache=cache),
        tmp_path / stage,
    )
    assert said in capsys.readouterr().out
    assert Encoded in kinds
    told = [files.read_rows(place / stage / "predictions.jsonl") for place in (lesson, tmp_path)]
    ours, theirs = ([(row["id"], row["predicted"]) for row in rows] for rows in told)
    assert ours == theirs
    kept, streamed = (read_evidence(place / stage) for place in (lesson, tmp_path))
    assert kept.rows.tolist() == streamed.rows.tolist() and np.array_equal(kept.views, streamed.views)
    for kept, streamed in zip(read_rows(lesson / stage), read_rows(tmp_path / stage), strict=True):
        np.testing.assert_allclose(
            [streamed["loss"], streamed["val_loss"]], [kept["loss"], kept["val_loss"]], rtol=1e-6
        )
        assert streamed["accuracy"] == kept["accuracy"]


def test_fine_tuning_goes_on_where_feature_extraction_ended(lesson):
    assert [row["epoch"] for row in read_rows(lesson / "feature_extraction")] == [1, 2]
    assert [row["epoch"] for row in read_rows(lesson / "fine_tune")] == [3, 4]
    assert {row["learning_rate"] for row in read_rows(lesson / "fine_tune")} == {1e-4}
    extracted, _ = readers.read_run(lesson / "feature_extraction")
    tuned, meta = readers.read_run(lesson / "fine_tune")
    assert np.array_equal(extracted["params"]["conv4_block1"]["1_conv"]["kernel"],
                          tuned["params"]["conv4_block1"]["1_conv"]["kernel"])  # fmt: skip
    # Adam moves a weight by about its learning rate a step. After 8 steps of 1e-4 the head is so near the trained one
    # that it cannot have started anew.
    moved = np.abs(extracted["params"]["head"]["kernel"] - tuned["params"]["head"]["kernel"])
    assert 0 < moved.max() < 1.5e-3
    assert [row["epoch"] for row in meta["history"]] == [1, 2, 3, 4]


def test_frozen_leaves_are_counted(lesson):
    # A tiny network has 1 + 4 * 4 convolutions and as many BatchNorms: 2 parameters each, and 2 statistics a BatchNorm.
    assert read_summary(lesson / "feature_extraction")["frozen_leaves_unchanged"] == 17 * 6
    assert read_summary(lesson / "fine_tune")["frozen_leaves_unchanged"] == 13 * 6
    assert read_summary(lesson / "from_scratch")["frozen_leaves_unchanged"] == 0


def test_zero_shot_uses_the_sources_own_head_and_names(lesson):
    summary = read_summary(lesson / "zero_shot")
    assert summary["accuracy"] is None and summary["unmapped_classes"] == ["5", "6", "7"]
    assert summary["params"]["trainable"] == 0
    rows = [json.loads(line) for line in (lesson / "zero_shot" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == summary["images"]
    assert {name for row in rows for _, name, _ in row["top5"]} == {"0", "1", "2"}
    for row in rows:
        assert set(row) == {"id", "label", "predicted", "loss", "top5"} and row["predicted"] == -1
        by_name = {name: p for _, name, p in row["top5"]}
        np.testing.assert_allclose(row["loss"], -np.log(by_name[str(row["label"])]), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(summary["loss"], np.mean([row["loss"] for row in rows]), rtol=1e-5)


def test_zero_shot_accuracy_through_the_classes_that_both_sides_have(lesson, tmp_path):
    data = Data(name="digits", classes=("1", "0", "7"), max_images=60)
    config = Config(stage="zero_shot", pretrained=str(lesson / "source"), data=data, batch_size=7)
    run(config, tmp_path / "run")
    summary = read_summary(tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert summary["mapping"] == {"1": ["1"], "0": ["0"], "7": []}
    assert summary["accuracy"] == np.mean([row["predicted"] == row["label"] for row in rows])
    names = ("1", "0", "7")
    right: dict[str, list[bool]] = {name: [] for name in names}
    for row in rows:
        best = max((entry for entry in row["top5"] if entry[1] in names), key=lambda entry: entry[2])
        right[names[row["label"]]].append(best[1] == names[row["label"]])
    assert summary["accuracy"] == sum(map(sum, right.values())) / len(rows)
    assert summary["balanced_accuracy"] == pytest.approx(np.mean([np.mean(found) for found in right.values()]))
    mass = np.mean([sum(p for _, name, p in row["top5"] if name == "2") for row in rows])
    np.testing.assert_allclose(summary["unmapped_mass"], mass, atol=1e-5)


def test_a_run_as_source_brings_its_preprocessing_and_history(lesson):
    source = pretrained.load_weights(str(lesson / "fine_tune"))
    assert source.preprocessing == CAFFE and source.variant == "v1" and source.is_run
    assert [name for _, name in source.labels] == ["5", "6", "7"]
    assert len(source.history) == 4


def test_the_newest_and_the_best_epoch_are_kept(lesson):
    for name in ("source", "feature_extraction", "fine_tune"):
        summary, rows = read_summary(lesson / name), read_rows(lesson / name)
        kept = {int(path.name) for path in (lesson / name / "checkpoints").iterdir() if path.name.isdigit()}
        # The number of a checkpoint counts four steps and an evaluation for each epoch.
        earlier = rows[0]["epoch"] - 1
        assert kept - {checkpoints.FROZEN} == {5 * (n - earlier) for n in (summary["best_epoch"], rows[-1]["epoch"])}
        assert (checkpoints.FROZEN in kept) == (name != "source")


def test_frozen_leaves_are_written_once(lesson):
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    folder = lesson / "feature_extraction" / "checkpoints"
    # Only 771 of the 80,000 parameters of a tiny network are in the head.
    assert size(folder / "10") < size(folder / str(checkpoints.FROZEN)) / 4


def test_the_units_before_fine_tunings_cut_run_once(lesson):
    lines = [
        line.partition(" of ") for line in (lesson / "output.txt").read_text().splitlines() if "activations" in line
    ]
    found = [(what, how.split(": ")[1].split(" in ")[0]) for what, _, how in lines]
    both = [("activations at conv5_block1", "computed"), ("activations at head", "computed")]
    assert found == both * 2 + [("activations at conv5_block1", "found")] * 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (small("fine_tune", pretrained="{lesson}"), "holds several runs; take one of them: .*feature_extraction"),
        (small("fine_tune", pretrained="imagenet"), "--config.pretrained=FOLDER"),
        (small("fine_tune", pretrained="{lesson}/source"), "trained on the classes 0, 1, 2, the data has 5, 6, 7"),
        (small("feature_extraction", pretrained="{lesson}/zero_shot"), "not the folder of a run that trained"),
        (small("feature_extraction", pretrained="nowhere"), "neither a file, nor a folder"),
        (small("from_scratch", pretrained="imagenet"), "starts from no weights"),
        (small("from_scratch", cut="conv5_blok1"), "nearest is 'conv5_block1'"),
        (small("from_scratch", cut="head"), "from_scratch has nothing to freeze, its cut is 'conv1'"),
        (
            small("zero_shot", pretrained="{lesson}/source", data=Data(name="digits", max_images=20)),
            r"label 3 \('3'\) lies beyond the 3 outputs",
        ),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(lesson, tmp_path, config, message):
    if config.pretrained:
        config.pretrained = config.pretrained.format(lesson=lesson)
    with pytest.raises((ValueError, OSError), match=message):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_left_alone_unless_overwritten(lesson, tmp_path, capsys):
    config = small("feature_extraction", pretrained=str(lesson / "source"))
    run(config, tmp_path / "run")
    (tmp_path / "run" / "mine.txt").write_text("keep")
    # The run was killed before it left its page.
    with drawing():
        run(config, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_bytes()
    assert b"data:image/webp" in page
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    capsys.readouterr()
    run(config, tmp_path / "run")
    assert "finished before" in (printed := capsys.readouterr().out) and "feature_extraction: loss" in printed
    with pytest.raises(ValueError, match=r"another config .*stage: 'feature_extraction' before, 'zero_shot' now"):
        run(small("zero_shot", pretrained=str(lesson / "source")), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    with pytest.raises(ValueError, match="would delete"):
        again = small("fine_tune", pretrained=str(tmp_path / "run"))
        run(again, tmp_path / "run", overwrite=True)
    run(config, tmp_path / "run", overwrite=True)
    assert len(read_rows(tmp_path / "run")) == 1
    assert (tmp_path / "run" / "metrics.jsonl").read_text() != before
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep"


def make_measures(source: Path, *names: str) -> Lesson:
    """A lesson of stages that train nothing."""
    return Lesson(pretrained=str(source), data=DIGITS, network="tiny", stages={n: Stage("zero_shot") for n in names})


def test_overwrite_leaves_no_stage_of_the_lesson_before(tmp_path):
    """A stage that the new lesson does not have would be taken for one of its own by show and predict."""
    place, source = tmp_path / "run", make_source(tmp_path / "source")
    with drawing():
        run(make_measures(source, "first", "old"), place)
    (place / "old" / "mine.txt").write_text("keep")
    (place / "first" / "figures" / ".DS_Store").write_text("keep")
    (place / "other").mkdir()
    (place / "other" / "config.json").write_text("{}")
    again = make_measures(source, "first", "third")
    with pytest.raises(ValueError, match=r"would delete config.pretrained='.*old'"):
        run(replace(again, pretrained=str(place / "old")), place, overwrite=True)
    with workdir.claim(place / "old"), pytest.raises(FileExistsError, match="old: another run is at work there"):
        run(again, place, overwrite=True)
    assert (place / "first" / "summary.json").exists() and (place / "old" / "summary.json").exists()
    run(again, place, overwrite=True)
    assert [path.name for path in (place / "old").iterdir()] == ["mine.txt"]
    assert "old" not in show(place) and "third" in show(place)
    # Neither somebody's file in a folder of the run nor what a kill has left is in the way of the next time.
    (place / "third" / "config.json.tmp").write_text("{")
    run(again, place, overwrite=True)
    assert (place / "first" / "figures" / ".DS_Store").exists()
    assert not (place / "third" / "config.json.tmp").exists()
    # One stage in the place of a lesson, and what is not the lesson's stays.
    run(small("feature_extraction", pretrained=str(source)), place, overwrite=True)
    folders = sorted(path.name for path in place.iterdir() if path.is_dir())
    assert folders == ["checkpoints", "first", "old", "other"]
    assert load(place).class_names == DIGITS.classes


@pytest.mark.parametrize("config", ["{", "[]", '{"stages": 3}', '{"stages": {"../out": {}, "/": {}, "": {}}}'])
def test_a_config_that_somebody_edited_leads_overwrite_nowhere(tmp_path, config):
    place = tmp_path / "run"
    place.mkdir()
    (tmp_path / "out").mkdir()
    for folder in (place, tmp_path / "out"):
        (folder / "config.json").write_text(config)
    workdir.begin_run(place, make_lesson(), overwrite=True)
    assert (tmp_path / "out" / "config.json").exists()
    assert json.loads((place / "config.json").read_text())["stages"].keys() == make_lesson().stages.keys()


@pytest.fixture
def copy(lesson, tmp_path) -> Path:
    copy = tmp_path / "lesson"
    shutil.copytree(lesson, copy)
    # The copy has another path than the original, and the configs name their source weights by path.
    for name in ("zero_shot", "feature_extraction", "fine_tune"):
        path = copy / name / "config.json"
        path.write_text(path.read_text().replace(str(lesson), str(copy)))
    return copy


def test_finished_stages_are_not_run_again(lesson, copy, capsys):
    shutil.rmtree(copy / "from_scratch")
    (copy / "report.html").unlink()
    with drawing():
        run(make_lesson(), copy)
    assert (copy / "report.html").read_text().count('"data:image/webp') > 40
    printed = capsys.readouterr().out
    assert printed.count("finished before") == 4 and len(re.findall(r"\nepoch \d/2  loss", printed)) == 2
    # The table of the units was not printed by this start.
    assert printed.count("\nunit  ") == 1
    losses = [[row["val_loss"] for row in read_rows(folder / "from_scratch")] for folder in (lesson, copy)]
    assert losses[0] == losses[1]


def test_a_stage_that_another_run_finished_meanwhile_is_not_run_again(copy, monkeypatch, capsys):
    summary = copy / "from_scratch" / "summary.json"
    text = summary.read_text()
    summary.unlink()

    def finish_it(*_):
        summary.write_text(text)
        return {"from_scratch": SimpleNamespace(description={})}

    monkeypatch.setattr(lessons, "load_datasets", finish_it)
    run(make_lesson(), copy)
    assert capsys.readouterr().out.count("finished before") == 5


def test_samples_of_the_target_are_drawn_once(tmp_path, monkeypatch):
    """zero_shot has fewer pictures than the others; what is there stays."""
    drawn = []
    monkeypatch.setattr(one_stage, "figures", SimpleNamespace(draw_samples=lambda *given: drawn.append(given)))
    configs = {name: small(name, seed=3) for name in ("zero_shot", "feature_extraction")}
    datasets = {
        n: SimpleNamespace(shown=f"{n}: shown", validation=f"{n}: validation", class_names="ab") for n in configs
    }
    lessons.draw_target(configs, tmp_path, datasets)
    lessons.draw_target({"zero_shot": configs["zero_shot"]}, tmp_path, datasets)
    folder = tmp_path / "figures"
    assert drawn == [(folder, 3, "feature_extraction: validation", "ab"), (folder, 3, "zero_shot: shown", "ab")]
    lessons.draw_target({}, tmp_path, {})
    folder.mkdir()
    (folder / "samples.png").write_bytes(b"")
    lessons.draw_target(configs, tmp_path, datasets)
    assert len(drawn) == 2


def test_without_an_epoch_a_report_has_no_curves(copy, capsys):
    path = copy / "feature_extraction" / "metrics.jsonl"
    files.write_rows(path, [read_rows(path.parent)[0] | {"epoch": 0}])
    alone = replace(make_lesson(), source_classes=(), stages={"feature_extraction": Stage("feature_extraction")})
    with drawing():
        lessons.write_report(alone, copy, {"feature_extraction": read_summary(path.parent)}, ())
    report = (copy / "report.md").read_text()
    assert "curves" not in report and report.endswith("\n\n![samples](figures/samples.png)\n")
    assert [path.name for path in (copy / "figures").iterdir()] == ["samples.png"]
    assert "report.md, figures/samples.png and a folder a stage" in capsys.readouterr().out


def test_source_classes_fewer_than_the_target_are_refused_before_training(tmp_path):
    config = Lesson(source_classes=("0", "1"), data=DIGITS, network="tiny")
    with pytest.raises(ValueError, match="lies beyond the 2 outputs"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_lesson_may_have_other_stages(tmp_path, capsys, monkeypatch):
    """Two fine_tune stages in a row, each with its own cut; one pass computes the activations at all three cuts."""
    # Other tests may have computed the same activations.
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    stages = {
        "source": Stage("from_scratch", cut="conv1"),
        "new_head": Stage("feature_extraction"),
        "last_block": Stage("fine_tune", cut="conv5_block1", optimizer=Optimizer(learning_rate=1e-4)),
        "two_blocks": Stage("fine_tune", cut="conv4_block1", optimizer=Optimizer(learning_rate=1e-5)),
    }
    for stage in stages.values():
        stage.batch_size, stage.epochs = 16, 1
    config = Lesson(source_classes=("0", "1", "2"), data=DIGITS, network="tiny", stages=stages)
    run(config, tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    about = [line.split(":")[0] for line in lines if line.startswith("data")]
    assert about == ["data of source", "data of new_head, last_block, two_blocks"]
    # What is not calibrated is said once for each stage, below its result.
    words = (" epoch run)", "not calibrated", "trains: ")
    results, said, tables = ([i for i, line in enumerate(lines) if word in line] for word in words)
    # The units of a network are a table once, then a line.
    assert len(results) == len(said) == 4 and len(tables) == 3
    assert sum(line.startswith("unit  ") for line in lines) == 1
    assert all(i < j < i + 4 for i, j in zip(results, said, strict=True))
    said = [line for line in lines if "activations" in line]
    found = [line.split(" of ")[0].removeprefix("activations at ") + line.split(": ")[1][:5] for line in said]
    made = ["conv4_block1compu", "conv5_block1compu", "headcompu"] * 2
    assert found == made + ["conv5_block1found"] * 2 + ["conv4_block1found"] * 2
    rows = {name: read_rows(tmp_path / "run" / name) for name in stages}
    assert [[row["epoch"] for row in rows[name]] for name in stages] == [[1], [1], [2], [3]]
    tuned, _ = readers.read_run(tmp_path / "run" / "last_block")
    again, meta = readers.read_run(tmp_path / "run" / "two_blocks")
    frozen = tuned["params"]["conv3_block1"]["1_conv"]["kernel"]
    np.testing.assert_array_equal(again["params"]["conv3_block1"]["1_conv"]["kernel"], frozen)
    assert meta["cut"] == "conv4_block1"
    report = (tmp_path / "run" / "report.md").read_text()
    assert report.startswith("# Stages of run\n")
    table = [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("|")]
    assert table[2:] == ["new_head", "last_block", "two_blocks"]


def test_only_cuts_whose_frozen_half_stays_are_shared():
    """The first fine_tune trains units before the cut of the second, so activations at that cut cannot be shared."""
    stages = {
        "head": Stage("feature_extraction"),
        "first": Stage("fine_tune", cut="conv4_block1"),
        "second": Stage("fine_tune", cut="conv5_block1"),
    }
    lesson = Lesson(source_classes=("0",), stages=stages, network="tiny")
    shared = lessons.find_shared_cuts(lesson)
    assert {name: [cut.start for cut in cuts] for name, cuts in shared.items()} == {
        "head": ["conv4_block1"],
        "first": [],
        "second": [],
    }


def test_a_cut_that_the_network_does_not_have_is_refused_before_anything_is_trained(lesson, tmp_path):
    config = replace(make_lesson(), pretrained=str(lesson / "source"), source_classes=())
    config.stages["fine_tune"].cut = "conv4_block6"
    with pytest.raises(ValueError, match=r"config\.stages\.fine_tune\.cut='conv4_block6' is no unit"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_show_says_what_a_finished_run_or_lesson_came_to(lesson, tmp_path, capsys):
    main(["show", str(lesson / "fine_tune")])
    assert capsys.readouterr().out.startswith("fine_tune: loss ")
    main(["show", str(lesson)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines if "|" in line][2:] == ["source", *STAGES]
    # Its notes are those of the report, and those of the stage that made the source weights.
    notes = [line for line in lines if "|" not in line and not line.startswith("source: ")]
    report = (lesson / "report.md").read_text()
    assert report.startswith("# Stages of lesson\n")
    lists = [part.splitlines() for part in report.split("\n\n") if part.startswith("- ")]
    assert [line.removeprefix("- ") for line in lists[1]] == notes
    # Above the table stands a sentence a stage.
    assert lists[0] == [f"- {plain_sentence(name, read_summary(lesson / name))}" for name in STAGES]
    assert report.index(lists[0][0]) < report.index("\n| stage")
    assert "\n- fine_tune trained conv5_block1 to head (" in report
    assert "labels: those of source are not counted, 114 of other classes" in notes
    shutil.copytree(lesson, tmp_path / "stopped", ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "stopped" / "fine_tune" / "summary.json").unlink()
    main(["show", str(tmp_path / "stopped")])
    said = capsys.readouterr().out
    assert "\ninterrupted: fine_tune, after epoch 4: its lowest val_loss is " in said
    assert said.endswith("\nto go on, type the command that began this once more, with the same --workdir\n")
    (tmp_path / "stopped" / "config.json").write_text('{"stages": {"source": {"monitor": 5, "new": 1}}}')
    main(["show", str(tmp_path / "stopped")])
    assert "stopped/config.json is damaged (KeyError): which stages helped is not" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "stopped")
    for content, said in ((None, "holds no summary.json: no run is finished there"), ("[1]", "no summary of a run")):
        if content:
            (tmp_path / "summary.json").write_text(content)
        with pytest.raises(SystemExit):
            main(["show", str(tmp_path)])
        assert said in (line := capsys.readouterr().err) and line.startswith(f"main.py: {tmp_path}")


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({}, "config.stages is empty"),
        *[({name: Stage("from_scratch", cut="conv1")}, f"config.stages: {name!r} is no name of a stage")
          for name in ("../other", "..", ".", "", "/tmp/x", "config.json", "figures", "checkpoints", "a b", "x" * 65)],
        ({"tune": Stage("fine_tune", cut="conv1", epochs=0)}, "config.stages.tune.epochs=0: must be"),
        ({"first": Stage("bogus")}, "config.stages.first.stage='bogus': must be one of"),
    ],
)  # fmt: skip
def test_stages_that_cannot_be_are_refused_and_leave_nothing(tmp_path, stages, said):
    with pytest.raises(ValueError) as error:
        run(Lesson(data=DIGITS, network="tiny", stages=stages), tmp_path / "run", overwrite=True)
    assert str(error.value).startswith(said)
    assert not list(tmp_path.iterdir())


def test_classes_of_a_later_stage_are_checked_before_the_first_one_runs(tmp_path):
    make_source(tmp_path / "source")
    stages = {"head": Stage(batch_size=16, epochs=1), "tuned": Stage("fine_tune", cut="conv5_block1", batch_size=16)}
    lesson = Lesson(pretrained=str(tmp_path / "source"), data=DIGITS, stages=stages)
    stages["tuned"].class_weights = {"cat": 2.0}
    with pytest.raises(ValueError, match=r"^config\.stages\.tuned\.class_weights names 'cat'; the classes are 5, 6, 7"):
        run(lesson, tmp_path / "lesson")
    assert not (tmp_path / "lesson").exists()


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"none": Own(seed=1)}, "config.own: 'none' is none of config.stages, first, second, third"),
        (
            {"second": Own(start="third")},
            "config.own.second.start='third': a fine_tune starts .* before it, first",
        ),
        ({"first": Own(start="first")}, "config.own.first.start='first': a fine_tune starts from"),
        ({"third": Own(seed=-1)}, "config.seed=-1: must be a whole number"),
        ({"third": Own(augment="flop")}, "config.data.augment='flop': 'flop' is not known"),
    ],
)
def test_what_a_stage_has_of_its_own_is_checked(tmp_path, own, said):
    tuned = Stage("fine_tune", cut="conv5_block1")
    stages = {"first": Stage("feature_extraction"), "second": tuned, "third": tuned}
    lesson = Lesson(pretrained="none", data=DIGITS, network="tiny", stages=stages, own=own)
    with pytest.raises(ValueError, match=f"^{said}"):
        run(lesson, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "stages",
    [
        {"head": Stage("feature_extraction")},
        {"source": Stage("feature_extraction"), "head": Stage("feature_extraction")},
        {"head": Stage("feature_extraction"), "source": Stage("from_scratch", cut="conv1")},
    ],
)
def test_source_classes_want_a_stage_that_makes_the_weights_first(tmp_path, stages):
    with pytest.raises(ValueError, match=r"^config\.source_classes: the first of config\.stages must be 'source'"):
        run(Lesson(source_classes=("0", "1"), data=DIGITS, network="tiny", stages=stages), tmp_path / "run")
    assert not list(tmp_path.iterdir())
