"""What a run prints and leaves: tables to the character, files whole or not at all, pictures that open."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tljax import report
from tljax.checkpoint import abstract_variables
from tljax.config import Adam, Config
from tljax.resnet import ResNet

TINY = ResNet(3, stage_sizes=(1, 1, 1, 1), width=2)

SUMMARY = """\
unit             parameters             BatchNorm
conv1                   304  frozen     inference
conv2_block1            172  frozen     inference
conv3_block1            568  frozen     inference
conv4_block1          1,872  frozen     inference
conv5_block1          6,688  trainable  {mode}
head                    195  trainable  -
Total params: 9,799 (0.04 MB)
Trainable params: 6,563 (0.03 MB)
Non-trainable params: 3,236 (0.01 MB)"""


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_the_summary_of_the_network_says_what_trains_and_ends_with_the_totals(mode):
    text = report.model_summary(**abstract_variables(TINY), units=TINY.units, cut="conv5_block1", batch_norm=mode)
    assert text == SUMMARY.format(mode=mode)


def test_the_summary_of_resnet50_has_the_totals_of_keras():
    model = ResNet(10)
    text = report.model_summary(
        **abstract_variables(model), units=model.units, cut="conv5_block3", batch_norm="training"
    )
    assert text.splitlines()[-3:] == [
        "Total params: 23,608,202 (90.06 MB)",
        "Trainable params: 4,486,154 (17.11 MB)",
        "Non-trainable params: 19,122,048 (72.94 MB)",
    ]


def test_without_a_cut_the_summary_has_nothing_that_trains():
    text = report.model_summary(**abstract_variables(TINY), units=TINY.units, cut=None, batch_norm="training")
    assert "trainable  " not in text
    assert " training" not in text
    assert "\nTrainable params: 0 (0.00 MB)\nNon-trainable params: 9,799 (0.04 MB)" in text


STAGES = [
    {"stage": "zero_shot", "loss": 2.34567, "accuracy": None, "params": {"trainable": 0}, "seconds": 9.96},
    {"stage": "fine_tune", "loss": 0.5, "accuracy": 0.87654, "params": {"trainable": 14_996_490}, "seconds": 1234.0},
]


def test_the_stages_stand_side_by_side():
    assert report.stages_table(STAGES).splitlines() == [
        "| stage     |   loss | accuracy | trainable parameters | seconds |",
        "| :-------- | -----: | -------: | -------------------: | ------: |",
        "| zero_shot | 2.3457 |        - |                    0 |    10.0 |",
        "| fine_tune | 0.5000 |   0.8765 |           14,996,490 |  1234.0 |",
    ]


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        (STAGES[1], "fine_tune: loss 0.5000, accuracy 0.8765, 1234.0 s"),
        (
            {**STAGES[1], "best_epoch": 3, "epochs": 8, "test": {"loss": 0.25, "accuracy": 0.9}},
            "fine_tune: loss 0.5000, accuracy 0.8765, 1234.0 s (best epoch 3, 8 epochs run)\n"
            "test split: loss 0.2500, accuracy 0.9000",
        ),
        (
            {**STAGES[1], "unmapped_classes": ["deer", "elk"], "unmapped_mass": 0.125},
            "fine_tune: loss 0.5000, accuracy 0.8765, 1234.0 s\n"
            "classes without a counterpart in the source: deer, elk\n"
            "mean probability on the source's classes that no class maps to: 0.1250",
        ),
        (
            {**STAGES[0], "unmapped_classes": ["deer"], "unmapped_mass": 1.0},
            "zero_shot: loss 2.3457, accuracy -, 10.0 s\nclasses without a counterpart in the source: deer",
        ),
    ],
)
def test_a_stage_is_summed_up_in_lines(summary, text):
    assert report.summary_line(summary) == text


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (math.nan, None),
        (-math.inf, None),
        (1.5, 1.5),
        (np.float64(math.nan), None),
        ((1, (2.0, math.inf)), [1, [2.0, None]]),
        ({"a": (math.nan,), "b": {"c": "NaN"}}, {"a": [None], "b": {"c": "NaN"}}),
        (True, True),
        (None, None),
    ],
)
def test_what_json_lacks_is_replaced(value, plain):
    assert report.jsonable(value) == plain
    json.dumps(report.jsonable(value), allow_nan=False)


def test_rows_are_read_as_they_were_added(tmp_path):
    for row in ({"epoch": 1, "loss": math.nan}, {"epoch": 2, "loss": 0.1, "stage": "größer"}):
        report.append_row(tmp_path, row)
    assert report.read_rows(tmp_path) == [{"epoch": 1, "loss": None}, {"epoch": 2, "loss": 0.1, "stage": "größer"}]


def test_predictions_are_a_line_an_image(tmp_path):
    top5 = [[["n01440764", "tench", 0.5]], [[None, "cat", 1.0]]]
    report.write_predictions(tmp_path, ["a", "b"], np.array([3, 4], np.int32), np.array([0.5, math.inf]), top5)
    assert (tmp_path / "predictions.jsonl").read_text().splitlines() == [
        '{"id": "a", "label": 3, "loss": 0.5, "top5": [["n01440764", "tench", 0.5]]}',
        '{"id": "b", "label": 4, "loss": null, "top5": [[null, "cat", 1.0]]}',
    ]


def test_a_file_is_written_whole_in_folders_that_need_not_exist(tmp_path):
    path = tmp_path / "a" / "b" / "report.md"
    report.write_text(path, "größer\n")
    report.write_text(path, "kleiner\n")
    assert path.read_text("utf-8") == "kleiner\n"
    assert [p.name for p in path.parent.iterdir()] == ["report.md"]


def test_a_write_that_fails_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "report.md"
    report.write_text(path, "before")
    whole = Path.write_bytes

    def fail_halfway(self, content):
        whole(self, content[: len(content) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail_halfway)
    with pytest.raises(OSError, match="disk full"):
        report.write_text(path, "after, and longer")
    monkeypatch.undo()
    assert path.read_text() == "before"


def test_what_cannot_be_written_leaves_the_file_before(tmp_path):
    report.write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        report.write_json(tmp_path / "a.json", {"x": object()})
    with pytest.raises(UnicodeEncodeError):
        report.write_text(tmp_path / "a.json", "\ud800")
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def fill(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        if name in ("figures", "checkpoints", "data"):
            path.mkdir(parents=True)
            (path / "something").write_text("")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")


@pytest.mark.parametrize("name", report.FILES)
def test_a_folder_with_a_run_in_it_is_refused_by_what_was_found(tmp_path, name):
    fill(tmp_path, [name, "notes.txt"])
    with pytest.raises(FileExistsError, match=f"holds a run \\({name}\\); give another --workdir, or --overwrite"):
        report.refuse_run(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    fill(tmp_path, ["runs"])
    with pytest.raises(FileExistsError, match="is a file; give a folder as --workdir"):
        report.refuse_run(tmp_path / "runs")


def test_a_folder_without_a_run_is_let_through(tmp_path):
    fill(tmp_path, ["notes.txt", "data"])
    report.refuse_run(tmp_path)
    report.refuse_run(tmp_path / "new")


def test_a_new_run_deletes_what_a_run_writes_and_nothing_else(tmp_path):
    others = ["notes.txt", "data", "summary.json.bak", "fine_tune/summary.json"]
    fill(tmp_path, [*report.FILES, *others])
    config = Config(pretrained="imagenet", optimizer=Adam(learning_rate=math.inf))
    report.begin_run(tmp_path, config)
    assert {p.name for p in tmp_path.iterdir()} == {"notes.txt", "data", "summary.json.bak", "fine_tune", "config.json"}
    assert (tmp_path / "data" / "something").exists()
    assert (tmp_path / "fine_tune" / "summary.json").exists()
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["stage"], written["pretrained"]) == ("feature_extraction", "imagenet")
    assert written["optimizer"] == {"learning_rate": None, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}


def test_a_new_run_makes_its_folder(tmp_path):
    report.begin_run(tmp_path / "runs" / "new", Config())
    assert [p.name for p in (tmp_path / "runs" / "new").iterdir()] == ["config.json"]


def read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def row(stage: str, epoch: int, val_loss: float | None) -> dict:
    return {
        "stage": stage, "epoch": epoch, "loss": 0.5, "accuracy": 0.75, "val_loss": val_loss, "val_accuracy": 0.7
    }  # fmt: skip


@pytest.mark.parametrize(
    "runs",
    [
        {"from_scratch": [row("from_scratch", 1, 0.6)]},
        {"transfer": [row("feature_extraction", 1, 0.6), row("fine_tune", 2, None), row("fine_tune", 3, 0.5)]},
        {"a": [row("a", 1, 0.6), row("a", 2, 0.5)], "b": [row("b", 1, 0.6)]},
    ],
    ids=["one epoch", "two stages and a loss that is no number", "two runs"],
)
def test_curves_are_a_picture(tmp_path, runs):
    report.draw_curves(tmp_path / "figures" / "curves.png", runs)
    picture = read_picture(tmp_path / "figures" / "curves.png")
    assert picture.shape == (440, 1100, 3)
    # matplotlib's first colour, with which the first run is drawn.
    assert (np.abs(picture - [31, 119, 180]).sum(axis=-1) < 6).sum() > 20


@pytest.mark.parametrize(("n", "side"), [(1, (281, 231)), (6, (281, 1386)), (7, (563, 1386)), (18, (845, 1386))])
def test_samples_are_a_grid_of_up_to_six_columns(tmp_path, n, side):
    images = np.zeros((n, 8, 8, 3), np.uint8)
    report.draw_samples(tmp_path, images, ["cat"] * n, ["cat"] * n, [True] * n)
    for name in ("samples.png", "predictions.png"):
        assert read_picture(tmp_path / name).shape == (*side, 3)


GREEN, RED = [44, 160, 44], [214, 39, 40]


@pytest.mark.parametrize(
    ("right", "colors"), [([True, True], [GREEN]), ([False, False], [RED]), (np.array([True, False]), [GREEN, RED])]
)
def test_what_was_predicted_is_green_where_right_and_red_where_wrong(tmp_path, right, colors):
    report.draw_samples(tmp_path, np.zeros((2, 8, 8, 3), np.uint8), ["cat", "dog"], ["cat 90%", "dog 80%"], right)

    def shows(name: str, color: list[int]) -> bool:
        return bool((np.abs(read_picture(tmp_path / name) - color).sum(axis=-1) < 6).any())

    assert [color for color in (GREEN, RED) if shows("predictions.png", color)] == colors
    assert not shows("samples.png", GREEN) and not shows("samples.png", RED)
