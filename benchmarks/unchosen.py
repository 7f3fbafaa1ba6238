"""How often the intervals around the accuracy of the best epoch hold its accuracy on fresh pictures.

    python benchmarks/unchosen.py --data-dir DIR

A draw is the course of a training: the loss of each validation picture after each epoch, whether it is predicted right,
and the accuracy of each epoch on fresh pictures. The epoch with the lowest mean loss, or the highest accuracy, is the
best one. An interval is right if it holds the accuracy of that epoch on fresh pictures.

Simulated courses have normal margins, which are sums of what epochs share and what each has for itself; their true
accuracies are exact. Trained courses are networks of one or two layers that Adam trains: on rectified Gaussian features
(fresh: 10,000 pictures), on the pixels of digits (all 1,597 others, so 100 pictures at most choose) and on random
patches of CIFAR-10 (10,000). DIR is TFDS's data_dir with CIFAR-10. Seeds are the numbers of the draws.

What is measured stands in `unchosen.json` beside this file, a line for each number of pictures, number of epochs and
monitor, and is not measured again: means of what is too high, and coverage and mean width of each interval. At the end
it prints a table. About half an hour on one core.
"""

import argparse
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import ndtr, ndtri

from tljax.config import Data, Monitor
from tljax.data import datasets
from tljax.training import unchosen
from tljax.training.calibration import accuracy_interval
from tljax.training.progress import EarlyStopper, update_stopper
from tljax.training.unchosen import Judged, measure_outside, undo_choice

DRAWS = 400
PICTURES = (20, 50, 100, 300, 900)
EPOCHS = (5, 10, 30)
MONITORS: tuple[Monitor, ...] = ("val_loss", "val_accuracy")
FRESH = 10_000
STOPPED = "alike, half shared, patience 5"
RESULTS = Path(__file__).with_suffix(".json")
# The bags are the same in all draws.
unchosen.draw_bags = cache(unchosen.draw_bags)


class Course(NamedTuple):
    """The course of a training: losses and right predictions [pictures, epochs], true accuracies [epochs]."""

    losses: np.ndarray
    right: np.ndarray
    true: np.ndarray

    def best(self, monitor: Monitor) -> int:
        scores = self.losses.astype(np.float64) if monitor == "val_loss" else -self.right.astype(int)
        return int(scores.sum(axis=0).argmin())


def stop(course: Course, monitor: Monitor, patience: int) -> Course:
    """The course up to where early stopping ends it."""
    scores = course.losses.mean(axis=0) if monitor == "val_loss" else -course.right.mean(axis=0)
    stopper = EarlyStopper()
    for epoch, score in enumerate(scores, start=1):
        stopper = update_stopper(stopper, epoch=epoch, score=float(score), patience=patience)
        if stopper.stopped:
            return Course(course.losses[:, :epoch], course.right[:, :epoch], course.true[:epoch])
    return course


