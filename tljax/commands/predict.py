"""predict: classifies pictures with a trained run, one row a picture."""

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from tljax.data.batches import move, progress_bar
from tljax.data.decoding import Fit, digest_pixels, read_picture
from tljax.data.layouts import describe_left_out, join_names
from tljax.data.listing import STANDARD_INPUT, Picture, find_pictures
from tljax.mirror_gain import measure_gain
from tljax.model import Explanation, Model, Prediction, Square, load, refuse_mirrored_sets
from tljax.report import printed
from tljax.report.answers import STANDARD_OUTPUT, Write, find_writer, open_output
from tljax.report.maps import draw_map
from tljax.storage.file_index import digest_bytes
from tljax.text import count_words, join_lines, printable
from tljax.training.calibration import balanced_accuracy
from tljax.trees import Row


class Wanted(NamedTuple):
    """What an answer has: `top` labels, a set of them with `coverage`, from mirror images too, an explanation."""

    top: int = 5
    coverage: float | None = None
    tta: bool = False
    explain: bool = False


class Answer(NamedTuple):
    """A picture with its prediction; `picture.error` says why there is none. `learned` says whether the network has
    learned from it, if the picture is in a folder of a class."""

    picture: Picture
    learned: bool = False
    square: Square | None = None
    prediction: Prediction | None = None
    explanation: Explanation | None = None


def run(flags: argparse.Namespace) -> None:
    """Classifies pictures, and ends with exit code 1 if some cannot be read."""
    if flags.top < 1:
        raise ValueError(f"--top {flags.top}: a row has one label at least")
    refuse_mirrored_sets(flags.coverage, flags.tta)
    start = find_writer(flags.out)
    # A program that reads the rows from standard output must find nothing else there.
    stdout = sys.stdout
    with redirect_stdout(sys.stderr if flags.out == STANDARD_OUTPUT else stdout):
        model = load(flags.run)
        print(describe_model(model))
        if flags.coverage is not None:
            model.find_threshold(flags.coverage)
        if flags.tta:
            print(describe_gain(model, flags.run))
        maps = None if flags.explain is None else prepare_maps(model, flags.explain, flags.pictures)
        left_out = Counter[str]()
        pictures: Iterable[Picture] = find_pictures(flags.pictures, model.class_names, left_out)
        total = None
        # Paths that come through a pipe may have no end.
        if STANDARD_INPUT not in flags.pictures:
            pictures = list(pictures)
            total = len(pictures)
        answers = answer_all(model, pictures, Wanted(flags.top, flags.coverage, flags.tta, maps is not None))
        with open_output(flags.out, stdout) as file:
            write = start(file, min(flags.top, len(model.class_names)), flags.coverage is not None)
            # Rows on a terminal show by themselves how far it is.
            seen = flags.out in (None, STANDARD_OUTPUT) and stdout.isatty()
            counts = write_answers(model, answers if seen else watch(answers, total), write, maps)
        print(summarize_tally(counts, left_out, flags.out, maps))
        if counts.confusions.sum():
            print(describe_accuracy(counts.confusions, model.class_names))
            print(describe_learned(counts, model))
    if counts.unreadable:
        sys.exit(1)


class Tally(NamedTuple):
    """How many pictures there were, how many of them cannot be read, and what those in folders of classes were taken
    for: all of them, and those that the network has learned from."""

    total: int
    unreadable: int
    confusions: Int[np.ndarray, "classes classes"]
    learned: Int[np.ndarray, "classes classes"]


def watch(answers: Iterable[Answer], total: int | None) -> Iterator[Answer]:
    """The answers, with a bar that moves with them; it has no end where their number is not known."""
    with progress_bar(total, "predict", unit=" images") as bar:
        for number, answer in enumerate(answers):
            yield answer
            move(bar, 1, first=number == 0)


