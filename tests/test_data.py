"""The images that `datasets.load_dataset` takes, and the splits that they are in."""

import io
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import COLORS, load_folder, make_folder, save
from PIL import Image

from tljax.config import Data
from tljax.data import datasets, decoding, sources
from tljax.data.image_source import ImageSource
from tljax.stages.lessons import find_other_pictures


def test_damaged_image_is_named(tmp_path):
    folder = make_folder(tmp_path, {"train/red": 2, "val/red": 1, "train/blue": 1, "val/blue": 1})
    (folder / "train/red/1.png").write_bytes((folder / "train/red/0.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"^train/red/1\.png is no readable image .* --config.data.broken=skip$"):
        load_folder(folder)


def test_zero_shot_reads_validation_alone(tmp_path):
    folder = make_folder(tmp_path, {"train/red": 1, "val/red": 1})
    (folder / "train/red/0.png").write_bytes(b"not read")
    dataset = load_folder(folder, training=False)
    assert dataset.train is None
    assert dataset.validation.ids == ("val/red/0.png",)


def test_classes_are_kept_and_renumbered_in_the_given_order(tmp_path):
    folder = make_folder(tmp_path, {f"{s}/{c}": 6 for s in ("train", "val") for c in COLORS})
    dataset = load_folder(folder, classes=("red", "blue"))
    assert dataset.class_names == ("red", "blue")
    for split in (dataset.train, dataset.validation):
        assert sorted(split.labels.tolist()) == [0] * 6 + [1] * 6
        assert [name.split("/")[1] for name in split.ids] == [dataset.class_names[i] for i in split.labels]


def test_class_without_an_image_is_refused(tmp_path):
    folder = make_folder(tmp_path, {"train/red": 20, "train/blue": 1, "test/red": 1, "test/blue": 1})
    rows = load_folder(folder, validation_split="test").train.labels.tolist()
    blue = rows.index(0)
    with pytest.raises(ValueError, match="no image of 'blue' in the rows of train for train"):
        load_folder(folder, classes=("red", "blue"), validation_split=f"train[{max(blue - 1, 0)}:{blue + 2}]")


def test_a_slice_of_train_leaves_training(tmp_path):
    folder = make_folder(tmp_path, {"train/red": 15, "train/blue": 15, "test/red": 2, "test/blue": 1})
    everything = load_folder(folder, holdout="test").train.ids
    dataset = load_folder(folder, validation_split="train[80%:]")
    assert dataset.validation.ids == everything[24:]
    assert dataset.train.ids == everything[:24]
    assert len(dataset.test.ids) == 3
    assert list(dataset.splits) == ["train", "validation", "test"]
    middle = load_folder(folder, validation_split="train[10%:20%]")
    assert middle.validation.ids == everything[3:6]
    assert middle.train.ids == everything[:3] + everything[6:]
    # Files are shuffled, so a slice of a folder holds more than the last class.
    assert set(dataset.validation.labels.tolist()) == {0, 1}


def test_with_a_slice_of_train_nothing_else_is_held_out_of_it(tmp_path):
    folder = make_folder(tmp_path, {"red": 20, "blue": 20})
    dataset = load_folder(folder, validation_split="train[:25%]")
    assert (dataset.train.count, dataset.validation.count, dataset.description["notes"]) == (30, 10, [])
    # A run of version 0.1.0 goes on as it began, with a tenth that is held out beside it.
    before = load_folder(folder, validation_split="train[:25%]", holdout="test")
    assert (before.train.count, before.validation.count) == (27, 9)
    # A slice of what is held out is one.
    assert load_folder(folder, validation_split="val[:50%]").validation.count == 2


def test_a_class_with_one_picture_is_a_warning(tmp_path):
    folder = make_folder(tmp_path, {"red": 5, "blue": 1})
    assert load_folder(folder).description["warnings"] == ["one picture of each of blue: none is left to validate on"]


def test_zero_shot_on_a_slice_of_train_needs_no_test_split():
    dataset = datasets.load_dataset(Data(name="digits", validation_split="train[90%:]"), seed=0, training=False)
    assert (dataset.train, dataset.test) == (None, None)
    assert len(dataset.validation.ids) == 162


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_split": "train"}, "leaves nothing to train on"),
        ({"validation_split": "tset"}, "validation_split='tset': no such split; the data has train, val$"),
        (
            {"validation_split": "train[90%:]", "test_split": "test"},
            "test_split='test': no such split; the data has train, val$",
        ),
        ({"validation_split": "train[90%:]", "test_split": "train"}, "must not be train"),
        ({"validation_split": "train[:99999]"}, "no slice of the 1618 images"),
        ({"validation_split": "train[1shard:]"}, "no slice of the 1618 images"),
        ({"validation_split": "train[:10]+val"}, "no slice of the 1618 images"),
        ({"validation_split": "train[20:10]"}, "no images"),
    ],
)
def test_wrong_splits_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load_dataset(Data(name="digits", **settings), seed=0)
    assert "\n" not in str(caught.value)


