"""The candidates of a study: how much of the source weights is trained, from nothing but a head to all of a new
network; pure functions of the extent of the data, the network, and the place that the probe chose."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tljax.config import AUTO, Head, Own, Stage
from tljax.data.datasets import Extent
from tljax.networks.architectures import NETWORKS, Architecture
from tljax.stages.rules import (
    choose_augmentation,
    choose_batch,
    choose_stages,
    count_tuning,
    explain_batch,
    explain_optimizer,
    explain_scratch,
    solve_stage,
    tune_stage,
)
from tljax.training.learning_curve import FEWEST_LABELS

# The stages of a study: a head at the place that the probe chose, the head that fine-tunings start from, and training
# without source weights.
SOLVED, START, SCRATCH, TUNED_FROM = "solved_head", "start", "from_scratch", "fine_tune_"
# How many of the candidates are trained once more, and how often.
FINALISTS, MORE_SEEDS = 2, 2
# With which shares of the labels a fine-tuning is trained, too, by how its stages are called.
FEWER = {"half": 1 / 2, "quarter": 1 / 4}


class Candidates(NamedTuple):
    """The stages of a study in the order in which they run, what each has of its own, and why, a line each."""

    stages: dict[str, Stage]
    own: dict[str, Own]
    reasons: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Those that may be the answer, the cheapest first."""
        return [name for name in self.stages if name != START]

    def without(self, names: Sequence[str]) -> "Candidates":
        """The others; without a fine-tuning nothing has to be started from."""
        left = {name: stage for name, stage in self.stages.items() if name not in names}
        if not any(stage.stage == "fine_tune" for stage in left.values()):
            left.pop(START, None)
        return self._replace(stages=left, own={name: own for name, own in self.own.items() if name in left})


def list_candidates(extent: Extent, source: Architecture, place: str, devices: int, augment: str) -> Candidates:
    """All candidates for data of this `extent`, weights of the network `source` and a solved head that reads at
    `place`. Each has the schedule that a recipe chooses. `augment` is that of the study."""
    batch = choose_batch(extent.images, devices)
    solved, why_solved = solve_stage(extent, batch)
    stages = {SOLVED: replace(solved, head=Head(place, "ridge"))}
    start = SOLVED
    if place != "head":
        stages[START], start = solved, START
    epochs, why_epochs = count_tuning(extent.images)
    tuned = {name: tune_stage(cut, epochs, batch) for name, cut in list_cuts(source).items()}
    own = {name: Own(start=start) for name in tuned}
    reasons = [
        *why_solved,
        f"fine-tuning from {', from '.join(stage.cut for stage in tuned.values())}, each from the solved head at the "
        f"end of the network: {why_epochs}",
        explain_batch(batch),
        explain_optimizer(next(iter(tuned.values())).optimizer),
    ]
    if name_network(source) is None:
        reasons.append("nothing is trained from scratch: the source's network has no name by which it could be made")
        return Candidates(stages | tuned, own, tuple(reasons))
    scratch = choose_stages(extent, None, devices)
    # The batch is that of the others, and there are source weights.
    reasons += [f"from scratch {explain_scratch(extent.images)}", *scratch.reasons[2:]]
    if augment == AUTO:
        changes = choose_augmentation(scratch.stages, extent.images)
        own[SCRATCH] = Own(augment=changes.settings["augment"])
        reasons.append(f"from scratch, {changes.why}")
    return Candidates(stages | tuned | scratch.stages, own, tuple(reasons))


def list_cuts(source: Architecture) -> dict[str, str]:
    """The fine-tunings by name, with the first unit that trains: that of the last stage, of the last but one, and the
    stem."""
    starts = [unit for unit in source.units if unit.endswith("_block1")][-2:]
    named = {f"{TUNED_FROM}{unit}": unit for unit in reversed(starts)}
    return named | {f"{TUNED_FROM}all": source.units[0]}


def name_network(source: Architecture) -> str | None:
    """The name of the network that `source` is or begins as, None if there is none."""
    return next((name for name, row in NETWORKS.items() if source.begins_as(row.architecture)), None)


