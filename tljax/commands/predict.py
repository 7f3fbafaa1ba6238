"""predict: classifies pictures with a trained run, one row a picture."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tljax.commands.model import Model, Prediction, Square, load
from tljax.data.layouts import fold_name, join, read_contents
from tljax.report import rows, tables
from tljax.report.maps import draw_map
from tljax.training.calibration import balanced_accuracy
from tljax.trees import Row

STANDARD_INPUT = "-"


class Picture(NamedTuple):
    """A file that is to be classified, or one of which it is known already that it cannot be: `error` says why."""

    file: str
    actual: int | None = None
    """The class whose folder the file is in."""
    error: str = ""


class Answer(NamedTuple):
    """A picture with its prediction; `picture.error` says why there is none."""

    picture: Picture
    square: Square | None
    prediction: Prediction | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
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


def run(flags: argparse.Namespace) -> None:
    """Classifies pictures, and ends with exit code 1 if some cannot be read."""
    if flags.top < 1:
        raise ValueError(f"--top {flags.top}: a row has one label at least")
    # What a program reads on standard output must be rows and nothing else.
    say = partial(print, file=sys.stderr, flush=True) if flags.out == rows.STANDARD_OUTPUT else print
    start = rows.find_format(flags.out, flags.top, flags.coverage is not None)
    model = load(flags.run)
    say(describe(model))
    if flags.coverage is not None:
        model.find_threshold(flags.coverage)
    explain = flags.explain is not None and may_explain(model, flags.explain, say)

    left_out = Counter[str]()
    confusions = np.zeros((len(model.class_names), len(model.class_names)), int)
    unreadable = total = 0
    pictures = find_pictures(flags.pictures, model.class_names, left_out)
    answers = answer_all(model, pictures, flags.top, flags.coverage, flags.tta)
    bar = tqdm(unit=" images", disable=None if flags.out else True, leave=False)
    with rows.open_output(flags.out) as file, bar:
        write = start(file)
        for total, answer in enumerate(answers, start=1):
            write(to_row(answer))
            unreadable += answer.prediction is None
            if answer.picture.actual is not None and answer.prediction is not None:
                confusions[answer.picture.actual, model.class_names.index(answer.prediction.label)] += 1
            if explain and answer.square is not None:
                explanation = model.explain(answer.square)[0]
                path = flags.explain / name_map(total, answer)
                draw_map(path, answer.square, explanation.contributions, title=explanation.label)
            bar.update()
    say(summarize(total, unreadable, left_out, flags))
    if confusions.sum():
        say(describe_accuracy(confusions, model.class_names))
    if unreadable:
        sys.exit(1)


def describe(model: Model) -> str:
    """What the pictures are classified with, and whether it was tested."""
    about = f"{model.name}: {len(model.class_names)} classes ({join(model.class_names)}), {model.image_size} pixels"
    if model.reference is None:
        return f"{about}\nunchecked: it keeps no logits of its own to compare with, and no calibration"
    return f"{about}\nchecked: {len(model.reference.images)} of its own pictures give the logits that it had"


def may_explain(model: Model, folder: Path, say: Callable[..., Any]) -> bool:
    """Makes the folder for the maps, unless there are none."""
    if model.positions == (1, 1):
        say(f"--explain: at {model.image_size} pixels the last map has one position, so there are no maps")
        return False
    folder.mkdir(parents=True, exist_ok=True)
    return True


def find_pictures(arguments: Iterable[str], class_names: Sequence[str], left_out: Counter[str]) -> Iterator[Picture]:
    """The pictures that the arguments name, one after the other as they are found; what folders hold besides is
    counted in `left_out`."""
    classes = {fold_name(name): i for i, name in enumerate(class_names)}
    for argument in arguments:
        if argument == STANDARD_INPUT:
            lines = (os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer)
            yield from find_pictures((line for line in lines if line and line != "-"), class_names, left_out)
        elif os.path.isdir(argument):
            found = list_folder(argument, None, classes, left_out)
            first = next(found, None)
            yield first or Picture(argument, error="the folder holds no picture")
            yield from found
        else:
            yield Picture(argument, error="" if os.path.exists(argument) else "there is no such file")


def list_folder(folder: str, actual: int | None, classes: dict[str, int], left_out: Counter[str]) -> Iterator[Picture]:
    """The pictures below a folder, folder by folder. `actual` is the class that the folder belongs to, else the first
    subfolder with the name of a class says it."""
    try:
        contents = read_contents(Path(folder))
    except OSError as error:
        yield Picture(folder, error=str(error))
        return
    left_out.update(contents.others)
    for name in contents.pictures:
        yield Picture(os.path.join(folder, name), actual)
    for name in contents.folders:
        path = os.path.join(folder, name)
        if os.path.islink(path):
            left_out["in linked folders"] += 1
        else:
            yield from list_folder(path, classes.get(fold_name(name)) if actual is None else actual, classes, left_out)


# Pictures with their squares.
Batch = list[tuple[Picture, Square | None]]


def answer_all(
    model: Model, pictures: Iterable[Picture], top: int, coverage: float | None, tta: bool
) -> Iterator[Answer]:
    """The answers to pictures, in their order. While the network works on one batch, threads decode the next."""
    pictures = iter(pictures)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead: tuple[Batch, Any] | None = None
        following = decode_batch(model, pictures, pool)
        while batch := list(following):
            following = decode_batch(model, pictures, pool)
            good = [square for _, square in batch if square is not None]
            ready, ahead = ahead, (batch, model.start(good, tta=tta))
            if ready is not None:
                yield from finish(model, ready[0], ready[1], top, coverage)
        if ahead is not None:
            yield from finish(model, ahead[0], ahead[1], top, coverage)


def decode_batch(
    model: Model, pictures: Iterator[Picture], pool: ThreadPoolExecutor
) -> Iterator[tuple[Picture, Square | None]]:
    """Starts to decode the next pictures, as many as the network gets at a time."""
    return pool.map(partial(decode_one, model), list(islice(pictures, model.batch_size)))


def decode_one(model: Model, picture: Picture) -> tuple[Picture, Square | None]:
    """A picture with its square, or with the reason why it has none."""
    if picture.error:
        return picture, None
    try:
        return picture, model.square(picture.file)
    except ValueError as error:
        reason = str(error).removeprefix(f"{picture.file} is ")
        return picture._replace(error=reason), None


def finish(model: Model, batch: Batch, logits: Any, top: int, coverage: float | None) -> Iterator[Answer]:
    """The answers to a batch, whose readable pictures have the first rows of `logits`."""
    count = sum(square is not None for _, square in batch)
    predictions = iter(model.answer(np.asarray(logits)[:count], top=top, coverage=coverage))
    for picture, square in batch:
        yield Answer(picture, square, None if square is None else next(predictions))


def to_row(answer: Answer) -> Row:
    """An answer as JSON: `{"file", "label", "probability", "top", "set"}` or `{"file", "error"}`; "set" is there only
    where a coverage was asked for."""
    picture, _, prediction = answer
    if prediction is None:
        return {"file": picture.file, "error": picture.error}
    row = {"file": picture.file, "label": prediction.label, "probability": round(prediction.probability, 6)}
    top = [[name, round(probability, 6)] for name, probability in prediction.top]
    return row | {"top": top} | ({} if prediction.set is None else {"set": prediction.set})


def name_map(number: int, answer: Answer) -> str:
    """The file name of a map: the row, the picture and its label."""
    return f"{number:06d}_{Path(answer.picture.file).stem[:80]}.png"


def summarize(total: int, unreadable: int, left_out: Counter[str], flags: argparse.Namespace) -> str:
    """How many pictures were classified, and what was not."""
    to = "" if flags.out in (None, rows.STANDARD_OUTPUT) else f", written to {flags.out}"
    lines = [f"{total - unreadable:,} pictures classified{to}"]
    lines += [f"{unreadable:,} could not be read; their rows say why"] if unreadable else []
    lines += [f"left out: {join(f'{count} {why}' for why, count in (+left_out).items())}"] if +left_out else []
    return "\n".join(lines)


def describe_accuracy(confusions: np.ndarray, names: Sequence[str]) -> str:
    """The accuracy on the pictures in folders of classes, and which classes were taken for which."""
    images, right = int(confusions.sum()), int(np.trace(confusions))
    return (
        f"accuracy {right / images:.4f}, balanced {balanced_accuracy(confusions):.4f}: {right:,} of the {images:,} "
        f"pictures in folders of classes\n{tables.confusion_table(confusions, names)}"
    )
