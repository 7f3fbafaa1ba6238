"""A check of data: what it reads, what it prints, and what it leaves for a person to decide."""

import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_until
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import make_folder, save
from PIL import Image

from tljax.check import reading, verdicts
from tljax.check.findings import Finding, read_findings, write_findings
from tljax.check.result import Result, Shortcut, Verdict
from tljax.check.twins import Named
from tljax.cli import main
from tljax.commands.check import name_data, wait_for
from tljax.config import Data


def save_noise(path, seed, **settings):
    """A picture like no other, soft enough to survive JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return save(path, Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC), **settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two classes of 12 and 12 pictures and a validation split, with a leak, a contradiction and broken files."""
    folder = tmp_path_factory.mktemp("data") / "pets"
    for place, split in enumerate(("train", "val")):
        for number, name in enumerate(("cat", "dog")):
            for i in range(12 if split == "train" else 4):
                save_noise(folder / split / name / f"{i}.jpg", (place, number, i), quality=95)
    shutil.copy(folder / "train/cat/1.jpg", folder / "val/cat/leak.jpg")
    with Image.open(folder / "train/cat/2.jpg") as image:
        image.save(folder / "train/dog/wrong.jpg", quality=70)
    (folder / "train/dog/cut.jpg").write_bytes((folder / "train/dog/3.jpg").read_bytes()[:400])
    (folder / "train/dog/half.jpg").write_bytes(save_noise(folder.parent / "x.jpg", 99, quality=95).read_bytes()[:-2])
    return folder


@pytest.fixture
def data(made, tmp_path):
    return shutil.copytree(made, tmp_path / "pets")


def read(name, **settings):
    config = Data(name=name, **settings)
    opened = reading.open_data(config)
    return opened, reading.read_data(config, opened, 32, 2**20)


def test_all_parts_are_read_and_what_is_broken_is_named(made):
    _, found = read(f"folder:{made}")
    assert {part: len(its.ids) for part, its in found.checked.parts.items()} == {"train": 26, "validation": 9}
    assert [(each.file, each.split, each.label) for each in found.broken] == [("train/dog/cut.jpg", "train", "dog")]
    assert [each.file for each in found.half_read] == ["train/dog/half.jpg"]
    assert "runcated" in found.reasons["train/dog/cut.jpg"]
    labels = dict(zip(found.checked.ids, found.checked.labels, strict=True))
    assert labels["train/dog/wrong.jpg"] == 1 and labels["train/cat/2.jpg"] == 0
    for part in found.checked.parts.values():
        assert len(part.images) == len(part.labels) == len(part.digests) == len(part.ids)


def test_pictures_that_are_kept_nowhere_are_found_broken_too(made, monkeypatch):
    monkeypatch.setattr(reading, "MEMORY_BYTES", 1)
    config = Data(name=f"folder:{made}")
    found = reading.read_data(config, reading.open_data(config), 32, 0)
    assert [each.file for each in found.broken] == ["train/dog/cut.jpg"]
    assert [each.file for each in found.half_read] == ["train/dog/half.jpg"]
    assert found.checked.parts["train"].images[np.array([0])].shape == (1, 32, 32, 3)


def test_splits_that_no_run_reads_are_looked_at(tmp_path):
    folder = make_folder(
        tmp_path / "data", {f"{split}/{c}": 3 for split in ("train", "val", "test") for c in ("red", "blue")}
    )
    opened, _ = read(f"folder:{folder}")
    assert list(opened.parts) == ["train", "validation", "test"]
    opened, _ = read(f"folder:{folder}", validation_split="train[50%:]", test_split="val")
    assert set(opened.parts) == {"train", "validation", "test", "test (not used)"}


def test_data_that_a_run_refuses_is_looked_at_all_the_same(tmp_path):
    folder = make_folder(tmp_path / "data", {"red": 1, "blue": 1})
    opened, found = read(f"folder:{folder}")
    assert len(found.checked.ids) == 2 and "every class has one picture" in opened.warnings[-1]


def test_only_broken_pictures_are_an_error(tmp_path):
    folder = make_folder(tmp_path / "data", {"red": 2, "blue": 2})
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    # A check has no --config.data.broken.
    with pytest.raises(ValueError, match=r"has no picture that can be read: (.* \(.*\); ){2}.*1 others; replace them$"):
        read(f"folder:{folder}")