def test_train_is_needed_for_training_alone(tmp_path):
    folder = make_folder(tmp_path, {"val/red": 1, "test/red": 1})
    assert load_folder(folder, training=False).validation.ids == ("val/red/0.png",)
    with pytest.raises(ValueError, match=r"no split train.*the data has val, test"):
        load_folder(folder)


def test_max_images_is_a_seeded_sample_of_each_split():
    everything = datasets.load_dataset(Data(name="digits"), seed=0)
    few = datasets.load_dataset(Data(name="digits", max_images=50), seed=0)
    for split, whole in ((few.train, everything.train), (few.validation, everything.validation)):
        rows = [whole.ids.index(name) for name in split.ids]
        assert len(rows) == 50
        assert rows == sorted(set(rows))
        np.testing.assert_array_equal(split.images, whole.images[rows])
        np.testing.assert_array_equal(split.labels, whole.labels[rows])
    again = datasets.load_dataset(Data(name="digits", max_images=50), seed=0)
    assert again.train.ids == few.train.ids


def test_few_labels_are_a_seeded_draw_of_each_class_from_train_alone():
    data = {k: Data(name="digits", classes=("7", "3", "4"), labels_per_class=k) for k in (None, 5, 10, 1000)}
    drawn = {k: datasets.load_dataset(one, seed=0) for k, one in data.items()}
    for k in (5, 10):
        assert np.bincount(drawn[k].train.labels).tolist() == [k] * 3
        assert drawn[k].validation.ids == drawn[None].validation.ids
        assert list(drawn[k].train.ids) == [name for name in drawn[None].train.ids if name in drawn[k].train.ids]
        images = dict(zip(drawn[None].train.ids, drawn[None].train.images, strict=True))
        np.testing.assert_array_equal(drawn[k].train.images, [images[name] for name in drawn[k].train.ids])
    assert set(drawn[5].train.ids) < set(drawn[10].train.ids)
    assert not drawn[10].description["warnings"]
    # More than there are: all of them, and that is said.
    assert drawn[1000].train.ids == drawn[None].train.ids
    (warning,) = drawn[1000].description["warnings"]
    assert warning == "train has fewer images than config.data.labels_per_class=1000 of 7, 3, 4"
    other = datasets.load_dataset(data[5], seed=1)
    assert set(other.train.ids) != set(drawn[5].train.ids)
    # Without config.classes too, and after the sample of max_images.
    both = datasets.load_dataset(Data(name="digits", max_images=100, labels_per_class=3), seed=0)
    assert set(both.train.ids) <= set(datasets.load_dataset(Data(name="digits", max_images=100), seed=0).train.ids)
    assert np.bincount(both.train.labels).tolist() == [3] * 10 and both.validation.count == 100


def test_few_labels_are_not_found_in_the_cache_as_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path))
    counts = [
        datasets.load_dataset(Data(name="digits", labels_per_class=k), seed=0, disk_bytes=2**24).train.count
        for k in (2, 3, None, 2)
    ]
    assert counts == [20, 30, 1618, 20]


def test_few_labels_are_drawn_among_pictures_that_can_be_read(tmp_path):
    folder = make_folder(tmp_path, {"train/red": 12, "train/blue": 12, "val/red": 1, "val/blue": 1})
    for number in range(0, 12, 2):
        (folder / "train" / "red" / f"{number}.png").write_bytes(b"broken")
    dataset = load_folder(folder, labels_per_class=5, broken="skip")
    assert np.bincount(dataset.train.labels).tolist() == [5, 5] and len(dataset.train.skipped) == 6
    assert len(dataset.description["warnings"]) == 1


def test_a_class_of_which_nothing_was_drawn_is_said(tmp_path):
    folder = make_folder(tmp_path, {"train/red": 60, "train/blue": 1, "val/red": 1, "val/blue": 1})
    dataset = load_folder(folder, max_images=5, seed=1)
    assert dataset.train.labels.sum() in (0, 5)
    assert "train has no image of blue" in dataset.description["warnings"]


