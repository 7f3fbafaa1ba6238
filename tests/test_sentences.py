"""A stage in one sentence: what trained, on how many labels, how good, how sure that is, and on which pictures."""

import math

import pytest

from tljax.report import printed
from tljax.report.sentences import plain_sentence

PARAMS = {"total": 5_228_933, "trainable": 3_757_573}
UNCHOSEN = {"accuracy": 0.9, "low": 0.82, "high": 0.95}
HELD_OUT = {"loss": 0.7, "accuracy": 0.76, "at_least": 0.5987, "pictures": 25, "balanced_accuracy": 0.7}


def make_splits(train: int | None = 25, validation: int | None = 89, **more: dict) -> dict:
    """What a summary says about its data; 0 pictures is a split that is not there."""
    splits = {"train": {"images": train}, "validation": {"images": validation}, **more}
    return {"splits": {name: split for name, split in splits.items() if split["images"]}}


TUNED = {
    "stage": "fine_tune", "loss": 0.3, "accuracy": 0.8989, "seconds": 9.0, "cut": "conv5_block1", "params": PARAMS,
    "best_epoch": 2, "epochs": 7, "unchosen": UNCHOSEN, "labels": {"train": 25, "validation": 89},
    "class_names": list("abcde"), "data": make_splits(),
}  # fmt: skip
ONE_EPOCH = {name: value for name, value in TUNED.items() if name != "unchosen"} | {"epochs": 1, "best_epoch": 1}
CHOSEN = ONE_EPOCH | {"epochs": 7, "best_epoch": 2}
SOLVED = ONE_EPOCH | {
    "stage": "feature_extraction", "cut": "head", "params": {"total": 5_228_933, "trainable": 5125}, "epochs": 0,
    "best_epoch": 0, "labels": {"train": 25, "validation": 0}, "solved": {"held_out": HELD_OUT, "copies": 0},
}  # fmt: skip
ZERO_SHOT = {
    "stage": "zero_shot", "loss": 1.0, "accuracy": 0.6, "images": 40, "params": {"trainable": 0}, "seconds": 1.0,
    "labels": {"train": 0, "validation": 0}, "class_names": list("abcde"), "data": make_splits(0, 40),
    "unmapped_classes": [],
}  # fmt: skip
OLD = {name: TUNED[name] for name in ("stage", "loss", "accuracy", "best_epoch", "epochs", "params", "seconds")}

TUNING = "trained conv5_block1 to head (3.8 of 5.2 million parameters) on 25 labelled pictures"
CHOICE = f"{TUNING} and chose its epoch on 89 others"
HEAD = "trained the head (5,125 of 5.2 million parameters) in one step on 25 labelled pictures"
LEFT_OUT = (
    "of new pictures like its training pictures expect about 76% right, at least about 60%, judging each of these by a "
    "head that did not see it"
)
TOO_HIGH = "these pictures chose its epoch, so that is too high, by how much is not known"
ON_89 = "of new pictures like the 89 validation pictures expect 90% right, between 82% and 95%"
TEST = {"loss": 0.2, "accuracy": 0.912, "balanced_accuracy": 0.8}


def with_test(images: int, **classes: int) -> dict:
    return make_splits(test={"images": images, "classes": classes})


UNEVEN = {"images": 89, "classes": {"cat": 9, "dog": 80}}