def test_groups_on_both_sides_are_said():
    (verdict,) = verdicts.judge_groups("pqrs", {"train": np.array([0, 0, 1]), "validation": np.array([3, 0, 2])})
    assert (verdict.kind, verdict.number) == ("group_leak", 1) and verdict.text.endswith("(p)")
    assert verdicts.judge_groups("pq", {"train": np.array([0]), "test": np.array([1])}) == []


def check(*arguments):
    main(["check", *map(str, arguments)])


def test_a_check_prints_a_table_and_leaves_it_as_rows(data, tmp_path, capsys):
    check(data, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    lines = {line.split("  ")[1]: line for line in said.splitlines() if line.startswith("  ")}
    assert list(lines)[:3] == ["leaks", "contradictions", "broken"]
    assert "val/cat/leak.jpg" in lines["leaks"] and "train/dog/cut.jpg" in lines["broken"]
    rows = {(row.file, row.kind): row for row in read_findings(tmp_path / "out/check.csv")}
    assert rows["val/cat/leak.jpg", "leak"].other == "train/cat/1.jpg"
    assert rows["train/dog/wrong.jpg", "contradiction"].suggested == "cat"
    assert rows["train/dog/half.jpg", "half_read"].label == "dog"
    page = (tmp_path / "out/check.html").read_text()
    assert "truncated" in page.casefold()
    assert f"--config.data.name=folder:{data} --config.data.corrections={tmp_path / 'out/check.csv'}" in page


def test_decisions_are_carried_over_and_never_lost(data, tmp_path, capsys):
    out = tmp_path / "out"
    check(data, "--out", out)
    decided = [
        Finding("val/cat/leak.jpg", "validation", "leak", 1.0, "cat", "", "drop", "train/cat/1.jpg"),
        # No check would find it.
        Finding("train/cat/5.jpg", "train", "label", 0.1, "cat", "dog", "dog"),
    ]
    write_findings(out / "check.csv", decided)
    check(data, "--out", out)
    rows = {row.file: row.decision for row in read_findings(out / "check.csv") if row.decision}
    assert rows == {"val/cat/leak.jpg": "drop", "train/cat/5.jpg": "dog"}
    # What corrections drop is still there.
    check(data, "--out", out, "--config.data.corrections", out / "check.csv")
    assert {row.file for row in read_findings(out / "check.csv") if row.decision} == set(rows)
    (data / "train/cat/5.jpg").unlink()
    before = (out / "check.csv").read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        check(data, "--out", out)
    assert "1 decision about other pictures: row " in capsys.readouterr().err
    assert (out / "check.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("pets/out", "is inside of folder:"),
        ("file", "is a file; give a folder"),
        ("no/where", "there is no folder .*no; make it first"),
        ("nowhere", "nowhere is a link to nothing; give a folder"),
        ("closed", "closed: nothing can be written there"),
        ("closed/new", "closed/new: nothing can be written there"),
        ("taken", "taken/check.csv has no column 'file'"),
        ("full", "full/check.csv is a folder; give another --out"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_at_once(data, tmp_path, monkeypatch, capsys, out, said):
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "closed").mkdir()
    # root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "closed")
    (tmp_path / "full" / "check.csv").mkdir(parents=True)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "check.csv").write_text("a,b\n1,2\n")
    monkeypatch.setattr(reading, "read_data", None)
    with pytest.raises(SystemExit):
        check(data, "--out", tmp_path / out)
    assert re.search(said, capsys.readouterr().err)
    assert not any(folder.exists() for folder in (data / "out", tmp_path / "no", tmp_path / "gone"))


def test_one_check_at_a_time_writes_into_a_folder(tmp_path):
    """Both write into one unfinished file first."""
    first = threading.Event()

    def wait():
        with wait_for(tmp_path):
            assert first.is_set()

    with ThreadPoolExecutor() as pool:
        with wait_for(tmp_path):
            other = pool.submit(wait)
            assert not wait_until([other], timeout=0.1).done
            first.set()
        other.result()


def test_strict_ends_with_one_if_something_was_found(data, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        check(data, "--strict")
    assert ended.value.code == 1 and "leaks" in capsys.readouterr().out


def test_a_decision_that_is_none_is_refused_at_once(data, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/check.csv").write_text("file,decision\ntrain/cat/1.jpg,dgo\n")
    with pytest.raises(SystemExit):
        check(data, "--out", tmp_path / "out")
    assert "is no decision: write keep, drop or the name of a class; did you mean dog?" in capsys.readouterr().err


def test_what_was_decided_is_counted_and_is_not_strict():
    found = [Finding(file, "train", "leak", 0.9, "cat", other="x") for file in ("a", "b")]
    found.append(Finding("b", "train", "label", 0.9, "cat"))
    some = [replace(found[0], decision="keep"), *found[1:]]
    result = Result("x", ("cat",), {}, verdicts.judge_findings(found), some, (), ())
    assert verdicts.is_open(result) and verdicts.list_table(result)[1].endswith("(a, b) [1 of 2 decided]")
    # One decision about a picture is one about all of its rows.
    result = result._replace(findings=[*some[:1], replace(some[1], decision="drop"), some[2]])
    assert not verdicts.is_open(result) and verdicts.list_table(result)[2].endswith("[1 of 1 decided]")
    assert verdicts.is_open(result._replace(verdicts=[Verdict("class_few", 1, "")])), "nobody can decide about classes"


def test_pictures_that_a_shortcut_names_are_findings_the_worst_first():
    named = Named(("a", "b", "c"), ("train", "train", "test"), ("cat", "cat", "dog"))
    shortcuts = [Shortcut("width", "cat", "above 2", 0.5, 0.96, ("a", "c"), {}),
                 Shortcut("bytes", "cat", "below 9", 0.5, 0.99, ("a",), {})]  # fmt: skip
    found = verdicts.list_named(shortcuts, named)
    assert [(row.file, row.split, row.score, row.label) for row in found] == [
        ("a", "train", 0.99, "cat"), ("c", "test", 0.96, "dog"),
    ]  # fmt: skip
    twin, leak = (Finding("x", "train", kind, score, "cat") for kind, score in (("near_twin", 1.0), ("leak", 0.5)))
    assert [row.kind for row in verdicts.rank_findings([twin, *found, leak])] == [
        "leak", "shortcut", "shortcut", "near_twin",
    ]  # fmt: skip


def test_bars_of_pad_are_no_borders(tmp_path, capsys):
    for name, size in (("wide", (40, 20)), ("square", (30, 30))):
        for i in range(8):
            save_noise(tmp_path / f"data/{name}/{i}.png", (ord(name[0]), i))
            with Image.open(tmp_path / f"data/{name}/{i}.png") as image:
                image.resize(size).save(tmp_path / f"data/{name}/{i}.png")
    check(tmp_path / "data", "--config.data.fit=pad")
    said = capsys.readouterr().out
    assert "  borders  " not in said and "border color" not in said and "fit=pad makes some" in said
    check(tmp_path / "data", "--config.data.fit=crop")
    assert "fit=pad" not in capsys.readouterr().out


def test_a_name_may_be_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "labels.csv").touch()
    names = ["mine", "labels.csv", "folder:mine", "digits", "cifar10"]
    assert list(map(name_data, names)) == ["folder:mine", "csv:labels.csv", "folder:mine", "digits", "cifar10"]


def test_verdicts_are_the_worst_first_and_count_each_picture_once():
    found = [
        Finding("a", "train", "near_twin", 0.9, "cat", other="b"),
        Finding("c", "test", "leak", 0.6, "cat", other="b"),
        Finding("d", "test", "leak", 0.9, "cat", other="b"),
        Finding("c", "test", "leak", 0.5, "cat", other="e"),
    ]
    ranked = verdicts.rank_verdicts(verdicts.judge_findings(found))
    assert [(its.kind, its.number) for its in ranked] == [("leak", 2), ("near_twin", 1)]
    assert "(d, c)" in ranked[0].text


def test_names_are_escaped_in_the_table():
    counts = {"train": {"cat": 2}}
    result = Result("folder:a\nb", ("cat",), counts, [Verdict("leak", 1, "x\x1b[1m")], (), (), ())
    assert verdicts.list_table(result)[:2] == [
        r"folder:a\nb: 2 pictures (train 2), 1 class", r"  leaks                1  x\x1b[1m",
    ]  # fmt: skip
