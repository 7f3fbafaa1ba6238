"""Prepares CIFAR-10 as the TFDS data set `cifar10`, without TensorFlow, which TFDS's own builder needs."""

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from tljax.storage.downloads import download

# Address, format and checksum are from https://www.cs.toronto.edu/~kriz/cifar.html.
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
ARCHIVE_FOLDER = "cifar-10-batches-bin"
BATCH_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
# The lines of batches.meta.txt in the archive.
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# TFDS's version number of this data set; `tfds.builder("cifar10")` looks for no other.
TFDS_VERSION = "3.0.2"
SIZE = 32
RECORD_BYTES = 1 + 3 * SIZE * SIZE


def read_records(binary: bytes) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, " n"]]:
    """Images and labels (int32) of one binary file. A record is a label byte, then the red, green and blue planes.

    Raises:
      ValueError: if `binary` is not a whole number of records.
    """
    if len(binary) % RECORD_BYTES:
        raise ValueError(f"a CIFAR-10 file of {len(binary)} bytes is no multiple of {RECORD_BYTES}; download it again")
    records = np.frombuffer(binary, np.uint8).reshape(-1, RECORD_BYTES)
    images = records[:, 1:].reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
    return images, records[:, 0].astype(np.int32)


def _examples(archive: Path, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    from PIL import Image

    row = 0
    with tarfile.open(archive) as tar:
        for file_name in BATCH_FILES[split]:
            member = tar.extractfile(f"{ARCHIVE_FOLDER}/{file_name}")
            assert member is not None, "these members are files"
            for image, label in zip(*read_records(member.read()), strict=True):
                # TFDS stores a file object unchanged; it would encode an array with TensorFlow.
                png = io.BytesIO()
                Image.fromarray(image).save(png, "png")
                png.seek(0)
                # TFDS orders the images by a hash of this key. Its own builder uses the row too: the order is the same.
                yield row, {"id": f"{split}_{row:05d}", "image": png, "label": int(label)}
                row += 1


def prepare(data_dir: str | None) -> None:
    """Downloads CIFAR-10 and writes it below `data_dir` (None: TFDS's default) as array_record, images as PNG.

    Raises:
      FileNotFoundError: if the archive was not downloaded before and cannot be now.
    """
    import tensorflow_datasets as tfds

    archive = download(URL, MD5)

    # Not registered: the name belongs to TFDS's own builder, which later finds the files that this one writes.
    class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc,call-arg]
        name = "cifar10"
        VERSION = tfds.core.Version(TFDS_VERSION)

        def _info(self) -> Any:
            features = tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3)),
                    "label": tfds.features.ClassLabel(names=list(CLASS_NAMES)),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
            return {split: _examples(archive, split) for split in BATCH_FILES}

        def _generate_examples(self) -> None:
            raise NotImplementedError("_split_generators gives the examples")

    tfds.display_progress_bar(sys.stderr.isatty())
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    Cifar10(data_dir=data_dir).download_and_prepare(download_config=settings, file_format="array_record")
