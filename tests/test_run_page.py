"""The page of runs: read from their folders alone, whole or half-finished, of this version or an earlier one."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import leave_lesson, leave_run
from PIL import Image
from tiny_runs import DIGITS, save_digits, small

from tljax.cli import main
from tljax.config import Cache, Data, Lesson, Stage
from tljax.data.datasets import load_dataset
from tljax.report import pictures
from tljax.report.blocks import Sheet
from tljax.report.curve_charts import find_chains
from tljax.report.mistakes import describe_mistakes, name_most_confused, top_five, write_guess
from tljax.report.overview import compare_stages, find_best, say_best
from tljax.report.page import make_mark
from tljax.report.pictures import (
    MOST_CHARACTERS,
    MOST_PICTURES,
    SIZES,
    Album,
    Albums,
    Drawn,
    make_thumbnails,
    read_dataset,
    shrink,
)
from tljax.report.run_page import (
    check_place,
    leave_page,
    list_notes,
    list_stages,
    make_page,
    name_runs,
    read_runs,
    write_page,
)
from tljax.report.shown import GROUPED_INTERVAL, choose_part, choose_shown, rank_rows, take_turns
from tljax.report.trust import describe_trust
from tljax.runs.predictions import Predictions
from tljax.runs.records import read_records

STAGES = ("feature_extraction", "fine_tune", "from_scratch")


@pytest.fixture(scope="module")
def lesson(tmp_path_factory) -> Path:
    """A lesson of three stages, with its page."""
    config = Lesson(data=DIGITS, stages={name: Stage(name) for name in STAGES}, network="tiny")
    config.stages["fine_tune"].patience = 3
    folder = leave_lesson(tmp_path_factory.mktemp("lesson") / "a lesson", config)
    leave_page(folder, ())
    return folder


def read_page(path: Path) -> dict:
    """What a page shows, as JSON."""
    text = path.read_text("utf-8")
    assert make_mark("report").decode() in text
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def find_blocks(blocks: list, kind: str) -> list[dict]:
    """All blocks of a kind, those behind tabs and details too."""
    found = []
    for block in blocks:
        inner = [b for _, blocks in block.get("options", ()) for b in blocks] + list(block.get("blocks", ()))
        found += [block] * (block["kind"] == kind) + find_blocks(inner, kind)
    return found


def find_section(page: dict, name: str) -> list[dict]:
    return next(section["blocks"] for section in page["sections"] if section["id"] == name)


def texts(blocks: list) -> str:
    return "\n".join(line for block in find_blocks(blocks, "Text") for line in block["lines"])


def test_a_lesson_leaves_a_page_of_its_stages(lesson):
    page = read_page(lesson / "report.html")
    assert [s["id"] for s in page["sections"]] == [
        "stages", "curves", "confusions", "pictures", "probabilities", "training-pictures", "frozen", "data",
        "settings", "machine",
    ]  # fmt: skip
    (table,) = find_blocks(find_section(page, "stages"), "Sheet")
    assert [row[0] for row in table["rows"]] == [*STAGES]
    assert not (lesson / "fine_tune" / "report.html").exists()


def test_pictures_are_those_of_the_data(lesson):
    page = read_page(lesson / "report.html")
    matrices = find_blocks(find_section(page, "confusions"), "Matrix")
    assert len(matrices) == 3 and all(sum(map(sum, matrix["counts"])) == 54 for matrix in matrices)
    shown = {key for matrix in matrices for keys in matrix["pictures"].values() for key in keys}
    assert shown and all(page["pictures"][key]["src"].startswith("data:image/webp;base64,") for key in shown)
    # The pictures of a cell are of the class of its row.
    alts = {page["pictures"][key]["alt"].split(", ")[-1] for place, keys in matrices[0]["pictures"].items()
            for key in keys if place.startswith("0,")}  # fmt: skip
    assert alts == {"5"}


def test_the_best_stage_is_named_with_what_to_type(lesson):
    codes = find_blocks(find_section(read_page(lesson / "report.html"), "stages"), "Code")
    best = find_best(read_records(lesson).stages)
    lines = [line for code in codes for line in code["lines"]]
    assert best and lines == [
        f"python main.py predict '{best.folder}' PICTURES",
        f"python main.py export '{best.folder}' model.onnx",
        f"python main.py report '{lesson}'",
    ]


def test_stages_are_compared_on_the_same_pictures_alone(lesson):
    albums = Albums()
    stages = list_stages([read_records(lesson)], albums.find)
    (text,) = compare_stages(stages)
    assert len(text.lines) == 1 + 3 and text.lines[0].startswith("McNemar's exact test on the 54 validation pictures")
    record = stages[-1].record
    other = stages[-1]._replace(
        label="other", record=record._replace(summary=record.summary | {"class_names": list("abc")})
    )
    (text,) = compare_stages([*stages, other])
    assert text.lines[-1].endswith("feature_extraction, fine_tune, from_scratch; other.") and len(text.lines) == 5


def test_where_pictures_belong_together_tests_and_intervals_say_what_they_count(lesson):
    stages = list_stages([read_records(lesson)], Albums().find)
    grouped = [
        shown._replace(record=shown.record._replace(summary=shown.record.summary | {"worth": {"groups": 9}}))
        for shown in stages
    ]

    def write(some: list) -> str:
        blocks = [*compare_stages(some), *describe_mistakes(some[0], set()), *describe_trust(some[0])]
        captions = [block.caption for block in blocks if isinstance(block, Sheet)]
        return "\n".join([*compare_stages(some)[0].lines, *say_best(some), *captions])

    said = write(grouped)
    assert "it counts pictures, not groups, whose pictures are often right or wrong together: p is too small" in said
    assert said.count(GROUPED_INTERVAL) == 2
    assert "not groups" not in write(stages)
    assert ("is not by chance" in said) == ("not by chance, if pictures of a group had nothing to do with" in said)


def test_the_command_makes_the_same_page(lesson, tmp_path, capsys):
    out = tmp_path / "page.html"
    main(["report", str(lesson), "--out", str(out)])
    assert capsys.readouterr().out == f"written: {out}\n"
    assert out.read_bytes() == (lesson / "report.html").read_bytes()


def test_several_runs_stand_side_by_side(lesson, tmp_path):
    other, out = tmp_path / "other", tmp_path / "both.html"
    leave_run(other, small("from_scratch", data=replace(DIGITS, classes=("0", "1"))))
    main(["report", str(lesson), str(other), "--out", str(out)])
    page = read_page(out)
    table, *_ = find_blocks(find_section(page, "stages"), "Sheet")
    assert [row[0] for row in table["rows"]][-2:] == ["a lesson/from_scratch", "other"]
    assert "Not compared with each other" in texts(find_section(page, "stages"))
    # Two classes have a curve each.
    titles = [chart["title"] for chart in find_blocks(find_section(page, "confusions"), "Chart")]
    assert len(titles) == 2 and titles[0].startswith("Precision and recall of 1")


@pytest.mark.parametrize(
    ("runs", "out", "wrong"),
    [
        (["a", "b"], None, "--out FILE is needed"),
        (["a"], "notes.txt", "a page is a file ending in .html"),
        (["a"], "mine.html", "is there and is no report"),
        (["a"], "gone/page.html", "there is no folder"),
        (["a"], "folder.html", "is there and is no report"),
        (["a"], "link.html", "is there and is no report"),
    ],
)
def test_a_page_replaces_only_a_page(tmp_path, monkeypatch, runs, out, wrong):
    monkeypatch.chdir(tmp_path)
    Path("mine.html").write_text("<p>mine</p>")
    Path("folder.html").mkdir()
    Path("link.html").symlink_to("gone.html")
    with pytest.raises((ValueError, OSError), match=wrong):
        check_place(list(map(Path, runs)), out and Path(out))
    Path("old.html").write_bytes(b"<html>" + make_mark("report"))
    assert check_place([Path("a")], Path("old.html")) == Path("old.html")
    with pytest.raises(FileNotFoundError, match="gone is no folder; give the workdir"):
        write_page([Path("gone")], None, Albums())


def test_data_that_changed_shows_names(tmp_path):
    digits = save_digits(tmp_path / "digits")
    config = small("from_scratch", data=Data(name=f"folder:{digits}", image_size=32))
    leave_run(tmp_path / "run", config)
    main(["report", str(tmp_path / "run")])
    assert find_keys(tmp_path / "run")
    for path in digits.rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    main(["report", str(tmp_path / "run")])
    assert not find_keys(tmp_path / "run") and "they have changed since" in (tmp_path / "run/report.html").read_text()
    shutil.rmtree(digits)
    main(["report", str(tmp_path / "run")])
    page = read_page(tmp_path / "run" / "report.html")
    assert not find_keys(tmp_path / "run") and "there are names and no pictures: " in texts(
        find_section(page, "pictures")
    )
    # A card has the name of its picture instead.
    (item, *_) = find_blocks(find_section(page, "pictures"), "Gallery")[0]["items"]
    assert item["pictures"] == [None, None] and item["lines"][-1].endswith(".png")


def find_keys(folder: Path) -> list[str]:
    """The pictures in the confusion matrix of a run's page."""
    matrices = find_blocks(find_section(read_page(folder / "report.html"), "confusions"), "Matrix")
    return [key for matrix in matrices for keys in matrix["pictures"].values() for key in keys]


