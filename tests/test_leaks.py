"""Pictures that are in train too, or have a twin there: how accurate a run is without them."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_runs import leave_run
from PIL import Image
from test_run_page import find_blocks, find_section, read_page, texts
from tiny_runs import DIGITS, read_summary, small

from tljax.cli import main
from tljax.commands.show import show
from tljax.config import Data
from tljax.data.datasets import Dataset, Split, load_dataset
from tljax.report import printed
from tljax.report.belief import expect_on_new, find_copies_of
from tljax.report.pictures import Albums
from tljax.report.run_page import write_page
from tljax.report.sentences import plain_sentence
from tljax.report.twins import find_with_twin, read_twins
from tljax.runs.files import read_rows
from tljax.runs.saved_values import check_summary
from tljax.stages.from_config import run
from tljax.stages.overlap import describe_copies, find_copies
from tljax.training.calibration import accuracy_interval
from tljax.training.grouped import describe_worth


def make_split(digests: list[int], *, of_files: bool = True) -> Split:
    rows = np.arange(len(digests))
    kept = np.array([[n, n, 7, 7] for n in digests], np.uint32)
    return Split(np.zeros((len(rows), 1, 1, 3), np.uint8), rows, tuple(map(str, rows)), rows, len(rows), kept, of_files)


def make_dataset(train: Split | None, validation: Split) -> Dataset:
    return Dataset(("a", "b"), 1, train, validation, None, {})


def test_copies_are_pictures_with_a_digest_of_train():
    # A digest of zeros is that of a file that could not be read.
    train, validation = make_split([1, 2, 2, 0]), make_split([2, 3, 1, 2, 0])
    assert find_copies(make_dataset(train, validation), "validation").tolist() == [True, False, True, True, False]
    pixels = make_split([2, 3], of_files=False)
    assert find_copies(make_dataset(pixels, pixels), "validation").all()
    # Digests of files say nothing about those of pixels, and where nothing was learned from, nothing is known.
    assert find_copies(make_dataset(train, pixels), "validation") is None
    assert find_copies(make_dataset(None, validation), "validation") is None


def test_the_accuracy_on_the_others_is_counted():
    right, copies = np.array([1, 1, 0, 1, 0], bool), np.array([1, 0, 0, 0, 1], bool)
    assert describe_copies(right, None, None) == describe_copies(right, ~copies & copies, None) == {}
    found = {"pictures": 2, "left": 3, "accuracy": 2 / 3}
    assert describe_copies(right, copies, None) == {"in_train": found}
    groups = np.array([4, 4, 4, 9, 9])
    worth = describe_worth(right[1:4], groups[1:4])
    assert describe_copies(right, copies, groups) == {"in_train": found | worth} and worth["worth"]["groups"] == 2
    for its in (None, groups):
        all_of_them = describe_copies(right, np.ones(5, bool), its)
        assert all_of_them == {"in_train": {"pictures": 5, "left": 0, "accuracy": None}}


SPLITS = {"train": {"images": 60}, "validation": {"images": 50}, "test": {"images": 40}}
SUMMARY = {
    "stage": "fine_tune", "loss": 0.5, "accuracy": 0.92, "seconds": 2.0, "best_epoch": 1, "epochs": 1,
    "params": {"trainable": 9}, "cut": "head", "data": {"splits": SPLITS}, "class_names": ["a", "b"],
}  # fmt: skip
IN_TRAIN = {"pictures": 12, "left": 38, "accuracy": 0.8947}
UNCHOSEN = {"accuracy": 0.9, "low": 0.8, "high": 0.96}
REST = {"accuracy": 0.86, "low": 0.73, "high": 0.95}
EQUAL = "in train too, equal to the bit: "
LINE = f"12 of the 50 validation pictures are {EQUAL}accuracy 0.9200 with them, 0.8947 without them"
LOW, HIGH = accuracy_interval(0.8947, 38)
FEW_LOW, FEW_HIGH = accuracy_interval(0.8947, 14.5)
HELD_OUT = {"accuracy": 0.74, "at_least": 0.58, "pictures": 45}


@pytest.mark.parametrize(
    ("change", "lines", "expected"),
    [
        ({}, [LINE, f"measured on 38 validation pictures not in train, which chose nothing: {LOW:.2f} to {HIGH:.2f} "
                    "(95%)"], (0.8947, LOW, HIGH)),
        # What is expected is measured on the others alone.
        ({"epochs": 5, "unchosen": UNCHOSEN, "in_train": IN_TRAIN | {"unchosen": REST}},
         [LINE, "measured on the 38 validation pictures not in train that chose the epoch: on others expect about 0.86 "
                "(95%: 0.73 to 0.95)"], (0.86, 0.73, 0.95)),
        ({"epochs": 5, "unchosen": UNCHOSEN},
         [LINE, "measured on the 38 validation pictures not in train that chose the epoch: the accuracy on them is too "
                "high, by how much is not known"], None),
        # Groups are worth fewer pictures.
        ({"worth": {"groups": 9, "pictures": 20.0}, "in_train": IN_TRAIN | {"worth": {"groups": 7, "pictures": 14.5}}},
         [LINE, "measured on 38 validation pictures of 7 groups not in train, which chose nothing: "
                f"{FEW_LOW:.2f} to {FEW_HIGH:.2f} (95%)"],
         (0.8947, FEW_LOW, FEW_HIGH)),
        ({"in_train": {"pictures": 50, "left": 0, "accuracy": None}},
         ["all 50 validation pictures are in train too, equal to the bit: none is left to say how good this is on new "
          "ones"], None),
        # A solved head is judged by those that are more: 45 were left out.
        ({"best_epoch": 0, "epochs": 0, "solved": {"held_out": HELD_OUT}},
         [LINE, "which counts: the expected accuracy, from 45 pictures; validation has 38 not in train"],
         (0.74, 0.58, None)),
        ({"best_epoch": 0, "epochs": 0, "solved": {"held_out": HELD_OUT | {"pictures": 30}}},
         [LINE, "which counts: what the 38 validation pictures not in train say; the expected accuracy is from 30"],
         (0.8947, LOW, HIGH)),
        # Nothing else says of the test split how far it can be believed.
        ({"in_train": None, "test": {"loss": 0.4, "accuracy": 0.9, "in_train": IN_TRAIN | {"pictures": 2}}},
         ["2 of the 40 test pictures are in train too, equal to the bit: accuracy 0.9000 with them, 0.8947 without "
          f"them (95%: {LOW:.2f} to {HIGH:.2f})"], (0.92, *accuracy_interval(0.92, 50))),
    ],
)  # fmt: skip
def test_what_a_run_says_at_its_end(change, lines, expected):
    summary = {name: value for name, value in (SUMMARY | {"in_train": IN_TRAIN} | change).items() if value is not None}
    check_summary(summary, in_lesson=False)
    said = printed.summary_line(summary).splitlines()
    assert [line for line in lines if line not in said] == []
    assert " accuracy 0.9200, " in said[0]
    found = expect_on_new(summary)
    assert (found and tuple(found)) == expected
    # Nothing of it is said where no picture is in train.
    without = {name: value for name, value in summary.items() if name not in ("in_train", "test")}
    assert "in train" not in printed.summary_line(without) + plain_sentence("it", without)


def test_many_pictures_have_no_interval():
    many = SUMMARY | {"in_train": {"pictures": 5, "left": 1000, "accuracy": 0.9}}
    assert find_copies_of(many, "validation") == (5, 1005, 0.92, 0.9, None)
    assert find_copies_of(many, "test") is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, f"of new pictures like the 38 validation pictures not in train expect 89% right, between {LOW:.0%} and "
             f"{HIGH:.0%}; 12 of the validation pictures are in train too, and of the others 89% are right"),
        ({"in_train": {"pictures": 50, "left": 0, "accuracy": None}},
         "of 50 validation pictures, 92% are right; all of them are in train too, so that says nothing of new ones"),
        ({"epochs": 5, "unchosen": UNCHOSEN, "in_train": IN_TRAIN | {"unchosen": REST}},
         "of new pictures like the 38 validation pictures not in train expect 86% right, between 73% and 95%; 12 of "
         "the validation pictures are in train too, and of the others 89% are right"),
    ],
)  # fmt: skip
def test_a_sentence_is_about_the_others(change, sentence):
    assert plain_sentence("it", SUMMARY | {"in_train": IN_TRAIN} | change).endswith(f": {sentence}.")


@pytest.mark.parametrize(
    "change", [{"pictures": 0}, {"left": -1}, {"accuracy": None}, {"accuracy": 2}, {"left": 0}, {"worth": 3},
               {"unchosen": {"accuracy": 0.5}}], ids=str,
)  # fmt: skip
def test_what_no_run_wrote_is_refused(change):
    with pytest.raises(ValueError, match=r"in_train=.* must be a number of pictures"):
        check_summary(SUMMARY | {"in_train": IN_TRAIN | change}, in_lesson=False)


def test_a_twin_in_train_counts_whichever_of_both_a_row_is_about():
    pairs = [("v1", "t1"), ("t2", "v2"), ("v3", "v4"), ("t1", "t2"), ("v5", "gone")]
    assert find_with_twin(["v1", "v2", "v3", "v4", "v5", "v6"], pairs, {"t1", "t2", "t3"}).tolist() == [
        True, True, False, False, False, False,
    ]  # fmt: skip


# From here on: the folder of a run on pictures, of which some are in train too.


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Digits in train/ and val/: five files of val are in train too, byte for byte, and one as other bytes."""
    folder, digits = tmp_path_factory.mktemp("leaks") / "data", load_dataset(DIGITS, seed=0)
    # As many as in `DIGITS`, so that programs are those of other tests.
    for part, split, count in (("train", digits.train, 54), ("val", digits.validation, None)):
        for i, (image, label) in enumerate(zip(split.images[:count], split.labels[:count], strict=True)):
            place = folder / part / digits.class_names[label] / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)
    for i, file in enumerate(sorted((folder / "val").rglob("*.png"))[:6]):
        copy = folder / "train" / file.parent.name / f"copy_{file.name}"
        shutil.copy(file, copy) if i < 5 else Image.open(file).save(copy, compress_level=1)
    return folder


