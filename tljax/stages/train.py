"""Training: the units from the cut on are trained, the best epoch is kept, the frozen units are proved unchanged."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from tljax.config import Config, data_flags
from tljax.data.batches import draw_order
from tljax.data.datasets import Dataset
from tljax.data.decoding import USUAL_FIT, Fit
from tljax.devices.mesh import make_mesh, put, whole
from tljax.devices.processes import interrupted, max_over_processes
from tljax.networks.cut import Cut, verify_frozen
from tljax.networks.resnet import describe_network
from tljax.report import printed
from tljax.report.printed import Printed
from tljax.runs.checkpoints import Meta, complete, open_checkpoints
from tljax.runs.journal import Journal
from tljax.runs.learned import NOTHING, Learned, learn
from tljax.runs.workdir import begin_run, mark_running
from tljax.stages.assembly import ALONE, Assembly, Others, assemble, split_seed
from tljax.stages.conclusion import Outcome, conclude
from tljax.stages.programs import Setup, describe_setup, initialize, make_setup
from tljax.stages.solve import Solution, solve_if_asked, start_from_solution
from tljax.storage import signals
from tljax.training import epochs, features, metrics
from tljax.training.epochs import Ahead, Evaluation
from tljax.training.progress import PartialEpoch, Progress, finish_epoch, last_epoch, record_solved
from tljax.training.state import TrainState, place_state
from tljax.training.unchosen import MANY, judge_pictures
from tljax.trees import Row
from tljax.weights.pretrained import Weights


def train(
    config: Config,
    workdir: Path,
    dataset: Dataset,
    source: Weights | None,
    *,
    others: Others = ALONE,
    overwrite: bool = False,
) -> Row:
    """Trains one stage, from its newest checkpoint if there is one, and returns its part of `summary.json`.

    `source` are the weights to start from, None for random ones, `others` the other stages of its lesson. `overwrite`
    deletes an earlier run in `workdir` first.

    Raises:
      ValueError: if the weights or the checkpoints do not fit, or the training diverges.
      RuntimeError: if a frozen leaf has changed.
      signals.Stopped: if a signal ends the run; what is done is saved.
    """
    made = prepare(config, dataset, source, others.cuts)
    # What can be wrong with the settings has shown before this, while an earlier run is still there.
    begin_run(workdir, config, overwrite=overwrite)
    with open_journal(made, workdir, dataset, source) as journal:
        state, progress = resume(journal, made, others.table)
        last = last_epoch(journal.earlier) + config.epochs
        state = warm_up(made, state, progress, last)
        solution = solve_if_asked(made.setup, dataset, made.activations, progress)
        labels = labels_to_judge(dataset)
        state, progress = begin_with(solution, made, journal, state, progress, labels)
        first = progress.epoch
        with signals.defer():
            while not (progress.is_done(last) or interrupted()):
                state, done = train_epoch(made, state, progress, last, announce=progress.epoch == first)
                evaluation = evaluate_epoch(made, state)
                progress = record_epoch(made, progress, done, evaluation, labels, int(state.step))
                journal.record(state, progress)
                print_epoch(progress, last)
            journal.save(state, progress)
            if signal := interrupted():
                raise signals.Stopped(signal, together=True)
        outcome = prove(made, journal, state, progress, solution)
    return conclude(made, workdir, dataset, outcome)


def prepare(config: Config, dataset: Dataset, source: Weights | None, earlier_cuts: tuple[Cut, ...]) -> Assembly:
    """What the stage trains with. `earlier_cuts` are those of `Others`, the other arguments those of `train`.

    Raises:
      ValueError: if the weights do not fit, or a head is to be solved from activations that are too large.
    """
    setup = make_setup(config, source, len(dataset.class_names), make_mesh())
    variables = initialize(setup, source, dataset.class_names, split_seed(config.seed)[0])
    warn_of_other_images(source, dataset.image_size, config.data.fit or USUAL_FIT)
    images = {name: len(split.labels) for name, split in dataset.splits.items()}
    passes = features.count_passes(images["train"], sum(images.values()) - images["train"], config.data.views)
    obstacle = partial(features.find_obstacle, config.data, config.cache, max_over_processes(passes))
    # The pass holds a copy of the frozen weights, which nobody needs any more.
    return assemble(setup, variables, dataset, obstacle, earlier_cuts)._replace(over=None)


def warn_of_other_images(source: Weights | None, image_size: int, fit: Fit) -> None:
    """Prints a line if a run that the weights come from had images of another size, or made square otherwise."""
    if source is None or not source.is_run:
        return
    theirs, ours = source.pictures, {"image_size": image_size, "fit": fit}
    others = [name for name in theirs if theirs[name] != ours[name]]
    if others:
        before, now = (" and ".join(f"{name}={values[name]}" for name in others) for values in (theirs, ours))
        alike = data_flags({name: theirs[name] for name in others})
        print(f"WARNING {source.name} learned from pictures with {before}, these have {now}: {alike} makes them alike")


def identify_run(setup: Setup, dataset: Dataset, *, from_activations: bool) -> Meta:
    """What identifies a run, as JSON: a checkpoint is resumed only if all of this is equal."""
    return {
        "stage": setup.config.stage,
        "cut": setup.cut.position,
        "class_names": dataset.class_names,
        "network": describe_network(setup.model),
        "preprocessing": setup.preprocessing._asdict(),
        "image_size": dataset.image_size,
        "fit": setup.config.data.fit or USUAL_FIT,
        "data": {name: split.identity() for name, split in dataset.splits.items()},
        "content": {name: split.content() for name, split in dataset.splits.items()},
        "read_anew": {name: n for name, split in dataset.splits.items() if (n := split.count_read_anew())},
        "views_used": None if setup.config.data.views is None else from_activations,
    }


def learn_from(dataset: Dataset, source: Weights | None) -> Learned:
    """What the weights have learned from when the run on `dataset` is over. A file of weights counts as nothing: it
    is not one of ours, and its pictures are not known."""
    assert dataset.train is not None, "it trains"
    before = source.learned if source and source.is_run else NOTHING
    return learn(dataset.train.all_digests(), before, of_files=dataset.train.of_files)


@contextmanager
def open_journal(made: Assembly, workdir: Path, dataset: Dataset, source: Weights | None) -> Iterator[Journal]:
    """The journal of the run in `workdir`. Fine-tuning continues the epochs of its source."""
    setup, steps = made.setup, made.training.steps
    earlier = source.history if source and setup.config.stage == "fine_tune" else ()
    with open_checkpoints(workdir, own=True) as checkpoints:
        about = identify_run(setup, dataset, from_activations=made.activations is not None)
        learned = learn_from(dataset, source)
        journal = Journal(workdir, checkpoints, setup.cut, made.frozen, about, earlier, steps, learned)
        with journal.keeping_best():
            yield journal


def resume(journal: Journal, made: Assembly, before: Printed | None) -> tuple[TrainState, Progress]:
    """The state and progress of the newest checkpoint or, without one, the first state. When nothing can be refused any
    more, the network is printed, whose units may have been printed `before`.

    Raises:
      ValueError: if this run began with other data, or the source weights are of another run than then.
    """
    setup, variables, programs = made.setup, made.variables, made.programs
    restored, progress = journal.read(programs.shapes)
    if repr(progress.history[: len(journal.earlier)]) != repr(journal.earlier):
        pretrained = setup.config.pretrained
        raise ValueError(f"{pretrained} is another run than when {journal.workdir} began; give another --workdir")
    mark_running(journal.workdir, setup.config)
    print(describe_setup(setup, variables, before))
    journal.begin(variables, progress)
    if restored is None:
        return programs.create(variables), progress
    restored = complete(restored, lambda: programs.create_beside(variables))
    steps = f", step {progress.partial.steps} of the next" if progress.partial.steps else ""
    print(f"goes on after epoch {progress.epoch - 1}{steps}")
    config, done = setup.config, progress.epoch - 1
    if progress.stopper.stopped and done < last_epoch(journal.earlier) + config.epochs:
        better = "lower val_loss" if config.monitor == "val_loss" else "higher val_accuracy"
        reason = f"{config.patience} epoch{'' if config.patience == 1 else 's'} without a {better}"
        print(f"stopped early after epoch {done} ({reason}): more epochs change nothing")
    return place_state(restored, variables, setup.cut, programs.shardings), progress


def warm_up(made: Assembly, state: TrainState, progress: Progress, last: int) -> TrainState:
    """`state`, unchanged, after the programs are compiled, unless no epoch is left up to the `last`."""
    if made.validation is None or progress.is_done(last):
        return state
    print("compiling; the first time this takes a minute or two ...", flush=True)
    return epochs.warm_up(state, made.training, made.validation, made.train_steps, made.programs.evaluate)


def begin_with(
    solution: Solution | None,
    made: Assembly,
    journal: Journal,
    state: TrainState,
    progress: Progress,
    labels: np.ndarray | None,
) -> tuple[TrainState, Progress]:
    """State and progress with the solved head, which are saved; as they were, if there is none or it is there.
    `labels` are those of `labels_to_judge`."""
    if solution is None or progress.history:
        return state, progress
    state, row, found = start_from_solution(solution, made, state)
    judged = None if labels is None else judge_pictures(found["validation"].logits, labels)
    progress = record_solved(progress, row, made.setup.config.monitor, judged)
    print(printed.solved_line(row), flush=True)
    with signals.defer():
        journal.record(state, progress)
    return state, progress


def train_epoch(
    made: Assembly, state: TrainState, progress: Progress, last: int, *, announce: bool
) -> tuple[TrainState, PartialEpoch]:
    """Trains the current epoch to its end, or until a signal comes. With `announce` a line says how fast that is."""
    training, seed, epoch = made.training, made.setup.config.seed, progress.epoch
    n, size, spread = len(training), training.batch_size, progress.spread
    order = draw_order(n, size, seed=seed, epoch=epoch, views=training.views, spread=spread)
    return epochs.train_epoch(
        state,
        progress.partial,
        training,
        order,
        made.train_steps,
        name=f"epoch {epoch}/{last}",
        ahead=look_ahead(made.setup.config, progress, last),
        interrupted=interrupted,
        announce=announce,
    )


def look_ahead(config: Config, progress: Progress, last: int) -> Ahead:
    """What comes after the current epoch, and how long the one before it took, if that was of the same stage."""
    row = progress.history[-1] if progress.history else {}
    alike = row.get("epoch") and (row["stage"], row.get("cut")) == (config.stage, config.cut)
    return Ahead(last - progress.epoch, row.get("seconds") if alike else None)


def evaluate_epoch(made: Assembly, state: TrainState) -> Evaluation | None:
    """The evaluation of the validation split; None if a signal came."""
    assert made.validation is not None, "without it there are no epochs"
    return epochs.try_evaluate(state, made.validation, made.programs.evaluate, interrupted)


def labels_to_judge(dataset: Dataset) -> np.ndarray | None:
    """The labels of the validation pictures if it is kept what each epoch makes of each of them, else None."""
    split = dataset.validation
    return split.all_labels() if split is not None and split.count < MANY else None


def record_epoch(
    made: Assembly,
    progress: Progress,
    done: PartialEpoch,
    evaluation: Evaluation | None,
    labels: np.ndarray | None,
    step: int,
) -> Progress:
    """The progress after an epoch, or after a part of one where `evaluation` is None. `labels` are those of
    `labels_to_judge`, and `step` counts all updates."""
    if evaluation is None:
        return progress._replace(partial=done)
    config = made.setup.config
    row = {
        "stage": config.stage,
        "cut": config.cut,
        "epoch": progress.epoch,
        **metrics.means(done.sums),
        **{f"val_{name}": value for name, value in evaluation.means.items()},
        "seconds": round(done.seconds + evaluation.seconds, 3),
        "images_per_second": round(len(made.training) / done.seconds, 1),
        "learning_rate": float(made.programs.learning_rate(step - 1)),
    }
    judged = None if labels is None else judge_pictures(evaluation.logits, labels)
    return finish_epoch(progress, row, config.patience, config.monitor, judged)


def print_epoch(progress: Progress, last: int) -> None:
    """Prints a line about the epoch that ended. Prints nothing if it was interrupted."""
    if progress.partial.steps == 0:
        print(printed.epoch_line(progress.history[-1], last), flush=True)


def prove(
    made: Assembly, journal: Journal, state: TrainState, progress: Progress, solution: Solution | None
) -> Outcome:
    """What the epochs came to: `state` with the variables of the best one, and the proof that the frozen leaves are as
    they were at the start, both in `state` and in the checkpoint of that epoch.

    Raises:
      ValueError: if no epoch had a finite validation loss.
      RuntimeError: if a frozen leaf has changed.
    """
    check_converged(progress, made.setup.config)
    verify_frozen(made.frozen, made.setup.cut.digest(state.variables))
    variables = journal.read_best(progress)
    proved = verify_frozen(made.frozen, made.setup.cut.digest(variables))
    best = state._replace(variables=put(variables, whole(made.setup.mesh)))
    return Outcome(best, journal.best_number(progress), proved, progress, journal.earlier, solution)


def check_converged(progress: Progress, config: Config) -> None:
    """Raises ValueError if no epoch had a finite validation loss."""
    if math.isinf(progress.stopper.best):
        raise ValueError(
            f"no epoch had a finite validation loss: the training diverged; try a smaller "
            f"--config.optimizer.learning_rate than {config.optimizer.learning_rate}"
        )
