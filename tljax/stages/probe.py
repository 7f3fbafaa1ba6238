"""A solved head at each of several units, from one pass over the pictures: what is expected of it, and how good it is.

Nothing is written but to the user's cache folder, where a run whose head reads at one of the units finds what it reads.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tljax.config import Config
from tljax.data.datasets import Dataset
from tljax.devices.mesh import gather, make_mesh, put, whole
from tljax.devices.processes import max_over_processes
from tljax.networks.architectures import Architecture, count_multiplications
from tljax.report.printed import align, write_number
from tljax.stages.assembly import split_seed, start_pass
from tljax.stages.programs import Setup, initialize, make_setup
from tljax.stages.solve import solve
from tljax.training import calibration, features
from tljax.training.features import Averages
from tljax.training.places import LossDifference, compare_losses, measure_losses
from tljax.training.regularization import weigh
from tljax.training.ridge import SolvedHead
from tljax.trees import Row
from tljax.weights.pretrained import Weights


class Validated(NamedTuple):
    """What a head makes of the validation pictures, in their order."""

    losses: Float[np.ndarray, " n"]
    """Nats."""
    right: Bool[np.ndarray, " n"]


class PlacedHead(NamedTuple):
    """The solved head at a unit."""

    head: SolvedHead
    averages: dict[str, tuple[Float[np.ndarray, "n c"], ...]]
    """What it reads of each split, an array for each view; of several processes, each has its own pictures."""
    judged: Validated | None
    """None without a validation split."""
    row: Row
    """JSON: the `unit`, what is `expected` from the training labels alone (accuracy; its `at_least`, the `held_out`
    loss), `accuracy` and `loss` on validation, and the `seconds` of the pass up to there and of solving."""


class Probe(NamedTuple):
    """The solved heads by unit, in the order of the network."""

    heads: dict[str, PlacedHead]
    differences: dict[str, LossDifference]
    """Those of the held-out losses from the least of them; empty if no picture could be left out."""


def probe(config: Config, dataset: Dataset, source: Weights, units: Sequence[str] | None = None) -> Probe:
    """A solved head at each of the `units` of the network (None: all that a head can read before).

    `config` is that of a feature_extraction whose head reads at the end of the network of `source`. All processes call
    this together.

    Raises:
      ValueError: if the averages do not fit the limits of `config.cache`, or one is not finite.
    """
    setup = make_setup(config, source, len(dataset.class_names), make_mesh())
    found = read_averages(setup, dataset, source, units or setup.model.units[1:])
    shares = share_multiplications(setup, dataset.image_size)
    heads = {unit: read_at(unit, config, dataset, found, shares[unit]) for unit in found["train"].by_unit}
    return Probe(heads, compare_heads(heads, dataset))


def read_averages(setup: Setup, dataset: Dataset, source: Weights, units: Sequence[str]) -> dict[str, Averages]:
    """What a head at each of the units reads of each split but test."""
    variables = initialize(setup, source, dataset.class_names, split_seed(setup.config.seed)[0])
    frozen = setup.cut.digest(variables)
    # A test split is evaluated once, by the run that was chosen.
    seen = {name: split for name, split in dataset.splits.items() if name != "test"}
    numbers = [max_over_processes(len(split.labels)) for split in seen.values()]
    if why := find_obstacle(setup.config, setup.model.architecture, units, numbers[0], sum(numbers[1:])):
        raise ValueError(f"no head can be solved at {len(units)} units: {why}")
    over = start_pass(setup, put(variables, whole(setup.mesh)), frozen, dataset, lambda _: None, ())
    assert over is not None, "there is no obstacle"
    kept = {name: inputs for name, inputs in over.inputs.items() if name in seen}
    return features.compute_averages(over._replace(inputs=kept), units)


def find_obstacle(
    config: Config, architecture: Architecture, units: Sequence[str], training: int, others: int
) -> str | None:
    """Why the averages at `units` of so many pictures for training, and `others`, cannot be kept; None if they can."""
    values = sum(architecture.end_before(unit).features for unit in units)
    gib = features.count_passes(training, others, config.data.views) * values * 4 / 2**30
    return features.why_in_every_step(config.data, config.cache) or features.why_too_large(config.cache, gib)


def share_multiplications(setup: Setup, side: int) -> dict[str, float]:
    """The part of the multiplications of the pass that comes before each unit."""
    counts = count_multiplications(setup.model.architecture, setup.model.variant, side)
    return {unit: count / counts["head"] for unit, count in counts.items()}


def read_at(unit: str, config: Config, dataset: Dataset, found: Mapping[str, Averages], share: float) -> PlacedHead:
    """The head at a unit, before which there is this `share` of the pass, solved and judged."""
    began = time.perf_counter()
    averages = {name: split.by_unit[unit] for name, split in found.items()}
    solution = solve(dataset, averages["train"], weigh(config.class_weights, dataset.train_counts))
    solving = time.perf_counter() - began
    judged = judge(solution.head, dataset, averages)
    passing = [split.seconds for split in found.values() if split.seconds is not None]
    held_out = solution.about["held_out"] or {"accuracy": None, "at_least": None, "loss": None}
    row = {
        "unit": unit,
        "expected": held_out["accuracy"],
        "at_least": held_out["at_least"],
        "held_out": held_out["loss"],
        "accuracy": None if judged is None else float(judged.right.mean()),
        "loss": None if judged is None else float(judged.losses.mean()),
        "seconds": None if len(passing) < len(found) else round(sum(passing) * share + solving, 3),
    }
    return PlacedHead(solution.head, averages, judged, row)


def judge(head: SolvedHead, dataset: Dataset, averages: Mapping[str, tuple[np.ndarray, ...]]) -> Validated | None:
    """What the head makes of the validation pictures. All processes call this together."""
    split = dataset.validation
    if split is None:
        return None
    logits = gather(averages["validation"][0] @ head.kernel + head.bias, split.rows, split.count)
    labels = split.all_labels()
    return Validated(calibration.cross_entropies(logits, labels), logits.argmax(axis=1) == labels)


def compare_heads(heads: Mapping[str, PlacedHead], dataset: Dataset) -> dict[str, LossDifference]:
    """The paired differences of the held-out losses from the least of them."""
    assert dataset.train is not None, "it is learned from"
    labels = dataset.train.all_labels()
    held_out = [one.head.held_out for one in heads.values()]
    if not len(held_out[0].rows):
        return {}
    losses = {unit: measure_losses(one.head.held_out, labels) for unit, one in heads.items()}
    return compare_losses(losses, held_out[0].groups)


def describe(found: Probe) -> str:
    """A Markdown table with a row for each unit."""
    head = ("unit", "expected", "validation", "loss left out", "more than the least", "seconds")
    rows: list[tuple[str, ...]] = [head]
    for unit, (_, _, _, row) in found.heads.items():
        difference = found.differences.get(unit)
        more = "-" if difference is None else f"{difference.mean:.3f} ± {difference.error:.3f}"
        numbers = [write_number(row[name], ".3f") for name in ("expected", "accuracy", "held_out")]
        rows.append((unit, *numbers, more, write_number(row["seconds"], ".1f")))
    return align(rows)
