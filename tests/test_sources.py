"""Classes and splits of folders, of scikit-learn's digits, and of sets that TFDS does not have."""

import collections

import numpy as np
import pytest
from pictures import COLORS, load_folder, make_folder

from tljax.config import Data
from tljax.data import datasets, sources


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_split_folders_are_the_splits(tmp_path, validation):
    counts = {"train/red": 3, "train/blue": 2, f"{validation}/red": 1, f"{validation}/blue": 2, "test/red": 1}
    folder = make_folder(tmp_path, counts | {"test/blue": 1})
    dataset = load_folder(folder)
    assert dataset.class_names == ("blue", "red")
    assert dataset.test is None
    assert sorted(dataset.validation.ids) == [f"{validation}/{n}.png" for n in ("blue/0", "blue/1", "red/0")]
    for split in (dataset.train, dataset.validation):
        for image, label, name in zip(split.images, split.labels, split.ids, strict=True):
            assert name.split("/")[1] == dataset.class_names[label]
            assert image[0, 0].tolist() == list(COLORS[dataset.class_names[label]])
    for name in ("val", "validation"):
        assert load_folder(folder, validation_split=name).validation.ids == dataset.validation.ids


def test_stratified_split_is_always_the_same_and_has_every_class(tmp_path):
    folder = make_folder(tmp_path, {"red": 30, "green": 4, "blue": 2})
    dataset = load_folder(folder)
    assert collections.Counter(dataset.validation.labels.tolist()) == {0: 1, 1: 1, 2: 3}
    assert collections.Counter(dataset.train.labels.tolist()) == {0: 1, 1: 3, 2: 27}
    assert not set(dataset.train.ids) & set(dataset.validation.ids)
    assert load_folder(folder).validation.ids == dataset.validation.ids
    # A fine_tune run with another seed must not validate on images that its source was trained on.
    assert load_folder(folder, seed=1).validation.ids == dataset.validation.ids


def test_class_with_one_image_trains(tmp_path):
    dataset = load_folder(make_folder(tmp_path, {"red": 10, "blue": 1}))
    assert "blue/0.png" in dataset.train.ids


def test_a_folder_named_train_may_be_a_class(tmp_path):
    make_folder(tmp_path, {"red": 3})
    (tmp_path / "red").rename(tmp_path / "train")
    make_folder(tmp_path, {"blue": 3})
    assert load_folder(tmp_path).class_names == ("blue", "train")


def test_hidden_files_other_files_and_case_of_extensions(tmp_path):
    counts = {"train/red": 2, "val/red": 1, "train/red/.ipynb_checkpoints/red": 1, ".git/red": 1}
    folder = make_folder(tmp_path, counts | {"train/blue": 1, "val/blue": 1})
    (folder / "train/red/1.png").rename(folder / "train/red/1.PNG")
    for name in ("._0.png", "notes.txt"):
        (folder / "train/red" / name).write_text("no image")
    assert sorted(load_folder(folder).train.ids)[1:] == ["train/red/0.png", "train/red/1.PNG"]


@pytest.mark.parametrize("empty", [True, False])
def test_a_class_without_a_picture_in_val_is_a_warning(tmp_path, empty):
    folder = make_folder(tmp_path, {"train/red": 1, "val/red": 1, "train/blue": 1})
    if empty:
        (folder / "val/blue").mkdir()
    dataset = load_folder(folder)
    assert dataset.class_names == ("blue", "red")
    (warning,) = dataset.description["warnings"]
    assert warning == "val has no picture of blue: that class is not measured there"
    # Not for a class that is not used.
    assert not load_folder(
        make_folder(folder, {"train/green": 1, "val/green": 1}), classes=("red", "green")
    ).description["warnings"]


def test_a_class_without_a_picture_to_learn_from_is_refused(tmp_path):
    folder = make_folder(tmp_path, {"train/red": 1, "val/red": 1, "val/blue": 1})
    (folder / "train/blue").mkdir()
    with pytest.raises(ValueError, match="train has no picture of the class blue: add some, or remove it"):
        load_folder(folder)


def test_missing_and_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match=r"it holds no picture, and no folder of a class: put .* such as .*/cat, or write"
    ):
        load_folder(tmp_path)
    (tmp_path / "a.heic").touch()
    with pytest.raises(
        ValueError, match=r"holds no picture \(1 with the ending .heic, which is not read: convert them"
    ):
        load_folder(tmp_path)


