"""What people's folders look like: splits are never taken for classes, and every picture is used once or counted."""

import os
import unicodedata
from pathlib import Path

import pytest
from pictures import load_folder

from tljax.config import Data
from tljax.data.layouts import describe_left_out, recognize, split_role


def make(folder: Path, tree: dict[str, int]) -> Path:
    """Empty files `tree[name]` times in each subfolder: no picture is opened here."""
    for name, count in tree.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (folder / name / f"{i}.jpg").touch()
    return folder


def two(*splits: str) -> dict[str, int]:
    return {f"{split}/{name}": 4 for split in splits for name in ("a", "b")}


def found(folder: Path, classes: tuple[str, ...] = ()) -> dict[str, dict[str, int]]:
    """The number of pictures of each class of each split."""
    return {
        split: {name: len(paths) for name, paths in by_class.items()}
        for split, by_class in recognize(folder, classes).splits.items()
    }


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "training_set", "trainset", "train_images")),
        *(
            (name, "train")
            for name in ("images-train", "seg_train", "train2017", "TrainImages", "train (1)", "trainval")
        ),
        *((name, "val") for name in ("val", "Valid", "validation", "validation_set", "dev", "valset", "Evaluation")),
        *((name, "test") for name in ("test", "Testing", "test1", "testset", "test_data", "seg_test")),
        *((name, "unlabelled") for name in ("pred", "seg_pred", "unlabeled")),
        *(
            (name, None)
            for name in ("cat", "trains", "tests", "test_tube", "trainer", "images", "dataset", "value", "1")
        ),
    ],
)
def test_a_split_is_known_by_its_name(name, role):
    assert split_role(name) == role


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("Training", "Testing"), ("train", "test")),
        (("training_set", "test_set"), ("train", "test")),
        (("train", "Val"), ("train", "val")),
        (("train", "dev"), ("train", "val")),
        (("Train", "Valid", "test"), ("train", "val", "test")),
        (("seg_train", "seg_test", "seg_pred"), ("train", "test")),
        (("train", "val", "docs"), ("train", "val")),
        (("val", "test"), ("val", "test")),
    ],
)
def test_folders_that_are_named_like_splits_are_splits(tmp_path, names, roles):
    assert found(make(tmp_path, two(*names))) == {role: {"a": 4, "b": 4} for role in roles}


@pytest.mark.parametrize(
    "tree",
    [
        {"train": 3, "bus": 3, "car": 3},
        {"test": 3, "cat": 3},
        {"cat/indoor": 2, "cat/outdoor": 2, "dog/indoor": 2, "dog/outdoor": 2},
    ],
)
def test_these_are_classes(tmp_path, tree):
    counts: dict[str, int] = {}
    for name, count in tree.items():
        counts[name.split("/")[0]] = counts.get(name.split("/")[0], 0) + count
    layout = recognize(make(tmp_path, tree))
    assert found(tmp_path) == {"all": counts} and not layout.warnings


def test_one_class_in_two_unicode_forms_is_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "K\u00e4fer") for form in ("NFC", "NFD"))
    layout = recognize(make(tmp_path / "all", {composed: 2, decomposed: 3, "Biene": 2}))
    assert found(tmp_path / "all") == {"all": {"Biene": 2, composed: 5}}
    assert f"one class in two Unicode forms: {composed}" in layout.notes and not layout.warnings
    make(tmp_path / "split", {f"train/{name}": 2 for name in (composed, decomposed)} | {f"val/{decomposed}": 1})
    assert found(tmp_path / "split") == {"train": {composed: 4}, "val": {composed: 1}}


def test_classes_that_differ_in_case_alone_are_two_and_named(tmp_path):
    layout = recognize(make(tmp_path, {"a": 2, "A": 2}))
    assert found(tmp_path) == {"all": {"A": 2, "a": 2}}
    assert layout.warnings == ["classes whose names differ in case alone are read as two: A and a"]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"train": 6, "test1": 6}, "train has 6 pictures but no folders of classes: put the pictures of each class"),
        (two("train", "training_set"), "train and training_set both look like the split train: rename or remove one"),
        (two("cats_train", "cats_test"), "cats_test, cats_train look like splits, not classes: rename them"),
        (two("train") | {"val/a": 2, "val/c": 2}, "val has the class 'c', which train does not have"),
        (two("train") | {"val/a": 0}, "val has no picture of the classes a, b"),
        (two("train") | {"train/c": 0, "val/a": 1}, "train has no picture of the class c: add some, or remove it"),
        ({"a": 3, "b": 0}, "has no picture of the class b: add some"),
    ],
)
def test_what_cannot_be_understood_is_one_line(tmp_path, tree, message):
    with pytest.raises(ValueError, match=message) as error:
        recognize(make(tmp_path, tree))
    assert "\n" not in str(error.value)