def find_finalists(accuracies: Mapping[str, float]) -> list[str]:
    """The candidates with the highest accuracies, the best first; of equal ones the earlier, which is cheaper."""
    return sorted(accuracies, key=lambda name: -accuracies[name])[:FINALISTS]


def name_seed(name: str, number: int) -> str:
    """The stage of a candidate with another seed."""
    return f"{name}_seed{number}"


def find_original(name: str) -> str:
    """The stage that this one is once more, with another seed (`name_seed`) or with fewer labels (`name_fewer`)."""
    return name.rpartition("_")[0]


def list_seeds(names: Sequence[str], stages: Mapping[str, Stage]) -> dict[str, list[str]]:
    """The stages that are there of each candidate."""
    numbers = range(1, MORE_SEEDS + 1)
    return {name: [name, *(one for number in numbers if (one := name_seed(name, number)) in stages)] for name in names}


def list_repeats(
    finalists: Sequence[str], stages: Mapping[str, Stage], own: Mapping[str, Own], seed: int
) -> Candidates:
    """The finalists once more with other seeds than the study's `seed`: each with the next, then each with the one
    after. A fine-tuning starts from the same head."""
    repeats = [(name, number) for number in range(1, MORE_SEEDS + 1) for name in finalists]
    return Candidates(
        {name_seed(name, number): stages[name] for name, number in repeats},
        {name_seed(name, number): replace(own.get(name, Own()), seed=seed + number) for name, number in repeats},
        (),
    )


def find_most_accurate(accuracies: Mapping[str, float]) -> str | None:
    """The fine-tuning with the highest accuracy, of equal ones the earlier; None if there is none."""
    tuned = [name for name in accuracies if name.startswith(TUNED_FROM)]
    return max(tuned, key=lambda name: accuracies[name], default=None)


def name_fewer(name: str, part: str) -> str:
    """The stage of a fine-tuning, or of the head that it starts from, with a part of the labels."""
    return f"{name}_{part}"


def list_fewer(name: str, cut: str, counts: Sequence[int], devices: int) -> Candidates:
    """The fine-tuning `name` from a `cut` once more with half and with a quarter of the labels that a class has, the
    median of `counts`; a class that has fewer keeps all. Each starts from a head that was solved on the same labels,
    and has the schedule that a recipe chooses for so many. None where a quarter are less than `FEWEST_LABELS`."""
    each = float(np.median([count for count in counts if count]))
    numbers = {part: round(share * each) for part, share in FEWER.items()}
    if min(numbers.values()) < FEWEST_LABELS:
        why = f"a quarter are {min(numbers.values())} a class, and {FEWEST_LABELS} it takes"
        return Candidates({}, {}, (f"{name} is not trained with fewer labels: {why}",))
    stages: dict[str, Stage] = {}
    own: dict[str, Own] = {}
    said = []
    for part, number in numbers.items():
        start, tuned = name_fewer(START, part), name_fewer(name, part)
        stages[start], stages[tuned] = tune_with_few(cut, [min(count, number) for count in counts], devices)
        own |= {start: Own(labels_per_class=number), tuned: Own(start=start, labels_per_class=number)}
        said.append(f"{number} ({stages[tuned].epochs} epochs in batches of {stages[tuned].batch_size})")
    why = f"{name}, the most accurate fine-tuning, is trained with fewer labels, too: with at most {' and '.join(said)}"
    return Candidates(stages, own, (f"{why} of each class, each from a solved head of the same labels",))


def tune_with_few(cut: str, counts: Sequence[int], devices: int) -> tuple[Stage, Stage]:
    """A solved head at the end of the network and the fine-tuning from a `cut` after it, for so many pictures of each
    class."""
    images = sum(counts)
    batch = choose_batch(images, devices)
    # Neither depends on the side of the pictures, or on those of validation.
    solved, _ = solve_stage(Extent(images, 0, len(counts), 0, tuple(counts)), batch)
    return solved, tune_stage(cut, count_tuning(images)[0], batch)


def has_fewer(name: str, own: Mapping[str, Own]) -> bool:
    """Whether a stage has fewer labels than the study."""
    return name in own and own[name].labels_per_class is not None
