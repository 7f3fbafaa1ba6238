"""CIFAR-10: a small archive with the real layout is prepared by TFDS and comes back unchanged."""

import io
import json
import sys
import tarfile
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest

from tljax.config import Data
from tljax.data import cifar10, datasets
from tljax.data.image_source import ImageSource

RECORDS_PER_FILE = 8


def make_records(seed: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (RECORDS_PER_FILE, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, RECORDS_PER_FILE).astype(np.uint8)
    records = [bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in zip(images, labels, strict=True)]
    return b"".join(records), images, labels


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "cifar-10-binary.tar.gz"
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    members = {name: make_records(seed)[0] for seed, name in enumerate(names)}
    members["batches.meta.txt"] = ("\n".join(cifar10.CLASS_NAMES) + "\n").encode()
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def directory(archive, tmp_path_factory) -> str:
    """A TFDS data_dir in which loading has prepared CIFAR-10."""
    path = str(tmp_path_factory.mktemp("tfds"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar10, "download", lambda url, md5: archive)
        with redirect_stderr(io.StringIO()) as said:
            datasets.load_dataset(Data(name="cifar10", dir=path), seed=0)
    assert not said.getvalue(), "TFDS draws its bars on terminals alone"
    return path


@pytest.fixture
def offline(monkeypatch, tmp_path):
    import pooch
    import requests

    def refuse(*args, **settings):
        assert settings["progressbar"] == sys.stderr.isatty()
        raise requests.exceptions.ConnectionError("Max retries\nexceeded")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "tljax"))


def test_read_records():
    binary, images, labels = make_records(0)
    read_images, read_labels = cifar10.read_records(binary)
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, labels)
    assert read_labels.dtype == np.int32


def test_half_a_record_is_refused():
    with pytest.raises(ValueError, match="of 3074 bytes"):
        cifar10.read_records(bytes(3074))


def test_every_image_comes_back_unchanged(directory, offline):
    dataset = datasets.load_dataset(Data(name="cifar10", dir=directory), seed=0)
    assert dataset.class_names == cifar10.CLASS_NAMES
    assert dataset.image_size == 32
    for split, prefix, seeds in ((dataset.train, "train", range(5)), (dataset.validation, "test", [5])):
        files = [make_records(seed) for seed in seeds]
        images = np.concatenate([file[1] for file in files])
        labels = np.concatenate([file[2] for file in files])
        assert sorted(split.ids) == [f"{prefix}_{row:05d}" for row in range(len(images))]
        rows = [int(name.split("_")[1]) for name in split.ids]
        np.testing.assert_array_equal(split.images, images[rows])
        np.testing.assert_array_equal(split.labels, labels[rows])


def test_classes_and_slices_of_a_tfds_set(directory):
    everything = datasets.load_dataset(Data(name="cifar10", dir=directory), seed=0).train
    dataset = datasets.load_dataset(Data(name="cifar10", dir=directory, validation_split="train[75%:]"), seed=0)
    assert dataset.train.ids == everything.ids[:30]
    assert dataset.validation.ids == everything.ids[30:]
    assert len(dataset.test.ids) == RECORDS_PER_FILE
    label = int(everything.labels[0])
    held_out = datasets.load_dataset(
        Data(name="cifar10", dir=directory, classes=(cifar10.CLASS_NAMES[label],), validation_split="train"),
        seed=0,
        training=False,
    ).validation
    assert held_out.ids == tuple(np.array(everything.ids)[everything.labels == label])
    assert not held_out.labels.any()


def test_offline_says_what_to_put_where(offline, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot download.*cifar-10-binary.tar.gz") as caught:
        datasets.load_dataset(Data(name="cifar10", dir=str(tmp_path / "tfds")), seed=0)
    message = str(caught.value)
    assert "\n" not in message
    assert cifar10.MD5 in message
    assert str(tmp_path / "tljax") in message


def test_another_format_gives_a_command_for_another_folder(directory, tmp_path):
    # By default, TFDS prepares a data set in the format tfrecord.
    prepared, copy = Path(directory) / "cifar10" / cifar10.TFDS_VERSION, tmp_path / "cifar10" / cifar10.TFDS_VERSION
    copy.mkdir(parents=True)
    for path in prepared.iterdir():
        content = path.read_bytes().replace(b'"array_record"', b'"tfrecord"')
        (copy / path.name.replace("array_record", "tfrecord")).write_bytes(content)
    with pytest.raises(ValueError, match="not prepared as array_record") as caught:
        datasets.load_dataset(Data(name="cifar10", dir=str(tmp_path)), seed=0)
    assert f"config.data.dir={tmp_path}_array_record" in str(caught.value)
    assert f"data_dir='{tmp_path}_array_record'" in str(caught.value)


def test_a_set_of_ones_own_without_supervised_keys_and_ids(directory, tmp_path):
    prepared, copy = Path(directory) / "cifar10" / cifar10.TFDS_VERSION, tmp_path / "own_set" / "1.0.0"
    copy.mkdir(parents=True)
    for path in prepared.iterdir():
        content = path.read_bytes()
        if path.suffix == ".json":
            values = json.loads(content)
            values.pop("supervisedKeys", None)
            values.update({"name": "own_set", "version": "1.0.0"} if path.stem == "dataset_info" else {})
            values.get("featuresDict", {}).get("features", {}).pop("id", None)
            content = json.dumps(values).encode()
        (copy / path.name.replace("cifar10", "own_set")).write_bytes(content)
    own = datasets.load_dataset(Data(name="own_set", dir=str(tmp_path)), seed=0).train
    original = datasets.load_dataset(Data(name="cifar10", dir=directory), seed=0).train
    assert own.ids == tuple(f"train_{row:05d}" for row in range(5 * RECORDS_PER_FILE))
    np.testing.assert_array_equal(own.images, original.images)
    np.testing.assert_array_equal(own.labels, original.labels)


def test_unlabelled_rows_are_refused(directory, monkeypatch):
    monkeypatch.setattr(datasets, "open_source", lambda config: unlabelled)
    unlabelled = ImageSource(
        ("a",),
        32,
        {"test": 3},
        lambda split, rows: (np.full(3, -1), ["a"] * 3),
        lambda split, rows: [],
        lambda split: (),
    )
    with pytest.raises(ValueError, match="split test has images without a label"):
        datasets.load_dataset(Data(name="some_set"), seed=0, training=False)
