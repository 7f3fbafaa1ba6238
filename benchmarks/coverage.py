"""How often what a run promises holds: tables of promised and real for docs/numbers.md.

    python benchmarks/coverage.py
    python benchmarks/coverage.py --data-dir DIR --out FOLDER

`solved`: what a solved head is expected to have on new pictures. `weights`: what class weights do for a solved head
where classes are of different sizes. Both on simulated features and on scikit-learn's digits: a few minutes on two
cores. With TFDS's data_dir the first also on CIFAR-10, on what a network reads that has learned five other classes of
it, which is trained in FOLDER first: a minute more. `sets`: what sets of labels hold, as they are and for the mean over
mirror images, of a network that is trained in FOLDER. `classes`: intervals of the scores of a class. `--tables`
names some, `--draws` says how often pictures are drawn. The seeds are 0, 1, 2 and so on.
"""

import os

# Two threads in each of many small products are slower than one. Before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from protocol import SOURCE, TARGET

import tljax
from tljax.config import Config, Data
from tljax.data import datasets
from tljax.report.classes import ClassScore, score_class
from tljax.training import calibration, ridge
from tljax.training.regularization import balance

# Simulated features, and the distance of classes with which heads are about as good as those of a real source.
SIZE, SPREADS = 256, {2: 0.3, 5: 0.32, 10: 0.4, 20: 0.4, 100: 0.52}
# New pictures to find a head's true accuracy with.
FRESH = 5_000
# Pictures of a writer stand together in scikit-learn's digits: 13 of them (UCI, Optical Recognition of Digits, test).
WRITERS = 13
COVERAGES = (0.8, 0.9, 0.95)


class Pictures(NamedTuple):
    """Features [n, features] and labels [n]; `groups` [n] if it is known which belong together."""

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Pictures":
        groups = None if self.groups is None else self.groups[rows]
        return Pictures(self.features[rows], self.labels[rows], groups)


class Drawn(NamedTuple):
    """Pictures to learn from, and others of the same kind."""

    train: Pictures
    fresh: Pictures


# (pictures of each class, random numbers) -> pictures
Draw = Callable[[Sequence[int], np.random.Generator], Drawn]


def simulate(counts: Sequence[int], rng: np.random.Generator) -> Drawn:
    """Gaussian classes, rectified as a network's last features are; new classes in each draw."""
    classes = len(counts)
    centres = SPREADS[classes] * rng.standard_normal((classes, SIZE), np.float32)

    def draw(labels: np.ndarray) -> Pictures:
        noise = rng.standard_normal((len(labels), SIZE), np.float32)
        return Pictures(np.maximum(centres[labels] + noise, 0), labels)

    return Drawn(draw(np.repeat(np.arange(classes), counts)), draw(np.arange(FRESH) % classes))


def split(pictures: Pictures, counts: Sequence[int], order: np.ndarray, others: np.ndarray | None = None) -> Drawn:
    """The first pictures of each class in `order`, and all that are not among them, or `others`."""
    labels = pictures.labels[order]
    rows = np.concatenate([order[labels == label][:count] for label, count in enumerate(counts)])
    rest = np.setdiff1d(order, rows) if others is None else others
    return Drawn(pictures.take(rows), pictures.take(rest))


def digits() -> Pictures:
    """The pixels of the digits 5 to 9, in scikit-learn's order."""
    import sklearn.datasets

    found = sklearn.datasets.load_digits()
    rows = np.flatnonzero(found.target >= 5)
    return Pictures(found.data[rows].astype(np.float32), found.target[rows] - 5)


def draw_from(pictures: Pictures) -> Draw:
    """Draws pictures at random: any others are new ones."""
    return lambda counts, rng: split(pictures, counts, rng.permutation(len(pictures.labels)))


def draw_writers(pictures: Pictures, known_as_groups: bool) -> Draw:
    """Draws the pictures of six writers: the others are those of the other seven."""
    writers = np.arange(len(pictures.labels)) * WRITERS // len(pictures.labels)
    if known_as_groups:
        pictures = pictures._replace(groups=writers)

    def draw(counts: Sequence[int], rng: np.random.Generator) -> Drawn:
        known = np.isin(writers, rng.choice(WRITERS, 6, replace=False))
        return split(pictures, counts, rng.permutation(np.flatnonzero(known)), np.flatnonzero(~known))

    return draw


