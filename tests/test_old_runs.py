"""A lesson that version 0.1.0 left unfinished goes on, and its runs can be source weights.

`fixtures/lesson_0.1.0.tar.xz` is the workdir `lesson` of that version (commit e301b29) without its pictures: source and
four stages of a tiny network on digits, two epochs each, stopped by SIGTERM after three of the five steps of
fine_tune's second epoch.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import read_rows, read_summary

from tljax.cli import main
from tljax.commands.predict import describe_model
from tljax.config import Config, Data, Lesson
from tljax.data import datasets
from tljax.model import load
from tljax.networks.architectures import NETWORKS, Architecture, Network
from tljax.runs import readers
from tljax.runs.learned import read_learned
from tljax.stages.from_config import run
from tljax.weights.pretrained import load_weights

NETWORK = Architecture((1, 1, 1, 1), width=4)
DIGITS = Data(name="digits", classes=("5", "6", "7"), max_images=40)
# Loss and val_loss of every epoch when version 0.1.0 itself went on with the lesson.
CAME_TO = {
    "source": [(18.0764440536499, 7.6743239402771), (4.545124149322509, 1.253727126121521)],
    "feature_extraction": [(1.6960507869720458, 1.051382553577423), (0.9876991987228394, 1.0984002113342286)],
    "fine_tune": [(1.0821077585220338, 0.9507429957389831), (0.9935274124145508, 0.9744988918304444)],
    "from_scratch": [(18.261013793945313, 4.831559038162231), (2.370254302024841, 2.6605313301086424)],
}


@pytest.fixture
def workdir(tmp_path, monkeypatch) -> Path:
    with tarfile.open(Path(__file__).parent / "fixtures" / "lesson_0.1.0.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    # Version 0.1.0 had one network. The tiny one of the fixture takes its place.
    monkeypatch.setitem(NETWORKS, "resnet50", Network(NETWORK, keras_md5=""))
    # The stages' configs name their source weights by a path relative to this folder.
    monkeypatch.chdir(tmp_path)
    return Path("lesson")


def make_lesson() -> Lesson:
    config = Lesson(source_classes=("0", "1", "2"), data=DIGITS)
    for stage in config.stages.values():
        stage.batch_size, stage.epochs = 8, 2
    return config


def test_it_goes_on_where_it_was_stopped(workdir, capsys):
    run(make_lesson(), workdir)
    said = capsys.readouterr()
    assert said.out.count("finished before") == 3 and not said.err
    assert "goes on after epoch 3, step 3 of the next" in said.out
    # What was not recorded then is now, as far as it can be known.
    assert "fine_tune: this run began when the content of pictures was not recorded" in said.out
    assert readers.read_run(workdir / "fine_tune")[1]["content"].keys() == {"train", "validation"}
    learned = read_learned(workdir / "fine_tune")
    assert learned and len(learned.pixels) == 40 and not learned.whole
    for name, expected in CAME_TO.items():
        rows = [(row["loss"], row["val_loss"]) for row in read_rows(workdir / name)]
        np.testing.assert_allclose(rows, expected, rtol=1e-4, err_msg=name)
    assert read_summary(workdir / "fine_tune")["frozen_leaves_unchanged"] == 13 * 6
    # What its first epochs made of each validation picture is not known.
    assert "pictures that chose the epoch: the accuracy on them is too high, by how much is not known" in said.out
    assert "unchosen" not in read_summary(workdir / "fine_tune")
    assert "unchosen" in read_summary(workdir / "from_scratch")
    assert (workdir / "report.md").is_file()
    # Stages that had ended have no rows of predictions and no evidence; those that end now have.
    for name, kept in {"source": False, "feature_extraction": False, "fine_tune": True, "from_scratch": True}.items():
        assert all((workdir / name / file).exists() is kept for file in ("predictions.jsonl", "evidence.npz")), name


def test_a_finished_stage_takes_more_epochs(workdir, capsys):
    config = Config(stage="from_scratch", cut="conv1", batch_size=8, epochs=3, data=Data(**vars(DIGITS)))
    config.data.classes = ("0", "1", "2")
    assert load("lesson/source").reference is None
    run(config, workdir / "source")
    assert "goes on after epoch 2\n" in capsys.readouterr().out
    assert [row["epoch"] for row in read_rows(workdir / "source")] == [1, 2, 3]
    # Once it went on, its predictions are checked.
    assert load("lesson/source").reference is not None


def test_its_runs_predict_unchecked(workdir):
    model = load("lesson/feature_extraction")
    images = datasets.load_dataset(DIGITS, seed=0).validation.images
    assert model.class_names == ("5", "6", "7") and model(images).shape == (40, 3)
    assert model.reference is None and "unchecked" in describe_model(model)


@pytest.mark.parametrize("name", ["model.onnx", "model.weights.h5", "model.stablehlo"])
def test_its_runs_are_exported(workdir, tmp_path, capsys, name):
    """Each file is run before it is there, on noise: the run keeps no pictures."""
    main(["export", "lesson/feature_extraction", str(tmp_path / name)])
    assert "over 8 pictures of noise" in capsys.readouterr().out and (tmp_path / name).stat().st_size > 10_000


def test_its_runs_are_weights(workdir, tmp_path):
    weights = load_weights("lesson/feature_extraction")
    assert (weights.architecture, weights.variant, weights.is_run) == (NETWORK, "v1", True)
    config = Config(stage="fine_tune", pretrained="lesson/feature_extraction", cut="conv5_block1", data=DIGITS)
    config.batch_size, config.epochs = 8, 1
    run(config, tmp_path / "tuned")
    assert [row["epoch"] for row in read_rows(tmp_path / "tuned")] == [3]
