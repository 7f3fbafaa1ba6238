"""Decisions about pictures change what a run reads, and nothing else."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import load_folder, make_folder
from test_findings import save_again
from tiny_runs import DIGITS, read_rows, read_summary, small

from tljax.check.findings import Finding, write_findings
from tljax.config import Data
from tljax.data import datasets, decoding, sources
from tljax.data.corrections import digest_decisions, read_decisions
from tljax.data.digits import open_digits
from tljax.report.printed import data_summary
from tljax.stages.from_config import run


def decide(file: Path, decisions: dict[str, str]) -> str:
    """Writes findings with decisions, after those of an earlier file."""
    file.unlink(missing_ok=True)
    write_findings(file, [Finding(name, "train", "label", 0.5, "", decision=said) for name, said in decisions.items()])
    return str(file)


def content(split: datasets.Split) -> dict[str, tuple]:
    """Label and pixels of each picture."""
    rows = zip(split.ids, split.labels.tolist(), np.asarray(split.images), strict=True)
    return {name: (label, image.tobytes()) for name, label, image in rows}


def expect(split: datasets.Split, dropped: set[str], labels: dict[str, int]) -> dict[str, tuple]:
    return {
        name: (labels.get(name, label), image) for name, (label, image) in content(split).items() if name not in dropped
    }


def test_a_folder_is_read_as_decided_and_no_other_picture_moves(tmp_path, monkeypatch):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    folder = make_folder(tmp_path / "pictures", {"red": 30, "blue": 20, "green": 10})
    config = Data(name=f"folder:{folder}", image_size=32)
    whole = datasets.load_dataset(config, seed=0)
    drop = {whole.train.ids[0], whole.train.ids[5], whole.validation.ids[1]}
    others = [name for split in (whole.train, whole.validation) for name in split.ids
              if name not in drop and not name.startswith("green")]  # fmt: skip
    green = {others[0]: 1, others[-1]: 1}
    kept = {others[1]: "keep", others[2]: others[2].split("/")[0]}
    decided = dict.fromkeys(drop, "drop") | dict.fromkeys(green, "green") | kept | {others[3]: ""}
    config = replace(config, corrections=decide(tmp_path / "check.csv", decided))
    # Without a cache, with one that is filled, and with one that is full.
    for disk_bytes in (0, 2**20, 2**20):
        found = datasets.load_dataset(config, seed=0, disk_bytes=disk_bytes)
        assert content(found.train) == expect(whole.train, drop, green)
        assert content(found.validation) == expect(whole.validation, drop, green)
        again = datasets.load_dataset(replace(config, corrections=None), seed=0, disk_bytes=disk_bytes)
        assert content(again.train) == content(whole.train)
    said = (
        "corrections: 3 dropped, 2 relabelled, 2 kept (validation: 1 dropped, 1 relabelled; train: 2 dropped, "
        "1 relabelled, 2 kept)"
    )
    assert found.description["notes"][-1] == said and f"note        {said}" in data_summary(found.description)
    assert found.description["left_out"] == {"dropped by data.corrections": 3}
    assert "3 dropped by data.corrections" in data_summary(found.description)
    assert found.train_counts["green"] == whole.train_counts["green"] + 1
    assert datasets.size_up(config, 0, counting=True).by_class == tuple(found.train_counts.values())
    assert len(list(folder.rglob("*.png"))) == 60
    # Files of other labels alone are not decoded again.
    monkeypatch.setattr(decoding, "read_picture", None)
    config = replace(config, corrections=decide(tmp_path / "other.csv", dict.fromkeys(green, "green")))
    assert content(datasets.load_dataset(config, seed=0, disk_bytes=2**20).train) == expect(whole.train, set(), green)


def test_a_slice_of_train_does_not_move_and_draws_are_of_what_is_left(tmp_path):
    spec = Data(name="digits", validation_split="train[80%:]")
    whole = datasets.load_dataset(spec, seed=0)
    drop = set(whole.train.ids[:300])
    spec = replace(spec, corrections=decide(tmp_path / "check.csv", dict.fromkeys(drop, "drop")))
    found = datasets.load_dataset(spec, seed=0)
    assert found.validation.ids == whole.validation.ids
    assert found.train.ids == whole.train.ids[300:]
    few = datasets.load_dataset(replace(spec, labels_per_class=5), seed=0).train
    assert np.bincount(few.labels).tolist() == [5] * 10 and not set(few.ids) & drop
    assert len(datasets.load_dataset(replace(spec, max_images=50), seed=0).train.ids) == 50
    # What only a held-out digit decides is said, where train is not read.
    spec = Data(name="digits", corrections=spec.corrections)
    note = datasets.load_dataset(spec, seed=0, training=False).description["notes"][-1]
    assert note == "corrections: 0 dropped, 0 relabelled, 0 kept; 300 about pictures that this run does not read"


def test_classes_are_chosen_by_the_corrected_labels(tmp_path):
    whole = datasets.load_dataset(DIGITS_3_5, seed=0).train
    eight = datasets.load_dataset(Data(name="digits", classes=("8", "9")), seed=0).train.ids[0]
    decided = {whole.ids[0]: "9", whole.ids[1]: "drop", eight: "5" if whole.labels[0] == 0 else "3"}
    config = replace(DIGITS_3_5, corrections=decide(tmp_path / "check.csv", decided | {"digits_00000": "drop"}))
    found = datasets.load_dataset(config, seed=0)
    assert set(found.train.ids) == (set(whole.ids) | {eight}) - set(whole.ids[:2])
    # A 0 is of no class that is used, whatever is decided about it.
    said = (
        "1 dropped, 2 relabelled, 0 kept (train: 1 dropped, 2 relabelled); 1 about pictures that this run does not read"
    )
    assert found.description["notes"][-1] == f"corrections: {said}"


DIGITS_3_5 = Data(name="digits", classes=("3", "5"))


def test_lists_of_records_in_the_cache_are_told_apart_by_corrections(tmp_path, monkeypatch):
    """Records have no files of their own, by which a list would be known."""
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    config = replace(DIGITS, max_images=None, labels_per_class=20)
    file = tmp_path / "check.csv"
    labels = []
    whole = datasets.load_dataset(config, seed=0).train.ids
    for said in ("6", "7", "5"):
        corrected = replace(config, corrections=decide(file, {whole[0]: said, whole[1]: "drop"}))
        for _ in range(2):
            train = datasets.load_dataset(corrected, seed=0, disk_bytes=2**22).train
            assert whole[1] not in train.ids
        assert train.ids == datasets.load_dataset(corrected, seed=0).train.ids
        np.testing.assert_array_equal(train.labels, datasets.load_dataset(corrected, seed=0).train.labels)
        labels.append(dict(zip(train.ids, train.labels.tolist(), strict=True)))
    assert len({tuple(found.items()) for found in labels}) == 3
    assert datasets.load_dataset(config, seed=0, disk_bytes=2**22).train.ids == whole


def test_a_table_is_corrected_by_the_names_of_its_pictures(tmp_path):
    make_folder(tmp_path, {"é": 0, "red": 6, "blue": 6})
    rows = [f"{name}/{i}.png,{name}" for name in ("red", "blue") for i in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    config = Data(name=f"csv:{tmp_path}/labels.csv", image_size=32)
    config.corrections = decide(tmp_path / "check.csv", {"red/0.png": "blue", "blue/3.png": "drop"})
    found = datasets.load_dataset(config, seed=0)
    labels = {name: label for split in found.splits.values() for name, (label, _) in content(split).items()}
    assert len(labels) == 11 and labels["red/0.png"] == 0 and labels["red/1.png"] == 1


def test_a_broken_picture_that_is_dropped_refuses_no_run(tmp_path):
    folder = make_folder(tmp_path / "pictures", {"train/red": 4, "train/blue": 4, "val/red": 1, "val/blue": 1})
    (folder / "train/red/2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train/red/2\.png"):
        load_folder(folder)
    file = decide(tmp_path / "check.csv", {"train/red/2.png": "drop"})
    for broken in ("refuse", "skip"):
        found = load_folder(folder, corrections=file, broken=broken)
        assert found.train.count == 7 and not found.description["warnings"]
    file = decide(
        tmp_path / "check.csv", {"train/red/2.png": "drop", "val/red/0.png": "drop", "val/blue/0.png": "drop"}
    )
    with pytest.raises(ValueError, match=r"data\.corrections drops all 2 pictures of val for validation"):
        load_folder(folder, corrections=file)


def test_processes_read_parts_of_the_same(tmp_path):
    folder = make_folder(tmp_path / "pictures", {"red": 20, "blue": 20})
    names = load_folder(folder).train.ids
    file = decide(tmp_path / "check.csv", {names[3]: "drop", names[4]: "red", names[5]: "blue"})
    one = load_folder(folder, corrections=file).train
    config = Data(name=f"folder:{folder}", image_size=8, corrections=file)
    parts = [
        datasets.load_dataset(config, seed=0, own=lambda n, start=start: np.arange(start, n, 2)).train
        for start in (0, 1)
    ]
    for part in parts:
        assert part.count == 35 and part.ids == tuple(one.ids[row] for row in part.rows)
        np.testing.assert_array_equal(part.labels, one.labels[part.rows])


@pytest.mark.parametrize(
    ("decided", "said"),
    [
        ({"red/0.png": "bleu"}, "row 2 (red/0.png: bleu) is no decision: write keep, drop or the name of a class; did "
                                "you mean blue?"),
        ({"red/0.png": "Dorp"}, "did you mean drop"),
        ({"red/0.png": "keep", "rd/4.png": "drop"}, "names 1 picture that the data has not: row 3: rd/4.png (the "
                                                    "nearest is red/4.png); correct the table"),
        ({f"red/{i}.jpg": "keep" for i in range(6)}, "names 6 pictures that the data has not: row 2: red/0.jpg"),
        ({"cafe\u0301/0.png": "drop", "café/0.png": "red"}, "row 2 (café/0.png: drop) and row 3 (café/0.png: red)"),
    ],
)  # fmt: skip
def test_wrong_decisions_are_refused(tmp_path, decided, said):
    folder = make_folder(tmp_path / "pictures", {"red": 5, "blue": 5})
    (folder / "blue").rename(folder / "café")
    shutil.copytree(folder / "café", folder / "blue")
    with pytest.raises(ValueError) as error:
        load_folder(folder, corrections=decide(tmp_path / "check.csv", decided))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_names_and_words_may_be_written_otherwise(tmp_path):
    make_folder(tmp_path / "pictures", {"red": 5, "blue": 5})
    (tmp_path / "pictures" / "blue").rename(tmp_path / "pictures" / "caf\u00e9")
    (tmp_path / "pictures" / "red").rename(tmp_path / "pictures" / "Drop")
    decided = {"cafe\u0301/0.png": " DROP ", "Drop/1.png": "cafe\u0301", "Drop/2.png": "Keep"}
    found = load_folder(tmp_path / "pictures", corrections=decide(tmp_path / "check.csv", decided))
    assert "1 dropped, 1 relabelled, 1 kept" in found.description["notes"][-1]
    assert found.description["warnings"] == ["the decision drop is not read as the class Drop"]


def test_corrections_that_are_not_there_are_refused_before_anything_is_read(tmp_path):
    decide(tmp_path / "check.csv", {})
    config = Data(name="digits", corrections=str(tmp_path / "chekc.csv"))
    with pytest.raises(FileNotFoundError, match=r"chekc\.csv: there is no such file; did you mean .*check\.csv\?"):
        sources.check_place(config)
    (tmp_path / "check.csv").write_text("file,decision\na,keep\na,drop\n")
    with pytest.raises(ValueError, match="decide otherwise about one picture"):
        sources.check_place(replace(config, corrections=str(tmp_path / "check.csv")))


def test_digests_see_what_changes_alone(tmp_path):
    def digest(decided: dict[str, str]) -> str:
        return digest_decisions(read_decisions(Path(decide(tmp_path / "check.csv", decided))))

    first = digest({"a": "drop", "b": "cat", "c": "keep"})
    assert first == digest({"b": " cat", "a": "Drop", "d": ""})
    assert len({first, digest({"a": "drop"}), digest({"a": "cat", "b": "drop"}), digest({})}) == 4


def test_splits_that_say_nothing_about_a_decision_are_not_read(tmp_path, monkeypatch):
    source, read = open_digits(), []
    (name,) = source.describe("train", np.array([3]))[1]
    spy = lambda split, rows: read.append(split) or source.describe(split, rows)  # noqa: E731
    monkeypatch.setitem(sources.SOURCES, "digits", lambda whole: source._replace(describe=spy))
    sources.open_source(Data(name="digits", corrections=decide(tmp_path / "check.csv", {name: "drop"})))
    assert read == ["train"]


def test_a_run_goes_on_with_equal_corrections_alone(tmp_path, capsys):
    file = tmp_path / "check.csv"
    names = datasets.load_dataset(DIGITS, seed=0).train.ids
    decided = {names[0]: "drop", names[1]: "6", names[2]: "7", names[3]: "keep"}
    config = small("from_scratch", data=replace(DIGITS, corrections=decide(file, decided)))
    run(config, tmp_path / "run")
    assert "note        corrections: 1 dropped, " in capsys.readouterr().out
    summary = read_summary(tmp_path / "run")
    assert summary["data"]["left_out"] == {"dropped by data.corrections": 1}

    again = str(save_again(file, tmp_path / "again.csv", ";", "utf-16"))
    assert run(replace(config, data=replace(DIGITS, corrections=again)), tmp_path / "run") == summary
    assert "finished before" in capsys.readouterr().out
    longer = replace(config, epochs=2, data=replace(DIGITS, corrections=again))
    run(longer, tmp_path / "run")
    assert [row["epoch"] for row in read_rows(tmp_path / "run")] == [1, 2]

    for changed in ({names[0]: ""}, {names[4]: "drop"}, {names[1]: "5", names[2]: "5"}):
        decide(file, decided | changed)
        with pytest.raises(ValueError, match=r"holds a run of other corrections than .*check\.csv has now"):
            run(replace(config, epochs=2), tmp_path / "run")
    # One that is not finished.
    with pytest.raises(ValueError, match="other pictures than now"):
        run(replace(config, epochs=3), tmp_path / "run")
    with pytest.raises(ValueError, match=r"data.corrections: '.*again.csv' before, None now"):
        run(replace(longer, data=DIGITS), tmp_path / "run")
