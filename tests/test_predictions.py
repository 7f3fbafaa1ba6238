"""The rows of what a run predicts."""

import json
import math

import numpy as np
import pytest
from scipy.special import softmax

from tljax.runs import files, predictions
from tljax.runs.predictions import choose_rows, describe_logits, describe_pictures, read_predictions


def test_predictions_are_a_line_a_picture(tmp_path):
    top5 = [[["n01440764", "tench", 0.5]], [[None, "cat", 1.0]]]
    rows = describe_pictures(["a", "b"], np.array([3, 4]), np.array([1, -1]), np.array([0.5, math.inf]), top5)
    files.write_rows(tmp_path / "predictions.jsonl", rows)
    assert (tmp_path / "predictions.jsonl").read_text().splitlines() == [
        '{"id": "a", "label": 3, "predicted": 1, "loss": 0.5, "top5": [["n01440764", "tench", 0.5]]}',
        '{"id": "b", "label": 4, "predicted": -1, "loss": null, "top5": [[null, "cat", 1.0]]}',
    ]


@pytest.mark.parametrize(("classes", "at_once"), [(2, 2**21), (3, 7), (40, 1)])
def test_rows_of_logits_are_their_softmax(monkeypatch, classes, at_once):
    monkeypatch.setattr(predictions, "LOGITS_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(11, classes)).astype(np.float32) * 5, rng.integers(0, classes, 11)
    names, ids = [f"class {i}" for i in range(classes)], [f"{i}.png" for i in range(11)]
    rows = list(describe_logits(ids, labels, logits, names))
    expected = softmax(logits.astype(float), axis=1)
    assert [row["id"] for row in rows] == ids and [row["label"] for row in rows] == labels.tolist()
    assert [row["predicted"] for row in rows] == logits.argmax(axis=1).tolist()
    np.testing.assert_allclose([row["loss"] for row in rows], -np.log(expected[np.arange(11), labels]))
    for row, own in zip(rows, expected, strict=True):
        best = np.argsort(-own)[:5]
        assert [(number, name) for number, name, _ in row["top5"]] == [(None, names[i]) for i in best]
        np.testing.assert_allclose([p for _, _, p in row["top5"]], own[best])


def test_of_equal_logits_the_first_is_predicted_and_stands_first():
    (row,) = describe_logits(["a"], np.array([6]), np.zeros((1, 9), np.float32), list("abcdefghi"))
    assert row["predicted"] == 0 and [name for _, name, _ in row["top5"]] == list("abcde")


def test_logits_that_are_no_numbers_are_rows_without_probabilities():
    rows = describe_logits(["a"], np.array([0]), np.array([[1.0, np.nan]], np.float32), ["x", "y"])
    (row,) = (json.loads(json.dumps(files.jsonable(row))) for row in rows)
    assert row["loss"] is None and row["top5"] == [[None, "y", None], [None, "x", None]]


ROW = {"id": "a", "label": 1, "predicted": -1, "loss": None, "top5": [[None, "x", 0.75], ["n1", "y", None]]}


def test_rows_are_read_as_they_were_written(tmp_path):
    files.write_rows(tmp_path / "p.jsonl", [ROW, {k: v for k, v in ROW.items() if k != "predicted"} | {"loss": 2}])
    found = read_predictions(tmp_path / "p.jsonl", 2)
    assert found.ids == ("a", "a") and found.labels.tolist() == [1, 1] and found.predicted.tolist() == [-1, -1]
    np.testing.assert_equal(found.losses, [math.nan, 2.0])
    np.testing.assert_equal(found.top[0], (("x", 0.75), ("y", math.nan)))


@pytest.mark.parametrize(
    "change",
    [
        {"id": 5}, {"label": -1}, {"label": 2}, {"label": True}, {"predicted": -2}, {"predicted": None}, {"loss": "x"},
        {"loss": 10**400}, {"top5": []}, {"top5": [["x", 0.5]]}, {"top5": [[None, 5, 0.5]]}, {"top5": "x"},
        {"top5": [[None, "x", 1.5]]}, {"top5": ROW["top5"] * 3},
    ],
    ids=str,
)  # fmt: skip
def test_other_rows_are_refused(tmp_path, change):
    files.write_rows(tmp_path / "p.jsonl", [ROW, ROW | change])
    with pytest.raises(ValueError, match=r"is no row of a run with 2 classes"):
        read_predictions(tmp_path / "p.jsonl", 2)


def test_a_file_that_is_cut_off_after_a_row_is_damaged(tmp_path):
    files.write_rows(tmp_path / "p.jsonl", [ROW])
    assert len(read_predictions(tmp_path / "p.jsonl", 2, 1).ids) == 1
    with pytest.raises(ValueError, match=r"it has 1 row of 1,200 pictures"):
        read_predictions(tmp_path / "p.jsonl", 2, 1200)
    (tmp_path / "p.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"it has 0 rows"):
        read_predictions(tmp_path / "p.jsonl", 2)


def test_more_pictures_than_rows_are_spread_evenly(monkeypatch):
    assert choose_rows(0).tolist() == [] and choose_rows(3).tolist() == [0, 1, 2]
    for count in (100_000, 100_001, 1_281_167):
        chosen = choose_rows(count)
        assert len(chosen) == 100_000 and (chosen[0], chosen[-1]) == (0, count - 1)
        assert set(np.diff(chosen)) <= {count // 100_000, count // 100_000 + 1}
    monkeypatch.setattr(predictions, "MOST_ROWS", 3)
    logits = np.eye(5, dtype=np.float32)
    rows = list(describe_logits(list("abcde"), np.arange(5), logits, list("vwxyz")))
    assert [(row["id"], row["label"], row["predicted"]) for row in rows] == [("a", 0, 0), ("c", 2, 2), ("e", 4, 4)]
