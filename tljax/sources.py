"""Where images come from: a TFDS data set, a folder of photographs, scikit-learn's digits.

Each says what it has and fetches encoded images; choosing rows and decoding are the same for all (`data.py`).
"""

import difflib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from tljax.config import Data

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# What the split to evaluate on is called, by TFDS and in folders.
VALIDATION_NAMES = ("validation", "val", "valid")
SPLIT_FOLDERS = ("train", *VALIDATION_NAMES, "test")
PHOTOGRAPH_SIZE = 224
# The smallest input that Keras's ResNet50 takes.
SMALLEST_SIZE = 32
# Pictures of a fixed side up to this are taken as they are.
LARGEST_NATIVE_SIZE = 64
# Records that are in memory at a time.
CHUNK = 512

Rows = Int[np.ndarray, " n"]


class Source(NamedTuple):
    """A place of images: classes, the side it suggests, rows of each split, and how to get at the rows.

    `describe(split, rows)` is labels (int) and ids; `fetch(split, rows)` is encoded images (bytes or files);
    `files(split)` is all that they are read from.
    """

    class_names: tuple[str, ...]
    image_size: int
    sizes: dict[str, int]
    describe: Callable[[str, Rows], tuple[np.ndarray, Sequence[str]]]
    fetch: Callable[[str, Rows], Sequence[bytes | Path]]
    files: Callable[[str], Sequence[Path]]


def open_source(config: Data) -> Source:
    """The place of images that `config.name` means, its classes checked against `config.classes`.

    Raises:
      ValueError: naming the class, folder or data set that is wrong.
      FileNotFoundError: if the folder is not there, or CIFAR-10 cannot be downloaded.
    """
    if config.name == "digits":
        source = _open_digits()
    elif config.name.startswith("folder:"):
        source = _open_folder(Path(config.name.removeprefix("folder:")).expanduser())
    else:
        source = _open_tfds(config.name, config.dir)
    for i, name in enumerate(config.classes):
        if name not in source.class_names:
            near = ", ".join(difflib.get_close_matches(name, source.class_names, cutoff=0.0))
            raise ValueError(f"config.data.classes: {name!r} is no class of {config.name}; the nearest are {near}")
        if name in config.classes[:i]:
            raise ValueError(f"config.data.classes: {name!r} stands there twice; name each class once")
    return source


def _stratify(labels: np.ndarray) -> dict[str, Rows]:
    """Rows of train and val, 90% and 10% of each class, at least one of val where a class has two.

    The seed is always the same: a later run with another one must not validate on what its source was trained on.
    """
    rng = np.random.default_rng(0)
    held_out: list[int] = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held_out.extend(rows[: max(1, round(len(rows) / 10)) if len(rows) > 1 else 0])
    return {"train": np.setdiff1d(np.arange(len(labels)), held_out), "val": np.sort(np.array(held_out, int))}


def _open_digits() -> Source:
    import sklearn.datasets
    from PIL import Image

    digits = sklearn.datasets.load_digits()
    # The pixels are counts from 0 to 16.
    images = (digits.images * (255 / 16)).round().astype(np.uint8)
    splits = _stratify(digits.target)

    def encode(image: np.ndarray) -> bytes:
        png = io.BytesIO()
        Image.fromarray(image).save(png, "png")
        return png.getvalue()

    def describe(split: str, rows: Rows) -> tuple[np.ndarray, list[str]]:
        chosen = splits[split][rows]
        return digits.target[chosen], [f"digits_{i:05d}" for i in chosen]

    def fetch(split: str, rows: Rows) -> list[bytes]:
        return [encode(images[i]) for i in splits[split][rows]]

    names = tuple(str(name) for name in digits.target_names)
    sizes = {split: len(rows) for split, rows in splits.items()}
    file = Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"
    return Source(names, 32, sizes, describe, fetch, lambda _: [file])


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_images(folder: Path, class_names: Sequence[str]) -> tuple[list[Path], np.ndarray]:
    """Files and labels of the classes below `folder`, shuffled, so that a slice holds all classes; always the same."""
    pairs: list[tuple[Path, int]] = []
    for label, name in enumerate(class_names):
        if not (folder / name).is_dir():
            raise ValueError(f"{folder} has no subfolder for the class {name!r}, which another split has: add it")
        files = [path for path in sorted((folder / name).rglob("*")) if path.suffix.lower() in EXTENSIONS]
        files = [path for path in files if "/." not in path.relative_to(folder).as_posix()]
        if not files:
            raise ValueError(f"{folder / name} has no image ({' '.join(EXTENSIONS)}): add some or remove the class")
        pairs.extend((path, label) for path in files)
    shuffled = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]
    return [path for path, _ in shuffled], np.array([label for _, label in shuffled])


