"""The command predict: rows for every picture, whatever the arguments name; what cannot be read has its reason."""

import argparse
import csv
import io
import itertools
import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from docs_examples import read_example
from PIL import Image
from tiny_runs import save_digits, train_on_digits

from tljax import mirror_gain
from tljax.arguments import add_predict
from tljax.commands import predict
from tljax.commands.predict import Wanted, answer_all
from tljax.data import listing
from tljax.data.layouts import list_pictures
from tljax.data.listing import Picture, find_class, find_pictures
from tljax.mirror_gain import measure_gain
from tljax.model import Model, load
from tljax.report.answers import open_output, start_csv, write_line
from tljax.report.maps import paint


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    save_digits(folder / "pictures")
    return train_on_digits(folder / "run")


@pytest.fixture(scope="module")
def model(run) -> Model:
    return load(run)


@pytest.fixture
def photos(run, tmp_path, monkeypatch) -> Path:
    """Pictures in folders of any depth, beside other files, in the current folder."""
    monkeypatch.chdir(tmp_path)
    source = run.parent / "pictures"
    targets = ("photos/a.png", "photos/deep/er/b.PNG", "photos/deep/c,d.png")
    for name, target in zip(("5", "6", "7"), targets, strict=True):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(min((source / name).iterdir()), target)
    Path("photos/broken.jpg").write_bytes(b"\xff\xd8 no picture")
    Path("photos/notes.txt").write_text("no picture")
    Path("photos/.hidden.png").write_bytes(b"")
    Path("photos/linked").symlink_to(source)
    return Path("photos")


def call(*arguments: object) -> int:
    """The exit code of `predict` with these arguments."""
    parser = argparse.ArgumentParser()
    add_predict(parser)
    try:
        predict.run(parser.parse_args(list(map(str, arguments))))
    except SystemExit as ended:
        return int(ended.code)
    return 0


def read_json_rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines(run, model, photos, capsys):
    assert call(run, photos, "nothing.png", "--out", "-", "--top", 2, "--coverage", 0.9) == 1
    said = capsys.readouterr()
    found = {row["file"]: row for row in read_json_rows(said.out)}
    assert list(found) == ["photos/a.png", "photos/broken.jpg", "photos/deep/c,d.png", "photos/deep/er/b.PNG",
                           "nothing.png"]  # fmt: skip
    (expected,) = model.predict("photos/a.png", top=2, coverage=0.9)
    row = found["photos/a.png"]
    assert list(row) == ["file", "label", "probability", "top", "set"]
    assert (row["label"], row["set"]) == (expected.label, expected.set)
    np.testing.assert_allclose([p for _, p in row["top"]], [p for _, p in expected.top], atol=1e-6)
    assert [name for name, _ in row["top"]] == [name for name, _ in expected.top] and len(row["top"]) == 2
    assert found["nothing.png"] == {"file": "nothing.png", "error": "there is no such file"}
    assert found["photos/broken.jpg"]["error"] == "UnidentifiedImageError: cannot identify image file"
    for line in (
        f"{run}: 3 classes (5, 6, 7); pictures are read at 32 pixels, their centre square",
        "checked: 8 of its own pictures give the logits that it had; probabilities are not calibrated: that takes 50 "
        "pictures, there were 27",
        "3 pictures classified",
        "2 could not be read; their rows say why",
        "left out: 1 hidden, 1 with the ending .txt, 1 in linked folders",
    ):
        assert line in said.err.splitlines()


def test_a_table_in_csv(run, photos, capsys):
    assert call(run, photos, "--out", "rows.csv", "--coverage", 0.9) == 1
    with open("rows.csv", newline="") as file:
        found = list(csv.DictReader(file))
    others = [f"{what}_{rank}" for rank in range(2, 4) for what in ("label", "probability")]
    assert list(found[0]) == ["file", "label", "probability", "set", *others, "error"]
    assert [row["file"] for row in found][2] == "photos/deep/c,d.png"
    for row in found:
        assert bool(row["error"]) != bool(row["label"]) and (row["error"] != "") == (row["file"] == "photos/broken.jpg")
        if row["label"]:
            assert row["label"] in row["set"].split("|")
            assert sum(float(row[f"probability{end}"]) for end in ("", "_2", "_3")) == pytest.approx(1, abs=1e-5)
    assert "3 pictures classified, written to rows.csv" in capsys.readouterr().out
    assert sorted(os.listdir()) == ["photos", "rows.csv"]