def write_answers(model: Model, answers: Iterable[Answer], write: Write, maps: Path | None) -> Tally:
    """Writes a row for each answer, and its map into the folder `maps` (None: no maps)."""
    confusions, known = (np.zeros((len(model.class_names), len(model.class_names)), int) for _ in range(2))
    total = unreadable = 0
    for total, (picture, learned, square, prediction, found) in enumerate(answers, start=1):
        write(to_row(picture, prediction))
        unreadable += prediction is None
        if picture.actual is not None and prediction is not None:
            place = picture.actual, model.class_names.index(prediction.label)
            confusions[place] += 1
            known[place] += learned
        if maps is not None and square is not None and found is not None:
            draw_map(maps / name_map(total, picture.file, found.label), square, found.contributions, found.label)
    return Tally(total, unreadable, confusions, known)


def name_map(number: int, file: str, label: str) -> str:
    """The file name of a map: the row's number, since pictures in several folders may have the same name, the picture
    and its label."""
    # File systems count bytes.
    stem, plain = (text.encode("utf-8", "ignore")[:80].decode("utf-8", "ignore") for text in
                   (printable(Path(file).stem), re.sub(r"[^\w-]+", "_", label)))  # fmt: skip
    return f"{number:06d}_{stem}_is_{plain}.png"


FITS: dict[Fit, str] = {"crop": "their centre square", "pad": "with black borders", "stretch": "stretched"}


def describe_model(model: Model) -> str:
    """What the pictures are classified with, and whether it was tested."""
    about = f"{model.name}: {len(model.class_names)} classes ({join_names(model.class_names)})"
    about = f"{about}; pictures are read at {model.image_size} pixels, {FITS[model.fit]}"
    about = join_lines(about, *(f"{model.name}: {note}" for note in model.notes))
    if model.reference is None:
        return f"{about}\nunchecked, and no calibration: {model.unchecked}"
    checked = f"checked: {len(model.reference.images)} of its own pictures give the logits that it had"
    return f"{about}\n{checked}; {printed.temperature_line(model.temperature, len(model.reference.scores))}"


def describe_gain(model: Model, run: str) -> str:
    """What --tta gains on the validation pictures of the run."""
    if not os.path.isdir(run):
        return "--tta: weights from a file have no validation pictures on which its gain could be measured"
    try:
        return str(measure_gain(model, Path(run)))
    except (ValueError, OSError) as error:
        return printable(f"--tta: its gain is not measured: {error}")


def prepare_maps(model: Model, folder: Path, pictures: Sequence[str]) -> Path | None:
    """Makes the folder for the maps; None if there are none.

    Raises:
      FileExistsError: if it is there and not empty: maps of other pictures would be mistaken for these.
      ValueError: if it lies in one of the folders of pictures: maps would be classified, too.
    """
    for outer in filter(os.path.isdir, pictures):
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(outer)):
            raise ValueError(f"--explain {folder} lies in {outer}, whose pictures are classified; give another folder")
    if model.why_no_maps:
        print(f"--explain: {model.why_no_maps}")
        return None
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"--explain {folder} is there and not empty; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Answers without predictions.
PictureBatch = list[Answer]


def answer_all(model: Model, pictures: Iterable[Picture], wanted: Wanted) -> Iterator[Answer]:
    """The answers to pictures, in their order. While the network works on one batch, threads decode the next."""
    pictures = iter(pictures)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead: tuple[PictureBatch, Any] | None = None
        following = decode_batch(model, pictures, pool)
        while batch := list(following):
            following = decode_batch(model, pictures, pool)
            good = [answer.square for answer in batch if answer.square is not None]
            ready, ahead = ahead, (batch, model.start(good, tta=wanted.tta))
            if ready is not None:
                yield from finish(model, ready[0], ready[1], wanted)
        if ahead is not None:
            yield from finish(model, ahead[0], ahead[1], wanted)


def decode_batch(model: Model, pictures: Iterator[Picture], pool: ThreadPoolExecutor) -> Iterator[Answer]:
    """Starts to decode the next pictures, as many as the network gets at a time."""
    return pool.map(partial(decode_one, model), list(islice(pictures, model.batch_size)))


def decode_one(model: Model, picture: Picture) -> Answer:
    """A picture with its square, or with the reason why it has none."""
    if picture.error:
        return Answer(picture)
    try:
        square = model.square(picture.file)
        return Answer(picture, picture.actual is not None and was_learned(model, picture.file), square)
    except (ValueError, OSError) as error:
        reason = str(error).removeprefix(f"{picture.file} is no readable image").strip(" :()")
        return Answer(picture._replace(error=reason))


