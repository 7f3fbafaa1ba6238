"""The test split of a run that ended without it: evaluated once, after several runs were compared on validation."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tljax.config import Config, Data
from tljax.data.batches import map_batches
from tljax.data.datasets import Dataset, Split, load_dataset
from tljax.devices.mesh import Mesh, compute_dtype, gather, make_mesh, own_rows, put, whole
from tljax.runs.files import read_json, write_json
from tljax.runs.workdir import SUMMARY, as_begun, claim, find_run
from tljax.stages.conclusion import judge, write_predictions
from tljax.stages.overlap import count_known, warn_of_known
from tljax.training.calibration import cross_entropies
from tljax.training.epochs import Evaluation
from tljax.training.inference import predict_logits, start_inference
from tljax.trees import Row
from tljax.weights.pretrained import Weights, load_weights, restore


def evaluate_test(config: Config, workdir: Path, test_split: str | None) -> Row:
    """Evaluates a test split (None: `test`) with the finished run of `config` in `workdir`, adds what came out to its
    summary and returns that. A test split that was evaluated before is not evaluated again, and where the data has
    none nothing changes.

    The predictions are written first and the summary as a whole: a run that is killed meanwhile is as it was.

    Raises:
      ValueError: if no such run is finished there, or the data has other classes now.
      OSError: if it or the data cannot be read, or the result cannot be written.
    """
    with claim(workdir):
        config = as_begun(workdir, config)
        if find_run(workdir, config) != "finished":
            raise ValueError(f"{workdir} holds no finished run of this config, whose test split could be evaluated")
        summary: Row = read_json(workdir / SUMMARY)
        if "test" in summary:
            return summary
        dataset = load_test(config, replace(config.data, test_split=test_split))
        if dataset.test is None:
            return summary
        weights = load_weights(str(workdir))
        refuse_other_classes(weights, dataset, workdir)
        known = count_known(dataset, weights.learned)
        warn_of_known(known, dataset, weights.name, weights.learned)
        found = {"test": evaluate_split(weights, dataset.test, config)}
        write_predictions(workdir, dataset, found)
        # `known` counts the copies of what the network has learned from; train is not read again.
        summary = add_test(summary, dataset, judge(dataset, "test", found["test"], None), known)
        write_json(workdir / SUMMARY, summary)
        return summary


def load_test(config: Config, data: Data) -> Dataset:
    """The test split alone of `data`, as a run of `config` would read it."""
    own = partial(own_rows, make_mesh(), config.batch_size)
    disk, memory = config.cache.disk_bytes, config.cache.memory_bytes
    return load_dataset(data, seed=config.seed, only="test", disk_bytes=disk, memory_bytes=memory, own=own)


def refuse_other_classes(weights: Weights, dataset: Dataset, workdir: Path) -> None:
    trained_on = tuple(name for _, name in weights.labels)
    if trained_on != dataset.class_names:
        raise ValueError(
            f"{workdir} tells {', '.join(trained_on)}, and the data has {', '.join(dataset.class_names)} now; bring "
            "the data back"
        )


def evaluate_split(weights: Weights, split: Split, config: Config) -> Evaluation:
    """What the network of `weights` makes of the pictures of a split."""
    began, mesh = time.perf_counter(), make_mesh()
    logits = gather(predict_own(weights, split, config, mesh), split.rows, split.count)
    labels = split.all_labels()
    means = {
        "loss": float(np.mean(cross_entropies(logits, labels))),
        "accuracy": float(np.mean(logits.argmax(axis=1) == labels)),
    }
    return Evaluation(means, logits, time.perf_counter() - began)


def predict_own(weights: Weights, split: Split, config: Config, mesh: Mesh) -> np.ndarray:
    """The logits, [n, classes], of the pictures that this process reads."""
    network, variables = restore(weights)
    network = network.clone(dtype=compute_dtype(mesh, config.compute.precision))
    inference = start_inference(network, weights.preprocessing, put(variables, whole(mesh)), mesh)
    program = partial(inference.program(partial(predict_logits, mirror=False)), inference.folded)
    batches = map_batches(
        lambda images: (program(images),), (split.images,), config.batch_size, mesh, name="evaluation of test"
    )
    return np.concatenate([logits for _, (logits,) in batches])


def add_test(summary: Row, dataset: Dataset, judged: Row, known: Row | None) -> Row:
    """`summary` as it is of a run that evaluated its test split; `judged` is what `judge` says of it."""
    before = summary["data"]
    notes = [note for note in before["notes"] if not note.startswith("not used: test (")]
    data = before | {"splits": before["splits"] | dataset.description["splits"], "notes": notes}
    source = summary.get("known_to_source")
    more = {"known_to_source": source | known} if source is not None and known is not None else {}
    return summary | more | {"test": judged, "data": data}
