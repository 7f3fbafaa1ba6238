"""What test-time augmentation, the mean over a picture and its mirror image, gains on a run's validation pictures."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tljax.config import NOT_READ, Cache, Config, Data
from tljax.data import datasets
from tljax.data.datasets import Split
from tljax.model import Model
from tljax.runs.files import read_json
from tljax.runs.saved_configs import build_settings, fill_in
from tljax.runs.workdir import CONFIG, SUMMARY
from tljax.storage import cache
from tljax.training.calibration import softmax, true_probabilities

# The most validation pictures that are classified for this, drawn at random.
MOST_MEASURED = 1000


class Gain(NamedTuple):
    """Accuracies and mean cross-entropies (nats) without and with mirror images, on so many validation pictures."""

    images: int
    accuracy: tuple[float, float]
    loss: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"--tta on {self.images:,} validation pictures of the run: accuracy {self.accuracy[0]:.4f} without, "
            f"{self.accuracy[1]:.4f} with; loss {self.loss[0]:.4f} without, {self.loss[1]:.4f} with"
        )


def measure_gain(model: Model, run: Path) -> Gain:
    """Classifies the validation pictures of a run without and with mirror images. The result is kept in the user's
    cache folder.

    Raises:
      ValueError: if the run has no validation split, its data cannot be read, or the data has other classes now.
      OSError: if the data is not there any more.
    """
    data, limits, seed = read_settings(run)
    if data.validation_split == NOT_READ:
        raise ValueError("it learned from all pictures, and has none to validate on")
    bounds: Any = {"disk_bytes": limits.disk_bytes, "memory_bytes": limits.memory_bytes}
    dataset = datasets.load_dataset(data, seed=seed, training=False, **bounds)
    if dataset.class_names != model.class_names:
        raise ValueError(f"{data.name} has other classes now than the run")
    split = dataset.validation
    assert split is not None, "refused above"
    refuse_others(run, split)
    about = {
        "what": "what --tta gains",
        "weights": model.digest,
        "pictures": split.identity(),
        "content": split.content(),
        "most": MOST_MEASURED,
    }
    kept = cache.find(about)
    if kept is None:
        with cache.build(about, {}, limits.disk_bytes) as kept:
            kept["gain"] = np.array(_measure(model, split))
    images, *figures = kept["gain"].tolist()
    return Gain(int(images), (figures[0], figures[1]), (figures[2], figures[3]))


def refuse_others(run: Path, split: Split) -> None:
    """Raises ValueError if the pictures of `split` are not those that the run was validated on: it may have learned
    from some of them. Runs of earlier versions have not recorded these."""
    then = read_json(run / SUMMARY).get("data", {}).get("splits", {}).get("validation", {}).get("content")
    if then not in (None, split.content()):
        raise ValueError("the data has other validation pictures now than the run had")


def read_settings(run: Path) -> tuple[Data, Cache, int]:
    """The data, the cache and the seed of a run.

    Raises:
      ValueError: if its config is damaged.
      OSError: if it cannot be read.
    """
    try:
        config = build_settings(Config, fill_in(read_json(run / CONFIG), Config))
        return config.data, config.cache, config.seed
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{run / CONFIG} is damaged ({type(error).__name__}: {error})") from error


def _measure(model: Model, split: Split) -> list[float]:
    """The number of pictures, two accuracies and two losses."""
    rows = np.sort(np.random.default_rng(0).permutation(len(split.labels))[:MOST_MEASURED])
    labels, found = split.labels[rows], []
    for tta in (False, True):
        parts = []
        for start in tqdm(range(0, len(rows), model.batch_size), desc="--tta", leave=False, disable=None):
            some = split.images[rows[start : start + model.batch_size]]
            parts.append(np.asarray(model.start(some, tta=tta))[: len(some)])
        probabilities = softmax(np.concatenate(parts), model.temperature)
        loss = float(-np.log(true_probabilities(probabilities, labels)).mean())
        found.append((float(np.mean(probabilities.argmax(1) == labels)), loss))
    (accuracy, loss), (mirrored_accuracy, mirrored_loss) = found
    return [len(rows), accuracy, mirrored_accuracy, loss, mirrored_loss]