def test_a_folder_without_folders_says_how_many_pictures_it_has_and_names_its_table(tmp_path):
    make_folder(tmp_path, {"red": 3})
    with pytest.raises(
        ValueError, match=r"3 pictures lie in it, and no folder of a class: .* or write csv:FILE, a table"
    ):
        load_folder(tmp_path / "red")
    (tmp_path / "red/labels.csv").write_text("file,label\n0.png,\n,cat\n")
    with pytest.raises(ValueError, match=f"or csv:{tmp_path}/red/labels.csv if the labels are in that table"):
        load_folder(tmp_path / "red")
    with pytest.raises(ValueError, match=r"labels\.csv: no row has all of a file, a label and a split"):
        sources.open_source(Data(name=f"csv:{tmp_path}/red/labels.csv"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("{}/pics", "is a folder: write folder:{}/pics"),
        ("./pics", "is a folder: write folder:./pics"),
        ("~/pics", "is a folder: write folder:~/pics"),
        ("pics/red", "is a folder: write folder:pics/red"),
        ("pics.tsv", "is a file: write csv:pics.tsv if"),
        ("csv:pics", "is a folder: write folder:pics"),
        ("folder:pics.tsv", "is a file: write csv:pics.tsv if"),
        ("pics.zip", "is an archive: unpack it, then write folder:PATH"),
        ("folder:pics.zip", "is an archive: unpack it"),
        ("table.xlsx", "is no table in text: save it as CSV"),
        ("pics/red/0.png", "is one picture: write folder:PATH"),
        ("folder:piks", "there is no such file or folder; did you mean folder:pics?"),
        ("pisc/ret", "did you mean folder:pics/red?"),
        ("csv:pics.csv", "did you mean csv:pics.tsv?"),
        ("folder:", "has no path; write one, such as folder:pictures"),
        ("csv: ", "has no path; write one, such as csv:pictures/labels.csv"),
        ("Folder:pics", "write folder:pics"),
        ("folder=pics", "write folder:pics"),
        ("tsv:pics.tsv", "write csv:pics.tsv"),
        ("https://a.org/pics.zip", "is an address: download and unpack it yourself, then write folder:PATH"),
        ("cvs:pics.tsv", "it is a file: write csv:pics.tsv if it is a table"),
        ("", "is empty: write folder:PATH"),
        ("cifar-10", "no TFDS data set; the nearest are cifar10,"),
        ("Digitss", "no TFDS data set; the nearest are digits,"),
    ],
)
def test_a_name_that_is_none_says_what_to_write(tmp_path, monkeypatch, name, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    make_folder(tmp_path, {"pics/red": 1})
    for file in ("pics.tsv", "pics.zip", "table.xlsx"):
        (tmp_path / file).touch()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        # A name that looks like a path or an address is refused before anything is downloaded.
        sources.check_place(Data(name=name.format(tmp_path)))
        assert "TFDS" in told
        sources.open_source(Data(name=name.format(tmp_path)))
    assert told.format(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert name.format(tmp_path) in str(caught.value)


def test_a_workdir_among_the_pictures_is_refused(tmp_path):
    config = Data(name=f"folder:{tmp_path}")
    sources.check_place(config, tmp_path.parent / "run")
    for inside in (tmp_path, tmp_path / "runs" / "a"):
        with pytest.raises(ValueError, match=r"is inside of folder:.*: its figures would be read as pictures"):
            sources.check_place(config, inside)
    with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
        sources.check_place(Data(name=f"folder:{tmp_path / 'nowhere'}"))


def test_folder_default_size_is_a_photographs(tmp_path):
    dataset = load_folder(make_folder(tmp_path, {"red": 2, "blue": 2}), image_size=None)
    assert dataset.image_size == 224
    assert dataset.train.images.shape == (2, 224, 224, 3)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("red", "gren"), "'gren' is no class.*the nearest are green"),
        (("red", "red"), "twice"),
        (("red,green",), "given as --config.data.classes red green$"),
        (("green red",), "given as --config.data.classes green red$"),
        (("dark blue",), "the nearest are [a-z, ]*$"),
    ],
)
def test_wrong_classes_are_refused(tmp_path, classes, message):
    folder = make_folder(tmp_path, {f"{s}/{c}": 1 for s in ("train", "val") for c in COLORS})
    with pytest.raises(ValueError, match=message):
        load_folder(folder, classes=classes)


def test_digits_use_the_whole_range_of_pixels():
    dataset = datasets.load_dataset(Data(name="digits"), seed=0)
    assert dataset.class_names == tuple("0123456789")
    assert (dataset.image_size, len(dataset.train.ids) + len(dataset.validation.ids)) == (32, 1797)
    assert dataset.train.images.shape[1:] == (32, 32, 3)
    assert (dataset.train.images.min(), dataset.train.images.max()) == (0, 255)
    assert dataset.train.labels.dtype == np.int32
    # The first image of scikit-learn's set is a zero.
    split = dataset.train if "digits_00000" in dataset.train.ids else dataset.validation
    assert split.labels[split.ids.index("digits_00000")] == 0


def test_digits_split_is_always_the_same():
    ids = [datasets.load_dataset(Data(name="digits"), seed=seed, training=False).validation.ids for seed in (3, 4)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cats_train/red": 1, "cats_test/red": 1}, "cats_test, cats_train look like splits, not classes: rename them"),
        ({"pictures/red": 3}, "has the one class 'pictures'"),
    ],
)
def test_a_layout_that_hides_the_classes_is_refused(tmp_path, counts, message):
    with pytest.raises(ValueError, match=message):
        load_folder(make_folder(tmp_path, counts))


def test_valid_is_validation_and_a_test_folder_without_classes_is_not_read(tmp_path):
    folder = make_folder(tmp_path, {f"{s}/{c}": 2 for s in ("train", "valid") for c in ("red", "blue")})
    (folder / "test").mkdir()
    dataset = load_folder(folder)
    assert dataset.class_names == ("blue", "red")
    assert len(dataset.validation.ids) == 4 and dataset.validation.ids[0].startswith("valid/")


def test_train_alone_is_cut_like_a_folder_of_classes(tmp_path):
    dataset = load_folder(make_folder(tmp_path, {"train/red": 10, "train/blue": 10}))
    assert (len(dataset.train.ids), len(dataset.validation.ids)) == (18, 2)


def test_unprepared_set_gives_the_command_that_prepares_it(tmp_path):
    with pytest.raises(ValueError, match="'mnist' is not prepared") as caught:
        datasets.load_dataset(Data(name="mnist", dir=str(tmp_path)), seed=0)
    message = str(caught.value)
    assert "\n" not in message
    code = message.split('python -c "')[1].removesuffix('"')
    compile(code, "command", "exec")
    assert f"tfds.builder('mnist', data_dir='{tmp_path}').download_and_prepare(file_format='array_record')" in code


def test_unknown_name_gives_near_ones_in_one_line():
    with pytest.raises(ValueError, match="cifar10") as caught:
        datasets.load_dataset(Data(name="cifar11"), seed=0)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