def cifar10(data_dir: str, out: Path) -> Pictures:
    """What the head reads of five classes of CIFAR-10's test split, in a network that is trained on five others."""
    scratch: dict[str, Any] = {"stage": "from_scratch", "cut": "conv1", "batch_norm": "training", "variant": "v1.5"}
    data = Data(dir=data_dir, classes=SOURCE, max_images=6_000)
    tljax.train(Config(**scratch, epochs=2, batch_size=64, data=data), out / "source")
    read = datasets.load_dataset(Data(dir=data_dir, classes=TARGET), seed=0, training=False).validation
    assert read is not None
    return Pictures(tljax.load(out / "source").features(np.asarray(read.images)), read.labels)


class Head(NamedTuple):
    """What is expected of a solved head, and its probabilities for new pictures."""

    estimate: ridge.Estimate
    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.probabilities.argmax(axis=1) == self.labels))

    @property
    def recalls(self) -> np.ndarray:
        """The share of right predictions of each class."""
        right = self.probabilities.argmax(axis=1) == self.labels
        return np.bincount(self.labels, right) / np.bincount(self.labels)


def solve(drawn: Drawn, classes: int, weights: Sequence[float] | None = None) -> Head:
    features, labels, groups = drawn.train
    head = ridge.solve_head(features, labels, classes, weights=weights, groups=groups)
    estimate = ridge.estimate_accuracy(head.held_out, drawn.train.labels, weights)
    assert estimate is not None
    return Head(estimate, calibration.softmax(drawn.fresh.features @ head.kernel + head.bias), drawn.fresh.labels)


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table, each as soon as it is known."""
    yield f"| {' | '.join(head)} |"
    yield "| :-- |" + " --: |" * (len(head) - 1)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def measure_solved(what: str, draw: Draw, classes: int, each: int, draws: int) -> Sequence[str]:
    """A row of `solved`: what was promised and what is true, on average over the draws."""
    heads = [solve(draw([each] * classes, np.random.default_rng(seed)), classes) for seed in range(draws)]
    expected, least = (np.array([getattr(head.estimate, name) for head in heads]) for name in ("accuracy", "at_least"))
    low, high = np.transpose([calibration.accuracy_interval(x, classes * each) for x in expected])
    true = np.array([head.accuracy for head in heads])
    covered = ((low <= true) & (true <= high)).mean(), (least <= true).mean()
    return [what, f"{classes} x {each}", *_round(expected.mean(), true.mean(), least.mean(), *covered)]


def _round(*numbers: float) -> list[str]:
    return [f"{number:.2f}" for number in numbers]


def solved(flags: argparse.Namespace) -> Iterator[str]:
    """What a solved head is expected to have on new pictures."""
    pixels = digits()
    kinds: list[tuple[str, Draw, dict[int, tuple[int, ...]]]] = [
        ("simulated", simulate, {5: (2, 5, 20), 20: (2, 5, 10), 100: (2, 3, 5)}),
        ("digits", draw_from(pixels), {5: (2, 5, 20)}),
        ("digits of other writers", draw_writers(pixels, False), {5: (2, 5, 20)}),
        ("the same, whole writers left out", draw_writers(pixels, True), {5: (2, 5, 20)}),
    ]
    if flags.data_dir:
        kinds.append(("CIFAR-10", draw_from(cifar10(flags.data_dir, flags.out)), {5: (2, 5, 20, 50)}))
    rows = (
        measure_solved(what, draw, classes, each, flags.draws)
        for what, draw, cells in kinds
        for classes, pictures in cells.items()
        for each in pictures
    )
    head = ("features", "classes x pictures", "expected", "true", "at least", "the 95% hold", "at least holds")
    return table(head, rows)


def measure_weights(what: str, draw: Draw, counts: tuple[int, ...], draws: int) -> Iterator[Sequence[str]]:
    """Rows of `weights`: without them, balanced, and without them from 50 pictures of each class."""
    even, balanced = (50,) * len(counts), balance({str(i): count for i, count in enumerate(counts)})
    for name, pictures, weights in (("none", counts, None), ("balanced", counts, balanced), ("none", even, None)):
        rare, shares = np.array(counts) == min(counts), np.array(pictures) / sum(pictures)
        drawn = (draw(pictures, np.random.default_rng(seed)) for seed in range(draws))
        rows = [judge(solve(one, len(counts), weights), rare, shares) for one in drawn]
        expected, *shown, even_rare, trained_rare = np.mean(rows, axis=0)
        called = f"{even_rare:.3f} of {rare.mean():.3f}", f"{trained_rare:.3f} of {shares[rare].sum():.3f}"
        yield [what, _describe(pictures), name, f"{expected:.4f}", *_round(*shown), *called]


def judge(head: Head, rare: np.ndarray, shares: np.ndarray) -> list[float]:
    """The numbers of a row of `weights` for one head; the last two are the mean probability of the `rare` classes,
    where all classes are equally frequent, and where they have these `shares`."""
    holds = head.estimate.at_least <= np.average(head.recalls, weights=shares)
    balanced = calibration.balanced_accuracy(head.estimate.confusions)
    is_rare = head.probabilities[:, rare].sum(axis=1)
    of_class = np.bincount(head.labels, is_rare) / np.bincount(head.labels)
    called = float(of_class.mean()), float(np.average(of_class, weights=shares))
    recalls = float(head.recalls.mean()), float(head.recalls[rare].mean())
    return [head.estimate.accuracy, balanced, *recalls, float(holds), *called]


def _describe(counts: Sequence[int]) -> str:
    """Such as "5 x 3, 5 x 60"."""
    return ", ".join(f"{counts.count(count)} x {count:,}" for count in sorted(set(counts)))


def weights(flags: argparse.Namespace) -> Iterator[str]:
    """What weights of the classes do for a solved head."""
    kinds: list[tuple[str, Draw, tuple[int, ...]]] = [
        ("simulated", simulate, (9_000, 50)),
        ("simulated", simulate, (3,) * 5 + (60,) * 5),
        ("digits", draw_from(digits()), (3, 3, 60, 60, 60)),
        ("digits", draw_from(digits()), (4, 8, 16, 32, 64)),
    ]
    # A tenth of the draws of thousands of pictures.
    rows = (
        row
        for *kind, counts in kinds
        for row in measure_weights(*kind, counts, flags.draws if sum(counts) < 1000 else flags.draws // 10)
    )
    head = ("features", "pictures", "weights", "expected", "expected, balanced", "true, balanced", "true, rare classes")
    return table((*head, "at least holds", "called rare, even", "called rare, as in training"), rows)


def train_digits(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of digits that a network has not learned from, those of the mean over mirror images, and labels. The
    network learns from the other half of them, in `folder`."""
    data = Data(name="digits", validation_split="train[:50%]")
    tljax.train(Config(stage="from_scratch", cut="conv1", epochs=6, batch_size=32, data=data), folder)
    model, split = tljax.load(folder), datasets.load_dataset(data, seed=0, training=False).validation
    assert split is not None, "it has been chosen"
    return model(split.images), model(split.images, tta=True), split.labels


