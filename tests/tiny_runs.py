"""Whole runs of a tiny network: their configs, and functions that read the files that they leave."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from tljax.config import Config, Data, Head, Lesson
from tljax.data import datasets
from tljax.data.preprocessing import CAFFE, Preprocessing
from tljax.networks.architectures import NETWORKS, RESNET50, Architecture, Network
from tljax.networks.cut import Cut
from tljax.networks.resnet import ResNet, describe_network
from tljax.report import figures, run_page, study
from tljax.runs import checkpoints, files
from tljax.runs.integrity import CHECKSUMS
from tljax.stages import conclusion, lessons, zero_shot
from tljax.stages import stage as one_stage
from tljax.stages.from_config import run
from tljax.training import progress
from tljax.training.state import create_state
from tljax.trees import Tree, digest_json

# The network of the tests, in a row like the published ones.
TINY = Architecture((1, 1, 1, 1), width=8)
NETWORKS["tiny"] = Network(TINY, keras_md5="")
# As deep as ResNet50, an eighth as wide.
NARROW = RESNET50._replace(width=8)
DIGITS = Data(name="digits", classes=("5", "6", "7"), max_images=60)
TIMES = {"seconds", "images_per_second"}
# The modules that draw figures, and what conftest.py puts in the place of the module that draws them.
FIGURES = conclusion, lessons, one_stage, study, zero_shot
NO_FIGURES = SimpleNamespace(
    **{
        name: lambda *_: None
        for name in ("draw_samples", "draw_predictions", "draw_curves", "draw_places", "draw_growth")
    },
    **{name: getattr(figures, name) for name in ("CURVES", "DRAWN", "PLACED", "GROWN")},
)
# The modules that leave a page, and what conftest.py puts in the place of the module that makes it.
PAGES = lessons, one_stage
NO_PAGES = SimpleNamespace(leave_page=lambda *_: None)


@contextmanager
def drawing() -> Iterator[None]:
    """A block whose runs draw their figures and leave their pages."""
    with pytest.MonkeyPatch.context() as patch:
        for module in FIGURES:
            patch.setattr(module, "figures", figures)
        for module in PAGES:
            patch.setattr(module, "run_page", run_page)
        yield


def read_rows(folder: Path) -> list[dict]:
    return files.read_rows(folder / "metrics.jsonl")


def read_summary(folder: Path) -> dict:
    return files.read_json(folder / "summary.json")


def check_predictions(path: Path, measured: dict) -> None:
    """Checks that loss, accuracy and accuracy of each class are those of the rows of a file."""
    rows = files.read_rows(path)
    assert all(row["top5"][0][1] == list(measured["class_accuracy"])[row["predicted"]] for row in rows)
    np.testing.assert_allclose(np.mean([row["loss"] for row in rows]), measured["loss"], rtol=1e-5)
    right = [(row["label"], row["predicted"] == row["label"]) for row in rows]
    assert measured["accuracy"] == pytest.approx(np.mean([found for _, found in right]))
    for i, accuracy in enumerate(measured["class_accuracy"].values()):
        assert accuracy == pytest.approx(np.mean([found for label, found in right if label == i]))


def make_lesson() -> Lesson:
    config = Lesson(source_classes=("0", "1", "2"), data=DIGITS, network="tiny")
    for stage in config.stages.values():
        stage.batch_size, stage.epochs = 16, 2
    return config


def small(stage: str, **settings) -> Config:
    cut = "conv1" if stage == "from_scratch" else "head"
    defaults = {"batch_size": 16, "epochs": 1, "data": DIGITS, "cut": cut, "network": "tiny"}
    return Config(stage=stage, **(defaults | settings))


def train_on_views(source: str | Path, workdir: Path) -> Path:
    """A solved head and two epochs of training it, on three views of each picture."""
    data = replace(DIGITS, augment="flip,shift", views=3)
    run(small("feature_extraction", pretrained=str(source), head=Head(init="ridge"), epochs=2, data=data), workdir)
    return workdir


def rewrite_meta(run: Path, change: Callable[[dict], object]) -> None:
    """Lets `change` edit the meta of all checkpoints of a run, as if another version had written them."""
    for path in run.glob(f"{checkpoints.FOLDER}/*/meta/metadata"):
        content = files.read_json(path)["content"]
        change(content)
        path.write_text(json.dumps({"content": content, "sha256": digest_json(content)}))
        (path.parents[1] / CHECKSUMS).unlink()


def train_on_digits(workdir: Path) -> Path:
    """A run that tells three digits apart, now and then."""
    run(small("from_scratch", epochs=3), workdir)
    return workdir


def save_digits(folder: Path) -> Path:
    """Saves the validation pictures of `DIGITS` as `folder/CLASS/NUMBER.png`."""
    split = datasets.load_dataset(DIGITS, seed=0).validation
    for i, (pixels, label) in enumerate(zip(split.images, split.labels, strict=True)):
        path = folder / DIGITS.classes[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def read_digits(folder: Path) -> np.ndarray:
    """The validation pictures of `DIGITS`, uint8 [n, 32, 32, 3], in the order of their files, which `folder` gets."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted(save_digits(folder).rglob("*.png"))])


def make_source(folder: Path, seed: int = 0) -> Path:
    """Makes the folder of a run of a tiny network with its initial weights, for other runs to start from."""
    return Path(shutil.copytree(_make_source_once(seed).name, folder, dirs_exist_ok=True))


@cache
def _make_source_once(seed: int) -> TemporaryDirectory:
    folder, model = TemporaryDirectory(), ResNet(3, architecture=TINY)
    variables = jax.jit(model.init)(jax.random.key(seed), np.zeros((1, 32, 32, 3), np.float32))
    save_source(Path(folder.name), model, variables)
    return folder


def save_source(folder: Path, model: ResNet, variables: Tree, preprocessing: Preprocessing = CAFFE) -> Path:
    """Makes the folder of a run that told the classes of `DIGITS`."""
    cut = Cut(model.units, "conv1")
    state = create_state(jax.device_put(variables), optax.identity(), cut)
    meta = {
        "cut": "conv1",
        "network": describe_network(model),
        "preprocessing": preprocessing._asdict(),
        "image_size": 32,
        "class_names": list(DIGITS.classes),
        "best": 1,
    }
    with checkpoints.open_checkpoints(folder, own=True) as kept:
        kept.save(1, state, cut, {}, meta | progress.progress_to_json(progress.Progress()))
    return folder
