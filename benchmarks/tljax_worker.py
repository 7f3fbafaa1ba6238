"""The jobs with tljax: its jitted steps, and whole stages, from the source weights to the pictures."""

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import protocol
from protocol import Arrays, Request, Stopwatch

from tljax.__main__ import use_huge_pages
from tljax.config import Config, Optimizer
from tljax.data import batches
from tljax.data.datasets import Dataset, Split
from tljax.data.preprocessing import CAFFE
from tljax.devices.mesh import compute_dtype, make_mesh
from tljax.networks.architectures import RESNET50
from tljax.networks.cut import Cut
from tljax.networks.resnet import ResNet, fold
from tljax.stages.programs import Setup, compile_programs
from tljax.stages.stage import run_stage
from tljax.storage import cache, compilation
from tljax.training.inference import classify
from tljax.training.state import TrainState
from tljax.trees import flatten
from tljax.weights.pretrained import Weights

# Steps in one dispatch. A run makes as many as take two seconds.
STEPS = 4
KEY = jax.random.key(0)


def init(classes: int) -> dict[str, dict]:
    """ResNet50's variables with random initial values."""
    return jax.jit(ResNet(classes).init)(KEY, np.zeros((1, 32, 32, 3), np.float32))


def make_dataset(images: np.ndarray, labels: np.ndarray, val_images: np.ndarray, val_labels: np.ndarray) -> Dataset:
    """A data set like those that `tljax.data.datasets.load_dataset` returns."""

    def split(images: np.ndarray, labels: np.ndarray) -> Split:
        count, rows = len(labels), np.arange(len(labels))
        digests = np.zeros((count, 4), np.uint32)
        return Split(images, labels.astype(np.int32), tuple(map(str, rows)), rows, count, digests)

    names = tuple(f"class_{i}" for i in range(protocol.CLASSES))
    return Dataset(names, images.shape[1], split(images, labels), split(val_images, val_labels), None, {})


def make_weights(dataset: Dataset) -> Weights:
    """Random weights in place of those of a feature_extraction run, from which both measured stages can start."""
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(init(len(dataset.class_names))).items()}
    labels = tuple((None, name) for name in dataset.class_names)
    return Weights("random", leaves, "v1", CAFFE, dataset.image_size, labels, RESNET50, is_run=True)


def run(stage: str, cut: str, epochs: int, dataset: Dataset, weights: Weights | None) -> None:
    """A whole run with all its checkpoints and pictures, in a folder that is deleted afterwards."""
    config = Config(
        stage=stage,  # type: ignore[arg-type]
        cut=cut,
        epochs=epochs,
        patience=epochs,
        pretrained=None if weights is None else weights.name,
        optimizer=Optimizer(learning_rate=1e-4 if stage == "fine_tune" else 1e-3),
    )
    with tempfile.TemporaryDirectory() as folder:
        run_stage(config, Path(folder), dataset, weights)


def use_cache(state: str) -> None:
    """`cold` empties the cache of activations and compiled programs; `warm` leaves it as earlier jobs left it."""
    if state == "cold":
        root = cache.folder("")
        for path in (path for path in root.rglob("*") if path.is_file()):
            path.unlink()
        shutil.rmtree(root / "arrays", ignore_errors=True)


def prepare_steps(
    config: Config, classes: int, images: np.ndarray, labels: np.ndarray, steps: int
) -> tuple[Callable[..., Any], TrainState, tuple[Any, ...]]:
    """A run's training program for `steps` steps on images that stay on the device: the program, a first state, and its
    arguments behind the state."""
    mesh, batch = make_mesh(), len(labels) // steps
    model = ResNet(classes, dtype=compute_dtype(mesh, config.compute.precision))
    setup = Setup(config, model, CAFFE, Cut(model.units, config.cut), mesh)
    variables = init(classes)
    programs = compile_programs(setup, variables, steps, from_activations=False)
    examples = batches.place_examples(images, labels, len(labels), batch, images.nbytes, mesh)
    ((chunk, _),) = examples.chunks(batches.draw_order(len(labels), batch, seed=0, epoch=1))
    return programs.train, programs.create(variables), (chunk, np.int32(0), np.int32(steps))


class TljaxWorker:
    jobs = frozenset({"forward_224", "forward_32", *protocol.STEP_CUTS, *protocol.JOB_CUTS})

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def prepare(self, job: str) -> tuple[Callable[[], object], int]:
        if job.startswith("forward_"):
            large = job == "forward_224"
            size, side = (protocol.LARGE_BATCH, 224) if large else (protocol.BATCH, 32)
            classes = protocol.LARGE_CLASSES if large else protocol.CLASSES
            run = jax.jit(partial(classify, model=ResNet(classes), preprocessing=CAFFE, size=side))
            folded, labels = jax.jit(partial(fold, ResNet(classes)))(init(classes)), np.zeros(size, np.int32)
            inputs = protocol.repeat_batches(size, self.arrays["large_images" if large else "train_images"])
            return lambda: jax.block_until_ready(run(folded, *next(inputs), labels)), size
        mode = "training" if job == protocol.BATCH_NORM_JOB else "inference"
        return self._prepare_step(Config(cut=protocol.STEP_CUTS[job], batch_norm=mode))

    def _prepare_step(self, config: Config) -> tuple[Callable[[], object], int]:
        """A training step from images, so that the frozen units run in every step."""
        rows = slice(STEPS * protocol.BATCH)
        images, labels = self.arrays["train_images"][rows], self.arrays["train_labels"][rows].astype(np.int32)
        train, state, chunk = prepare_steps(config, protocol.CLASSES, images, labels, STEPS)

        def repeat() -> None:
            nonlocal state
            state, _ = jax.block_until_ready(train(state, *chunk, key=KEY))

        return repeat, STEPS * protocol.BATCH

    def run(self, job: str, request: Request, stopwatch: Stopwatch) -> None:
        use_cache(request["cache"])
        dataset = make_dataset(*protocol.take_rows(self.arrays, request))
        run(job.removeprefix("job_"), protocol.JOB_CUTS[job], request["epochs"], dataset, make_weights(dataset))


if __name__ == "__main__":
    use_huge_pages()  # as the command line does
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLJAX_CACHE_DIR"] = folder
        compilation.set_up()
        versions = {name: version(name) for name in ("tljax", "jax", "flax", "optax", "numpy")}
        protocol.serve(TljaxWorker, protocol.arguments(__doc__).arrays, versions)
