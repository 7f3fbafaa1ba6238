"""Test splits that are evaluated after a run has ended: as if the run had done it, once, and whole or not at all."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import check_predictions, make_source, read_summary, small

from tljax.config import Data
from tljax.runs.predictions import read_predictions
from tljax.stages import late_test
from tljax.stages.from_config import run
from tljax.stages.late_test import evaluate_test

DATA = Data(name="digits", classes=("5", "6"), validation_split="train[80%:]", test_split="none", max_images=60)
PREDICTIONS = "test_predictions.jsonl"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return str(make_source(tmp_path_factory.mktemp("source")))


def test_a_split_is_evaluated_as_the_run_itself_would_have_done(tmp_path, source, monkeypatch):
    config, both = small("feature_extraction", pretrained=source, data=DATA), tmp_path / "both"
    run(replace(config, data=replace(DATA, test_split="val")), both)
    run(config, tmp_path / "run")
    before = read_summary(tmp_path / "run")
    assert "test" not in before and set(before["data"]["splits"]) == {"train", "validation"}
    assert not (tmp_path / "run" / PREDICTIONS).exists()

    # The predictions are there, the summary is not written.
    with monkeypatch.context() as patched:
        patched.setattr(late_test, "write_json", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
        with pytest.raises(OSError, match="disk is full"):
            evaluate_test(config, tmp_path / "run", "val")
    assert read_summary(tmp_path / "run") == before and run(config, tmp_path / "run") == before

    found, expected = evaluate_test(config, tmp_path / "run", "val"), read_summary(both)
    assert read_summary(tmp_path / "run") == found
    assert {name: found[name] for name in before if name != "data"} == {n: before[n] for n in before if n != "data"}
    assert found["data"]["splits"] == expected["data"]["splits"]
    assert found["test"].keys() == expected["test"].keys()
    np.testing.assert_allclose(found["test"]["loss"], expected["test"]["loss"], rtol=1e-4)
    assert found["test"]["class_accuracy"] == expected["test"]["class_accuracy"]
    check_predictions(tmp_path / "run" / PREDICTIONS, found["test"])
    own, theirs = (read_predictions(folder / PREDICTIONS, 2) for folder in (tmp_path / "run", both))
    assert own.ids == theirs.ids
    np.testing.assert_allclose(own.losses, theirs.losses, rtol=1e-3, atol=1e-5)

    with monkeypatch.context() as patched:
        patched.setattr(late_test, "load_dataset", None)
        assert evaluate_test(config, tmp_path / "run", "train") == found == run(config, tmp_path / "run")
    # A run that goes on has another best epoch.
    longer = run(replace(config, epochs=2), tmp_path / "run")
    assert "test" not in longer and not (tmp_path / "run" / PREDICTIONS).exists()


def test_what_cannot_be_evaluated_leaves_the_run_as_it_is(tmp_path, source):
    config = small("feature_extraction", pretrained=source, data=replace(DATA, classes=("5", "6"), max_images=20))
    with pytest.raises(ValueError, match="holds no finished run"):
        evaluate_test(config, tmp_path / "run", None)
    assert not (tmp_path / "run").exists()
    run(config, tmp_path / "run")
    before = read_summary(tmp_path / "run")
    # Digits have no split test.
    assert evaluate_test(config, tmp_path / "run", None) == before == read_summary(tmp_path / "run")
    with pytest.raises(ValueError, match="another config"):
        evaluate_test(replace(config, seed=1), tmp_path / "run", "val")
    with pytest.raises(ValueError, match="test_split='val2': no such split"):
        evaluate_test(config, tmp_path / "run", "val2")
    assert read_summary(tmp_path / "run") == before