def measure_sets(plain: np.ndarray, mirrored: np.ndarray, labels: np.ndarray, fitted: int, draws: int) -> np.ndarray:
    """How often sets fitted on so many of the pictures have the right label of the others, [coverages, 2]: of logits as
    they are, and of those of the mean over mirror images."""
    held = np.zeros((draws, len(COVERAGES), 2))
    for seed in range(draws):
        drawn = np.random.default_rng(seed).permutation(len(labels))
        some, rest = drawn[:fitted], drawn[fitted:]
        temperature, _ = calibration.choose_temperature(plain[some], labels[some], some)
        scores = calibration.true_probabilities(calibration.softmax(plain[some], temperature), labels[some])
        for i, coverage in enumerate(COVERAGES):
            for j, logits in enumerate((plain, mirrored)):
                probabilities = calibration.softmax(logits[rest], temperature)
                chosen = calibration.choose_sets(probabilities, calibration.find_threshold(scores, coverage))
                held[seed, i, j] = chosen[np.arange(len(rest)), labels[rest]].mean()
    return held.mean(axis=0)


def sets(flags: argparse.Namespace) -> Iterator[str]:
    """What sets of labels hold, and what they would hold for the mean over mirror images (digits, needs --out)."""
    if not flags.out:
        return
    found = train_digits(flags.out / "digits")
    held = {fitted: measure_sets(*found, fitted, flags.draws) for fitted in (50, 200)}
    rows = (
        [str(fitted), f"{coverage:g}", *_round(*held[fitted][i])]
        for fitted in held
        for i, coverage in enumerate(COVERAGES)
    )
    yield from table(("fitted on", "promised", "held", "with mirror images"), rows)


