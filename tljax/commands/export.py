"""export: writes a trained network as a file of other programs, which has given the same answers before it is there."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

from tljax.commands.formats import FORMATS, Format, Pictures, find_format, why_not
from tljax.commands.model import Model, make_model, restore
from tljax.devices.mesh import make_mesh
from tljax.export.content import Content
from tljax.export.torch_files import CONFIG
from tljax.networks.resnet import ResNet, describe_network, name_architecture
from tljax.runs.files import write_through
from tljax.training import calibration
from tljax.weights.pretrained import Weights, load_weights

# The largest difference between a probability of the run and that of its export, both in float32.
MOST = 1e-5
# Coverages whose thresholds are taken along, as far as the run can promise them.
COVERAGES = (0.8, 0.9, 0.95, 0.99)
# Pictures of noise that an export is run on where the run keeps none of its own.
NOISE = 8
# How a picture becomes square, by `config.data.fit`, in Pillow's words.
RESIZING = {
    "crop": "ImageOps.fit(picture, (side, side), Image.Resampling.BILINEAR)",
    "pad": "ImageOps.pad(picture, (side, side), Image.Resampling.BILINEAR)",
    "stretch": "picture.resize((side, side), Image.Resampling.BILINEAR)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("run", metavar="RUN", help="a run that trained, a stage of a lesson, or a weight file")
    endings = ", ".join(form.ending for form in FORMATS)
    parser.add_argument("out", metavar="OUT", help=f"the file to write; its ending says the format: {endings}")
    names = [form.name for form in FORMATS]
    parser.add_argument("--format", choices=names, help="the format, where the ending does not say it")
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="stablehlo: pictures at a time (default 1)"
    )


def run(flags: argparse.Namespace) -> None:
    """Writes the file, unless it gives other answers than the run."""
    out, form = Path(flags.out), find_format(flags.out, flags.format)
    if flags.batch_size < 1:
        raise ValueError(f"--batch-size {flags.batch_size}: a batch has one picture at least")
    check_place(out, form)
    weights = load_weights(flags.run, setting="RUN")
    # Exports are compared in float32, in which accelerators do not compute.
    model = make_model(weights, Path(flags.run), make_mesh(jax.devices("cpu")[:1]))
    content = gather(weights, model, form, flags.batch_size)
    if why := why_not(form, content):
        raise ValueError(f"{out}: {why}")
    print(
        f"{weights.name}: {content.about['network']}, {len(content.class_names)} classes, {content.image_size} pixels"
    )
    pictures, which = choose_pictures(model)
    expected = calibration.softmax(model(pictures), content.temperature)
    with unfinished(out) as folder:
        tried = folder / out.name
        tried.write_bytes(form.build(content))
        difference = float(np.abs(form.answer(tried, content, pictures) - expected).max())
        if not difference <= MOST:
            raise ValueError(
                f"{out} is not written: its probabilities differ from those of {weights.name} by up to "
                f"{difference:.2g}, more than {MOST:g}, over {which}"
            )
        compared = {"difference": float(f"{difference:.2g}"), "compared_on": which}
        content = content._replace(about=content.about | compared)
        data = form.build(content) if form.has_metadata else tried.read_bytes()
        # The file itself comes last: with it, all is there.
        files = form.beside(content, stem(out, form)) | {out.name: data}
        move_in(files, folder, out)
    size = out.stat().st_size / 1e6
    print(f"written: {', '.join(str(out.with_name(name)) for name in reversed(files))} ({size:,.1f} MB)")
    print(f"its probabilities differ from the run's by {difference:.2g} at most, over {which}, in float32 on this CPU")


def check_place(out: Path, form: Format) -> None:
    """Raises an error if the file, or those beside it, cannot be written where they should be."""
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; give a file in it, such as {out / f'model{form.ending}'}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: there is no folder {out.parent}; make it first")
    config = out.with_name(CONFIG)
    if form.name == "torch" and config.exists() and "pretrained_cfg" not in config.read_text("utf-8", "replace"):
        raise FileExistsError(
            f"{out}: timm's {CONFIG} goes beside it, where {config} is another one; give another folder"
        )


def gather(weights: Weights, model: Model, form: Format, batch_size: int) -> Content:
    """What the file takes along."""
    network, variables = restore(weights)
    temperature = model.temperature if form.is_calibrated else 1.0
    about = {
        "class_names": list(model.class_names),
        "temperature": temperature,
        "thresholds": find_thresholds(model) if form.is_calibrated else {},
        "image_size": model.image_size,
        "fit": model.fit,
        "resize": f"{RESIZING[model.fit]} of Pillow, side = {model.image_size}; RGB",
        "preprocessing": weights.preprocessing._asdict(),
        "network": name_network(network),
        "written_by": f"tljax {version('tljax')}",
    }
    sizes = model.image_size, model.class_names, temperature, batch_size
    return Content(network, variables, weights.preprocessing, *sizes, about)


def name_network(network: ResNet) -> str:
    return f"{name_architecture(network.architecture)} ({describe_network(network)['variant']})"


def find_thresholds(model: Model) -> dict[str, float]:
    """The probability from which on a label belongs to the set of a picture, by the coverage that is promised."""
    found = {}
    for coverage in COVERAGES:
        with suppress(ValueError):
            found[f"{coverage:g}"] = model.find_threshold(coverage)
    return found


def choose_pictures(model: Model) -> tuple[Pictures, str]:
    """Pictures that an export is run on, and what they are."""
    if model.reference is not None and len(model.reference.images):
        return model.reference.images, f"{len(model.reference.images)} validation pictures of the run"
    shape = (NOISE, model.image_size, model.image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8), f"{NOISE} pictures of noise"


def stem(out: Path, form: Format) -> str:
    """The file's name without the ending of its format."""
    return out.name[: -len(form.ending)] if out.name.lower().endswith(form.ending) else out.stem


def move_in(files: dict[str, bytes], folder: Path, out: Path) -> None:
    """Writes all files to `folder`, and then moves them beside `out`, in their order."""
    for name, data in files.items():
        write_through(folder / name, data)
    for name in files:
        (folder / name).replace(out.with_name(name))


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what is not whole yet. It is gone when the block has ended.

    Raises:
      OSError: if there is no place for it, with the name of `out`.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(f"{out} cannot be written ({error.strerror})") from error
