"""The image sources: a folder of pictures, a table with labels, a TFDS data set, scikit-learn's digits.

A source lists its splits and fetches encoded images. `splits.py` chooses rows and `datasets.py` reads them, in the same
way for all.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tljax.config import NOT_READ, Data
from tljax.data.corrections import correct, read_decisions
from tljax.data.digits import open_digits
from tljax.data.folders import Holdout, open_folder, open_table
from tljax.data.image_source import VALIDATION_NAMES, ImageSource
from tljax.data.names import explain_name, explain_place
from tljax.data.tfds_sets import find_set, open_tfds

# The sources that need nothing but a name, and whether no validation is held out of train. Every other name is a
# folder's, a table's or a TFDS data set's.
SOURCES: dict[str, Callable[[bool], ImageSource]] = {"digits": open_digits}
# How names are written that are not TFDS's.
OTHER_NAMES = (*SOURCES, "folder:PATH", "csv:FILE")
EXAMPLES = {"folder": "folder:pictures", "csv": "csv:pictures/labels.csv"}


def check_place(config: Data, workdir: Path | None = None) -> None:
    """Checks that a folder of pictures, a table and corrections are there, before anything is downloaded, that
    `workdir` is not in that folder, and that other names are no paths.

    Raises:
      FileNotFoundError: if there is no such folder or file.
      ValueError: if the name means nothing, corrections contradict each other, or the run would write its pictures
        among them.
    """
    if config.corrections is not None:
        read_decisions(config.corrections_file)
    if not config.kind:
        if config.name not in SOURCES and explain_name(config.name):
            # A data set comes before what has the same name here.
            find_set(config.name, config.dir, OTHER_NAMES)
        return
    place = config.name.partition(":")[2]
    if not place.strip():
        raise ValueError(f"config.data.name={config.name!r} has no path; write one, such as {EXAMPLES[config.kind]}")
    folder = config.path
    if not (folder.is_file() if config.kind == "csv" else folder.is_dir()):
        raise FileNotFoundError(f"config.data.name={config.name!r}: {explain_place(place)}")
    if config.kind == "csv":
        return
    if workdir is not None and workdir.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"--workdir {workdir} is inside of folder:{folder}: its figures would be read as pictures; give a folder "
            "outside"
        )


def open_source(config: Data) -> ImageSource:
    """Opens the image source that `config.name` names, with the labels of `config.corrections`, and checks that it has
    all of `config.classes`, each named once.

    Raises:
      ValueError: if a class, the folder, the data set or a correction is wrong; the message names it.
      FileNotFoundError: if the folder, table or corrections do not exist, or CIFAR-10 cannot be downloaded.
      PermissionError: if a folder cannot be read.
    """
    whole = config.validation_split == NOT_READ
    if config.name in SOURCES:
        source = SOURCES[config.name](whole)
    elif config.kind:
        check_place(config)
        open_pictures = open_folder if config.kind == "folder" else open_table
        # Where the user has said what is validated on, train stays whole, but for runs of version 0.1.0 (`holdout`).
        chosen = (config.validation_split or "val").partition("[")[0] not in VALIDATION_NAMES
        holdout: Holdout = "none" if whole or (chosen and config.holdout == "train") else config.holdout
        source = open_pictures(config.path, config.classes, holdout, config.group)
    else:
        source = open_tfds(config.name, config.dir, OTHER_NAMES)
    for i, name in enumerate(config.classes):
        if name not in source.class_names:
            near = ", ".join(difflib.get_close_matches(name, source.class_names, cutoff=0.0))
            raise ValueError(
                f"config.data.classes: {name!r} is no class of {config.name}; the nearest are {near}"
                f"{_explain_several(name, source.class_names)}"
            )
        if name in config.classes[:i]:
            raise ValueError(f"config.data.classes: {name!r} stands there twice; name each class once")
    return source if config.corrections is None else correct(source, config.corrections_file)


def _explain_several(typed: str, class_names: Sequence[str]) -> str:
    """How to type several classes, where commas or quotation marks have made one name of them."""
    names = re.split(r"[\s,]+", typed)
    if len(set(names).intersection(class_names)) < 2:
        return ""
    return f"; several are given as --config.data.classes {' '.join(names)}"