# (draw, number of pictures, number of epochs) -> a course.
Case = Callable[[int, int, int], Course]
# (time from 0 to 1, random numbers) -> mean margin of each epoch.
Level = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def stay(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Epochs that are alike."""
    return np.zeros(len(time))


def rise(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Epochs that get better until the end."""
    return -1.2 * (1 - time)


def overfit(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Epochs that get better, then worse."""
    return -1.5 * np.exp(-time / 0.12) - 0.6 * np.maximum(0, time - 0.4)


def jump(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Epochs of which some are better than others, as with high learning rates."""
    return rng.normal(0, 0.25, len(time)) - np.exp(-time / 0.15)


def observe(means: np.ndarray, noise: np.ndarray, sharpness: np.ndarray | float) -> Course:
    """A course of margins of variance 1 around the `means` of the epochs; logits are `sharpness` times as large."""
    margins = means + noise
    return Course(np.logaddexp(0, -sharpness * margins), margins > 0, ndtr(means))


def simulate(draw: int, pictures: int, epochs: int, level: Level, top: float, shared: float, near: float) -> Course:
    """Epochs whose margins are what each picture shares in all of them, and what it has in each; neighbours correlate
    by `near`. A level of 0 has the accuracy `top`. Logits grow, so that the loss grows before the accuracy falls."""
    rng = np.random.default_rng([draw, pictures, epochs])
    time = (np.arange(epochs) + 1) / epochs
    means = ndtri(top) + level(time, rng)
    own = rng.normal(size=(pictures, epochs))
    for i in range(1, epochs):
        own[:, i] = near * own[:, i - 1] + np.sqrt(1 - near**2) * own[:, i]
    noise = np.sqrt(shared) * rng.normal(size=(pictures, 1)) + np.sqrt(1 - shared) * own
    return observe(means, noise, 2 + 4 * time if level is overfit else 3.0)


def continue_chosen(draw: int, pictures: int, epochs: int, stages: int) -> Course:
    """Epochs that are alike, of the last of several fine-tunings: each starts from one of as many epochs that the same
    pictures chose by their loss, from which comes half of what a picture has in each of its own."""
    rng = np.random.default_rng([draw, pictures, epochs])
    means = np.full(epochs, ndtri(0.8))
    picture, own = (rng.normal(size=(pictures, n)) / np.sqrt(2) for n in (1, epochs))
    for _ in range(stages):
        start = own[:, [observe(means, picture + own, 3.0).best("val_loss")]]
        own = (start + rng.normal(size=(pictures, epochs)) / np.sqrt(2)) / np.sqrt(2)
    return observe(means, picture + own, 3.0)


class Pool(NamedTuple):
    """Features of pictures, and their labels."""

    features: np.ndarray
    labels: np.ndarray


class Training(NamedTuple):
    """How a small network is trained: pictures, those of a batch, learning rate, hidden features (0: none)."""

    pictures: int
    batch: int
    rate: float
    hidden: int


def draw_gaussians(draw: int) -> Pool:
    """Rectified Gaussian features of five classes."""
    rng = np.random.default_rng(draw)
    labels = rng.integers(0, 5, 100 + max(PICTURES) + FRESH)
    centres = rng.normal(size=(5, 64)) * 0.4
    return Pool(np.maximum(0, centres[labels] + rng.normal(size=(len(labels), 64))).astype(np.float32), labels)


@cache
def read_digits() -> Pool:
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    return Pool((digits.data / 16).astype(np.float32), digits.target)


@cache
def read_cifar10(data_dir: str) -> Pool:
    """What 150 patches find as filters in the quarters of a picture: Coates, Ng and Lee, An analysis of single-layer
    networks in unsupervised feature learning (2011), without the whitening."""
    data = Data(name="cifar10", dir=data_dir, validation_split="none", max_images=12_000)
    split = datasets.load_dataset(data, seed=0, disk_bytes=0).train
    assert split is not None
    images = np.asarray(split.images, np.float32) / 127.5 - 1
    rng = np.random.default_rng(0)
    places = zip(rng.integers(0, len(images), 150), *rng.integers(0, 27, (2, 150)), strict=True)
    patches = np.stack([images[i, y : y + 6, x : x + 6] for i, y, x in places])
    patches -= patches.mean(axis=(1, 2, 3), keepdims=True)
    patches /= np.sqrt((patches**2).sum(axis=(1, 2, 3), keepdims=True))
    filters = np.moveaxis(patches, 0, -1)

    @jax.jit
    def find(batch: jax.Array) -> jax.Array:
        found = jax.lax.conv_general_dilated(
            batch, filters, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        found = jnp.maximum(0, found[:, :26, :26] - 0.5)
        return found.reshape(len(batch), 2, 13, 2, 13, -1).mean(axis=(2, 4)).reshape(len(batch), -1)

    features = np.concatenate([find(images[i : i + 200]) for i in range(0, len(images), 200)])
    return Pool((features - features.mean(axis=0)) / features.std(axis=0), np.asarray(split.labels))


@partial(jax.jit, static_argnames=("training", "epochs", "classes"))
def train(
    key: jax.Array, features: Any, labels: Any, others: Any, training: Training, epochs: int, classes: int
) -> Any:
    """Logits of the `others` after each epoch, [epochs, n, classes]."""
    optimizer = optax.adam(training.rate)
    sizes = [features.shape[1], *[training.hidden] * (training.hidden > 0), classes]
    keys = jax.random.split(key, len(sizes))
    weights = [
        (jax.random.normal(k, (a, b)) * jnp.sqrt(1 / a), jnp.zeros(b))
        for k, a, b in zip(keys[1:], sizes, sizes[1:], strict=False)
    ]

    def apply(weights: Any, x: Any) -> Any:
        for kernel, bias in weights[:-1]:
            x = jax.nn.relu(x @ kernel + bias)
        return x @ weights[-1][0] + weights[-1][1]

    def loss(weights: Any, rows: Any) -> Any:
        logits = apply(weights, features[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    def step(carry: Any, rows: Any) -> Any:
        weights, state = carry
        updates, state = optimizer.update(jax.grad(loss)(weights, rows), state)
        return (optax.apply_updates(weights, updates), state), None

    def epoch(carry: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(features)).reshape(-1, training.batch)
        carry, _ = jax.lax.scan(step, carry, order)
        return carry, apply(carry[0], others)

    return jax.lax.scan(epoch, (weights, optimizer.init(weights)), jax.random.split(keys[0], epochs))[1]


def train_small(draw: int, pictures: int, epochs: int, read: Callable[[int], Pool], training: Training) -> Course:
    """A course of real training. It is the same for all numbers of pictures and epochs, cut to them."""
    course = _train_whole(draw, read, training)
    return Course(course.losses[:pictures, :epochs], course.right[:pictures, :epochs], course.true[:epochs])


@cache
def _train_whole(draw: int, read: Callable[[int], Pool], training: Training) -> Course:
    pool = read(draw)
    # The fresh pictures are so many that their accuracy may count as the true one.
    chosen = max(pictures for pictures in PICTURES if 10 * pictures < len(pool.labels))
    order = np.random.default_rng(draw).permutation(len(pool.labels))[: training.pictures + chosen + FRESH]
    own, others = order[: training.pictures], order[training.pictures :]
    classes = int(pool.labels.max()) + 1
    arrays = pool.features[own], pool.labels[own], pool.features[others]
    logits = np.asarray(train(jax.random.key(draw), *arrays, training, max(EPOCHS), classes), np.float64)
    labels = pool.labels[others]
    judged = [unchosen.judge_pictures(epoch, labels) for epoch in logits]
    losses, right = (np.stack(part, axis=1) for part in zip(*judged, strict=True))
    return Course(losses[:chosen], right[:chosen], right[chosen:].mean(axis=0))


def make_cases(data_dir: str) -> dict[str, Case]:
    def simulated(level: Level, top: float, shared: float, near: float) -> Case:
        return partial(simulate, level=level, top=top, shared=shared, near=near)

    def trained(read: Callable[[int], Pool], *training: Any) -> Case:
        return partial(train_small, read=read, training=Training(*training))

    digits, cifar10 = lambda draw: read_digits(), lambda draw: read_cifar10(data_dir)
    return {
        "alike, half shared": simulated(stay, 0.8, 0.5, 0.0),
        "alike, most shared": simulated(stay, 0.8, 0.8, 0.0),
        "alike, neighbours more so": simulated(stay, 0.8, 0.5, 0.7),
        "alike, 0.95 right": simulated(stay, 0.95, 0.7, 0.0),
        STOPPED: simulated(stay, 0.8, 0.5, 0.0),
        "better to the end": simulated(rise, 0.8, 0.5, 0.7),
        "better, then worse": simulated(overfit, 0.8, 0.5, 0.7),
        "jumping": simulated(jump, 0.8, 0.5, 0.0),
        "jumping, 0.95 right": simulated(jump, 0.95, 0.7, 0.0),
        "from a chosen start": partial(continue_chosen, stages=1),
        "from a second chosen start": partial(continue_chosen, stages=2),
        "head, Gaussian features": trained(draw_gaussians, 100, 20, 0.03, 0),
        "head, digits": trained(digits, 100, 20, 0.03, 0),
        "hidden layer, digits": trained(digits, 100, 20, 0.03, 64),
        "head, CIFAR-10": trained(cifar10, 500, 50, 0.003, 0),
    }


class Tried(NamedTuple):
    """What is said about one course: the true accuracy, that on the pictures that chose, the one without the choice,
    and intervals by name."""

    true: float
    accuracy: float
    unchosen: float
    intervals: dict[str, tuple[float, float]]


def try_intervals(course: Course, monitor: Monitor) -> Tried:
    judged = [Judged(*epoch) for epoch in zip(course.losses.T, course.right.T, strict=True)]
    best, pictures = course.best(monitor), len(course.right)
    accuracy = float(course.right[:, best].mean())
    undone = undo_choice(judged, monitor, accuracy)
    assert undone is not None
    right, outside = measure_outside(judged, monitor)
    low, high = np.percentile((right / np.maximum(outside, 1))[outside > 0], [2.5, 97.5])
    intervals = {
        "Wilson": accuracy_interval(accuracy, pictures),
        "out of bag, Wilson": accuracy_interval(undone.accuracy, pictures),
        "out of bag, percentiles": (float(low), float(high)),
        "both, Wilson": (undone.low, undone.high),
    }
    return Tried(float(course.true[best]), accuracy, undone.accuracy, intervals)


def measure(case: Case, patience: int | None) -> dict[str, dict[str, Any]]:
    """Coverage and mean width of each interval, and how much too high the accuracies are, by cell."""
    cells = {}
    for pictures, epochs, monitor in [(n, e, m) for n in PICTURES for e in EPOCHS for m in MONITORS]:
        if len(case(0, pictures, epochs).right) < pictures:
            continue
        courses = (case(draw, pictures, epochs) for draw in range(DRAWS))
        tried = [try_intervals(stop(course, monitor, patience) if patience else course, monitor) for course in courses]
        true = np.array([one.true for one in tried])
        cell: dict[str, Any] = {
            "accuracy": round(float(np.mean([one.accuracy for one in tried] - true)), 4),
            "unchosen": round(float(np.mean([one.unchosen for one in tried] - true)), 4),
        }
        for name in tried[0].intervals:
            low, high = np.array([one.intervals[name] for one in tried]).T
            held = (low <= true) & (true <= high)
            cell[name] = [round(float(np.mean(held)), 4), round(float(np.mean(high - low)), 4)]
        cells[f"{pictures}/{epochs}/{monitor}"] = cell
    return cells


def describe(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A row for each case, over all its cells: how much too high both accuracies are, the least coverage of each
    interval, and how wide the last is beside the first."""
    names = [name for name in next(iter(next(iter(found.values())).values())) if name not in ("accuracy", "unchosen")]
    head = ["course", "accuracy too high by", "on others by", *names, "its width"]
    lines = [f"| {' | '.join(head)} |", f"| :-- {'| --: ' * (len(head) - 1)}|"]
    for case, cells in found.items():
        biases = [[cell[name] for cell in cells.values()] for name in ("accuracy", "unchosen")]
        ranges = [f"{min(values):+.3f} to {max(values):+.3f}" for values in biases]
        least = [f"{min(cell[name][0] for cell in cells.values()):.2f}" for name in names]
        wider = np.mean([cell[names[-1]][1] / cell[names[0]][1] for cell in cells.values()])
        lines.append(f"| {' | '.join([case, *ranges, *least, f'{wider:.2f}'])} |")
    return "\n".join(lines)


def write(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Writes a line for each cell."""
    cases = [
        f"{json.dumps(case)}: {{\n"
        + ",\n".join(f" {json.dumps(key)}: {json.dumps(cells[key])}" for key in cells)
        + "\n}"
        for case, cells in found.items()
    ]
    RESULTS.write_text("{\n" + ",\n".join(cases) + "\n}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="TFDS's data_dir with CIFAR-10")
    flags = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name, case in make_cases(flags.data_dir).items():
        if name not in found:
            found[name] = measure(case, 5 if name == STOPPED else None)
            write(found)
            print(f"MEASURED {name}", flush=True)
    print(describe(found))


if __name__ == "__main__":
    main()