@pytest.mark.parametrize(
    ("summary", "sentence"),
    [
        (TUNED, f"{CHOICE}: of new pictures like these expect 90% right, between 82% and 95%"),
        (ONE_EPOCH, f"{TUNING}: {ON_89}"),
        (CHOSEN, f"{CHOICE}: of 89 validation pictures, 90% are right; {TOO_HIGH}"),
        # Thousands of pictures: the table has no interval.
        (
            CHOSEN | {"accuracy": 0.93249, "data": make_splits(50_000, 10_000), "labels": {"train": 50_000}},
            f"{CHOICE.replace('25', '50,000').replace('89', '10,000')}: of 10,000 validation pictures, 93.2% are right",
        ),
        (CHOSEN | {"accuracy": 0.9997, "data": make_splits(25, 10_000)},
         f"{CHOICE.replace('89', '10,000')}: of 10,000 validation pictures, more than 99.9% are right"),
        # No validation pictures.
        (SOLVED | {"accuracy": 0.76, "data": make_splits(25, 0)}, f"{HEAD}: {LEFT_OUT}"),
        (SOLVED, f"{HEAD}: {ON_89}"),
        (SOLVED | {"data": make_splits(25, 10)}, f"{HEAD}: {LEFT_OUT}"),
        (ONE_EPOCH | {"accuracy": None, "loss": None, "data": make_splits(25, 0)},
         f"{TUNING}: there were no pictures to judge it by, so nothing says how good it is"),
        # One label of a class, and one at all.
        (SOLVED | {"accuracy": None, "loss": None, "labels": {"train": 2}, "solved": {"held_out": None},
                   "data": {"splits": {"train": {"images": 2, "classes": {"a": 1, "b": 1}}}}},
         f"{HEAD.replace('on 25', 'on 2')}, one of each class: there were no pictures to judge it by, so nothing says "
         "how good it is"),
        (ONE_EPOCH | {"labels": {"train": 1}},
         f"{TUNING.replace('25 labelled pictures', '1 labelled picture')}: {ON_89}"),
        (SOLVED | {"data": make_splits(25, 0), "class_names": list("abcdefgh"), "accuracy": 0.76},
         f"{HEAD}: {LEFT_OUT}; with so few of a class that is too low"),
        (SOLVED | {"data": make_splits(25, 0), "solved": {"held_out": HELD_OUT, "copies": 3}, "accuracy": 0.76},
         f"{HEAD}: {LEFT_OUT}; 3 of them are copies of others, so that is too high"),
        # Its source had learned from what it is judged by.
        (ONE_EPOCH | {"known_to_source": {"validation": 30}},
         f"{TUNING}: of 89 validation pictures, 90% are right; its source had learned from 30 of the validation "
         "pictures, so that is too high"),
        (SOLVED | {"known_to_source": {"validation": 30, "train": 0}}, f"{HEAD}: {LEFT_OUT}"),
        (SOLVED | {"known_to_source": {"train": 25}, "accuracy": 0.76, "data": make_splits(25, 0)},
         f"{HEAD}: of 25 training pictures, each left out once, 76% are right; its source had learned from 25 of the "
         "training pictures, so that is too high"),
        # The test split counts, what is known of others comes after it.
        (TUNED | {"test": TEST, "data": with_test(500, a=250, b=250)},
         f"{CHOICE}: of 500 test pictures, 91% are right; {ON_89}"),
        (CHOSEN | {"test": TEST, "data": with_test(2000, a=1000, b=1000)},
         f"{CHOICE}: of 2,000 test pictures, 91.2% are right"),
        (CHOSEN | {"test": TEST}, f"{CHOICE}: of the test pictures, 91% are right"),
        (CHOSEN | {"test": TEST, "known_to_source": {"test": 7}},
         f"{CHOICE}: of the test pictures, 91% are right; its source had learned from 7 of the test pictures, so that "
         "is too high"),
        (TUNED | {"test": {"loss": math.nan, "accuracy": math.nan}},
         f"{CHOICE}: of new pictures like these expect 90% right, between 82% and 95%"),
        # Classes of different sizes.
        (TUNED | {"data": make_splits() | {"splits": {"validation": UNEVEN}}, "balanced_accuracy": 0.55},
         f"{CHOICE}: of new pictures like these expect 90% right, between 82% and 95%; the classes are of different "
         "sizes: always saying dog has 90%, and the mean over the classes is 55%"),
        (CHOSEN | {"test": TEST, "data": with_test(100, cat=1, dog=99)},
         f"{CHOICE}: of 100 test pictures, 91% are right; the classes are of different sizes: always saying dog has "
         "99%, and the mean over the classes is 80%"),
        (SOLVED | {"data": {"splits": {"train": {"images": 25, "classes": {"a": 5, "b": 20}}}}, "accuracy": 0.76,
                   "class_names": ["a", "b"]},
         f"{HEAD}: {LEFT_OUT}; the classes are of different sizes: always saying b has 80%, and the mean over the "
         "classes is 70%"),
        # Numbers that are none.
        (CHOSEN | {"loss": math.nan}, f"{CHOICE}: its loss is no number, so nothing says how good it is"),
        (CHOSEN | {"accuracy": math.nan}, f"{CHOICE}: nothing says how good it is"),
        # An accuracy near 1 keeps its ends apart.
        (ONE_EPOCH | {"accuracy": 1.0, "data": make_splits(25, 999)},
         f"{TUNING}: of new pictures like the 999 validation pictures expect 100.0% right, between 99.6% and 100.0%"),
        # Other stages.
        (ONE_EPOCH | {"stage": "from_scratch", "cut": "conv1"},
         f"trained the whole network (3.8 million parameters) on 25 labelled pictures: {ON_89}"),
        (ONE_EPOCH | {"cut": "conv1"},
         f"trained the whole network (3.8 million parameters) on 25 labelled pictures: {ON_89}"),
        (ZERO_SHOT, "trained nothing: of new pictures like the 40 validation pictures expect 60% right, between 45% "
         "and 74%"),
        (ZERO_SHOT | {"unmapped_classes": ["a", "b"]},
         "trained nothing: of new pictures like the 40 validation pictures expect 60% right, between 45% and 74%; 2 of "
         "the 5 classes have no counterpart in its source"),
        (ZERO_SHOT | {"accuracy": None, "unmapped_classes": list("abcde")},
         "trained nothing: none of the classes has a counterpart in its source, so nothing says how good it is"),
        # Version 0.1.0 did not write the data, the labels or the cut.
        (OLD, "trained 3.8 of 5.2 million parameters and chose its epoch on validation pictures: of the validation "
         f"pictures, 90% are right; {TOO_HIGH}"),
        (OLD | {"epochs": 1, "params": {"trainable": 5125}},
         "trained 5,125 parameters: of the validation pictures, 90% are right"),
        ({"stage": "zero_shot", "loss": 1.0, "accuracy": 0.6, "images": 40, "params": {"trainable": 0}, "seconds": 1.0},
         "trained nothing: of 40 validation pictures, 60% are right"),
    ],
)  # fmt: skip
def test_a_stage_in_one_sentence(summary, sentence):
    assert plain_sentence("it", summary) == f"it {sentence}."
    # It promises an interval where the table does.
    _, _, row = printed.stages_table({"it": summary}).splitlines()
    in_table = " to " in row or "(at least" in row
    assert (", between " in sentence or "at least about" in sentence) == in_table


def test_names_are_text_on_one_line():
    uneven = TUNED | {"data": {"splits": {"validation": {"images": 89, "classes": {"c\x1bat": 9, "do\ng": 80}}}}}
    text = plain_sentence("tu\nned", uneven)
    assert text.startswith(r"tu\nned trained ") and r"always saying do\ng has" in text and text.isprintable()
