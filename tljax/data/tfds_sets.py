"""Reads TensorFlow Datasets (TFDS) that are prepared as array_record, without TensorFlow."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tljax.data import cifar10
from tljax.data.image_source import CHUNK, PHOTOGRAPH_SIZE, SMALLEST_SIZE, ImageSource, Rows
from tljax.data.names import explain_name, find_near_path, write_place

# Square images whose side (pixels) is fixed and at most this keep it, but not below `SMALLEST_SIZE`.
LARGEST_NATIVE_SIZE = 64


def open_tfds(name: str, directory: str | None, others: Sequence[str] = ()) -> ImageSource:
    """The TFDS data set `name`, prepared below `directory` (None: TFDS's default), as an image source.

    Raises:
      ValueError: if there is no such data set, if it is not prepared as array_record, or if its examples are not one
        image with one class label.
      FileNotFoundError: if CIFAR-10 cannot be downloaded.
    """
    import tensorflow_datasets as tfds

    builder = _find_builder(name, directory, others)
    features: dict[str, Any] = dict(builder.info.features.items())
    image_key, label_key = (builder.info.supervised_keys or ("image", "label"))[:2]
    image: Any = features.get(image_key)
    label: Any = features.get(label_key)
    has_both = isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
    # TFDS stores a float32 pixel as the four bytes of a pixel in a four-channel picture.
    if not has_both or image.np_dtype == np.float32:
        raise ValueError(f"config.data.name={name!r}: no image with one class label; it has {', '.join(features)}")

    # TFDS decodes nothing: tljax decodes the image itself, and no other picture of an example (a mask, say) is needed.
    skip = {key: tfds.decode.SkipDecoding() for key, f in features.items() if isinstance(f, tfds.features.Image)}
    splits = {split: builder.as_data_source(split, decoders=skip) for split in builder.info.splits}

    def read(split: str, rows: Rows) -> list[dict[str, Any]]:
        return splits[split].__getitems__(rows.tolist())

    def describe(split: str, rows: Rows) -> tuple[np.ndarray, list[str]]:
        labels, ids = np.empty(len(rows), int), []
        for start in range(0, len(rows), CHUNK):
            chosen = rows[start : start + CHUNK]
            records = read(split, chosen)
            labels[start : start + CHUNK] = [record[label_key] for record in records]
            ids += [record.get("id", f"{split}_{i:05d}") for record, i in zip(records, chosen, strict=True)]
        return labels, [i.decode() if isinstance(i, bytes) else str(i) for i in ids]

    def fetch(split: str, rows: Rows) -> list[bytes]:
        return [record[image_key] for record in read(split, rows)]

    height, width = image.shape[:2]
    native = height == width and height is not None and height <= LARGEST_NATIVE_SIZE
    size = max(height, SMALLEST_SIZE) if native else PHOTOGRAPH_SIZE
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    files = {split: [Path(path) for path in info.filepaths] for split, info in builder.info.splits.items()}
    return ImageSource(tuple(label.names), size, sizes, describe, fetch, files.__getitem__)


def find_set(name: str, directory: str | None, others: Sequence[str]) -> Any:
    """The TFDS builder of a data set, which may not be prepared. `others` are names of what is not in TFDS.

    Raises:
      ValueError: if there is no such data set; the message says what to write.
    """
    import tensorflow_datasets as tfds

    try:
        # TFDS has another exception for what cannot be a name.
        if not re.match(r"\w+([/:]|$)", name):
            raise tfds.core.DatasetNotFoundError
        return tfds.builder(name, data_dir=directory)
    except tfds.core.DatasetNotFoundError as error:
        known = [*others, *tfds.list_builders(with_community_datasets=False)]
        near = ", ".join(difflib.get_close_matches(name.lower(), known, cutoff=0.0))
        unknown = f"no TFDS data set; the nearest are {near}; others are {', '.join(others)}"
        raise ValueError(f"config.data.name={name!r}: {explain_name(name) or unknown}") from error
    # Builders raise different exceptions for a version or a config that they do not have.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"config.data.name={name!r}: {explain_name(name) or reason}") from error


def _find_builder(name: str, directory: str | None, others: Sequence[str]) -> Any:
    """The TFDS builder of a data set that is prepared as array_record. Prepares CIFAR-10 if nobody has."""
    import tensorflow_datasets as tfds

    builder = find_set(name, directory, others)
    if builder.name == "cifar10" and not builder.is_prepared():
        cifar10.prepare(directory)
        builder = tfds.builder(name, data_dir=directory)
    prepared = builder.is_prepared()
    if prepared and "array_record" in {file_format.value for file_format in builder.info.available_file_formats()}:
        return builder
    # TFDS does not write a second format next to the first.
    target = f"{directory or '~/tensorflow_datasets'}_array_record" if prepared else directory
    argument = "" if target is None else f", data_dir={target!r}"
    near = find_near_path(Path(name))
    path = f"no path here; did you mean {write_place(near)}? As a TFDS data set it is " if near else ""
    raise ValueError(
        f"config.data.name={name!r} is {path}"
        "not prepared as array_record, which takes TensorFlow once"
        f"{f'; set config.data.dir={target} after' if prepared else ''}: pip install tensorflow && python -c "
        f'"import tensorflow_datasets as tfds; tfds.builder({name!r}{argument})'
        ".download_and_prepare(file_format='array_record')\""
    )
