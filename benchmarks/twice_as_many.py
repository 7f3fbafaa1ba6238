"""How often what is said of twice as many labels holds: the table of docs/numbers.md.

    python benchmarks/twice_as_many.py
    python benchmarks/twice_as_many.py --data-dir DIR --out FOLDER

Heads are solved from some labels, and the curve is carried on to twice as many; then a head is solved from these and as
many others, and both are measured on pictures that nothing has seen. Simulated features and scikit-learn's digits take
some minutes on two cores. With TFDS's data_dir also on CIFAR-10: on what a network reads that has learned five other
classes, which is trained in FOLDER first, as in `coverage.py`. `--draws` says how often pictures are drawn. The seeds
are 0, 1, 2 and so on.
"""

import os

# Two threads in each of many small products are slower than one. Before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from coverage import Draw, Pictures, cifar10, digits, draw_from, simulate, table

from tljax.training import ridge
from tljax.training.learning_curve import Labelled, LearningCurve, find_curve, measure_growth


class Trial(NamedTuple):
    """A curve, and the accuracies of each class, on pictures that nothing has seen, of the heads of these labels and of
    twice as many."""

    curve: LearningCurve
    before: np.ndarray
    after: np.ndarray

    @property
    def gain(self) -> float:
        return float((self.after - self.before).mean())


def try_once(draw: Draw, classes: int, each: int, judges: int, seed: int) -> Trial:
    """Draws twice `each` labels of each class, and `judges` validation pictures."""
    rng = np.random.default_rng(seed)
    drawn = draw([2 * each] * classes, rng)
    order = rng.permutation(len(drawn.fresh.labels))
    validation, unseen = (drawn.fresh.take(rows) for rows in (order[:judges], order[judges:]))
    place = np.concatenate([np.flatnonzero(drawn.train.labels == label)[:each] for label in range(classes)])
    some = drawn.train.take(place)
    curve = find_curve(measure_growth(label(some), label(validation), classes))
    return Trial(curve, *(judge(pictures, unseen, classes) for pictures in (some, drawn.train)))


def label(pictures: Pictures) -> Labelled:
    return Labelled(pictures.features, pictures.labels)


def judge(train: Pictures, unseen: Pictures, classes: int) -> np.ndarray:
    """The accuracies of the classes."""
    head = ridge.solve_head(train.features, train.labels, classes)
    right = (unseen.features @ head.kernel + head.bias).argmax(axis=1) == unseen.labels
    recalls: np.ndarray = np.bincount(unseen.labels, right) / np.bincount(unseen.labels)
    return recalls


def measure(what: str, draw: Draw, classes: int, each: int, judges: int, draws: int) -> Sequence[str]:
    """A row: how often a curve was found, what was said and true on average, how often the interval and the band held,
    and by how much more than others classes gained that were said to need more."""
    trials = list(map(partial(try_once, draw, classes, each, judges), range(draws)))
    found = [(trial, trial.curve.twice) for trial in trials if trial.curve.twice]
    said = [gain.value for _, gain in found]
    held = [gain.low <= trial.gain <= gain.high for trial, gain in found]
    last = [(trial.curve.fitted[-1], trial.after.mean()) for trial, _ in found]
    gained = [
        (trial.after - trial.before)[need.label] - trial.gain
        for trial in trials
        for need in trial.curve.classes
        if need.low
    ]
    numbers = [
        np.mean(said),
        np.mean([trial.gain for trial, _ in found]),
        np.mean([g.high - g.value for _, g in found]),
    ]
    shares = [np.mean(held), np.mean([point.low <= true <= point.high for point, true in last])]
    more = f"{np.mean(gained):+.2f}" if gained else ""
    return [
        what,
        f"{classes} x {each}",
        str(judges),
        f"{len(found) / draws:.2f}",
        *(f"{number:.3f}" for number in numbers),
        *(f"{share:.2f}" for share in shares),
        more,
    ]


def list_rows(flags: argparse.Namespace) -> Iterator[Sequence[str]]:
    kinds = [
        ("simulated", simulate, 10, (5, 10, 20, 50), (200, 1000)),
        ("digits", draw_from(digits()), 5, (5, 10, 20), (50, 200)),
    ]
    if flags.data_dir:
        read = draw_from(cifar10(flags.data_dir, flags.out))
        kinds.append(("CIFAR-10", read, 5, (5, 10, 20, 50, 100), (50, 200, 1000)))
    for what, draw, classes, sizes, validations in (kind for kind in kinds if kind[0] in flags.features):
        for each in sizes:
            for judges in validations:
                yield measure(what, draw, classes, each, judges, flags.draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    features = ["simulated", "digits", "CIFAR-10"]
    parser.add_argument("--features", nargs="+", choices=features, default=features)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--data-dir", help="TFDS's data_dir with CIFAR-10")
    parser.add_argument("--out", type=Path, help="folder of the network that is trained")
    flags = parser.parse_args()
    if flags.data_dir and not flags.out:
        parser.error("--data-dir needs --out")
    head = (
        "features",
        "classes x labels",
        "validation",
        "a curve",
        "said",
        "true",
        "+-",
        "interval holds",
        "band holds",
    )
    for line in table((*head, "classes named gain more by"), list_rows(flags)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
