"""The folder of a run: files whole or not at all, one run at a time, no run mixed with another."""

import errno
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tljax.config import Cache, Config, Data, Lesson, Optimizer, as_json, jsonable
from tljax.runs import files, workdir

SUMMED_UP = {
    "stage": "feature_extraction", "loss": 1.0, "accuracy": 0.5, "seconds": 1.5, "best_epoch": 1, "epochs": 1,
    "params": {"trainable": 9},
}  # fmt: skip


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
    assert jsonable(value) == plain
    json.dumps(jsonable(value), allow_nan=False)


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [{"epoch": 1, "loss": math.nan}, {"epoch": 2, "loss": 0.1, "stage": "größer"}]
    files.write_rows(tmp_path / "metrics.jsonl", rows)
    assert files.read_rows(tmp_path / "metrics.jsonl") == [rows[0] | {"loss": None}, rows[1]]


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e", "\r", "\n"])
def test_a_text_may_hold_what_looks_like_the_end_of_a_line(tmp_path, end):
    rows = [{"command": f"main.py --workdir a{end}b"}, {"command": "c"}]
    files.write_rows(tmp_path / "rows.jsonl", rows)
    assert files.read_rows(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize("content", ['{"a": 1}\n{"b', "[1]\n", "5\n", "[" * 10**5])
def test_rows_that_are_none_are_named(tmp_path, content):
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(ValueError, match=r"rows\.jsonl is damaged \(") as error:
        files.read_rows(tmp_path / "rows.jsonl")
    assert "\n" not in str(error.value)


def test_a_name_that_is_no_text_is_written_and_read(tmp_path):
    rows = [{"id": "a/caf\udce9.jpg", "label": "größer"}]
    files.write_rows(tmp_path / "rows.jsonl", rows)
    assert files.read_rows(tmp_path / "rows.jsonl") == rows
    assert b'"a/caf\\udce9.jpg"' in (tmp_path / "rows.jsonl").read_bytes()


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "report.md"
    files.write_text(path, "größer\n")
    files.write_text(path, "kleiner\n")
    assert path.read_text("utf-8") == "kleiner\n"
    assert [p.name for p in path.parent.iterdir()] == ["report.md"]


def test_a_write_that_fails_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "report.md"
    files.write_text(path, "before")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"report.md cannot be written \(No space left on device\)"):
        files.write_text(path, "after, and longer")
    assert path.read_text() == "before"
    assert [p.name for p in path.parent.iterdir()] == ["report.md"]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone/report\.md cannot be written"):
        files.write_text(tmp_path / "gone" / "report.md", "x")
    assert not (tmp_path / "gone").exists()


def test_what_cannot_be_written_leaves_the_file_before(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"x": object()})
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


@pytest.mark.parametrize("name", workdir.FILES[1:])
def test_parts_of_a_run_without_its_config_are_refused(tmp_path, name):
    fill(tmp_path, [{"figures": "figures/curves.png", "checkpoints": "checkpoints/3/x"}.get(name, name), "notes.txt"])
    said = re.escape(f"holds {name} but no config.json")
    with pytest.raises(FileExistsError, match=said):
        workdir.find_run(tmp_path, Config())


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    fill(tmp_path, ["runs"])
    with pytest.raises(FileExistsError, match="is a file; give a folder as --workdir"):
        workdir.find_run(tmp_path / "runs", Config())
    with (
        pytest.raises(FileExistsError, match="is a file; give a folder as --workdir"),
        workdir.claim(tmp_path / "runs"),
    ):
        pass


def test_how_far_a_run_is(tmp_path):
    fill(tmp_path, ["notes.txt", "data"])
    config = Config(data=Data(classes=("a", "b")))
    assert workdir.find_run(tmp_path, config) == "none"
    assert workdir.find_run(tmp_path / "new", config) == "none"
    workdir.begin_run(tmp_path, config, overwrite=False)
    assert workdir.find_run(tmp_path, config) == "begun"
    files.write_json(tmp_path / "summary.json", SUMMED_UP)
    assert workdir.find_run(tmp_path, config) == "begun"
    fill(tmp_path, ["metrics.jsonl"])
    assert workdir.find_run(tmp_path, config) == "finished"
    longer = replace(config, epochs=11)
    assert workdir.find_run(tmp_path, longer) == "begun"
    workdir.begin_run(tmp_path, longer, overwrite=False)
    assert workdir.find_run(tmp_path, config) == "finished"
    workdir.mark_running(tmp_path, longer)
    assert workdir.find_run(tmp_path, longer) == "begun"
    with pytest.raises(ValueError, match="epochs: 11 before, 10 now"):
        workdir.find_run(tmp_path, config)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config[.]json is damaged .*; bring it back, give another"):
        workdir.find_run(tmp_path, config)