def test_without_validation_train_is_whole(tmp_path):
    assert sources.open_source(Data(name="digits", validation_split="none")).sizes == {"train": 1797}
    layouts = {
        "classes": ({"red": 9, "blue": 9}, 18, None),
        "test": ({f"{s}/{c}": 6 for s in ("train", "test") for c in COLORS}, 18, 18),
        # What the user has set aside stays there, and is said.
        "val": ({f"{s}/{c}": 6 for s in ("train", "val") for c in COLORS}, 18, None),
    }
    for name, (files, train, test) in layouts.items():
        dataset = load_folder(make_folder(tmp_path / name, files), validation_split="none")
        assert dataset.validation is None and dataset.train.count == train
        assert (dataset.test.count if dataset.test else None) == test
        assert dataset.description["notes"] == (["not used: val (18 images)"] if name == "val" else [])
        assert dataset.shown is dataset.train


def test_pictures_that_are_read_otherwise_than_before_are_counted(tmp_path):
    """Runs that began before are refused by that count, and lessons by what the summary says."""
    make_folder(tmp_path, {"train/red": 3, "train/blue": 3, "val/red": 1, "val/blue": 1})
    image = Image.new("RGB", (8, 8), "red")
    save(tmp_path / "train" / "red" / "turned.TIF", image, tiffinfo={0x0112: 6})
    save(tmp_path / "train" / "red" / "plain.tif", image)
    loaded = load_folder(tmp_path)
    assert loaded.train.read_anew == ("train/red/turned.TIF",)
    splits = loaded.description["splits"]
    assert {name: split["read_anew"] for name, split in splits.items()} == {"train": 1, "validation": 0}
    before = {name: {key: split[key] for key in ("images", "classes")} for name, split in splits.items()}
    assert find_other_pictures(before["validation"], splits["validation"]) == ""
    assert "1 of them are TIFFs that were turned twice" in find_other_pictures(before["train"], splits["train"])


def test_max_images_sample_follows_the_seed(tmp_path):
    folder = make_folder(tmp_path, {"train/red": 1, "val/red": 60})
    ids = [load_folder(folder, seed=seed, max_images=20, training=False).validation.ids for seed in (3, 3, 4)]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


def test_max_images_counts_after_the_classes():
    dataset = datasets.load_dataset(Data(name="digits", classes=("7", "3"), max_images=20), seed=0)
    assert len(dataset.train.ids) == 20
    assert set(dataset.train.labels.tolist()) == {0, 1}


def test_images_are_drawn_by_the_seed_of_the_data_where_it_has_one():
    def draw(of_run: int, **own) -> tuple[str, ...]:
        data = Data(name="digits", classes=("5", "6"), labels_per_class=9, max_images=40, **own)
        read = datasets.load_dataset(data, seed=of_run)
        assert datasets.size_up(data, of_run, counting=False).images == read.train.count
        return read.train.ids + read.validation.ids

    assert draw(3) == draw(8, seed=3) != draw(8)


def test_a_test_split_that_is_not_wanted_is_not_read():
    data = Data(name="digits", classes=("5", "6"), validation_split="train[90%:]", test_split="val", max_images=20)
    read, alone = (datasets.load_dataset(data, seed=0, only=only) for only in (None, "test"))
    assert list(alone.splits) == ["test"] and alone.test.ids == read.test.ids
    assert alone.description["splits"] == {"test": read.description["splits"]["test"]}
    none = datasets.load_dataset(replace(data, test_split="none"), seed=0)
    assert none.test is None and none.train.ids == read.train.ids
    assert any(note.startswith("not used: val") for note in none.description["notes"])


def test_a_slice_of_train_without_a_test_split_evaluates_none():
    dataset = datasets.load_dataset(Data(name="digits", validation_split="train[90%:]"), seed=0)
    assert dataset.test is None
    assert not set(dataset.train.ids) & set(dataset.validation.ids)


