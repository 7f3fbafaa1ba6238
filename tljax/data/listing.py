"""Lists the pictures that somebody names: files, folders of any depth, and paths on standard input."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tljax.data.layouts import fold_name, read_contents, split_role

STANDARD_INPUT = "-"


class Picture(NamedTuple):
    """A file that is to be classified, or one of which it is known already that it cannot be: `error` says why."""

    file: str
    actual: int | None = None
    """The class whose folder the file is in."""
    error: str = ""


def find_pictures(arguments: Iterable[str], class_names: Sequence[str], left_out: Counter[str]) -> Iterator[Picture]:
    """The pictures that the arguments name, one after the other as they are found; what folders hold besides is
    counted in `left_out`."""
    for argument in arguments:
        if argument == STANDARD_INPUT:
            if sys.stdin is None:
                raise ValueError("- reads paths from standard input, which is closed")
            lines = (os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer)
            yield from find_pictures((line for line in lines if line and line != "-"), class_names, left_out)
        elif os.path.isdir(argument):
            found = list_folder(argument, class_names, left_out)
            first = next(found, None)
            yield first or Picture(argument, error="the folder holds no picture")
            yield from found
        else:
            yield Picture(argument)


def list_folder(folder: str, class_names: Sequence[str], left_out: Counter[str]) -> Iterator[Picture]:
    """The pictures of a folder and of those below it, folder by folder. The first folder with the name of a class, from
    the top, says what class its pictures have; a split's folder with folders of classes is none, whatever its name."""
    left: list[tuple[str, int | None]] = [(folder, None)]
    while left:
        folder, actual = left.pop()
        try:
            contents = read_contents(Path(folder))
        except OSError as error:
            yield Picture(folder, error=str(error))
            continue
        name = os.path.basename(os.path.abspath(folder))
        if actual is None and not is_split(name, contents.folders, class_names):
            actual = find_class(name, class_names)
        left_out.update(contents.others)
        yield from (Picture(os.path.join(folder, name), actual) for name in contents.pictures)
        links = [name for name in contents.folders if os.path.islink(os.path.join(folder, name))]
        left_out["in linked folders"] += len(links)
        for name in reversed(contents.folders):
            if name not in links:
                left.append((os.path.join(folder, name), actual))


def is_split(name: str, folders: Sequence[str], class_names: Sequence[str]) -> bool:
    """Whether a folder has the name of a split, and folders of classes alone."""
    classes = [find_class(folder, class_names) for folder in folders]
    return split_role(name) is not None and bool(classes) and None not in classes


def find_class(name: str, class_names: Sequence[str]) -> int | None:
    """The class that a folder's name means: in the same spelling or else, where that is one class, in another case."""
    alike = [i for i, other in enumerate(class_names) if fold_name(other) == fold_name(name)]
    exact = [i for i in alike if class_names[i] == name]
    return exact[0] if exact else alike[0] if len(alike) == 1 else None