def test_another_way_to_the_same_place_is_no_other_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir.begin_run(tmp_path, Config(pretrained="weights.h5"), overwrite=False)
    moved = Config(pretrained=str(tmp_path / "weights.h5"), data=Data(dir="elsewhere"), cache=Cache(disk_gib=0))
    assert workdir.find_run(tmp_path, moved) == "begun"
    with pytest.raises(ValueError, match=r"pretrained: 'weights.h5' before, 'other.h5' now"):
        workdir.find_run(tmp_path, replace(moved, pretrained="other.h5"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 9}, "epochs: 10 before, 9 now"),
        ({"seed": 1}, "seed: 0 before, 1 now"),
        ({"data": Data(classes=("b", "a"))}, r"data.classes: \[\] before, \['b', 'a'\] now"),
        ({"optimizer": Optimizer(learning_rate=0.1), "patience": 3}, r"optimizer.learning_rate: 0.001 .* patience: 5"),
    ],
)
def test_another_config_is_refused_with_what_differs(tmp_path, change, said):
    workdir.begin_run(tmp_path, Config(), overwrite=False)
    with pytest.raises(ValueError, match=f"holds a run of another config .*{said}"):
        workdir.find_run(tmp_path, Config(**change))


def test_of_four_stages_only_those_that_nothing_goes_on_from_may_take_longer(tmp_path):
    workdir.begin_run(tmp_path, Lesson(), overwrite=False)
    config = Lesson()
    config.stages["fine_tune"].epochs += 1
    assert workdir.find_run(tmp_path, config) == "begun"
    config.stages["feature_extraction"].epochs += 1
    with pytest.raises(ValueError, match=r"stages.feature_extraction.epochs: 10 before, 11 now\)"):
        workdir.find_run(tmp_path, config)


def test_overwriting_deletes_what_a_run_writes_and_nothing_else(tmp_path):
    others = ["notes.txt", "data", "summary.json.bak", "fine_tune/summary.json"]
    in_folders = ["figures/curves.png", "checkpoints/3/meta"]
    fill(tmp_path, [*(name for name in workdir.FILES if name not in workdir.OWN), *in_folders, *others])
    config = Config(pretrained="imagenet", optimizer=Optimizer(learning_rate=math.inf))
    workdir.begin_run(tmp_path, config, overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"notes.txt", "data", "summary.json.bak", "fine_tune", "config.json"}
    assert (tmp_path / "data" / "something").exists()
    assert (tmp_path / "fine_tune" / "summary.json").exists()
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["stage"], written["pretrained"]) == ("feature_extraction", "imagenet")
    assert written["optimizer"] == as_json(Optimizer()) | {"learning_rate": None}


def test_one_run_at_a_time_is_in_a_folder(tmp_path):
    folder = tmp_path / "runs" / "new"
    with workdir.claim(folder):
        with pytest.raises(FileExistsError, match="new: another run is at work there"), workdir.claim(folder):
            pass
        assert folder.is_dir()
    # Nothing was written: it is as it was.
    assert not folder.parent.exists()
    with workdir.claim(folder):
        fill(folder, ["config.json"])
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(workdir, "open_without_waiting", refuse)
    said = r"new cannot be written to \(Permission denied\); give another"
    with pytest.raises(PermissionError, match=said), workdir.claim(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://bucket/run"])
def test_an_address_is_no_workdir(address):
    with pytest.raises(ValueError, match="is an address, not a folder"), workdir.claim(Path(address)):
        pass


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(tmp_path):
    ours = ["config.json", "summary.json", "figures/samples.png", "figures/unfinished_curves.png"]
    ours += [
        "checkpoints/0/x",
        "checkpoints/12/x",
        "checkpoints/12.damaged/x",
        "checkpoints/7.orbax-checkpoint-tmp-1/x",
    ]
    others = ["figures/my.png", "checkpoints/notes.txt", "notes.txt"]
    for name in ours + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    workdir.clear(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(others)
    # What is left is not in the way of another run.
    workdir.refuse_other_folders(tmp_path)
    for name in others:
        (tmp_path / name).unlink()
    workdir.clear(tmp_path)
    assert not list(tmp_path.iterdir())