def write_check(file: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """A `check.csv` of rows with a kind, a file, another one and a decision."""
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.writer(out)
        writer.writerow(["file", "split", "kind", "score", "label", "suggested", "decision", "other"])
        writer.writerows([name, "val", kind, "1.0000", "", "", said, other] for kind, name, other, said in rows)
    return file


def list_pairs(data: Path) -> list[tuple[str, str]]:
    """The pictures of val that are in train too, with these."""
    copies = sorted(path.relative_to(data) for path in data.rglob("copy_*.png"))
    return [(str(Path("val", *path.parts[1:])).replace("copy_", ""), str(path)) for path in copies]


def find_table(page: Path) -> list[list]:
    sheets = find_blocks(find_section(read_page(page), "stages"), "Sheet")
    return next((sheet["rows"] for sheet in sheets if "with a twin in train" in sheet["columns"]), [])


def read_results(page: Path) -> str:
    return texts(find_section(read_page(page), "stages"))


def count_right(folder: Path, without: set[str]) -> tuple[float, float]:
    """The accuracy on all validation pictures, and without some."""
    rows = [(row["id"], row["label"] == row["predicted"]) for row in read_rows(folder / "predictions.jsonl")]
    assert without <= {name for name, _ in rows}
    return tuple(float(np.mean([right for name, right in rows if name not in left])) for left in (set(), without))


def test_a_run_counts_equal_files_and_a_check_finds_the_others(pictures, tmp_path, capsys):
    folder = leave_run(
        tmp_path / "run", small("from_scratch", data=Data(name=f"folder:{pictures}", image_size=32)), skill=0.5
    )
    pairs = list_pairs(pictures)
    equal, found = {name for name, _ in pairs[:5]}, read_summary(folder)["in_train"]
    accuracy, rest = count_right(folder, equal)
    total = len(read_rows(folder / "predictions.jsonl"))
    assert found == {"pictures": 5, "left": total - 5, "accuracy": pytest.approx(rest)} and rest != accuracy
    said = (
        f"5 of the {total} validation pictures are in train too, equal to the bit: accuracy {accuracy:.4f} with them, "
    )
    assert said + f"{rest:.4f} without them" in show(folder)
    kept = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    # A check finds the sixth, and names pictures that the run has not.
    rows = [*(("leak", name, other, "") for name, other in pairs), ("leak", "val/5/gone.png", "train/5/lost.png", ""),
            ("dark", "val/5/1.png", "", "")]  # fmt: skip
    check = write_check(tmp_path / "check.csv", rows)
    main(["report", str(folder), "--check", str(check), "--out", str(tmp_path / "page.html")])
    equal_row, row = find_table(tmp_path / "page.html")
    assert equal_row[1:4] == [f"{total:,} of validation", 5, "equal digests"]
    with_all, without_six = count_right(folder, {name for name, _ in pairs})
    assert row[1:] == [f"{total:,} of validation", 6, str(check), f"{with_all:.4f}", f"{without_six:.4f}"]
    page = read_page(tmp_path / "page.html")
    assert f"2 names in {check} are neither in train nor in its files of predictions." in texts(
        page["sections"][0]["blocks"]
    )
    assert kept == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    # Without the data nobody knows the names of its training pictures.
    away = tmp_path / "away"
    pictures.rename(away)
    write_page([folder], tmp_path / "page.html", Albums(), check)
    away.rename(pictures)
    lines = read_results(tmp_path / "page.html")
    assert "The names of its training pictures are not known (there are names and no pictures" in lines
    assert find_table(tmp_path / "page.html")[1][1:] == row[1:]
    capsys.readouterr()


def test_a_check_of_other_data_and_a_table_of_another_kind_are_named(pictures, tmp_path, capsys):
    folder = leave_run(tmp_path / "run", small("from_scratch", data=Data(name=f"folder:{pictures}", image_size=32)))
    check = write_check(tmp_path / "check.csv", [("leak", "x.png", "y.png", "")])
    write_page([folder], tmp_path / "page.html", Albums(), check)
    lines = read_results(tmp_path / "page.html")
    assert f"{check} names 2 pictures with twins, none of them among its validation pictures." in lines
    # A twin beside a picture of the same split is no leak.
    (first, _), (second, _), *_ = list_pairs(pictures)
    write_page([folder], tmp_path / "page.html", Albums(), write_check(check, [("near_twin", first, second, "")]))
    lines = read_results(tmp_path / "page.html")
    assert f"{check} names no validation picture of it with a twin in train." in lines
    check.write_text("file,decision\nx.png,drop\n")
    with pytest.raises(ValueError, match=r"has no columns kind and other; give the check\.csv"):
        read_twins(check)
    with pytest.raises(SystemExit):
        main(["report", str(folder), "--check", str(tmp_path / "none.csv")])
    assert "none.csv: there is no such file" in capsys.readouterr().err


def test_corrections_that_a_check_wrote_are_looked_at_unasked(pictures, tmp_path):
    pairs = list_pairs(pictures)
    # The copies of two were dropped from train, and one picture from val.
    drop = {pairs[0][1], pairs[1][1], pairs[2][0]}
    rows = [("leak", name, other, "drop" if name in drop else "") for name, other in pairs]
    rows += [("exact_twin", other, "", "drop") for _, other in pairs if other in drop]
    check = write_check(tmp_path / "check.csv", rows)
    data = Data(name=f"folder:{pictures}", image_size=32, corrections=str(check))
    folder = leave_run(tmp_path / "run", small("from_scratch", data=data), skill=0.5)
    assert read_summary(folder)["in_train"]["pictures"] == 2
    left = {name for name, _ in pairs[3:]}
    for albums in (Albums(), Albums(may_read=False)):
        write_page([folder], tmp_path / "page.html", albums)
        row = find_table(tmp_path / "page.html")[1]
        assert row[2:4] == [3, str(check)] and row[4:] == [f"{value:.4f}" for value in count_right(folder, left)]
        lines = read_results(tmp_path / "page.html")
        assert "3 of them were dropped by its corrections" in lines
    # Asked for too, it is looked at once.
    write_page([folder], tmp_path / "page.html", Albums(may_read=False), check)
    assert len(find_table(tmp_path / "page.html")) == 2
    write_check(check, rows[:-1])
    write_page([folder], tmp_path / "page.html", Albums(may_read=False))
    lines = read_results(tmp_path / "page.html")
    assert f"{check} has other decisions now than it had for this run" in lines
    check.unlink()
    write_page([folder], tmp_path / "page.html", Albums(may_read=False))
    assert "Twins in its corrections are not known: " in texts(
        read_page(tmp_path / "page.html")["sections"][0]["blocks"]
    )


def test_a_run_that_trains_says_it(pictures, tmp_path, capsys):
    config = small("from_scratch", data=Data(name=f"folder:{pictures}", image_size=32), epochs=2)
    summary = run(config, tmp_path / "run")
    found, equal = summary["in_train"], {name for name, _ in list_pairs(pictures)[:5]}
    accuracy, rest = count_right(tmp_path / "run", equal)
    assert (found["pictures"], found["accuracy"], summary["accuracy"]) == (
        5,
        pytest.approx(rest),
        pytest.approx(accuracy),
    )
    assert set(found["unchosen"]) == {"accuracy", "low", "high"}
    assert printed.results(read_summary(tmp_path / "run")) in capsys.readouterr().out
