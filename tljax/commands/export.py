"""export: writes a trained network as a file of other programs, which has given the same answers before it is there."""

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from tljax.devices.mesh import make_mesh
from tljax.export.content import Content, Squares, name_network
from tljax.export.formats import Format, find_format, why_not
from tljax.export.squares import describe_resizing, join_squares, resize_as_said
from tljax.model import Model, make_model
from tljax.runs.files import write_through
from tljax.runs.reference import TOLERANCES
from tljax.text import join_lines
from tljax.training import calibration
from tljax.trees import Row
from tljax.weights.pretrained import Weights, load_weights, restore

# The largest difference between a probability of the run and that of its export, both in float32.
MOST_DIFFERENCE = 1e-5
# That between their logarithms, in units of the largest logit, as for a run's own logits; and the smallest probability
# whose logarithm is compared.
MOST_LOGS, SMALLEST = TOLERANCES["float32"], 1e-30
# The most images at a time: 1,024 of 224 pixels take 4 GB.
MOST_BATCH = 1024
# Coverages whose thresholds are taken along, as far as the run can promise them.
EXPORTED_COVERAGES = (0.8, 0.9, 0.95, 0.99)
# Images of noise that an export is run on where the run keeps none of its own.
NOISE_IMAGES = 8


class Trial(NamedTuple):
    """A file that has answered."""

    data: bytes
    difference: float
    """The largest difference between its probabilities and those of the run."""
    logs: float
    """That between the logarithms of those that float32 can hold, in units of the largest logit, if that is above 1.
    Probabilities of 0 and 1 alone would hide any other network that is as sure."""
    alone: float
    """`difference` where its library makes squares of pictures by the file beside it; 0 where none does."""
    which: str
    """What it was run on, in words."""


def run(flags: argparse.Namespace) -> None:
    """Writes the file. Raises ValueError or OSError, and writes nothing, if it cannot be made or answers otherwise."""
    source, out = (Path(path).expanduser() for path in (flags.run, flags.out))
    form = find_format(flags.out, flags.format)
    check_target(out, form, source)
    check_fixed_batch(flags.batch_size, form)
    weights = load_weights(flags.run, setting="RUN")
    if why := why_not(form, restore(weights)[0], weights.preprocessing, weights.fit):
        raise ValueError(f"{out}: {why}")
    # Exports are compared in float32, in which accelerators do not compute.
    model = make_model(weights, source, make_mesh(jax.devices("cpu")[:1]))
    content = gather_content(weights, model, form, flags.batch_size or 1)
    print(describe_export(weights, content))
    with unfinished(out) as folder:
        trial = try_out(form, content, model, folder)
        if not (trial.difference <= MOST_DIFFERENCE and trial.logs <= MOST_LOGS):
            raise ValueError(f"{out} is not written: {describe_other_answers(weights, trial)}")
        content = content._replace(about=content.about | describe_trial(form, trial) | {"file": out.name})
        data = form.build(content) if form.has_metadata else trial.data
        done, beside = "replaced" if out.exists() else "written", out.with_name(form.beside(out.name))
        move_in({out: data, beside: form.describe(content)}, folder)
    print(f"{done}: {out} ({len(data) / 1e6:,.1f} MB), and {beside.name} beside it")
    print(
        f"its probabilities differ from those of {weights.name} by {trial.difference:.2g} at most, over {trial.which}, "
        "in float32 on this CPU"
    )
    if trial.alone > MOST_DIFFERENCE:
        print(
            f"{form.preparer}'s own transform cuts other pixels where a picture is no square: with it they differ by "
            f"{trial.alone:.2g}; docs/export.md cuts as the run did"
        )
    if not form.is_calibrated and content.temperature != 1:
        calibrated = f"softmax(logits / {content.temperature:.4g})"
        print(f"they are softmax(logits), which is not calibrated: those of predict are {calibrated}")


def describe_export(weights: Weights, content: Content) -> str:
    size = f"{len(content.class_names)} classes, {content.image_size} pixels"
    lines = [f"{content.about['network']}, {size}", *weights.notes]
    return join_lines(*(f"{weights.name}: {line}" for line in lines))


def describe_other_answers(weights: Weights, trial: Trial) -> str:
    return (
        f"its probabilities differ from those of {weights.name} by up to {trial.difference:.2g} (at most "
        f"{MOST_DIFFERENCE:g}), their logarithms by {trial.logs:.2g} of the largest (at most {MOST_LOGS:g}), over "
        f"{trial.which}"
    )


def describe_trial(form: Format, trial: Trial) -> Row:
    """What the metadata tells of it."""
    told: Row = {"difference": float(f"{trial.difference:.2g}"), "compared_on": trial.which}
    return told | ({f"difference_with_{form.preparer}": float(f"{trial.alone:.2g}")} if form.prepare else {})


