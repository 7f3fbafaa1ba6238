"""A single run of a tiny network: when it compiles, how it goes on, when it ends, and what it evaluates."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_runs import DIGITS, TIMES, check_predictions, make_source, read_rows, read_summary, small

from tljax.config import STAGES, Config, Data, Head, Optimizer
from tljax.data.preprocessing import CAFFE
from tljax.devices.mesh import make_mesh
from tljax.networks.architectures import RESNET50
from tljax.runs import checkpoints, readers
from tljax.runs.journal import Journal
from tljax.stages import preflight
from tljax.stages.from_config import run
from tljax.stages.train import warn_of_other_images
from tljax.training import epochs
from tljax.weights import pretrained


def test_the_compiler_is_through_before_the_first_step(tmp_path, monkeypatch, own_programs):
    compiled, train_epoch, try_evaluate = [], epochs.train_epoch, epochs.try_evaluate

    def train(state, done, examples, order, train_steps, **settings):
        compiled.append(train_steps.func._cache_size())
        return train_epoch(state, done, examples, order, train_steps, **settings)

    def evaluate(state, examples, eval_steps, interrupted):
        compiled.append(eval_steps._cache_size())
        return try_evaluate(state, examples, eval_steps, interrupted)

    monkeypatch.setattr(epochs, "train_epoch", train)
    monkeypatch.setattr(epochs, "try_evaluate", evaluate)
    config = small("from_scratch")
    config.epochs = 2
    run(config, tmp_path / "run")
    # Training and evaluation in two epochs, and a last evaluation of the best one.
    assert compiled == [1] * 5


def test_more_epochs_go_on_from_the_newest(tmp_path):
    """The result is that of a run in one go, because runs are reproducible: here with everything that changes images.
    Training pictures are kept larger than those of validation, and targets are mixed."""
    data = replace(DIGITS, augment="crop,flip,color,trivial,erase,mixup,cutmix")
    config = small("from_scratch", data=data)
    run(config, tmp_path / "run")
    config.epochs = 2
    run(config, tmp_path / "run")
    run(config, tmp_path / "whole")
    extended, whole = (
        [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(tmp_path / name)]
        for name in ("run", "whole")
    )
    assert extended == whole and len(whole) == 2
    assert whole[1]["loss"] < whole[0]["loss"] and whole[1]["val_loss"] < 2
    extended, whole = (readers.read_run(tmp_path / name)[1]["digest"] for name in ("run", "whole"))
    assert extended == whole


def test_early_stopping_ends_a_run_and_the_best_epoch_is_what_is_evaluated(tmp_path):
    config = small("from_scratch", patience=1, optimizer=Optimizer(learning_rate=0.3))
    config.epochs = 12
    run(config, tmp_path / "run")
    summary, rows = read_summary(tmp_path / "run"), read_rows(tmp_path / "run")
    losses = [np.inf if row["val_loss"] is None else row["val_loss"] for row in rows]
    assert summary["epochs"] == len(rows) < 12
    assert summary["best_epoch"] == int(np.argmin(losses)) + 1 == len(rows) - 1
    np.testing.assert_allclose(summary["loss"], min(losses), rtol=1e-4)
    with checkpoints.open_checkpoints(tmp_path / "run") as kept:
        heads = [kept.restore_variables(5 * n)[0]["params"]["head"]["bias"] for n in (len(rows) - 1, len(rows))]
    as_source = pretrained.load_weights(str(tmp_path / "run")).leaves["params/head/bias"]
    np.testing.assert_array_equal(as_source, heads[0])
    assert not np.array_equal(*heads)


def test_a_slice_of_train_as_validation_evaluates_the_test_split_once(tmp_path):
    data = Data(name="digits", classes=("5", "6"), validation_split="train[80%:]", test_split="val", max_images=60)
    source = str(make_source(tmp_path / "source"))
    run(small("feature_extraction", pretrained=source, data=data), tmp_path / "run")
    test = read_summary(tmp_path / "run")["test"]
    assert set(test) == {"loss", "accuracy", "balanced_accuracy", "class_accuracy"} and set(test["class_accuracy"]) == {
        "5",
        "6",
    }
    check_predictions(tmp_path / "run" / "test_predictions.jsonl", test)
    check_predictions(tmp_path / "run" / "predictions.jsonl", read_summary(tmp_path / "run"))
    _, meta = readers.read_run(tmp_path / "run")
    assert set(meta["data"]) == {"train", "validation", "test"}


def test_a_diverged_training_is_an_error(tmp_path):
    config = small("from_scratch", optimizer=Optimizer(learning_rate=1e30))
    with pytest.raises(ValueError, match="epoch 1/1: the loss of step 2 is nan"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(("stage", "head"), [*((stage, "head") for stage in STAGES), ("from_scratch", "conv4_block1")])
def test_every_program_lowers_for_every_platform(stage, head):
    """This works on any machine, because the backend is chosen when a program is lowered."""
    cut = {"fine_tune": "conv5_block1", "from_scratch": "conv1"}.get(stage, "head")
    config = Config(stage=stage, cut=cut, batch_size=2, head=Head(at=head), network="tiny")
    programs = preflight.plan(config, 32, 10, make_mesh())
    assert {"classify"} == set(programs) or {"training step", "evaluation step"} <= set(programs)
    for program, arguments, _ in programs.values():
        exported = jax.export.export(program, platforms=("cpu", "tpu", "cuda"))(*arguments)
        assert exported.platforms == ("cpu", "tpu", "cuda")


def test_the_network_is_printed_when_nothing_is_refused_any_more(tmp_path, capsys, monkeypatch):
    def refuse(*_: object) -> None:
        raise ValueError("this run began with other pictures")

    monkeypatch.setattr(Journal, "read", refuse)
    with pytest.raises(ValueError, match="other pictures"):
        run(small("from_scratch"), tmp_path / "run")
    said = capsys.readouterr().out
    assert "== from_scratch in" in said and "Total params" not in said


def test_what_differs_from_the_source_comes_with_what_to_type(capsys):
    source = pretrained.Weights("runs/a", {}, "v1", CAFFE, 32, (), RESNET50, is_run=True, fit="pad")
    warn_of_other_images(source, 32, "pad")
    warn_of_other_images(None, 64, "crop")
    warn_of_other_images(source._replace(is_run=False), 64, "crop")
    assert not capsys.readouterr().out
    warn_of_other_images(source, 64, "crop")
    assert capsys.readouterr().out == (
        "WARNING runs/a learned from pictures with image_size=32 and fit=pad, these have image_size=64 and fit=crop: "
        "--config.data.image_size=32 --config.data.fit=pad makes them alike\n"
    )
    warn_of_other_images(source, 64, "pad")
    assert "image_size=64: --config.data.image_size=32 makes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("red dog", "cat", "owl"), "take these with --config.data.classes cat 'red dog'"),
        (("dog", "cat"), "--config feature_extraction --config.pretrained=runs/a trains a new one"),
    ],
)
def test_a_head_of_other_classes_comes_with_what_to_type(classes, said):
    line = pretrained.describe_other_classes("runs/a", ("cat", "red dog"), classes)
    assert line.endswith(f"and fine_tune keeps the head: {said}")