def test_a_table_can_be_read_back_and_has_no_formula():
    labels = [
        "=1+1",
        "a|b",
        "a\\|b",
        "a\\",
        "+x",
        "-x",
        "@x",
        "'=x",
        "'",
        "\tx",
        "\rx",
        "-1",
        "+2.5",
        "1\n2",
        "' x",
        "猫",
    ]
    out = io.StringIO(newline="")
    write = start_csv(out, 1, True)
    for label in labels:
        write(
            {"file": f"{label}.png", "label": label, "probability": 0.5, "top": [[label, 0.5]], "set": [label, *labels]}
        )
    write({"file": "a.png", "error": "=error"})
    *rows, last = list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))
    for row, label in zip(rows, labels, strict=True):
        assert all(cell[:1] not in set("=+-@\t\r\n") or cell in ("-1", "+2.5") for cell in row.values())
        values = {}
        for name in ("file", "label", "set"):
            values["cell"] = row[name]
            exec(f"import re\n{read_example('What comes out', page='predict.md')}", values)
            assert name == "set" or values["cell"] == {"file": f"{label}.png", "label": label}[name]
        assert (values["labels"], row["probability"]) == ([label, *labels], "0.5")
    assert last["error"] == "'=error"


def test_lines_for_a_reader(run, model, photos, capsys):
    assert call(run, photos / "a.png", photos / "broken.jpg", "--coverage", 0.9) == 1
    lines = capsys.readouterr().out.splitlines()
    found = model.predict(photos / "a.png", coverage=0.9)[0]
    label, chosen = found.label, " or ".join(found.set)
    assert lines[2].startswith("photos/a.png" + " " * 30 + label) and f"%  {chosen}  (" in lines[2]
    assert lines[3].startswith("photos/broken.jpg" + " " * 25 + "NOT READ: UnidentifiedImageError: cannot")


def test_a_name_makes_no_line_of_its_own_and_steers_no_terminal(capsys):
    write_line(sys.stdout, {"file": "a\n3 pictures\x1b[2J", "error": "\udcff"})
    answer = {"label": "c\nat", "probability": 0.5, "top": [["c\nat", 0.5], ["\u202ex", 0.5]], "set": ["c\nat"]}
    write_line(sys.stdout, {"file": "b\u200d猫.png"} | answer)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(r"a\n3 pictures\x1b[2J ") and first.endswith(r"  NOT READ: \udcff")
    assert second.startswith("b\u200d猫.png ") and r"c\nat" in second and r"\u202ex 50.0%" in second
    assert predict.name_map(1, "d/a\x1b\n.png", "x") == r"000001_a\x1b\n_is_x.png"


def test_pictures_on_standard_input(run, photos, monkeypatch, capsys):
    text = b"photos/a.png\n\nphotos/deep\r\nnothing.png"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert call(run, "-", "--out", "rows.jsonl") == 1
    found = read_json_rows(Path("rows.jsonl").read_text())
    assert [row["file"] for row in found] == ["photos/a.png", "photos/deep/c,d.png", "photos/deep/er/b.PNG",
                                              "nothing.png"]  # fmt: skip
    assert all("set" not in row for row in found)


def test_a_folder_of_classes_has_an_accuracy(run, model, tmp_path, capsys):
    source = run.parent / "pictures"
    shutil.copytree(source / "5", tmp_path / "data" / "val" / "5")
    shutil.copytree(source / "6", tmp_path / "data" / "val" / "6" / "written by hand")
    shutil.copy(next((source / "7").iterdir()), tmp_path / "data" / "loose.png")
    assert call(run, tmp_path / "data", "--out", tmp_path / "rows.jsonl") == 0
    found = read_json_rows((tmp_path / "rows.jsonl").read_text())
    graded = [(row["label"], name) for row in found for name in ("5", "6") if f"/val/{name}/" in row["file"]]
    right = sum(label == name for label, name in graded)
    recalls = [np.mean([label == name for label, name in graded if name == one]) for one in ("5", "6")]
    said = capsys.readouterr().out
    assert len(graded) == 36 and len(found) == 37 and 0 < right < 36
    expected = f"accuracy {right / 36:.4f}, balanced {np.mean(recalls):.4f}: {right} of the 36 pictures in folders"
    assert expected in said and "is / taken for" in said and "1 lie in no folder of a class" in said
    counts = Counter(label for label, name in graded if name == "5")
    (row,) = (line.split() for line in said.splitlines() if line.startswith("  5 "))
    assert row == ["5", *(str(counts[name]) for name in ("5", "6", "7"))]


