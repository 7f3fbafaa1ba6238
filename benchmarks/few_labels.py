"""Accuracy against labels a class: solved heads, a trained head, fine-tuning and training from scratch.

    python benchmarks/few_labels.py --data-dir DIR --out FOLDER

The source network is trained on five classes of CIFAR-10 with all their labels; the target are the other five. For each
number of labels a class, every method gets the same pictures, in several draws. Accuracies are those on all 5,000
validation pictures (CIFAR-10's test split). Only the solved heads need no validation labels: trained ones stop at their
best epoch on a fifth of these pictures, which favours them a little.

Runs that are finished are found again, so the same command goes on after an interruption. About two and a half hours on
two cores. It prints a table, and writes `few_labels.json` and `few_labels.png` into the folder.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from protocol import SOURCE, TARGET, study_flags

import tljax
from tljax.config import Config, Data, Head, Optimizer
from tljax.data import datasets

UNITS = ("conv3_block1", "conv4_block1", "conv4_block4", "conv5_block1", "head")
ALL = 5000
# How often the labelled pictures are drawn.
DRAWS = {5: 5, 20: 5, 50: 5, ALL: 1}


class Budget(NamedTuple):
    """How long the trained methods train with so many labels a class: batch size and epochs."""

    batch: int
    head: int
    fine_tune: int
    from_scratch: int


# With few pictures an epoch has few steps.
BUDGETS = {
    5: Budget(8, 100, 30, 60),
    20: Budget(16, 100, 15, 60),
    50: Budget(32, 100, 15, 60),
    ALL: Budget(256, 30, 8, 12),
}
COLORS = {
    "solved head": "C0",
    "solved head, conv4_block4": "C5",
    "solved head, unit chosen": "C1",
    "trained head": "C2",
    "fine_tune": "C3",
    "from_scratch": "C4",
}


class Point(NamedTuple):
    """A number of labels a class, and the number of the draw."""

    labels: int
    draw: int


class Study:
    """The runs of one folder, each made when it is asked for."""

    def __init__(self, data_dir: str, out: Path):
        self.out, self.data_dir = out, data_dir
        data = self.data(None, classes=SOURCE, augment="flip")
        self.source = self.out / "source"
        scratch: dict[str, Any] = {"stage": "from_scratch", "cut": "conv1", "batch_norm": "training"}
        tljax.train(Config(**scratch, data=data, epochs=12, patience=12), self.source)

    def data(self, point: Point | None, **settings: Any) -> Data:
        few = point.labels if point and point.labels < ALL else None
        return Data(**{"name": "cifar10", "dir": self.data_dir, "classes": TARGET, "labels_per_class": few} | settings)

    def solve(self, point: Point, at: str) -> dict[str, Any]:
        """The summary of a solved head."""
        config = Config(pretrained=str(self.source), head=Head(at, "ridge"), epochs=0, seed=point.draw)
        config.data = self.data(point)
        return tljax.train(config, self.folder("solved", point, at))

    def train(self, method: str, point: Point, *, augment: Any = "none", **settings: Any) -> float:
        """The accuracy of a trained network on all validation pictures."""
        budget = BUDGETS[point.labels]
        config = Config(seed=point.draw, batch_size=budget.batch, **settings)
        config.data = self.data(point, augment=augment, validation_split="test[:20%]")
        config.patience = config.epochs
        folder = self.folder(method, point)
        tljax.train(config, folder)
        validation = datasets.load_dataset(self.data(point), seed=0, training=False, disk_bytes=2**34).validation
        assert validation is not None
        logits = tljax.load(folder)(np.asarray(validation.images))
        return float(np.mean(logits.argmax(axis=1) == validation.labels))

    def folder(self, method: str, point: Point, *more: str) -> Path:
        return self.out / "_".join((method, str(point.labels), str(point.draw), *more))


def solved_head(study: Study, point: Point) -> float:
    return float(study.solve(point, "head")["accuracy"])


def earlier_head(study: Study, point: Point) -> float:
    return float(study.solve(point, "conv4_block4")["accuracy"])


def chosen_unit(study: Study, point: Point) -> float:
    """The head at the unit that the labelled pictures alone choose, by the least loss of those that are left out: with
    few pictures it tells more than their accuracy, which has few values."""
    found = {at: study.solve(point, at) for at in UNITS}
    held_out = {at: summary["solved"]["held_out"] for at, summary in found.items()}
    best = min(UNITS, key=lambda at: float(held_out[at]["loss"]))
    for at in UNITS:
        accuracy, estimate = found[at]["accuracy"], held_out[at]["accuracy"]
        print(f"{point.labels} a class, draw {point.draw}, {at}: {accuracy:.4f}, left out {estimate:.4f}")
    return float(found[best]["accuracy"])


def trained_head(study: Study, point: Point) -> float:
    epochs = BUDGETS[point.labels].head
    return study.train("head", point, pretrained=str(study.source), epochs=epochs)


def fine_tune(study: Study, point: Point) -> float:
    study.solve(point, "head")
    return study.train(
        "fine_tune",
        point,
        stage="fine_tune",
        pretrained=str(study.folder("solved", point, "head")),
        cut="conv5_block1",
        optimizer=Optimizer(learning_rate=1e-4),
        epochs=BUDGETS[point.labels].fine_tune,
    )


def from_scratch(study: Study, point: Point) -> float:
    """The epoch with the highest validation accuracy counts, so that shorter budgets are in it: the loss grows long
    before the accuracy falls."""
    return study.train(
        "from_scratch",
        point,
        stage="from_scratch",
        cut="conv1",
        batch_norm="training",
        epochs=BUDGETS[point.labels].from_scratch,
        augment="flip",
        monitor="val_accuracy",
    )


METHODS: dict[str, Callable[[Study, Point], float]] = {
    "solved head": solved_head,
    "solved head, conv4_block4": earlier_head,
    "solved head, unit chosen": chosen_unit,
    "trained head": trained_head,
    "fine_tune": fine_tune,
    "from_scratch": from_scratch,
}


def points() -> Iterator[Point]:
    for labels, draws in DRAWS.items():
        yield from (Point(labels, draw) for draw in range(draws))


def _describe_draws(accuracies: list[float]) -> str:
    if len(accuracies) < 2:
        return f"{accuracies[0]:.3f}" if accuracies else "-"
    return f"{np.mean(accuracies):.3f} ± {np.std(accuracies, ddof=1):.3f}"


def describe(found: dict[str, dict[int, list[float]]]) -> str:
    """A Markdown table: mean and standard deviation over the draws, single accuracies, and - for what was not run."""
    lines = ["| labels a class | " + " | ".join(map(str, BUDGETS)) + " |", "|---" * (1 + len(BUDGETS)) + "|"]
    for method, by_labels in found.items():
        cells = [_describe_draws(by_labels.get(labels, [])) for labels in BUDGETS]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(path: Path, found: dict[str, dict[int, list[float]]]) -> None:
    """Draws the means over the draws, and single draws as dots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for method, by_labels in found.items():
        axes.plot(list(by_labels), [np.mean(v) for v in by_labels.values()], "o-", color=COLORS[method], label=method)
        for labels, values in by_labels.items():
            axes.plot([labels] * len(values), values, ".", color=COLORS[method], alpha=0.4)
    axes.set(xscale="log", xlabel="labelled pictures a class", ylabel="accuracy on 5,000 pictures", ylim=(0.2, 0.9))
    axes.set_xticks(list(BUDGETS), [f"{labels:,}" for labels in BUDGETS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    flags = study_flags(__doc__)
    study = Study(flags.data_dir, flags.out)
    found: dict[str, dict[int, list[float]]] = {method: {} for method in METHODS}
    for method, measure in METHODS.items():
        for point in points():
            accuracy = measure(study, point)
            found[method].setdefault(point.labels, []).append(accuracy)
            print(f"MEASURED {method}, {point.labels} a class, draw {point.draw}: {accuracy:.4f}", flush=True)
    (flags.out / "few_labels.json").write_text(json.dumps(found, indent=1))
    draw(flags.out / "few_labels.png", found)
    print(describe(found))


if __name__ == "__main__":
    main()
