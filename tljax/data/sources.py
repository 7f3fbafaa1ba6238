"""Where images come from: a TFDS data set, a folder of photographs, scikit-learn's digits.

Each says what it has and fetches encoded images; choosing rows and decoding are the same for all (`splits.py`).
"""

import difflib
from pathlib import Path

from tljax.config import Data
from tljax.data.digits import open_digits
from tljax.data.folders import open_folder
from tljax.data.image_source import ImageSource
from tljax.data.tfds_sets import open_tfds


def open_source(config: Data) -> ImageSource:
    """The place of images that `config.name` means, its classes checked against `config.classes`.

    Raises:
      ValueError: naming the class, folder or data set that is wrong.
      FileNotFoundError: if the folder is not there, or CIFAR-10 cannot be downloaded.
    """
    if config.name == "digits":
        source = open_digits()
    elif config.name.startswith("folder:"):
        source = open_folder(Path(config.name.removeprefix("folder:")).expanduser())
    else:
        source = open_tfds(config.name, config.dir)
    for i, name in enumerate(config.classes):
        if name not in source.class_names:
            near = ", ".join(difflib.get_close_matches(name, source.class_names, cutoff=0.0))
            raise ValueError(f"config.data.classes: {name!r} is no class of {config.name}; the nearest are {near}")
        if name in config.classes[:i]:
            raise ValueError(f"config.data.classes: {name!r} stands there twice; name each class once")
    return source