def test_classes_that_are_named_are_classes_whatever_they_are_called(tmp_path):
    make(tmp_path, {"test_tube": 2, "train_station": 2})
    with pytest.raises(ValueError, match=r"name them in config\.data\.classes if they are classes"):
        recognize(tmp_path)
    assert found(tmp_path, ("test_tube", "train_station")) == {"all": {"test_tube": 2, "train_station": 2}}


@pytest.mark.parametrize("inside", ["train", "dataset", "dataset/train", "train/train"])
def test_a_single_folder_on_top_is_seen_through_and_said(tmp_path, inside):
    make(tmp_path, {f"{inside}/a": 3, f"{inside}/b": 3})
    layout = recognize(tmp_path)
    assert layout.base == tmp_path / inside and layout.splits == {
        "all": {name: [f"{name}/{i}.jpg" for i in range(3)] for name in ("a", "b")}
    }
    assert layout.notes[-1] == f"everything is in {inside}: read from there"


def test_doubled_splits_are_seen_through_and_said(tmp_path):
    layout = recognize(make(tmp_path, two("seg_train/seg_train", "seg_test/seg_test")))
    assert layout.splits["train"]["a"][0] == "seg_train/seg_train/a/0.jpg" and len(layout.splits["test"]["b"]) == 4
    assert "the split train is in seg_train/seg_train" in layout.notes


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    make(tmp_path, two("train", "val") | {"test": 3, "notes": 2, "__MACOSX/a": 1, "val/@eaDir": 1})
    for name in ("loose.jpg", "train/readme.md", "train/a/labels.CSV", "train/a/.hidden.jpg", "val/b/photo.HEIC"):
        (tmp_path / name).touch()
    (tmp_path / "train" / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "train" / "a" / "other").symlink_to(tmp_path / "train" / "b")
    (tmp_path / "train" / "a" / "loop.jpg").symlink_to(tmp_path / "train" / "a" / "loop.jpg")
    (tmp_path / "train" / "a" / "holiday.jpg").mkdir()
    assert dict(recognize(tmp_path).left_out) == {
        "beside the folders of the classes": 1,
        "in folders of the system": 2,
        "in test without a class": 3,
        "in notes, which is no split": 2,
        "with the ending .md": 1,
        "with the ending .csv": 1,
        "with the ending .heic, which is not read: convert them to JPEG": 1,
        "hidden": 1,
        "broken links": 2,
        "in linked folders": 1,
    }


def test_of_many_endings_the_most_frequent_are_named_and_of_many_folders():
    left_out = {f"with the ending .{i}": i for i in range(1, 100)} | {"hidden": 1200}
    left_out |= {"with the ending .heic, which is not read: convert them to JPEG": 2}
    left_out |= {f"in {i}, which is no split": 2 for i in range(6)}
    assert describe_left_out(left_out) == (
        "95 with the ending .95, 96 with the ending .96, 97 with the ending .97, 98 with the ending .98, "
        "99 with the ending .99, 1,200 hidden, 2 with the ending .heic, which is not read: convert them to JPEG, "
        f"{', '.join(f'2 in {i}, which is no split' for i in range(6))}, 4,465 with 94 other endings"
    )


@pytest.mark.parametrize("test", [{"test/unknown": 2}, {"test": 2}, {"test/c": 2, "test/d": 1}])
def test_a_test_without_the_classes_is_no_part_of_a_run(tmp_path, test):
    layout = recognize(make(tmp_path, two("train", "val") | test))
    assert set(layout.splits) == {"train", "val"} and sum(layout.left_out.values()) == sum(test.values())


def test_the_same_class_in_another_spelling_is_the_same(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    make(tmp_path, {f"train/{composed}": 2, "train/Dog": 2, f"val/{decomposed}": 1, "val/dog": 1})
    assert found(tmp_path) == {"train": {composed: 2, "Dog": 2}, "val": {composed: 1, "Dog": 1}}


def test_splits_inside_of_classes_are_a_warning(tmp_path):
    (warning,) = recognize(make(tmp_path, {"cat/train": 2, "cat/test": 2, "dog": 2})).warnings
    assert warning.startswith("the class cat has the folders test, train: all pictures of a class are read as one")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_said(tmp_path):
    make(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "b").chmod(0)
    with pytest.raises(PermissionError, match="b cannot be read: permission denied"):
        recognize(tmp_path)


def test_validation_is_held_out_of_train_and_test_is_evaluated_at_the_end(tmp_path):
    from pictures import make_folder

    folder = make_folder(tmp_path, {f"{split}/{name}": 20 for split in ("train", "test") for name in ("red", "blue")})
    dataset = load_folder(folder)
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 36, "validation": 4, "test": 40}
    assert dataset.description["splits"]["test"]["classes"] == {"blue": 20, "red": 20}
    # As version 0.1.0 read such a folder.
    before = load_folder(folder, holdout="test")
    assert {name: split.count for name, split in before.splits.items()} == {"train": 40, "validation": 40}
    assert set(dataset.train.ids) | set(dataset.validation.ids) == set(before.train.ids)
    assert Data().holdout == "train"