def was_learned(model: Model, file: str) -> bool:
    """Whether the network has learned from a picture: from its file or, where the run read records, its pixels.

    Raises:
      OSError: if it cannot be read.
    """
    if model.learned is None:
        return False
    content = Path(file).read_bytes()
    if model.learned.has(digest_bytes(content)[None], of_files=True).any():
        return True
    # To decode it once more takes time, and only runs on records need it.
    pixels = digest_pixels(read_picture(content)[0])[None] if len(model.learned.pixels) else None
    return pixels is not None and bool(model.learned.has(pixels, of_files=False).any())


def finish(model: Model, batch: PictureBatch, logits: Any, wanted: Wanted) -> Iterator[Answer]:
    """The answers to a batch, whose readable pictures have the first rows of `logits`."""
    squares = [answer.square for answer in batch if answer.square is not None]
    predictions = model.answer(np.asarray(logits)[: len(squares)], top=wanted.top, coverage=wanted.coverage)
    labels = [prediction.label for prediction in predictions]
    explain = partial(model.explain, squares, label=labels, tta=wanted.tta)
    explanations = explain() if wanted.explain else [None] * len(squares)
    found = iter(zip(predictions, explanations, strict=True))
    for answer in batch:
        yield answer if answer.square is None else Answer(*answer[:3], *next(found))


def to_row(picture: Picture, prediction: Prediction | None) -> Row:
    """An answer as JSON: `{"file", "label", "probability", "top", "set"}` or `{"file", "error"}`; "set" is there only
    where a coverage was asked for."""
    if prediction is None:
        return {"file": picture.file, "error": picture.error}
    row = {"file": picture.file, "label": prediction.label, "probability": round(prediction.probability, 6)}
    top = [[name, round(probability, 6)] for name, probability in prediction.top]
    return row | {"top": top} | ({} if prediction.set is None else {"set": prediction.set})


def summarize_tally(counts: Tally, left_out: Counter[str], out: str | None, maps: Path | None) -> str:
    """How many pictures were classified, and what was not."""
    to = "" if out in (None, STANDARD_OUTPUT) else f", written to {out}"
    drawn = "" if maps is None else f", maps in {maps}"
    classified = counts.total - counts.unreadable
    lines = [f"{count_words(classified, 'picture')} classified{to}{drawn}"]
    lines += [f"{counts.unreadable:,} could not be read; their rows say why"] if counts.unreadable else []
    lines += [f"left out: {describe_left_out(left_out)}"] if +left_out else []
    graded = int(counts.confusions.sum())
    lines += [f"{classified - graded:,} lie in no folder of a class"] if 0 < graded < classified else []
    return join_lines(*lines)


def describe_accuracy(confusions: Int[np.ndarray, "classes classes"], names: Sequence[str]) -> str:
    """The accuracy on the pictures in folders of classes, and which classes were taken for which."""
    images, right = int(confusions.sum()), int(np.trace(confusions))
    return (
        f"accuracy {right / images:.4f}, balanced {balanced_accuracy(confusions):.4f}: {right:,} of the {images:,} "
        f"pictures in folders of classes\n{printed.confusion_table(confusions, names)}"
    )


def describe_learned(counts: Tally, model: Model) -> str:
    """From how many of the pictures in folders of classes the network has learned, and the accuracy on the others."""
    if model.learned is None:
        return f"{model.name} has not kept what it learned from: some of these pictures may be among it"
    rest = "" if model.learned.whole else "; it has not kept all that it learned from"
    graded, known = int(counts.confusions.sum()), int(counts.learned.sum())
    if not known:
        return f"it has learned from none of these {graded:,}{rest}"
    others = counts.confusions - counts.learned
    right = f"{int(np.trace(others)) / others.sum():.4f}" if others.sum() else ""
    unseen = f"on the other {graded - known:,} the accuracy is {right}" if right else "their accuracy measures nothing"
    return f"WARNING it has learned from {known:,} of these {graded:,} pictures; {unseen}{rest}"
