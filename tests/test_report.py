"""What a person reads."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from tljax import checkpoint, report
from tljax.config import Config
from tljax.resnet import ResNet


def test_the_summary_says_what_trains_and_ends_with_keras_totals():
    model = ResNet(10)
    variables = checkpoint.abstract_variables(model)
    lines = report.model_summary(**variables, units=model.units, cut="conv5_block3", batch_norm="training").splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:19]}
    assert rows["conv1"] == ["9,728", "frozen", "inference"]
    assert rows["conv5_block2"][1:] == ["frozen", "inference"]
    assert rows["conv5_block3"][1:] == ["trainable", "training"]
    assert rows["head"] == ["20,490", "trainable", "-"]
    assert lines[19] == "Total params: 23,608,202 (90.06 MB)"
    assert [line.split()[2 - line.startswith("Total")] for line in lines[20:]] == ["4,486,154", "19,122,048"]


def test_the_table_of_stages():
    summary = {"stage": "zero_shot", "loss": 2.0, "accuracy": None, "params": {"trainable": 0}, "seconds": 1.26}
    other = {"stage": "fine_tune", "loss": 0.5, "accuracy": 0.9, "params": {"trainable": 14996490}, "seconds": 100}
    lines = report.stages_table([summary, other]).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["stage", "loss", "accuracy", "trainable parameters", "seconds"]
    assert cells[2:] == [
        ["zero_shot", "2.0000", "-", "0", "1.3"],
        ["fine_tune", "0.5000", "0.9000", "14,996,490", "100.0"],
    ]


def test_json_has_no_nan(tmp_path):
    value = report.jsonable({"a": math.nan, "b": (1.5, -math.inf), "c": [None, "x"]})
    assert value == {"a": None, "b": [1.5, None], "c": [None, "x"]}
    report.append_row(tmp_path, {"epoch": 1, "loss": math.nan})
    report.append_row(tmp_path, {"epoch": 2, "loss": 0.5})
    assert report.read_rows(tmp_path) == [{"epoch": 1, "loss": None}, {"epoch": 2, "loss": 0.5}]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    report.write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        report.write_json(tmp_path / "a.json", {"x": object()})
    with pytest.raises(UnicodeEncodeError):
        report.write_text(tmp_path / "a.json", "\ud800")
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_beginning_a_run_deletes_an_earlier_one_and_nothing_else(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.png").write_text("")
    (tmp_path / "metrics.jsonl").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds a run \(metrics.jsonl, figures\)"):
        report.refuse_run(tmp_path)
    report.begin_run(tmp_path, Config())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "notes.txt"]
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"]["learning_rate"] == 1e-3


def test_a_file_as_workdir_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        report.refuse_run(tmp_path / "run")


def test_pictures(tmp_path):
    images = np.zeros((7, 8, 8, 3), np.uint8)
    report.draw_samples(tmp_path, images, ["cat"] * 7, ["dog"] * 7, [False] * 7)
    rows = [{"stage": s, "epoch": e, "loss": None if e == 2 else 1.0, "accuracy": 0.5, "val_loss": 1.0,
             "val_accuracy": 0.5}
            for e, s in ((1, "a"), (2, "a"), (3, "b"))]  # fmt: skip
    report.draw_curves(tmp_path / "curves.png", {"transfer": rows})
    for name in ("samples.png", "predictions.png", "curves.png"):
        with Image.open(tmp_path / name) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 5
