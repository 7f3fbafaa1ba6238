"""The tables that a run prints, to the character, and its pictures, which must open."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY

from tljax.data.datasets import Split
from tljax.networks.cut import Cut
from tljax.networks.resnet import ResNet, abstract_variables
from tljax.report import belief, figures, fonts, printed
from tljax.report.curves import Course
from tljax.report.worst import Guesses

NETWORK = ResNet(3, architecture=TINY._replace(width=2))

SUMMARY = """\
unit             parameters             BatchNorm
conv1                   304  frozen     inference
conv2_block1            172  frozen     inference
conv3_block1            568  frozen     inference
conv4_block1          1,872  frozen     inference
conv5_block1          6,688  trainable  {mode}
head                    195  trainable  -
Total params: 9,799 (0.04 MB)
Trainable params: 6,563 (0.03 MB)
Non-trainable params: 3,236 (0.01 MB)"""


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_the_summary_of_the_network_says_what_trains_and_ends_with_the_totals(mode):
    text = printed.network_summary(abstract_variables(NETWORK), Cut(NETWORK.units, "conv5_block1"), mode)
    assert text == SUMMARY.format(mode=mode)


def test_the_summary_of_resnet50_has_the_totals_of_keras():
    model = ResNet(10)
    text = printed.network_summary(abstract_variables(model), Cut(model.units, "conv5_block3"), "training")
    assert text.splitlines()[-3:] == [
        "Total params: 23,608,202 (90.06 MB)",
        "Trainable params: 4,486,154 (17.11 MB)",
        "Non-trainable params: 19,122,048 (72.94 MB)",
    ]


def test_units_that_were_printed_are_not_printed_again():
    variables = abstract_variables(NETWORK)
    whole = Cut(NETWORK.units, "conv1")

    def again(start, mode="training"):
        cut = Cut(NETWORK.units, start)
        before = printed.Printed("head", whole.count(variables))
        return printed.summary_again(variables, cut, mode, before).splitlines()

    assert again("conv1") == [
        "units as in head; trains: conv1 to head (9,195 of 9,799 parameters, BatchNorm in training mode)"
    ]
    assert again("conv5_block1", "inference") == [
        "units as in head; trains: conv5_block1 to head (6,563 of 9,799 parameters, BatchNorm in inference mode); "
        "frozen before that",
        *SUMMARY.splitlines()[-3:],
    ]
    assert again("head")[0] == "units as in head; trains: head (195 of 9,799 parameters); frozen before that"
    assert again(None)[:3:2] == ["units as in head; trains: nothing", "Trainable params: 0 (0.00 MB)"]


def test_without_a_cut_the_summary_has_nothing_that_trains():
    text = printed.network_summary(abstract_variables(NETWORK), Cut(NETWORK.units, None), "training")
    assert "trainable  " not in text
    assert " training" not in text
    assert "\nTrainable params: 0 (0.00 MB)\nNon-trainable params: 9,799 (0.04 MB)" in text


STAGES = [
    {"stage": "zero_shot", "loss": 2.34567, "accuracy": None, "params": {"trainable": 0}, "seconds": 9.96},
    {
        "stage": "fine_tune",
        "loss": 0.5,
        "accuracy": 0.87654,
        "params": {"trainable": 14_996_490},
        "seconds": 1234.0,
        "labels": {"train": 25, "validation": 1000},
    },
]


def test_the_stages_stand_side_by_side():
    assert printed.stages_table({row["stage"]: row for row in STAGES}).splitlines() == [
        "| stage     |   loss | accuracy | labels | trainable parameters | seconds |",
        "| :-------- | -----: | -------: | -----: | -------------------: | ------: |",
        "| zero_shot | 2.3457 |        - |      - |                    0 |    10.0 |",
        "| fine_tune | 0.5000 |   0.8765 |  1,025 |           14,996,490 |  1234.0 |",
    ]


UNCHOSEN = {"accuracy": 0.78, "low": 0.6666, "high": 0.9}


def test_the_table_has_the_accuracy_on_new_pictures_where_a_stage_has_it():
    assert printed.stages_table({"head": STAGES[0], "tuned": STAGES[1] | {"unchosen": UNCHOSEN}}).splitlines() == [
        "| stage |   loss | accuracy | on new pictures (95%) | labels | trainable parameters | seconds |",
        "| :---- | -----: | -------: | --------------------: | -----: | -------------------: | ------: |",
        "| head  | 2.3457 |        - |                     - |      - |                    0 |    10.0 |",
        "| tuned | 0.5000 |   0.8765 |   0.78 (0.67 to 0.90) |  1,025 |           14,996,490 |  1234.0 |",
    ]


@pytest.mark.parametrize(
    ("change", "cell"),
    [
        ({}, "0.88 (0.76 to 0.94)"),
        ({"images": 1000}, "-"),
        ({"best_epoch": 3, "epochs": 8}, "-"),
        ({"known_to_source": {"validation": 5}}, "-"),
        # A solved head: the side with more pictures counts, if the source had not learned from it.
        ({"left_out": 25}, "0.88 (0.76 to 0.94)"),
        ({"left_out": 60}, "0.74 (at least 0.58)"),
        ({"left_out": 60, "images": 1000}, "-"),
        ({"left_out": 25, "images": None}, "0.74 (at least 0.58)"),
        ({"left_out": 25, "known_to_source": {"validation": 5}}, "0.74 (at least 0.58)"),
        ({"left_out": 60, "known_to_source": {"train": 5}}, "0.88 (0.76 to 0.94)"),
        ({"left_out": 60, "known_to_source": {"train": 5, "validation": 5}}, "-"),
        ({"left_out": 60, "best_epoch": 3, "epochs": 8}, "-"),
    ],
)
def test_the_accuracy_on_new_pictures_is_by_those_that_count(change, cell):
    splits = {"train": {"images": 60}, "validation": {"images": change.get("images", 50)}}
    splits = {name: split for name, split in splits.items() if split["images"]}
    solved = {"held_out": {"accuracy": 0.74, "at_least": 0.58, "pictures": change.get("left_out")}}
    row = {"best_epoch": 0, "epochs": 0, **STAGES[1], "data": {"splits": splits}, **change}
    row |= {"solved": solved} if "left_out" in change else {"best_epoch": change.get("best_epoch", 1)}
    head, _, line = printed.stages_table({"head": row}).splitlines()
    assert ("on new pictures" in head) == (cell != "-")
    assert f" {cell} |" in line or cell == "-"


CHOSE = "measured on the 50 validation pictures that chose the epoch: "
TOO_HIGH = CHOSE + "the accuracy on them is too high, by how much is not known"
NOT_CHOSEN = "measured on 50 validation pictures, which chose nothing: 0.76 to 0.94 (95%)"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"best_epoch": 3, "epochs": 8, "unchosen": UNCHOSEN},
            CHOSE + "on others expect about 0.78 (95%: 0.67 to 0.90)",
        ),
        ({"best_epoch": 3, "epochs": 8}, TOO_HIGH),
        ({"best_epoch": 0, "epochs": 1, "solved": {}}, TOO_HIGH),
        # There is nothing to choose from.
        ({"best_epoch": 0, "epochs": 0, "solved": {}}, NOT_CHOSEN),
        ({"best_epoch": 1, "epochs": 1}, NOT_CHOSEN),
        ({}, NOT_CHOSEN),
    ],
)
def test_an_accuracy_on_pictures_that_chose_the_epoch_is_not_promised_on_others(change, text):
    few = STAGES[1] | {"data": {"splits": {"validation": {"images": 50}}}}
    assert printed.summary_line(few | change).splitlines()[1:] == [text]
    many = {"data": {"splits": {"validation": {"images": 1000}}}}
    assert len(printed.summary_line(few | change | many).splitlines()) == 1


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        (STAGES[1], "fine_tune: loss 0.5000, accuracy 0.8765, 1234.0 s"),
        (
            {**STAGES[1], "best_epoch": 3, "epochs": 8, "test": {"loss": 0.25, "accuracy": 0.9}},
            "fine_tune: loss 0.5000, accuracy 0.8765, 1234.0 s (best epoch 3, 8 epochs run)\n"
            "test split: loss 0.2500, accuracy 0.9000",
        ),
        (
            {**STAGES[1], "unmapped_classes": ["deer", "elk"], "unmapped_mass": 0.125},
            "fine_tune: loss 0.5000, accuracy 0.8765, 1234.0 s\n"
            "classes without a counterpart in the source: deer, elk\n"
            "mean probability on the source's classes that no class maps to: 0.1250",
        ),
        (
            {**STAGES[0], "unmapped_classes": ["deer"], "unmapped_mass": 1.0},
            "zero_shot: loss -, accuracy -, 10.0 s\n"
            "none of the classes has a counterpart in the source: there is no accuracy, and a loss means nothing",
        ),
    ],
)
def test_a_stage_is_summed_up_in_lines(summary, text):
    assert printed.summary_line(summary) == text


EXPECTED = (
    "expected on new pictures of the same kind and origin: accuracy 0.5000, at least about 0.34 (95%); less where "
    "pictures belong together, as those of one writer do"
)


def uneven(**counts: int) -> dict:
    return {"data": {"splits": {"train": {"classes": counts}}}, "balanced_accuracy": 0.5, "accuracy": 0.9945}


def test_an_accuracy_on_uneven_classes_stands_beside_the_balanced_one():
    rare = STAGES[1] | uneven(cat=50, dog=9000)
    said = "fine_tune: loss 0.5000, accuracy 0.9945, balanced 0.5000 (always saying dog has 0.9945), 1234.0 s"
    assert printed.summary_line(rare) == f"{said} (on training pictures, each left out)"
    # What is evaluated decides: validation, and the test split by itself.
    splits = {"validation": {"images": 3000, "classes": {"cat": 1000, "dog": 2000}}}
    splits |= {"train": {"classes": {"cat": 1, "dog": 9}}, "test": {"classes": {"cat": 10, "dog": 30, "cow": 20}}}
    test = {"loss": 0.25, "accuracy": 0.9, "balanced_accuracy": 0.8}
    assert printed.summary_line(rare | {"data": {"splits": splits}, "test": test}).splitlines() == [
        "fine_tune: loss 0.5000, accuracy 0.9945, 1234.0 s",
        "test split: loss 0.2500, accuracy 0.9000, balanced 0.8000 (always saying dog has 0.5000)",
    ]
    # An earlier version did not write it, or nothing was measured.
    old = {name: value for name, value in rare.items() if name != "balanced_accuracy"}
    assert "balanced - (always saying dog" in printed.summary_line(old)
    assert "balanced" not in printed.summary_line(rare | {"accuracy": None})
    table = printed.stages_table({"even": STAGES[1] | uneven(cat=50, dog=100), "rare": rare, "old": STAGES[1]})
    assert [[cell.strip() for cell in line.split("|")[1:6]] for line in table.splitlines()[::2]] == [
        ["stage", "loss", "accuracy", "balanced", "largest class"],
        ["even", "0.5000", "0.9945", "0.5000", "-"],
        ["old", "0.5000", "0.8765", "-", "-"],
    ]
    assert "|   0.9945 |   0.5000 |        0.9945 |" in table


HELD_OUT = {"loss": 0.5, "accuracy": 0.5, "at_least": 0.344, "pictures": 25}
HELD_OUT |= {"balanced_accuracy": 0.45, "worst_class": {"name": "cat", "accuracy": 0.2, "pictures": 5}}
JUDGED = (
    "judged on 25 training pictures, each by a head that did not see it: balanced accuracy 0.4500, worst class cat: "
    "1 of 5 right"
)


def solved_head(there: int | None, **change) -> dict:
    """The summary of a head that was solved from 25 pictures of five classes; `there` are the validation pictures."""
    splits = {"train": {"images": 25, "classes": dict.fromkeys("abcde", 5)}}
    if there is not None:
        splits["validation"] = {"images": there, "classes": {"a": there}}
    summary = {"stage": "feature_extraction", "loss": 0.4, "accuracy": 0.9213, "seconds": 8.0, "best_epoch": 0}
    summary |= {"epochs": 0, "class_names": list("abcde"), "params": {"trainable": 9}, "data": {"splits": splits}}
    return summary | {"solved": {"held_out": HELD_OUT, "single": 0, "copies": 0}} | change


SAYS = "which counts: what the {} validation pictures say; the expected accuracy is from 25"
EXPECTED_COUNTS = "which counts: the expected accuracy, from 25 pictures; "


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        (solved_head(89), SAYS.format(89)),
        (solved_head(3), EXPECTED_COUNTS + "validation has 3"),
        (
            solved_head(3, class_names=list("abcdefgh")),
            EXPECTED_COUNTS + "validation has 3; with so few of a class it is too low",
        ),
        # It was chosen among several epochs: how good it is elsewhere is not known, or known, or much the same.
        (solved_head(89, epochs=2), EXPECTED_COUNTS + "the validation pictures chose the epoch"),
        (solved_head(89, epochs=2, unchosen=UNCHOSEN), SAYS.format(89)),
        (solved_head(1000, epochs=2), SAYS.format("1,000")),
        (
            solved_head(89, epochs=2, best_epoch=2),
            "the expected accuracy is that of the solved head, not of epoch 2, which is kept",
        ),
        (solved_head(89, known_to_source={"validation": 1, "train": 0}), SAYS.format(89)),
        (
            solved_head(89, known_to_source={"validation": 30, "train": 0}),
            EXPECTED_COUNTS + "its source had learned from the validation pictures",
        ),
        (
            solved_head(3, known_to_source={"validation": 0, "train": 25}),
            "which counts: what the 3 validation pictures say; its source had learned from the others",
        ),
        (
            solved_head(89, known_to_source={"validation": 30, "train": 25}),
            "which counts: neither, its source had learned from these pictures",
        ),
        # The accuracy is the expected one.
        (solved_head(None), JUDGED),
    ],
)
def test_an_accuracy_and_an_expected_one_stand_together_with_a_sentence_on_which_counts(summary, said):
    lines = printed.summary_line(summary).splitlines()
    lines = [line for line in lines if not line.startswith("its source had learned from")]
    assert "accuracy 0.9213" in lines[0] and lines[-1] == said
    assert lines.count(EXPECTED) == lines.count(JUDGED) == 1
    notes = printed.stages_notes({"head": summary}, None, {}, {})
    assert set(notes) >= {f"head: {line}" for line in lines[1:]}


def test_where_classes_are_of_different_sizes_the_balanced_accuracy_counts():
    balanced = "; the classes are of different sizes, so go by the balanced one"
    uneven = {"train": {"classes": {"a": 5, "b": 20}}, "validation": {"images": 4, "classes": {"a": 2, "b": 2}}}
    rare = solved_head(4, data={"splits": uneven}, class_names=["a", "b"])
    assert printed.summary_line(rare).splitlines()[-1] == f"{EXPECTED_COUNTS}validation has 4{balanced}"
    # Those of validation are even.
    uneven["validation"]["images"] = 40
    assert balanced not in printed.summary_line(rare)
    uneven["validation"]["classes"]["b"] = 38
    assert printed.summary_line(rare).splitlines()[-1].endswith(f"the expected accuracy is from 25{balanced}")


def test_a_lesson_says_how_far_its_table_can_be_believed():
    few = {"data": {"splits": {"validation": {"images": 6}}}}
    head = STAGES[1] | few | {"stage": "feature_extraction", "accuracy": 1.0}
    tuned = STAGES[1] | few | {"accuracy": 5 / 6, "loss": 0.75}
    monitors = {"head": "val_loss", "tuned": "val_loss"}

    def notes(head, tuned, source=None):
        origins = {"head": None, "tuned": "head"} | ({"source": None} if source else {})
        return printed.stages_notes({"head": head, "tuned": tuned}, source, origins, monitors)

    assert notes(head, tuned) == [
        "head: measured on 6 validation pictures, which chose nothing: 0.61 to 1.00 (95%)",
        "tuned: measured on 6 validation pictures, which chose nothing: 0.44 to 0.97 (95%)",
        "tuned is not better than head: its loss on the validation pictures is not lower",
    ]
    many = {"data": {"splits": {"validation": {"images": 5000}}}}
    assert notes(STAGES[0], STAGES[1] | many) == []
    assert notes(STAGES[0], STAGES[1] | many, STAGES[1]) == [
        "labels: those of source are not counted, 1,025 of other classes"
    ]
    old = {name: value for name, value in STAGES[1].items() if name != "labels"}
    assert notes(STAGES[0], STAGES[1] | many, old) == ["labels: those of source are not counted"]
    # Nothing is known of a lesson whose config is damaged.
    assert printed.stages_notes({"head": head | many, "tuned": tuned | many}, STAGES[1], {}, {}) == []
    monitors["tuned"] = "val_accuracy"
    better, worse = tuned | many, tuned | many | {"accuracy": 0.1, "loss": 0.0}
    before = STAGES[0] | {"accuracy": 0.5, "loss": 0.5}
    assert notes(before, better) == notes(before | {"accuracy": None}, worse) == []
    assert notes(before, worse) == [
        "tuned is not better than head: its accuracy on the validation pictures is not higher"
    ]


def test_a_solved_head_says_how_good_it_is_and_why_not_to_believe_that():
    solved = {"penalty": 0.1, "pictures": 25, "copies": 3, "single": 2, "held_out": HELD_OUT}
    row = {"val_loss": None, "val_accuracy": None, "seconds": 0.12, "solved": solved}
    assert printed.solved_line(row) == "head solved in 0.1 s from 25 pictures (penalty 0.1)"
    assert printed.solved_line(row | {"val_loss": 1.0, "val_accuracy": 0.25}).endswith(
        "(penalty 0.1): val_loss 1.0000, val_accuracy 0.2500"
    )
    assert printed.summary_line(solved_head(None, solved=solved)).splitlines()[1:] == [
        EXPECTED,
        JUDGED,
        "2 classes have one picture, which stays: this says nothing about it",
        "3 of the pictures are copies of others, which makes that too good",
    ]
    # As an earlier version wrote it.
    old = {"held_out": {"accuracy": 0.5, "low": 0.31, "high": 0.69, "pictures": 25}}
    assert belief.expected_lines(solved_head(None, solved=old)) == [EXPECTED, JUDGED.partition(": ")[0]]
    alone = {"held_out": None}
    said = ["one picture a class, and none to leave out: the penalty is the default"]
    assert belief.expected_lines(solved_head(3, solved=alone)) == said
    nothing = "one picture a class, and none to leave out: nothing says how good it is, and the penalty is the default"
    assert belief.expected_lines(solved_head(None, solved=alone, accuracy=None)) == [nothing]


def test_where_groups_were_left_out_lines_say_groups():
    held_out = HELD_OUT | {"groups": 6, "of_a_class": 6.0}
    solved = {"copies": 3, "single": 1, "groups": 7, "held_out": held_out}
    summary = solved_head(600, solved=solved, worth={"groups": 3, "pictures": 12.5})
    assert printed.summary_line(summary).splitlines()[1:] == [
        "measured on 600 validation pictures of 3 groups, which chose nothing: 0.66 to 0.99 (95%)",
        EXPECTED.partition(";")[0],
        JUDGED.replace(
            "pictures, each by a head that did not see it", "pictures of 6 groups, each group left out together"
        ),
        "1 class has one group, whose pictures of it are not judged: this says nothing about it",
        "3 of the pictures are copies of others in other groups, which makes that too good",
        "which counts: the expected accuracy, from 25 pictures of 6 groups; validation has 600 of 3 groups",
    ]
    # Many pictures of few groups are few; as many as they are, they say enough.
    many = solved_head(5000, solved=solved)
    assert not any("measured on" in line for line in printed.summary_line(many).splitlines())
    few = printed.summary_line(many | {"worth": {"groups": 1, "pictures": 1.5}}).splitlines()[1]
    assert few == "measured on 5,000 validation pictures of 1 group, which chose nothing: 0.24 to 1.00 (95%)"
    scarce = solved_head(3, solved={"groups": 7, "held_out": held_out | {"of_a_class": 4.9}})
    assert printed.summary_line(scarce).endswith("validation has 3; with so few of a class it is too low")
    none = {"held_out": None, "groups": 3}
    said = ["one group a class, and none to leave out: the penalty is the default"]
    assert belief.expected_lines(solved_head(3, solved=none)) == said


def test_a_run_ends_with_the_accuracy_of_each_class_and_the_calibration():
    about = {"split": "validation", "images": 60}
    calibration = {"temperature": 1.0, "fitted_on": about, "measured_on": about}
    summary = STAGES[1] | {"class_accuracy": {"cat": 0.5, "d\nog": 1.0, "cow": None}, "calibration": calibration}
    lines = printed.results(summary).splitlines()
    assert lines[1] == r"accuracy by class: cat 0.50, d\nog 1.00"
    assert lines[2] == printed.calibration_line(calibration) and len(lines) == 3
    test = {"loss": 0.5, "accuracy": 0.25, "class_accuracy": {"cat": 0.25}}
    assert printed.results(summary | {"test": test}).splitlines()[2] == "accuracy by class on test: cat 0.25"
    many = {"class_accuracy": dict.fromkeys(map(str, range(13)), 0.5)}
    assert "by class" not in printed.results(summary | many)


def read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def row(stage: str, epoch: int, val_loss: float | None) -> dict:
    return {
        "stage": stage, "epoch": epoch, "loss": 0.5, "accuracy": 0.75, "val_loss": val_loss, "val_accuracy": 0.7
    }  # fmt: skip


@pytest.mark.parametrize(
    "runs",
    [
        {"from_scratch": [row("from_scratch", 1, 0.6)]},
        {"transfer": [row("feature_extraction", 1, 0.6), row("fine_tune", 2, None), row("fine_tune", 3, 0.5)]},
        {"a": [row("a", 1, 0.6), row("a", 2, 0.5)], "b": [row("b", 1, 0.6)]},
    ],
    ids=["one epoch", "two stages and a loss that is no number", "two runs"],
)
def test_curves_are_a_picture(tmp_path, runs):
    figures.draw_curves(tmp_path / "figures" / "curves.png", {name: Course(rows, 1) for name, rows in runs.items()})
    picture = read_picture(tmp_path / "figures" / "curves.png")
    assert picture.shape == (440, 1100, 3)
    # matplotlib's first colors: validation and train of the first run.
    assert all((np.abs(picture - color).sum(axis=-1) < 6).sum() > 20 for color in ([31, 119, 180], [255, 127, 14]))


def test_without_an_epoch_there_are_no_curves(tmp_path):
    (tmp_path / "curves.png").write_bytes(b"of an older version")
    figures.draw_curves(tmp_path / "curves.png", {"feature_extraction": Course([row("feature_extraction", 0, 0.6)])})
    assert not list(tmp_path.iterdir())


def draw(folder: Path, labels: list[int], predicted: list[int]) -> None:
    n = len(labels)
    split = Split(
        np.zeros((n, 8, 8, 3), np.uint8), np.array(labels), ("id",) * n, np.arange(n), n, np.zeros((n, 4), np.uint32)
    )
    figures.draw_samples(folder, 0, split, ("cat", "dog"))
    guesses = Guesses(np.array(predicted, int), ["cat"] * n, np.full(n, 0.9))
    figures.draw_predictions(folder, split, "validation", ("cat", "dog"), guesses)


@pytest.mark.parametrize(
    ("n", "side"), [(1, (281, 231)), (5, (281, 1155)), (6, (563, 1155)), (25, (1409, 1155)), (30, (1409, 1155))]
)
def test_samples_are_a_grid_of_up_to_five_columns(tmp_path, n, side):
    draw(tmp_path, [0] * n, [0] * n)
    assert read_picture(tmp_path / "samples.png").shape == (*side, 3)
    # The lines above take about one line's height each: fewer of them where there is more room.
    above = read_picture(tmp_path / "predictions.png").shape[0] - side[0]
    assert 120 < above < 220 if n == 1 else 50 < above < 80
    assert len(list(tmp_path.iterdir())) == 2


def test_names_are_text_and_what_cannot_be_drawn_is_a_line(tmp_path, capsys, monkeypatch):
    split = Split(
        np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1]), ("a", "b"), np.arange(2), 2, np.zeros((2, 4), np.uint32)
    )
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    names = "Ba$$in", "猫"
    guesses = Guesses(np.array([0, 1]), ["Ba$$in \udce9", r"$\wrong{"], np.array([0.5, np.nan]))

    def draw_both() -> None:
        figures.draw_samples(tmp_path, 0, split, names)
        figures.draw_predictions(tmp_path, split, "validation", names, guesses)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_both()
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "predictions.png"}
    said = "no font here has the letters of 猫: {}/{}.png has them in Latin letters\n"
    assert capsys.readouterr().out == (
        (said.format(tmp_path, "samples") + said.format(tmp_path, "predictions")) * ("猫" in lacking("猫"))
    )
    monkeypatch.setattr(figures, "_save", lambda *_: 1 / 0)
    draw_both()
    figures.draw_curves(tmp_path / "curves.png", {"a": Course([row("a", 1, 0.6)])})
    lines = [line for line in capsys.readouterr().out.splitlines() if "no font here" not in line]
    assert len(lines) == 3 and all("is not drawn (ZeroDivisionError: division by zero)" in line for line in lines)


def lacking(text: str) -> frozenset[str]:
    return fonts.find_letters([text]).lacking


def make_font(file: Path, family: str, drawn: str, blank: str) -> None:
    """A font with a square for one letter, and nothing for another."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen, font = TTGlyphPen(None), FontBuilder(1000, isTTF=True)
    for move, point in (("moveTo", (0, 0)), ("lineTo", (0, 700)), ("lineTo", (700, 700)), ("lineTo", (700, 0))):
        getattr(pen, move)(point)
    pen.closePath()
    nothing = TTGlyphPen(None).glyph()
    font.setupGlyphOrder([".notdef", "drawn", "blank"])
    font.setupCharacterMap({ord(drawn): "drawn", ord(blank): "blank"})
    font.setupGlyf({".notdef": nothing, "drawn": pen.glyph(), "blank": nothing})
    font.setupHorizontalMetrics(dict.fromkeys((".notdef", "drawn", "blank"), (800, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2(usWeightClass=400)
    font.setupPost()
    font.save(file)


def test_a_font_that_has_the_letters_draws_them(tmp_path, monkeypatch, capsys):
    """The letters are Gothic, which few fonts have."""
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    drawn, blank = "\U00010330", "\U00010331"
    for family in ("Last Resort", "Gothic Squares"):
        make_font(tmp_path / f"{family}.ttf", family, drawn, blank)
        font_manager.fontManager.addfont(tmp_path / f"{family}.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    broken = font_manager.FontEntry(fname=str(tmp_path / "broken.ttf"), name="A Broken One", weight=400)
    font_manager.fontManager.ttflist.insert(0, broken)
    found = fonts.find_letters(["abc", drawn, blank])
    assert found.families[0] == "DejaVu Sans" and found.families[-1] == "Gothic Squares"
    assert "Last Resort" not in found.families and found.lacking == {blank}
    assert found.write(f"é{drawn}{blank}") == f"é{drawn}b"
    split = Split(np.zeros((1, 8, 8, 3), np.uint8), np.array([0]), ("a",), np.arange(1), 1, np.zeros((1, 4), np.uint32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.draw_samples(tmp_path, 0, split, (drawn,))
    assert not capsys.readouterr().out
    # The title is a black square, and nothing else.
    title = np.argwhere((read_picture(tmp_path / "samples.png")[:45] < 128).all(axis=-1))
    assert len(title) > 20 and len(title) == np.prod(np.ptp(title, axis=0) + 1)


def test_what_no_font_has_is_in_latin_letters_and_what_steers_a_terminal_an_escape():
    letters = fonts.Letters(["DejaVu Sans"], frozenset("北京🐱\ufe0f\U0010ffff"))
    assert letters.write("北京 🐱\ufe0f \U0010ffff e\u0301") == r"BeiJing :cat: \U0010ffff é"
    assert letters.write("a\n\x1b\u202e\udcff\u200d") == r"a\n\x1b\u202e\udcff" + "\u200d"
    assert lacking("Ελλ кошка naïve") == frozenset()


def test_names_in_lines_and_tables_are_on_one_line():
    name = "ca\nt\x1b|"
    data = {"name": "folder:x\n", "image_size": 32, "left_out": {"with the ending .\x1b": 1}, "notes": [name]}
    split = {"images": 2, "of": "train", "classes": {name: 1, "dog": 2}}
    text = printed.data_summary(data | {"splits": {"train": split}, "warnings": [name]})
    assert len(text.splitlines()) == 5 and text.count(r"ca\nt\x1b|") == 3 and "\x1b" not in text
    table = printed.confusion_table(np.eye(2, dtype=int), [name, "dog"])
    assert len({len(line) for line in table.splitlines()}) == 1 and len(table.splitlines()) == 3
    assert r"ca\nt\x1b 1" in printed.class_weights_line({name.rstrip("|"): 1.0})
    row = {"loss": 1.0, "accuracy": 1.0, "params": {"trainable": 1}, "seconds": 1.0}
    assert printed.stages_table({name: row}).splitlines()[-1].startswith(r"| ca\nt\x1b\| |")


def test_a_notebook_s_backend_in_the_environment_is_not_asked_for():
    code = "from tljax.report import figures; figures._figure_class()().savefig('/dev/null', format='png')"
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_without_examples_nothing_is_drawn(tmp_path):
    draw(tmp_path, [], [])
    assert not list(tmp_path.iterdir())


def test_only_the_worst_pictures_are_read_of_those_that_this_process_has(tmp_path, monkeypatch):
    """This process has every other one of 80 pictures."""
    read, drawn = [], []

    class Streamed:
        def __getitem__(self, places):
            read.append(places)
            return np.zeros((len(places), 8, 8, 3))

    rows, labels = np.arange(0, 80, 2), np.arange(40) % 2
    split = Split(Streamed(), labels, ("id",) * 40, rows, 80, np.zeros((40, 4), np.uint32))
    # The other process' pictures are all wrong with certainty, those of this one the less certain the later they come.
    predicted, probabilities = np.zeros(80, int), np.ones(80)
    predicted[rows], probabilities[rows] = np.where(np.arange(40) < 2, 1 - labels, labels), np.linspace(0.9, 0.5, 40)
    guesses = Guesses(predicted, [f"name {i}" for i in range(80)], probabilities)
    monkeypatch.setattr(figures, "_draw_grid", lambda *arguments: drawn.append(arguments))
    figures.draw_predictions(tmp_path, split, "validation", ("cat", "dog"), guesses)
    assert [places.tolist() for places in read] == [[0, 1, *range(39, 16, -1)]]
    ((path, pictures, titles, colors, _, legend),) = drawn
    assert path == tmp_path / "predictions.png" and len(pictures) == 25
    assert titles[:3] == ["name 0 90% (is cat)", "name 2 89% (is dog)", "name 78 50% (is dog)"]
    assert colors == ["tab:red"] * 2 + ["tab:green"] * 23
    assert legend[0].startswith("2 mistakes on 40 of the 80 validation pictures, those that the first process reads, ")


GREEN, RED = [44, 160, 44], [214, 39, 40]


@pytest.mark.parametrize(("predicted", "colors"), [([0, 1], [GREEN]), ([1, 0], [RED]), ([0, 0], [GREEN, RED])])
def test_what_was_predicted_is_green_where_right_and_red_where_wrong(tmp_path, predicted, colors):
    draw(tmp_path, [0, 1], predicted)

    def shows(name: str, color: list[int]) -> bool:
        return bool((np.abs(read_picture(tmp_path / name) - color).sum(axis=-1) < 6).any())

    assert [color for color in (GREEN, RED) if shows("predictions.png", color)] == colors
    assert not shows("samples.png", GREEN) and not shows("samples.png", RED)


def test_weights_of_many_classes_are_the_least_and_the_most():
    assert printed.class_weights_line({"a": 1.0, "b": 0.25}) == "class weights: a 1, b 0.25"
    many = {f"c{i}": float(i) for i in range(20)}
    assert printed.class_weights_line(many) == "class weights: from 0 of c0 to 19 of c19"