def test_half_finished_and_damaged_runs_show_what_is_there(lesson, tmp_path):
    folder = Path(shutil.copytree(lesson, tmp_path / "half"))
    (folder / "from_scratch" / "summary.json").unlink()
    (folder / "fine_tune" / "predictions.jsonl").write_text('{"id": "x"}\n')
    (folder / "fine_tune" / "metrics.jsonl").write_text("{")
    (folder / "feature_extraction" / "summary.json").write_text("[]")
    main(["report", str(folder)])
    page = read_page(folder / "report.html")
    said = texts(find_section(page, "stages"))
    assert "from_scratch is not finished: this was written after epoch 2." in said
    assert "feature_extraction is not finished" in said
    assert sum(line.startswith("left out: ") for line in page["lead"]) == 3
    assert "Nothing is known of single pictures of fine_tune" in texts(find_section(page, "confusions"))


def test_what_is_damaged_is_named(lesson, tmp_path):
    folder = Path(shutil.copytree(lesson, tmp_path / "run"))
    shutil.rmtree(folder / "from_scratch")
    (folder / "from_scratch").touch()
    damage = {
        "recipe.json": '{"reasons": "few"}', "fine_tune/summary.json": "{", "fine_tune/config.json": '{"stage": 5}',
        "fine_tune/environment.jsonl": '{"command": 5}', "fine_tune/metrics.jsonl": '{"epoch": 1}',
    }  # fmt: skip
    for name, text in damage.items():
        (folder / name).write_text(text)
    record = read_records(folder)
    said = [*record.troubles, *record.stages[1].troubles]
    assert said[0] == f"from_scratch is not here: {folder / 'from_scratch'} holds no run" and len(said) == 6
    assert all(any(f"left out: {folder / name} is damaged (" in line for line in said) for name in damage)
    (folder / "feature_extraction" / "config.json").write_text('{"stage": "none"}')
    with pytest.raises(ValueError, match=r"config\.json is damaged .*stage='none': must be one of"):
        read_records(folder / "feature_extraction")


