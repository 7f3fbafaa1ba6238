"""What comes after the epochs of a stage: its best epoch is evaluated, calibrated, drawn, judged and summarized."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from tljax.config import Config
from tljax.data.datasets import Dataset
from tljax.networks.cut import Cut
from tljax.report import figures
from tljax.report.curves import Course
from tljax.report.worst import Guesses
from tljax.runs.files import write_rows
from tljax.runs.predictions import PREDICTIONS, describe_logits
from tljax.stages.assembly import Assembly
from tljax.stages.calibrate import calibrate
from tljax.stages.evidence import keep_evidence
from tljax.stages.overlap import describe_copies, find_copies
from tljax.stages.solve import Solution
from tljax.training import epochs
from tljax.training.calibration import balanced_accuracy, class_accuracies, count_confusions, softmax
from tljax.training.epochs import Evaluation
from tljax.training.grouped import GroupNumbers, describe_worth
from tljax.training.progress import Progress, last_epoch
from tljax.training.state import TrainState
from tljax.training.unchosen import undo_choice
from tljax.trees import Row


class Outcome(NamedTuple):
    """What the epochs of a stage came to."""

    best: TrainState
    """A state whose variables are those of the best epoch."""
    checkpoint: int
    """The number of the checkpoint that they come from."""
    proved: int
    """The number of frozen leaves that are proved unchanged."""
    progress: Progress
    earlier: tuple[Row, ...]
    """The rows of the source run in the history of `progress`."""
    solution: Solution | None
    """The solved head, if this start has solved it."""


def conclude(made: Assembly, workdir: Path, dataset: Dataset, outcome: Outcome) -> Row:
    """Evaluates the best epoch on every split that was not learned from, calibrates it, draws the figures, and returns
    the training part of `summary.json`. Without validation the training images are evaluated too: they are shown.

    Raises:
      OSError: if `reference.npz` or the predictions cannot be written.
    """
    config, progress = made.setup.config, outcome.progress
    evaluated = [name for name in made.examples if name != "train" or made.validation is None]
    found = {name: epochs.evaluate(outcome.best, made.examples[name], made.programs.evaluate) for name in evaluated}
    calibration = calibrate(made.setup, workdir, dataset, found, outcome.checkpoint, outcome.solution)
    write_predictions(workdir, dataset, found)
    keep_evidence(made, workdir, dataset, found, outcome.best.variables, outcome.checkpoint)
    draw(config, workdir, dataset, found, progress)
    copies = {name: find_copies(dataset, name) for name in found if name != "train"}
    judged = {name: judge(dataset, name, found[name], own) for name, own in copies.items()}
    more = {"calibration": calibration, "labels": count_labels(dataset, config), "class_names": dataset.class_names}
    groups = dataset.validation.all_groups() if dataset.validation else None
    unchosen = describe_unchosen(outcome, config, judged, groups, copies.get("validation"))
    return summarize(outcome, judged, made.setup.cut) | unchosen | more


def write_predictions(workdir: Path, dataset: Dataset, found: dict[str, Evaluation]) -> None:
    """Writes a row for each picture of validation and test. Training pictures, which a run without validation is
    evaluated on too, say nothing.

    Raises:
      OSError: if a file cannot be written.
    """
    for name, file in PREDICTIONS.items():
        if name in found:
            split = dataset.splits[name]
            pictures = split.all_ids(), split.all_labels(), found[name].logits
            write_rows(workdir / file, describe_logits(*pictures, dataset.class_names))


def draw(config: Config, workdir: Path, dataset: Dataset, found: dict[str, Evaluation], progress: Progress) -> None:
    """Draws the worst validation images with their predictions, and the curves of all epochs, if there were any.
    Without a validation split there are no predictions but those for images that were learned from, and none are
    drawn."""
    folder, names = workdir / "figures", dataset.class_names
    if dataset.validation is not None:
        evaluation = found["validation"]
        probabilities = softmax(evaluation.logits).max(axis=1)
        guesses = Guesses(evaluation.predicted, [names[i] for i in evaluation.predicted], probabilities)
        figures.draw_predictions(folder, dataset.validation, "validation", names, guesses)
    run = "transfer" if progress.history[0]["stage"] != config.stage else config.stage
    figures.draw_curves(folder / "curves.png", {run: Course(progress.history, progress.stopper.best_epoch)})


def judge(dataset: Dataset, name: str, evaluation: Evaluation, copies: Bool[np.ndarray, " n"] | None) -> Row:
    """Loss and accuracy on the split `name`, the balanced accuracy, and that of each class: None where it has no
    image; what its groups are worth; and the accuracy without the `copies` of training pictures, if there are some."""
    names, labels = dataset.class_names, dataset.splits[name].all_labels()
    confusions = count_confusions(labels, evaluation.predicted, len(names))
    by_class = dict(zip(names, class_accuracies(confusions), strict=True))
    right, groups = evaluation.predicted == labels, dataset.splits[name].all_groups()
    more = describe_worth(right, groups) | describe_copies(right, copies, groups)
    return {**evaluation.means, "balanced_accuracy": balanced_accuracy(confusions), "class_accuracy": by_class, **more}


def count_labels(dataset: Dataset, config: Config) -> Row:
    """How many labels the run has used: all of train, and those of validation if it chose the best epoch."""
    chosen = dataset.validation if config.epochs else None
    return {
        "train": dataset.train.count if dataset.train else 0,
        "validation": chosen.count if chosen else 0,
    }


def describe_unchosen(
    outcome: Outcome,
    config: Config,
    judged: dict[str, Row],
    groups: GroupNumbers | None = None,
    copies: Bool[np.ndarray, " n"] | None = None,
) -> Row:
    """The accuracy of the best epoch without its having been chosen, if others could have been, and if it is known
    what each of them made of each validation picture; and the same for those that are no `copies` of training
    pictures. `judged` is what `judge` says of each split.

    `groups` are those of the validation pictures. What was chosen before, in the run's sources, is not undone. After
    one such choice the interval still holds, after two it does not (`benchmarks/unchosen.py`), and nothing is said.
    """
    progress, own = outcome.progress, len(outcome.progress.history) - len(outcome.earlier)
    if own < 2 or len(progress.judged) != own or count_choices(outcome.earlier) > 1:
        return {}
    measured = judged["validation"]
    worth = measured.get("worth", {}).get("pictures")
    undone = undo_choice(progress.judged, config.monitor, measured["accuracy"], groups, worth)
    found = {} if undone is None else {"unchosen": undone._asdict()}
    rest = measured.get("in_train")
    if rest is None or copies is None or not rest["left"]:
        return found
    worth = rest.get("worth", {}).get("pictures", rest["left"])
    undone = undo_choice(progress.judged, config.monitor, rest["accuracy"], groups, worth, ~copies)
    return found if undone is None else found | {"in_train": rest | {"unchosen": undone._asdict()}}


def count_choices(rows: Sequence[Row]) -> int:
    """In how many stages these rows had a best epoch to choose."""
    return sum(n > 1 for n in Counter((row["stage"], row.get("cut")) for row in rows).values())


def summarize(outcome: Outcome, judged: dict[str, Row], cut: Cut) -> Row:
    """The training part of `summary.json`: the best epoch, the last one, and the test split.

    `judged` is what `judge` says of each split. Without validation, loss and accuracy are those of held-out pictures.
    """
    proved, progress, own = outcome.proved, outcome.progress, len(outcome.earlier)
    if proved:
        print(f"{proved} frozen leaves (parameters and statistics before {cut.position}) proved unchanged to the bit")
    first, last = progress.history[own], progress.history[-1]
    # Earlier versions did not write the balanced accuracy.
    held_out = first.get("solved", {}).get("held_out") or {}
    measured = {name: held_out.get(name) for name in ("loss", "accuracy", "balanced_accuracy")}
    return {
        **judged.get("validation", measured),
        "last": {"loss": last["val_loss"], "accuracy": last["val_accuracy"]},
        "best_epoch": progress.stopper.best_epoch,
        "epochs": progress.epoch - 1 - last_epoch(outcome.earlier),
        "cut": cut.position,
        "params": cut.count(outcome.best.variables)._asdict(),
        "frozen_leaves_unchanged": proved,
        **({"solved": first["solved"]} if "solved" in first else {}),
        **({"test": judged["test"]} if "test" in judged else {}),
    }