def test_decoded_images_are_found_again_until_a_file_changes(tmp_path, monkeypatch, capsys):
    make_folder(tmp_path / "pictures", {"red": 4, "green": 4})
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    read = lambda **more: datasets.load_dataset(  # noqa: E731
        Data(name=f"folder:{tmp_path / 'pictures'}", image_size=32, **more), seed=0, disk_bytes=2**20
    )
    first = read()
    calls: list[int] = []
    read_picture = decoding.read_picture
    monkeypatch.setattr(decoding, "read_picture", lambda *a: calls.append(1) or read_picture(*a))
    again = read()
    assert not calls
    for a, b in ((first.train, again.train), (first.validation, again.validation)):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert a.labels.dtype == b.labels.dtype == np.int32
        assert a.ids == b.ids
    # Other labels of the same pictures are read anew.
    np.testing.assert_array_equal(read(classes=("red", "green")).train.labels, 1 - first.train.labels)
    assert not calls
    picture = tmp_path / "pictures" / first.train.ids[0]
    changed = np.full((32, 32, 3), 77, np.uint8)
    save(picture, Image.fromarray(changed), quality=100)
    assert abs(int(read().train.images[0].mean()) - 77) < 3
    assert calls
    # By default `disk_bytes` is 0, so nothing is kept.
    for path in (tmp_path / "cache" / "arrays").iterdir():
        shutil.rmtree(path)
    datasets.load_dataset(Data(name=f"folder:{tmp_path / 'pictures'}"), seed=0)
    assert not list((tmp_path / "cache" / "arrays").iterdir())


def test_tensorflow_is_never_imported():
    code = """import sys
from tljax.config import Data
from tljax.data import datasets
datasets.load_dataset(Data(name="digits", validation_split="train[90%:]", test_split="val"), seed=0)
assert "tensorflow_datasets" in sys.modules and "tensorflow" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sources_are_told_apart_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path))
    gray = [10]

    def open_gray():
        def fetch(split, rows):
            picture = io.BytesIO()
            Image.fromarray(np.full((32, 32, 3), gray[0], np.uint8)).save(picture, "png")
            return [picture.getvalue()] * len(rows)

        describe = lambda split, rows: (rows % 2, [f"gray_{row}" for row in rows])  # noqa: E731
        return ImageSource(("a", "b"), 32, {"train": 8, "val": 4}, describe, fetch, lambda split: [Path(__file__)])

    def first_pixel(name):
        return int(datasets.load_dataset(Data(name=name), seed=0, disk_bytes=2**20).train.images[0, 0, 0, 0])

    monkeypatch.setitem(sources.SOURCES, "one", lambda whole: open_gray())
    monkeypatch.setitem(sources.SOURCES, "other", lambda whole: open_gray())
    assert first_pixel("one") == 10
    gray[0] = 20
    # Found again by its name and files; another source is not.
    assert (first_pixel("one"), first_pixel("other")) == (10, 20)


def test_broken_pictures_are_skipped_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    folder = make_folder(tmp_path / "pictures", {"red": 20, "blue": 20, "green": 3})
    config = Data(name=f"folder:{folder}", image_size=32, classes=("red", "blue"), broken="skip")
    whole = datasets.load_dataset(config, seed=0)
    (folder / whole.train.ids[3]).write_bytes(b"<html>")
    (folder / whole.validation.ids[0]).write_bytes(b"")
    (folder / "green" / "0.png").write_bytes(b"")
    for disk_bytes in (0, 2**20, 2**20):
        dataset = datasets.load_dataset(config, seed=0, disk_bytes=disk_bytes)
        assert dataset.train.ids == whole.train.ids[:3] + whole.train.ids[4:]
        assert dataset.validation.ids == whole.validation.ids[1:]
        assert (dataset.train.count, len(dataset.train.labels)) == (35, 35)
        first, second = dataset.description["warnings"]
        assert (
            whole.validation.ids[0] in first
            and f"1 images cannot be read and are skipped: {whole.train.ids[3]}" in second
        )
    config.broken = "refuse"
    with pytest.raises(ValueError, match="is no readable image"):
        datasets.load_dataset(config, seed=0)


def test_two_processes_skip_the_same_pictures(tmp_path):
    folder = make_folder(tmp_path, {"red": 20, "blue": 20})
    config = Data(name=f"folder:{folder}", image_size=32, broken="skip")
    whole = datasets.load_dataset(config, seed=0).train
    (folder / whole.ids[3]).write_bytes(b"")
    one = datasets.load_dataset(config, seed=0).train
    parts = [
        datasets.load_dataset(config, seed=0, own=lambda n, start=start: np.arange(start, n, 2)).train
        for start in (0, 1)
    ]
    assert sorted(np.concatenate([part.rows for part in parts])) == list(range(35))
    for part in parts:
        assert part.ids == tuple(one.ids[row] for row in part.rows) and part.count == 35