def try_out(form: Format, content: Content, model: Model, folder: Path) -> Trial:
    """Makes the file in `folder`, and lets it answer: images of the run, and pictures that are made square as the
    metadata says, while the run makes them square itself."""
    images, which = choose_trial_images(model)
    pictures, fit, side = join_squares(images), model.fit, model.image_size
    squares = np.stack([*images, *(resize_as_said(content.about["resize"], picture) for picture in pictures)])
    theirs = [form.prepare(picture, fit, side) for picture in pictures] if form.prepare else []
    # Some who read it go by the ending.
    file, data = folder / f"tried{form.ending}", form.build(content)
    file.write_bytes(data)
    found = (form.answer or read_back)(file, content, np.stack([*squares, *theirs]))
    logits = model([*images, *pictures]) / (content.temperature if form.is_calibrated else 1)
    alone, _ = compare_answers(found[len(logits) :], logits[len(images) :][: len(theirs)])
    return Trial(data, *compare_answers(found[: len(logits)], logits), alone, which)


def read_back(file: Path, content: Content, images: Squares) -> calibration.Probabilities:
    """The probabilities, softmax(logits), that tljax gives for `images` with the weights in a file."""
    weights = load_weights(str(file), setting="OUT")._replace(
        input_size=content.image_size, preprocessing=content.preprocessing
    )
    model = make_model(weights, file, make_mesh(jax.devices("cpu")[:1]))
    return calibration.softmax(model(images), 1.0)


def compare_answers(
    found: Float[np.ndarray, "n classes"], logits: Float[np.ndarray, "n classes"]
) -> tuple[float, float]:
    """`difference` and `logs` of a `Trial` whose probabilities should be softmax(logits)."""
    expected = calibration.softmax(logits, 1.0)
    held = (found > SMALLEST) & (expected > SMALLEST)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.abs(np.log(found) - np.log(expected)).max(where=held, initial=0)
    return float(np.abs(found - expected).max(initial=0)), float(logs / max(1, np.abs(logits).max(initial=0)))


def check_target(out: Path, form: Format, source: Path) -> None:
    """Raises OSError if the file, or the one beside it, cannot be written where it should be."""
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; give a file in it, such as {out / f'model{form.ending}'}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: there is no folder {out.parent}; make it first")
    beside = out.with_name(form.beside(out.name))
    for path in (out, beside):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise FileExistsError(f"{out}: {path} is no ordinary file; give another name")
    if out.exists() and (not out.name.endswith(form.ending) or (source.is_file() and out.samefile(source))):
        raise FileExistsError(f"{out} exists, and is no export of this run; delete it first, or give another name")
    if form.config and beside.exists() and not describes(beside, out):
        raise FileExistsError(
            f"{out}: timm's {beside.name} goes beside it, where {beside} is another one; give another folder"
        )


def describes(config: Path, out: Path) -> bool:
    """Whether an export to `out` has written the file `config`."""
    try:
        return bool(json.loads(config.read_text("utf-8"))["tljax"]["file"] == out.name)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def check_fixed_batch(size: int | None, form: Format) -> None:
    """Raises ValueError if there is no such batch, or the format does not fix its size."""
    if size is not None and not form.has_batch_size:
        raise ValueError(f"--batch-size {size}: {form.name} files take any number of pictures; leave it out")
    if size is not None and not 1 <= size <= MOST_BATCH:
        raise ValueError(f"--batch-size {size}: a batch has 1 to {MOST_BATCH:,} pictures")


def gather_content(weights: Weights, model: Model, form: Format, batch_size: int) -> Content:
    """What the file takes along."""
    network, variables = restore(weights)
    # A folder's name may be no UTF-8, which files of other programs are.
    names = tuple(name.encode("utf-8", "backslashreplace").decode() for name in model.class_names)
    about = {
        "class_names": list(names),
        "probabilities": "softmax(logits / temperature)" if form.is_calibrated else "softmax(logits)",
        "temperature": model.temperature,
        "thresholds": find_thresholds(model),
        "image_size": model.image_size,
        "fit": model.fit,
        "resize": describe_resizing(model.fit, model.image_size),
        "preprocessing": weights.preprocessing._asdict(),
        "network": name_network(network),
        "written_by": f"tljax {version('tljax')}",
    }
    if form.has_batch_size:
        about["batch_size"] = batch_size
    rest = model.image_size, names, model.temperature, batch_size
    return Content(network, variables, weights.preprocessing, *rest, about)


def find_thresholds(model: Model) -> dict[str, float]:
    """The probability from which on a label belongs to the set of a picture, by the coverage that is promised."""
    found = {}
    for coverage in EXPORTED_COVERAGES:
        with suppress(ValueError):
            found[f"{coverage:g}"] = model.find_threshold(coverage)
    return found


def choose_trial_images(model: Model) -> tuple[Squares, str]:
    """The images that an export is run on, and what they and `join_squares` of them are."""
    joined = "and wide and tall ones made of them"
    if model.reference is not None and len(model.reference.images):
        return model.reference.images, f"{len(model.reference.images)} of the run's own pictures {joined}"
    shape = (NOISE_IMAGES, model.image_size, model.image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8), f"{NOISE_IMAGES} pictures of noise {joined}"


def move_in(files: dict[Path, bytes], folder: Path) -> None:
    """Writes all files to `folder`, and then moves each to its path, in their order."""
    for path, data in files.items():
        write_through(folder / path.name, data)
    for path in files:
        (folder / path.name).replace(path)


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what is not whole yet. It is gone when the block has ended, or at the next export to
    `out` if this one is killed.

    Raises:
      OSError: if there is no place for it, with the name of `out`.
    """
    folder = out.with_name(f".export-{out.name}")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(f"{out} cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