def test_notes_do_without_configs(lesson):
    run = read_records(lesson)
    whole, without = (
        list_notes([found], list_stages([found], Albums(may_read=False).find))
        for found in (run, run._replace(stages=tuple(stage._replace(config=None) for stage in run.stages)))
    )
    assert whole and without == [note for note in whole if "is not better than" not in note]


def test_a_run_is_shown_once(lesson, tmp_path, monkeypatch):
    monkeypatch.chdir(lesson.parent)
    (tmp_path / "link").symlink_to(lesson)
    folders = [lesson, tmp_path / "link", lesson / "fine_tune", Path(lesson.name)]
    assert [run.name for run in read_runs(folders)] == ["a lesson"]
    assert [run.name for run in read_runs(folders[2:3])] == ["fine_tune"]


def test_a_page_leaves_what_stands_beside_it(lesson, tmp_path):
    page, beside = tmp_path / "page.html", tmp_path / "page.html.tmp"
    beside.write_text("mine")
    (tmp_path / "link.html").symlink_to(page)
    page.write_bytes(make_mark("report"))
    main(["report", str(lesson), "--out", str(tmp_path / "link.html")])
    assert beside.read_text() == "mine" and len(list(tmp_path.iterdir())) == 3
    assert (tmp_path / "link.html").is_symlink() and read_page(page)


