"""The jobs with tljax: its jitted steps, and its stages from the weights to the pictures."""

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import protocol
from protocol import Arrays, Request, Stopwatch

from tljax.data import batches
from tljax.storage import cache
from tljax import trees
from tljax.storage import compilation
from tljax.commands import stages
from tljax.training import inference
from tljax.training import steps
from tljax.config import Adam
from tljax.config import Config
from tljax.data.splits import Dataset
from tljax.data.splits import Split
from tljax.devices.mesh import make_mesh
from tljax.devices.mesh import whole
from tljax.training.optimizers import partitioned_adam
from tljax.data.preprocessing import CAFFE
from tljax.weights.pretrained import Weights
from tljax.networks.resnet import ResNet
from tljax.networks.resnet import fold

# One dispatch makes so many steps; in a run it is as many as take half a second.
STEPS = 2
KEY = jax.random.key(0)


def init(classes: int) -> dict[str, dict]:
    """Random variables of ResNet50."""
    return jax.jit(ResNet(classes).init)(KEY, np.zeros((1, 32, 32, 3), np.float32))


def make_dataset(images: np.ndarray, labels: np.ndarray, val_images: np.ndarray, val_labels: np.ndarray) -> Dataset:
    """Splits as `data.load` gives them."""

    def split(images: np.ndarray, labels: np.ndarray) -> Split:
        return Split(
            images, labels.astype(np.int32), tuple(map(str, range(len(labels)))), np.arange(len(labels)), len(labels)
        )

    names = tuple(f"class_{i}" for i in range(protocol.CLASSES))
    return Dataset(names, images.shape[1], split(images, labels), split(val_images, val_labels), None)


def make_source(dataset: Dataset) -> Weights:
    """Random weights in the place of a feature_extraction run's, which both training stages take."""
    variables = {path: np.asarray(leaf) for path, leaf in trees.flatten(init(len(dataset.class_names))).items()}
    labels = tuple((None, name) for name in dataset.class_names)
    return Weights("random", variables, "v1", CAFFE, dataset.image_size, labels, {}, is_run=True)


def run_stage(stage: str, cut: str, epochs: int, dataset: Dataset, source: Weights | None) -> None:
    """A whole run with all its checkpoints and pictures, left nowhere."""
    config = Config(
        stage=stage,  # type: ignore[arg-type]
        cut=cut,
        epochs=epochs,
        patience=epochs,
        pretrained=None if source is None else source.name,
        optimizer=Adam(learning_rate=1e-4 if stage == "fine_tune" else 1e-3),
    )
    with tempfile.TemporaryDirectory() as folder:
        stages.run_stage(config, Path(folder), source, dataset, {})


def use_cache(state: str) -> None:
    """`cold`: nothing has been computed or compiled before; `warm`: what earlier jobs left is there."""
    if state == "cold":
        root = cache.folder("")
        for path in (path for path in root.rglob("*") if path.is_file()):
            path.unlink()
        shutil.rmtree(root / "arrays", ignore_errors=True)


class TljaxWorker:
    jobs = frozenset({"forward_224", "forward_32", *protocol.STEP_CUTS, *protocol.JOB_CUTS})

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def prepare(self, job: str) -> tuple[Callable[[], object], int]:
        if job.startswith("forward_"):
            large = job == "forward_224"
            size, side = (protocol.LARGE_BATCH, 224) if large else (protocol.BATCH, 32)
            classes = protocol.LARGE_CLASSES if large else protocol.CLASSES
            classify = jax.jit(partial(inference.classify, model=ResNet(classes), preprocessing=CAFFE, size=side))
            folded, labels = jax.jit(partial(fold, ResNet(classes)))(init(classes)), np.zeros(size, np.int32)
            inputs = protocol.repeat_batches(size, self.arrays["large_images" if large else "train_images"])
            return lambda: jax.block_until_ready(classify(folded, *next(inputs), labels)), size
        return self._prepare_step(protocol.STEP_CUTS[job])

    def _prepare_step(self, cut: str) -> tuple[Callable[[], object], int]:
        """On images, so that the frozen units run in every step."""
        model, tx = ResNet(protocol.CLASSES), partitioned_adam(Adam(), cut)
        embed = partial(inference.embed_images, model=model, cut=cut, preprocessing=CAFFE)
        settings = {"model": model, "tx": tx, "cut": cut, "embed": embed, "train_batch_norm": False}
        run = jax.jit(partial(steps.train_steps, **settings), donate_argnums=0)
        # On the mesh, as a run has it: else two of it are in memory.
        create = partial(steps.create_state, tx=tx, cut=cut)
        donated = ("params", "batch_stats")
        state = jax.jit(create, out_shardings=whole(make_mesh()), donate_argnames=donated)(**init(protocol.CLASSES))
        rows = slice(STEPS * protocol.BATCH)
        images, labels = self.arrays["train_images"][rows], self.arrays["train_labels"][rows].astype(np.int32)
        examples = batches.place_examples(images, labels, len(labels), protocol.BATCH, images.nbytes, make_mesh())
        ((chunk, _),) = examples.chunks(batches.draw_order(len(labels), protocol.BATCH, seed=0, epoch=1))

        def repeat() -> None:
            nonlocal state
            state, _ = jax.block_until_ready(run(state, chunk, np.int32(0), np.int32(STEPS), KEY))

        return repeat, STEPS * protocol.BATCH

    def run(self, job: str, request: Request, stopwatch: Stopwatch) -> None:
        use_cache(request["cache"])
        dataset = make_dataset(*protocol.take_rows(self.arrays, request))
        run_stage(job.removeprefix("job_"), protocol.JOB_CUTS[job], request["epochs"], dataset, make_source(dataset))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLJAX_CACHE_DIR"] = folder
        compilation.set_up()
        versions = {name: version(name) for name in ("tljax", "jax", "flax", "optax", "numpy")}
        protocol.serve(TljaxWorker, protocol.arguments(__doc__).arrays, versions)