def test_a_class_is_found_in_the_name_of_a_folder(tmp_path):
    (tmp_path / "Red" / "blue").mkdir(parents=True)
    (tmp_path / "Red" / "blue" / "0.png").write_bytes(b"")
    for argument in (tmp_path / "Red", tmp_path):
        (found,) = find_pictures([str(argument)], ("blue", "red"), Counter())
        assert found.actual == 1
    (found,) = find_pictures([str(tmp_path / "Red" / "blue" / "0.png")], ("blue", "red"), Counter())
    assert found.actual is None
    assert [find_class("dog", names) for names in (("Dog", "dog"), ("dog", "Dog"), ("Dog",), ("cat",))] == [
        1,
        0,
        0,
        None,
    ]
    assert find_class("DOG", ("Dog", "dog")) is None


def test_a_split_with_folders_of_classes_is_no_class(tmp_path):
    names = ("bus", "car", "train")
    for name in names:
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "0.png").write_bytes(b"")
    for argument in (tmp_path, tmp_path / "train"):
        found = find_pictures([str(argument)], names, Counter())
        assert [(Path(picture.file).parent.name, picture.actual) for picture in found] == list(
            zip(names, range(3), strict=True)
        )
    # With anything but classes in it, it is the class.
    (tmp_path / "train" / "old").mkdir()
    assert {picture.actual for picture in find_pictures([str(tmp_path / "train")], names, Counter())} == {2}


def test_folders_may_be_as_deep_as_a_path_can_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # `os.makedirs` gives up at a depth of a thousand.
    folder = "d"
    os.mkdir(folder)
    for _ in range(1500):
        folder += "/d"
        os.mkdir(folder)
    Path(folder, "0.png").write_bytes(b"")
    (found,) = find_pictures(["d"], (), Counter())
    assert found.file == f"{folder}/0.png" and list_pictures(Path("d"))[0] == [f"{folder[2:]}/0.png"]
    # Nor could pytest delete it.
    os.unlink(found.file)
    os.removedirs(folder)


def test_empty_folders_and_folders_that_cannot_be_read_have_a_row(tmp_path, monkeypatch):
    for name in ("empty", "closed"):
        (tmp_path / name).mkdir()
    read = listing.read_contents

    def refuse(folder):
        if folder.name == "closed":
            raise PermissionError(f"{folder} cannot be read: permission denied")
        return read(folder)

    monkeypatch.setattr(listing, "read_contents", refuse)
    found = list(find_pictures([str(tmp_path / "empty"), str(tmp_path / "closed")], (), Counter()))
    assert [Path(picture.file).name for picture in found] == ["empty", "closed"]
    assert found[0].error == "the folder holds no picture" and "permission denied" in found[1].error


def test_pictures_are_read_as_they_are_needed(run, model):
    """An endless list has a first answer: two batches are in memory beside the one that is answered."""
    taken = itertools.count()
    path = str(next((run.parent / "pictures" / "5").iterdir()))
    endless = (Picture(path, error="" if next(taken) % 3 else "no") for _ in itertools.count())
    answers = list(itertools.islice(answer_all(model, endless, Wanted()), 2 * model.batch_size))
    assert next(taken) <= 4 * model.batch_size + 1
    assert [answer.prediction is None for answer in answers] == [i % 3 == 0 for i in range(2 * model.batch_size)]


def test_a_bar_knows_how_many_answers_there_will_be(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(predict.watch("abc", 3)) == ["a", "b", "c"]
    assert "| 1/3 [" in terminal.getvalue()


def test_maps_of_contributions(model, photos, capsys):
    large = replace(model, image_size=96)
    pictures = find_pictures(["photos/a.png", "photos/broken.jpg", "photos/deep"], model.class_names, Counter())
    assert predict.prepare_maps(large, Path("maps"), ["photos"]) == Path("maps")
    counts = predict.write_answers(
        large, answer_all(large, pictures, Wanted(explain=True)), lambda row: None, Path("maps")
    )
    assert (counts.total, counts.unreadable) == (4, 1)
    paths = ((1, "a", "photos/a.png"), (3, "c,d", "photos/deep/c,d.png"), (4, "b", "photos/deep/er/b.PNG"))
    drawn = [(i, name, large.predict(path)[0].label) for i, name, path in paths]
    assert sorted(os.listdir("maps")) == [f"00000{i}_{name}_is_{label}.png" for i, name, label in drawn]
    (both,) = answer_all(large, [Picture("photos/a.png")], Wanted(explain=True, tta=True))
    assert (
        abs(both.explanation.contributions.sum() + both.explanation.bias - large("photos/a.png", tta=True).max()) < 1e-4
    )
    with Image.open(f"maps/000001_a_is_{drawn[0][2]}.png") as map:
        assert map.size == (192, 96) and map.text["Title"] == drawn[0][2]
        np.testing.assert_array_equal(np.asarray(map)[:, :96], large.square("photos/a.png"))
    with pytest.raises(FileExistsError, match="--explain maps is there and not empty"):
        predict.prepare_maps(large, Path("maps"), ["photos"])


def test_where_there_are_no_maps_predicting_goes_on(run, photos, capsys):
    assert call(run, photos / "a.png", "--explain", "maps") == 0
    assert "--explain: at 32 pixels the last map has one position: there is no map" in capsys.readouterr().out
    assert not Path("maps").exists()


def test_a_map_has_a_name_that_file_systems_take():
    name = predict.name_map(2, "漢" * 80 + ".png", "a / \n" + "漢" * 80)
    assert len(name.encode()) < 200 and name.startswith("000002_漢") and "/" not in name and "\n" not in name


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "rows.csv")
    with open_output(str(tmp_path / "link.csv"), sys.stdout) as file:
        file.write("text")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "rows.csv").read_text() == "text"