def test_data_that_cannot_be_read_is_said(tmp_path):
    for data, why in (
        (Data("cifar10", dir=str(tmp_path)), "cifar10 is not on this machine"),
        (replace(DIGITS, image_size=0.5), "config.data.image_size=0.5: at least 32"),
        (replace(DIGITS, classes=(5,)), "object is not"),
    ):
        album = read_dataset(data, Cache(), 0, whole=False)
        assert isinstance(album, Album) and album.split is None
        assert album.why.startswith("there are names and no pictures: ") and why in album.why


def test_copies_of_a_picture_have_their_own_names(tmp_path):
    pictures = save_digits(tmp_path / "digits")
    content = next(pictures.rglob("*.png")).read_bytes()
    for path in pictures.rglob("*.png"):
        path.write_bytes(content)
    config = small("from_scratch", data=Data(name=f"folder:{pictures}", image_size=32))
    run = read_records(leave_run(tmp_path / "run", config)).stages[0]
    album = Albums().find(run, "validation")
    keys = {album.key(name) for name in run.validation.ids}
    assert len(keys) == len(run.validation.ids) and None not in keys


def test_what_an_earlier_version_did_not_write_is_not_known(lesson):
    record = read_records(lesson).stages[0]
    none = record.validation._replace(predicted=np.full(len(record.validation.ids), -1))
    (shown,) = list_stages([read_records(lesson)._replace(stages=(record._replace(validation=none),))], Albums().find)
    assert shown.unpredicted.endswith("is not known: its version did not write that.")
    unmapped = shown._replace(
        record=shown.record._replace(summary=record.summary | {"unmapped_classes": ["5", "6", "7"]})
    )
    assert "none has a counterpart" in unmapped.unpredicted


def test_without_validation_zero_shot_shows_training_pictures(tmp_path):
    config = small("from_scratch", data=DIGITS)
    record = read_records(leave_run(tmp_path / "run", config)).stages[0]
    splits = record.summary["data"]["splits"]
    del splits["validation"]
    assert choose_part(record) == "train"
    splits["train"]["content"] = load_dataset(DIGITS, seed=config.seed).description["splits"]["train"]["content"]
    assert Albums().find(record, "train").split is not None


def test_a_page_that_cannot_be_written_is_a_line(lesson, tmp_path, capsys):
    folder = Path(shutil.copytree(lesson, tmp_path / "run", ignore=shutil.ignore_patterns("report.html")))
    (folder / "report.html").mkdir()
    leave_page(folder, ())
    said = capsys.readouterr().out
    assert said.startswith(f"{folder / 'report.html'} is not written (") and said.endswith("; the run is as it was\n")
    assert said.count("\n") == 1 and not list(folder.glob("*.tmp"))
    (folder / "config.json").write_text("{")
    leave_page(folder, ())
    assert capsys.readouterr().out.count("\n") == 1


def test_names_are_text_whatever_they_hold(tmp_path):
    nasty = ["<img src=x onerror=alert(1)>", "a'b\"c & </script>", "\u202efdp", "x" * 200]
    for i, name in enumerate(nasty):
        folder = tmp_path / "data" / name.replace("/", "\u2215")
        folder.mkdir(parents=True)
        for j in range(4):
            pixels = np.random.default_rng(10 * i + j).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{j}\n<b>.png")
    config = small("from_scratch", data=Data(name=f"folder:{tmp_path / 'data'}", image_size=32))
    leave_run(tmp_path / "run", config)
    main(["report", str(tmp_path / "run")])
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "<img" not in text and "<b>" not in text and text.count("</script>") == 2


# ---- Pure functions


def test_chains_end_at_stages_from_which_no_other_goes_on():
    origins = {"zero_shot": None, "first": None, "second": "first", "third": "second", "alone": None}
    assert find_chains(origins, ["first", "second", "third", "alone"]) == [["first", "second", "third"], ["alone"]]
    assert find_chains(origins, ["second", "third"]) == [["second", "third"]]
    assert find_chains({}, []) == []


def make_predictions(labels, predicted, probabilities, names="abc") -> Predictions:
    labels, predicted = np.array(labels), np.array(predicted)
    top = tuple(((names[k], p), (names[(k + 1) % 3], 1 - p)) for k, p in zip(predicted, probabilities, strict=True))
    return Predictions(tuple(map(str, range(len(labels)))), labels, predicted, np.ones(len(labels)), top)


