"""Folders of pictures: a subfolder per class, or a subfolder per split with a subfolder per class in each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tljax.data.image_source import PHOTOGRAPH_SIZE, VALIDATION_NAMES, ImageSource, Rows, stratify

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SPLIT_FOLDERS = ("train", *VALIDATION_NAMES, "test")


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_images(folder: Path, class_names: Sequence[str]) -> tuple[list[Path], np.ndarray]:
    """Files and labels of the classes below `folder`, shuffled with a fixed seed, so that a slice holds all classes."""
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


def open_folder(folder: Path) -> ImageSource:
    """`folder` as an image source, with the splits of its subfolders or, if they are classes, those of `stratify`.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it has no classes, if a class has no image or is missing in a split, or if the subfolders look like
        splits but cannot be used as such.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"config.data.name='folder:{folder}': there is no such folder")
    found = _subfolders(folder)
    # A folder test/ without class subfolders has no labels, so it is not read.
    named = [name for name in SPLIT_FOLDERS if name in found and (name != "test" or _subfolders(folder / name))]
    if len(found) > 1 and not named and {name.lower() for name in found} <= {*SPLIT_FOLDERS, "dev", "testing"}:
        raise ValueError(f"{folder}: the subfolders {', '.join(found)} look like splits; name them train and val")
    if found == ["train"]:
        return open_folder(folder / "train")
    # Among other folders, `train` alone may be a class, and so may other splits without `train`.
    if named and (set(found) <= set(SPLIT_FOLDERS) or ("train" in named and len(named) > 1)):
        names = sorted({name for split in named for name in _subfolders(folder / split)})
        splits = {split: _list_images(folder / split, names) for split in named}
    else:
        names = found
        files, labels = _list_images(folder, names) if names else ([], np.empty(0, int))
        splits = {s: ([files[i] for i in rows], labels[rows]) for s, rows in stratify(labels).items()}
    if not names:
        raise ValueError(f"config.data.name='folder:{folder}': no subfolders; put the images of each class into one")

    def fetch(split: str, rows: Rows) -> list[Path]:
        return [splits[split][0][i] for i in rows]

    def describe(split: str, rows: Rows) -> tuple[np.ndarray, list[str]]:
        return splits[split][1][rows], [path.relative_to(folder).as_posix() for path in fetch(split, rows)]

    sizes = {split: len(files) for split, (files, _) in splits.items()}
    return ImageSource(
        class_names=tuple(names),
        image_size=PHOTOGRAPH_SIZE,
        sizes=sizes,
        describe=describe,
        fetch=fetch,
        files=lambda split: splits[split][0],
    )
