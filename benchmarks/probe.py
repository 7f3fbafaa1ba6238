"""Whether a recipe should ask the probe where its solved head reads: accuracy at the place that the rule chooses, at
the end of the network, and at every place.

    python benchmarks/probe.py --data-dir DIR --out FOLDER --source RUN --source RUN ...

A source is a run that learned some classes of CIFAR-10, or of scikit-learn's digits; the target are the classes that it
does not know. What each place reads is computed once, for a pool of labelled pictures in two of the views that a recipe
takes, and for all validation pictures of the target (CIFAR-10's test split). For each number of labels a class,
pictures of the pool are drawn many times, and a head is solved at every place from the same ones. It prints a table,
and writes `probe.json` into the folder. Ten minutes for each source on two cores.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from protocol import output_folder

from tljax.config import Config, Data, Head
from tljax.data.cifar10 import CLASS_NAMES
from tljax.data.datasets import Dataset
from tljax.devices.mesh import make_mesh
from tljax.runs.files import read_json
from tljax.stages.probe import read_averages
from tljax.stages.programs import make_setup
from tljax.stages.stage import load_data, load_source
from tljax.startup import as_on_the_command_line
from tljax.training.features import Averages
from tljax.training.places import choose_latest, compare_losses, list_places, measure_losses
from tljax.training.ridge import SolvedHead, solve_head

# How often so many labelled pictures a class are drawn, out of so many in all.
DRAWS, POOL = {5: 100, 20: 50, 50: 25}, 500
# scikit-learn's digits, and how many there are of each.
DIGITS, FEWER = tuple("0123456789"), 150
# Two of the eight that a recipe has for up to 1,000 pictures: four times as fast.
VIEWS: dict[str, Any] = {"augment": "flip,shift", "views": 2}


class Measured(NamedTuple):
    """One draw of labelled pictures: accuracy on all validation pictures by place, and the place that is chosen."""

    labels: int
    accuracies: dict[str, float]
    chosen: str


class Pool(NamedTuple):
    """What each place reads: of labelled pictures, in views [views n c], and of those to validate on."""

    train: dict[str, np.ndarray]
    train_labels: np.ndarray
    validation: dict[str, np.ndarray]
    validation_labels: np.ndarray
    groups: np.ndarray | None = None
    """Which of the labelled pictures belong together."""


def list_unknown(source: str) -> tuple[str, ...]:
    """The classes of CIFAR-10, or of the digits, that a run has not learned."""
    known = read_json(Path(source) / "config.json")["data"]
    names = DIGITS if known["name"] == "digits" else CLASS_NAMES
    return tuple(one for one in names if one not in known["classes"])


def read_places(source: str, data: Data) -> tuple[dict[str, Averages], Dataset]:
    """What each place of the `source` reads of the pictures of each split, and these."""
    config = Config(pretrained=source, data=data, head=Head(init="ridge"), epochs=0)
    weights, dataset = load_source(config), load_data(config)
    assert weights is not None and dataset.train is not None and dataset.validation is not None
    setup = make_setup(config, weights, len(dataset.class_names), make_mesh())
    return read_averages(setup, dataset, weights, list_places(setup.model.architecture)), dataset


def read_pool(source: str, data_dir: str) -> Pool:
    """What each place of the `source` reads of the classes that it has not learned."""
    name = read_json(Path(source) / "config.json")["data"]["name"]
    pool = POOL if name == "cifar10" else FEWER
    data = Data(name=name, dir=data_dir, classes=list_unknown(source), labels_per_class=pool, **VIEWS)
    found, dataset = read_places(source, data)
    assert dataset.train is not None and dataset.validation is not None
    train = {unit: np.stack(views) for unit, views in found["train"].by_unit.items()}
    validation = {unit: views[0] for unit, views in found["validation"].by_unit.items()}
    return Pool(train, dataset.train.labels, validation, dataset.validation.labels)


def draw_rows(labels: np.ndarray, each: int, rng: np.random.Generator) -> np.ndarray:
    """The rows of so many pictures of each class."""
    classes = int(labels.max()) + 1
    by_class = [rng.choice(np.flatnonzero(labels == i), each, replace=False) for i in range(classes)]
    return np.sort(np.concatenate(by_class))


def solve_places(
    train: dict[str, np.ndarray], labels: np.ndarray, rows: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, SolvedHead]:
    """A head at each place from these rows of `train`, which has what it reads in views [views n c]; `groups` [n] says
    which pictures belong together."""
    own = None if groups is None else groups[rows]
    heads = {}
    for unit, views in train.items():
        few = views[:, rows]
        classes = int(labels.max()) + 1
        heads[unit] = solve_head(few.reshape(-1, few.shape[2]), labels[rows], classes, len(few), groups=own)
    return heads


def choose(heads: dict[str, SolvedHead], labels: np.ndarray) -> str:
    """The place that a recipe would choose; `labels` are those that the heads are solved from."""
    losses = {unit: measure_losses(head.held_out, labels) for unit, head in heads.items()}
    return choose_latest(compare_losses(losses, next(iter(heads.values())).held_out.groups))


def measure(pool: Pool, labels: int, draw: int) -> Measured:
    """Heads at every place from the same `labels` pictures of each class."""
    rows = draw_rows(pool.train_labels, labels, np.random.default_rng((labels, draw)))
    heads = solve_places(pool.train, pool.train_labels, rows, pool.groups)
    accuracies = {unit: judge(head, pool.validation[unit], pool.validation_labels) for unit, head in heads.items()}
    return Measured(labels, accuracies, choose(heads, pool.train_labels[rows]))


def judge(head: SolvedHead, features: np.ndarray, labels: np.ndarray) -> float:
    """The accuracy of a head."""
    return float(np.mean((features @ head.kernel + head.bias).argmax(axis=1) == labels))


def describe(found: list[Measured]) -> str:
    """A Markdown table of one source: means over the draws; of the difference also its standard error, and the number
    of draws in which it is better and worse."""
    places = list(found[0].accuracies)
    lines = [
        f"| labels a class | {' | '.join(places)} | chosen | chosen less head | better, worse | chosen places |",
        "|---" * (len(places) + 5) + "|",
    ]
    for labels in {one.labels: None for one in found}:
        draws = [one for one in found if one.labels == labels]
        means = [f"{np.mean([one.accuracies[unit] for one in draws]):.3f}" for unit in places]
        chosen = np.array([one.accuracies[one.chosen] for one in draws])
        less = chosen - [one.accuracies["head"] for one in draws]
        error = less.std(ddof=1) / len(less) ** 0.5
        counts = {unit: sum(one.chosen == unit for one in draws) for unit in places}
        named = ", ".join(f"{unit} {count}" for unit, count in counts.items() if count)
        cells = [*means, f"{chosen.mean():.3f}", f"{less.mean():+.3f} ± {error:.3f}"]
        cells += [f"{sum(less > 0)}, {sum(less < 0)}", named]
        lines.append(f"| {labels} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="TFDS's data_dir with CIFAR-10")
    parser.add_argument("--out", required=True, type=output_folder, help="folder of the results")
    parser.add_argument("--source", required=True, action="append", help="a run that learned some of the classes")
    flags = parser.parse_args()
    results: dict[str, Any] = {}
    for source in flags.source:
        with as_on_the_command_line():
            pool = read_pool(source, flags.data_dir)
        found = []
        for labels, draws in DRAWS.items():
            found += [measure(pool, labels, draw) for draw in range(draws)]
            print(f"{source}, up to {labels} a class:\n{describe(found)}", flush=True)
        results[Path(source).name] = [one._asdict() for one in found]
        (flags.out / "probe.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