def test_mistakes_come_before_right_ones_and_cells_take_turns():
    found = make_predictions([0, 0, 0, 1, 1, 2], [1, 1, 2, 1, 1, 2], [0.6, 0.9, 0.7, 0.8, 0.55, 0.99])
    chosen = choose_shown(found)
    assert chosen.mistakes.tolist() == [1, 2, 0] and chosen.unsure.tolist() == [4, 3, 5]
    galleries, wrong, right = rank_rows(chosen)
    assert galleries == [1, 2, 0, 4, 3, 5] and wrong == [1, 2, 0] and right == [5, 3, 4]


def test_turns_go_round_until_all_are_taken():
    assert list(take_turns([[1, 2, 3], [], [4], [0, 6]])) == [1, 4, 0, 2, 6, 3]


def test_classes_that_are_confused_as_often_are_all_named():
    found = make_predictions([0, 0, 1, 2, 2], [1, 0, 0, 1, 1], [0.6] * 5)
    assert name_most_confused(found, "abc") == "Most confused, 2 times each, both ways together: a and b, b and c."
    found = make_predictions([0, 1, 2], [0, 0, 2], [0.6] * 3)
    assert name_most_confused(found, "abc") == "Most confused, 1 time, both ways together: a and b."


@pytest.mark.parametrize(
    ("probability", "text"), [(1.0, "100.0%"), (0.99996, ">99.9%"), (0.0001, "<0.1%"), (0.0, "0.0%"), (0.5, "50.0%")]
)
def test_probabilities_are_certain_only_where_they_are(probability, text):
    assert write_guess("cat", probability) == f"cat ({text})"


def test_top_five_counts_labels_among_the_most_probable():
    assert top_five(make_predictions([0, 1, 2], [0, 0, 0], [0.9, 0.9, 0.9]), "abc") == pytest.approx(2 / 3)
    assert top_five(make_predictions([0], [0], [0.9])._replace(predicted=np.array([-1])), "abc") is None
    # zero_shot of a source with other classes than those that they are mapped to.
    assert top_five(make_predictions([0], [0], [0.9], names="xyz"), "abc") is None


def test_probabilities_that_are_no_numbers_are_words():
    assert write_guess("cat", 0.5) == "cat (50.0%)" and write_guess("cat", math.nan) == "cat (no probability)"


def test_runs_of_one_name_are_told_apart_by_their_paths(lesson):
    record = read_records(lesson)
    assert name_runs([record]) == [""]
    assert name_runs([record, record._replace(name="b")]) == ["a lesson", "b"]
    assert name_runs([record, record._replace(folder=Path("x"))]) == [str(lesson), str(Path("x").resolve())]


def test_settings_that_differ_are_found_by_their_paths(lesson):
    changed = read_records(lesson).changed
    assert changed["data.max_images"] == 60 and changed["stages.fine_tune.patience"] == 3
    assert "stages.fine_tune.batch_size" not in changed and "seed" not in changed


@pytest.mark.parametrize(("shape", "small"), [((32, 32), (32, 32)), ((200, 100), (96, 48)), ((1, 500), (1, 96))])
def test_pictures_are_made_small_and_keep_their_shape(shape, small):
    assert shrink(np.zeros((*shape, 3), np.uint8), side=96).shape == (*small, 3)


def test_pictures_fit_the_page_whatever_they_show(monkeypatch):
    """A twentieth of a page, full of noise."""
    monkeypatch.setattr(pictures, "MOST_CHARACTERS", MOST_CHARACTERS // 20)
    noise = np.random.default_rng(0).integers(0, 256, (MOST_PICTURES // 20, 96, 96, 3), np.uint8)
    made = make_thumbnails({str(i): Drawn("a", image, "b") for i, image in enumerate(noise)})
    assert 0 < sum(len(picture.src) for picture in made.values()) <= MOST_CHARACTERS // 20
    flat = make_thumbnails({"x": Drawn("a", np.zeros((200, 200, 3), np.uint8), "b")})["x"]
    assert (flat.width, flat.height) == (SIZES[0][0],) * 2


def test_what_has_no_room_is_said(lesson):
    record = read_records(lesson)
    runs = [record._replace(name=f"run {i}") for i in range(20)]
    page = make_page(runs, Albums().find)
    said = next(section for section in page.sections if section.id == "pictures").blocks[-1].lines
    assert len(page.pictures) <= 600 and "There is no room for the maps and training pictures of run " in said[1]