class Kind(NamedTuple):
    """A class, and how it is predicted: the share of its own pictures, that of others, and their number beside one of
    its own. Where sizes are `drawn`, each picture is of the class by chance."""

    recall: float
    others: float
    ratio: int
    drawn: bool


def draw_scores(kind: Kind, pictures: int, draws: int) -> Iterator[tuple[ClassScore, int]]:
    """The scores of a class of so many pictures, each with the number of its draws."""
    rng = np.random.default_rng(0)
    total = pictures * (1 + kind.ratio)
    support = rng.binomial(total, 1 / (1 + kind.ratio), draws) if kind.drawn else np.full(draws, pictures)
    right = rng.binomial(support, kind.recall)
    found, counts = np.unique(
        [support, right + rng.binomial(total - support, kind.others), right], axis=1, return_counts=True
    )
    for numbers, count in zip(found.T, counts, strict=True):
        yield score_class(*map(int, numbers)), int(count)


def measure_class(kind: Kind, pictures: int, draws: int) -> list[float]:
    """How often the intervals of precision, recall and F1 hold, of those that are given."""
    precision = kind.recall / (kind.recall + kind.ratio * kind.others)
    true = (precision, kind.recall, 2 * precision * kind.recall / (precision + kind.recall))
    held, given = np.zeros(3), np.zeros(3)
    for score, count in draw_scores(kind, pictures, draws):
        for i, share in enumerate((score.precision, score.recall, score.f1)):
            if share is not None and share.low is not None and share.high is not None:
                given[i] += count
                held[i] += count * (share.low <= true[i] <= share.high)
    return list(held / np.maximum(given, 1))


def classes(flags: argparse.Namespace) -> Iterator[str]:
    """How often the intervals of a class's precision, recall and F1 hold, the least and the mean over recalls from 0.5
    to 0.99, precisions from 0.5 to 0.99, once or nine times as many other pictures, and sizes that are fixed or drawn;
    50 times as many draws a case."""
    kinds = [
        Kind(recall, recall * (1 - precision) / precision / ratio, ratio, drawn)
        for recall in (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
        for precision in (0.5, 0.8, 0.95, 0.99)
        for ratio in (1, 9)
        for drawn in (False, True)
    ]
    held = {
        n: np.array([measure_class(kind, n, 50 * flags.draws) for kind in kinds]) for n in (5, 10, 20, 50, 100, 500)
    }
    rows = ([str(n), *_round(*np.stack([of.min(axis=0), of.mean(axis=0)], axis=1).ravel())] for n, of in held.items())
    names = [f"{name}{what}" for name in ("precision", "recall", "F1") for what in (", least", ", mean")]
    yield from table(("pictures of the class", *names), rows)


TABLES: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "solved": solved,
    "weights": weights,
    "sets": sets,
    "classes": classes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--data-dir", help="TFDS's data_dir with CIFAR-10")
    parser.add_argument("--out", type=Path, help="folder of the networks that are trained")
    flags = parser.parse_args()
    if flags.data_dir and not flags.out:
        parser.error("--data-dir needs --out")
    for name in flags.tables:
        print(f"\n{name}: {' '.join(str(TABLES[name].__doc__).split())} {flags.draws} draws.\n")
        for line in TABLES[name](flags):
            print(line, flush=True)


if __name__ == "__main__":
    main()