def test_a_map_is_red_where_a_picture_speaks_for_the_label():
    painted = paint(np.full((8, 8, 3), 100, np.uint8), np.array([[1.0, -1.0], [0.0, 0.0]]))
    assert painted[0, 0, 0] > 150 > painted[0, 0, 2] and painted[0, 7, 2] > 150 > painted[0, 7, 0]


def test_what_mirror_images_gain_is_said(run, model, photos, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    gains = []
    for _ in ("measured", "found in the cache"):
        assert call(run, photos / "a.png", "--tta") == 0
        gains += [line for line in capsys.readouterr().out.splitlines() if line.startswith("--tta on 54 validation")]
    assert len(gains) == 2 and gains[0] == gains[1]
    # Other weights are measured anew, also where neither has a reference.
    monkeypatch.setattr(mirror_gain, "_measure", lambda *_: [54, 0.1, 0.2, 0.3, 0.4])
    assert measure_gain(model, run).accuracy != (0.1, 0.2)
    halved = model._inference._replace(folded=jax.tree.map(lambda x: x / 2, model._inference.folded))
    assert measure_gain(replace(model, _inference=halved, reference=None), run).accuracy == (0.1, 0.2)
    moved = shutil.copytree(run, tmp_path / "moved")
    config = json.loads((moved / "config.json").read_text())
    config["data"] |= {"name": f"folder:{tmp_path / 'gone'}", "classes": []}
    (moved / "config.json").write_text(json.dumps(config))
    for content in (json.dumps(config), "[]", '{"data": 3}', "{"):
        (moved / "config.json").write_text(content)
        assert call(moved, photos / "a.png", "--tta") == 0
        assert "--tta: its gain is not measured: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "rows.txt"], "--out rows.txt: rows are written to a file ending in .csv or .jsonl, or to -"),
        (["--out", "no/rows.csv"], "--out no/rows.csv: there is no folder no; make it first"),
        (["--out", "photos.csv"], "--out photos.csv: it is there, and no file; give another name"),
        (["--explain", "photos/maps"], "--explain photos/maps lies in photos, whose pictures are classified"),
        (["--top", "0"], "--top 0: a row has one label at least"),
        (
            ["--coverage", "0.8", "--tta"],
            "coverage 0.8 with mirror images .--tta.: sets of labels are fitted on",
        ),
        (["--coverage", "0.99"], "0.99 needs at least 99 pictures"),
        (["--coverage", "90"], "a coverage of 90 is none: it lies between 0 and 1"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(run, photos, arguments, message):
    Path("photos.csv").mkdir()
    with pytest.raises(ValueError, match=message):
        call(run, photos, *arguments)
    assert sorted(os.listdir()) == ["photos", "photos.csv"]


def test_a_run_that_is_none_is_refused(tmp_path, photos):
    with pytest.raises(FileNotFoundError, match="RUN='nothing' is neither a file, nor a folder, nor imagenet"):
        call("nothing", photos)
    with pytest.raises(ValueError, match="photos holds no checkpoints/: it is not the folder of a run that trained"):
        call("photos", photos)


def test_an_unfinished_file_is_never_there_under_its_name(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), open_output(str(path), sys.stdout) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["rows.csv"]
    with pytest.raises(OSError, match=r"rows.csv cannot be written \(No space left"):  # noqa: SIM117
        with open_output(str(path), sys.stdout):
            raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError, match="elsewhere"), open_output(str(path), sys.stdout):
        raise FileNotFoundError(2, "No such file", "elsewhere")
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["rows.csv"]