def _open_folder(folder: Path) -> Source:
    if not folder.is_dir():
        raise FileNotFoundError(f"config.data.name='folder:{folder}': there is no such folder")
    found = _subfolders(folder)
    # A test/ without classes has no labels: it is not read.
    named = [name for name in SPLIT_FOLDERS if name in found and (name != "test" or _subfolders(folder / name))]
    if len(found) > 1 and not named and {name.lower() for name in found} <= {*SPLIT_FOLDERS, "dev", "testing"}:
        raise ValueError(f"{folder}: the subfolders {', '.join(found)} look like splits; name them train and val")
    if found == ["train"]:
        return _open_folder(folder / "train")
    # Among other folders, one named train may be a class.
    if named and (set(found) <= set(SPLIT_FOLDERS) or ("train" in named and len(named) > 1)):
        names = sorted({name for split in named for name in _subfolders(folder / split)})
        splits = {split: _list_images(folder / split, names) for split in named}
    else:
        names = found
        files, labels = _list_images(folder, names) if names else ([], np.empty(0, int))
        splits = {s: ([files[i] for i in rows], labels[rows]) for s, rows in _stratify(labels).items()}
    if not names:
        raise ValueError(f"config.data.name='folder:{folder}': no subfolders; put the images of each class into one")

    def fetch(split: str, rows: Rows) -> list[Path]:
        return [splits[split][0][i] for i in rows]

    def describe(split: str, rows: Rows) -> tuple[np.ndarray, list[str]]:
        return splits[split][1][rows], [path.relative_to(folder).as_posix() for path in fetch(split, rows)]

    sizes = {split: len(files) for split, (files, _) in splits.items()}
    return Source(
        class_names=tuple(names),
        image_size=PHOTOGRAPH_SIZE,
        sizes=sizes,
        describe=describe,
        fetch=fetch,
        files=lambda split: splits[split][0],
    )


def _open_tfds(name: str, directory: str | None) -> Source:
    import tensorflow_datasets as tfds

    builder = _find_builder(name, directory)
    features: dict[str, Any] = dict(builder.info.features.items())
    image_key, label_key = (builder.info.supervised_keys or ("image", "label"))[:2]
    image: Any = features.get(image_key)
    label: Any = features.get(label_key)
    has_both = isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
    # TFDS stores floating point pixels as the bytes of a picture in four colors.
    if not has_both or image.np_dtype == np.float32:
        raise ValueError(f"config.data.name={name!r}: no image with one class label; it has {', '.join(features)}")

    # Pictures are decoded here, all others (a mask, say) not at all.
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
    return Source(tuple(label.names), size, sizes, describe, fetch, files.__getitem__)


def _find_builder(name: str, directory: str | None) -> Any:
    """The TFDS builder of a set that is prepared as array_record; CIFAR-10 is prepared where it is not yet."""
    import tensorflow_datasets as tfds

    from tljax import cifar10

    try:
        builder = tfds.builder(name, data_dir=directory)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        near = ", ".join(difflib.get_close_matches(name, known, cutoff=0.0))
        if Path(name).is_dir():
            raise ValueError(f"config.data.name={name!r} is a folder: write folder:{name}") from error
        raise ValueError(
            f"config.data.name={name!r}: no TFDS data set; the nearest are {near}; others are folder:PATH and digits"
        ) from error
    # Each builder has its own ways to refuse a version or a config.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"config.data.name={name!r}: {reason}") from error
    if builder.name == "cifar10" and not builder.is_prepared():
        cifar10.prepare(directory)
        builder = tfds.builder(name, data_dir=directory)
    prepared = builder.is_prepared()
    if prepared and "array_record" in {file_format.value for file_format in builder.info.available_file_formats()}:
        return builder
    # TFDS does not write a second format next to the first.
    target = f"{directory or '~/tensorflow_datasets'}_array_record" if prepared else directory
    argument = "" if target is None else f", data_dir={target!r}"
    raise ValueError(
        f"config.data.name={name!r} is not prepared as array_record, which takes TensorFlow once"
        f"{f'; set config.data.dir={target} after' if prepared else ''}: pip install tensorflow && python -c "
        f'"import tensorflow_datasets as tfds; tfds.builder({name!r}{argument})'
        ".download_and_prepare(file_format='array_record')\""
    )
