"""The arguments of each command. They are apart from the commands, so that help and mistakes in them need no JAX."""

import argparse
from pathlib import Path

from tljax.export.endings import EXPORT_ENDINGS


def add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="the workdir of a run, or of a lesson")


def add_export(parser: argparse.ArgumentParser) -> None:
    endings = ", ".join(EXPORT_ENDINGS.values())
    parser.add_argument("run", metavar="RUN", help="a run that trained, a stage of a lesson, or a weight file")
    parser.add_argument("out", metavar="OUT", help=f"the file to write; its ending says the format: {endings}")
    names = list(EXPORT_ENDINGS)
    parser.add_argument("--format", choices=names, help="the format, where OUT has none of these endings")
    parser.add_argument("--batch-size", type=int, metavar="N", help="stablehlo: pictures at a time (default 1)")


def add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="a run that trained, a stage of a lesson, a weight file, or imagenet"
    )
    parser.add_argument(
        "pictures",
        metavar="PICTURE",
        nargs="+",
        help="pictures and folders of any depth; - reads their paths, a line each",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="a file ending in .csv or .jsonl; - writes JSON Lines to standard output"
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="how many labels a row has (default 5)")
    parser.add_argument(
        "--coverage",
        type=float,
        metavar="C",
        help="add the set of labels that has the right one so often, such as 0.95",
    )
    parser.add_argument("--tta", action="store_true", help="average over each picture and its mirror image")
    parser.add_argument(
        "--explain", type=Path, metavar="DIR", help="draw into this folder where in each picture its label comes from"
    )


def add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="workdirs of runs and lessons, side by side")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="the page to write; without it report.html in the folder of the run"
    )
    parser.add_argument(
        "--check",
        metavar="FILE",
        type=Path,
        help="the check.csv of the data: accuracies are also given without the pictures that have a twin in train",
    )


# The settings of the data that a check takes, as a run does.
CHECK_SETTINGS = {
    "dir": "TFDS's data_dir",
    "classes": "names of the classes to look at",
    "image_size": "side of the square images in pixels",
    "fit": "how a picture becomes square: crop, pad or stretch",
    "validation_split": "the split that a run would validate on",
    "test_split": "the split that a run would evaluate at the end",
    "holdout": "train or test",
    "group": "REGEX in the paths, or column:NAME: pictures that belong together",
    "corrections": "decisions that are applied before the check",
}


def read_folder(text: str) -> Path:
    """The path of a folder.

    Raises:
      argparse.ArgumentTypeError: for an empty one, as a variable that is not set leaves it.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give a folder")
    return Path(text)


def add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a folder, a table, digits or the name of a TFDS data set")
    parser.add_argument("--run", metavar="RUN", help="a run, a weight file or imagenet: the network that looks")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=read_folder,
        help="leave check.csv and check.html there, to decide on",
    )
    parser.add_argument("--strict", action="store_true", help="end with exit code 1 if something was found")
    settings = parser.add_argument_group("settings of the data, as in a run")
    for name, about in CHECK_SETTINGS.items():
        settings.add_argument(
            f"--config.data.{name}",
            dest=name,
            type=int if name == "image_size" else str,
            nargs="*" if name == "classes" else None,
            metavar=name.upper(),
            help=about,
        )
