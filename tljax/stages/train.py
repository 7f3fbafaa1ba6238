"""Training: the units from the cut on are trained, the best epoch is kept, the frozen units are proved unchanged."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import jax

from tljax.config import Config
from tljax.data.batches import Examples, draw_order, place_examples
from tljax.data.datasets import Dataset
from tljax.devices.environment import describe_devices
from tljax.devices.mesh import make_mesh, put, whole
from tljax.devices.processes import interrupted
from tljax.networks.cut import Cut, verify_frozen
from tljax.networks.resnet import describe_network
from tljax.report import figures, tables
from tljax.runs.checkpoints import Meta, complete, open_checkpoints
from tljax.runs.journal import Journal
from tljax.runs.workdir import begin_run, mark_running
from tljax.stages.calibrate import calibrate
from tljax.stages.programs import Programs, Setup, compile_prefix, compile_programs, initialize, make_setup
from tljax.stages.solve import solve_if_asked, start_from
from tljax.storage import signals
from tljax.training import epochs, features, metrics
from tljax.training.calibration import balanced_accuracy, class_accuracies, count_confusions
from tljax.training.epochs import Evaluation
from tljax.training.progress import PartialEpoch, Progress, finish_epoch, last_epoch, record_solved
from tljax.training.regularization import weigh
from tljax.training.state import TrainState, place_state
from tljax.trees import Row, Tree
from tljax.weights.pretrained import Weights


def train(
    config: Config,
    workdir: Path,
    dataset: Dataset,
    source: Weights | None,
    *,
    earlier_cuts: tuple[Cut, ...] = (),
    overwrite: bool = False,
) -> Row:
    """Trains one stage, from its newest checkpoint if there is one, and returns its part of `summary.json`.

    `source` are the weights to start from, None for random ones. `earlier_cuts` are the cuts of later stages: their
    activations are computed in the same pass. `overwrite` deletes an earlier run in `workdir` first.

    Raises:
      ValueError: if the weights or the checkpoints do not fit, or the training diverges.
      RuntimeError: if a frozen leaf has changed.
      signals.Stopped: if a signal ends the run; what is done is saved.
    """
    setup = make_setup(config, source, len(dataset.class_names), make_mesh())
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    variables = initialize(setup, source, dataset.class_names, init_key)
    frozen = setup.cut.digest(variables)
    print(f"{setup.network} on {describe_devices()}\n{tables.network_summary(variables, setup.cut, config.batch_norm)}")

    warn_of_other_sizes(source, dataset)
    variables = put(variables, whole(setup.mesh))
    activations = read_activations(setup, dataset, variables, frozen, earlier_cuts)
    # What can be wrong with the settings shows before this, while an earlier run is still there.
    begin_run(workdir, config, overwrite=overwrite)
    examples = place_splits(setup, dataset, activations)
    training, validation = examples["train"], examples.get("validation")
    programs = compile_programs(
        setup,
        variables,
        training.steps,
        from_activations=activations is not None,
        class_weights=weigh_classes(config, dataset),
    )
    train_steps, eval_steps = partial(programs.train, key=step_key), programs.evaluate

    # Fine-tuning continues the epochs of its source.
    earlier = source.history if source and config.stage == "fine_tune" else ()
    last = last_epoch(earlier) + config.epochs
    with open_checkpoints(workdir, own=True) as checkpoints:
        about = describe_run(setup, dataset)
        journal = Journal(
            workdir, checkpoints, setup.cut, frozen=frozen, about=about, earlier=earlier, steps=training.steps
        )
        state, progress = resume(journal, setup, programs, variables)
        if validation is not None and not progress.is_done(last):
            print("compiling; the first time this takes a minute or two ...", flush=True)
            state = epochs.warm_up(state, training, validation, train_steps, eval_steps)
        solution = solve_if_asked(setup, dataset, activations, progress)
        if solution and not progress.history:
            state, row = start_from(solution, state, setup, examples, eval_steps)
            progress = record_solved(progress, row, config.monitor)
            print(tables.solved_line(row), flush=True)
            with signals.deferred():
                journal.write(state, progress)
        first = progress.epoch
        with signals.deferred():
            while not (progress.is_done(last) or interrupted()):
                name = f"epoch {progress.epoch}/{last}"
                order = draw_order(
                    len(training), training.batch_size, seed=config.seed, epoch=progress.epoch, views=training.views
                )
                state, done = epochs.train_epoch(
                    state,
                    progress.partial,
                    training,
                    order,
                    train_steps,
                    name=name,
                    interrupted=interrupted,
                    announce=progress.epoch == first,
                )
                assert validation is not None, "without it there are no epochs"
                evaluation = epochs.try_evaluate(state, validation, eval_steps, interrupted)
                learning_rate = float(programs.learning_rate(int(state.step) - 1))
                progress = record_epoch(progress, config, done, evaluation, len(training), learning_rate)
                journal.write(state, progress)
                print_epoch(progress, last)
            if signal := interrupted():
                raise signals.Stopped(signal, together=True)
        check_converged(progress, config)
        verify_frozen(frozen, setup.cut.digest(state.variables))
        best = journal.read_best(progress)
    proved = verify_frozen(frozen, setup.cut.digest(best))

    state = state._replace(variables=put(best, whole(setup.mesh)))
    evaluated = [name for name in examples if name != "train" or validation is None]
    found = {name: epochs.evaluate(state, examples[name], eval_steps) for name in evaluated}
    calibration = calibrate(setup, workdir, dataset, found, journal.best_number(progress), solution)
    print(tables.calibration_line(calibration))
    draw(config, workdir, dataset, found, progress)
    judged = {name: judge(dataset, name, evaluation) for name, evaluation in found.items() if name != "train"}
    summary = summarize(progress, earlier, judged, setup.cut, best, proved)
    more = {"calibration": calibration, "labels": count_labels(dataset, config), "class_names": dataset.class_names}
    return summary | more


def warn_of_other_sizes(source: Weights | None, dataset: Dataset) -> None:
    """Prints a line if a run that the weights come from had images of another size."""
    if source and source.is_run and source.input_size != dataset.image_size:
        theirs, ours = source.input_size, dataset.image_size
        print(
            f"WARNING {source.name} learned from pictures of {theirs} pixels, these have {ours}: config.data.image_size"
        )


def read_activations(
    setup: Setup, dataset: Dataset, variables: Tree, frozen: dict[str, str], earlier_cuts: tuple[Cut, ...]
) -> dict[str, Any] | None:
    """Activations of each split at the cut, if there are frozen units and nothing random happens before the cut.

    `frozen` are the digests of the frozen leaves.

    Raises:
      ValueError: if there are none, but the head is to be solved from them.
    """
    config = setup.config
    activations = None
    if frozen:
        images = {name: split.images for name, split in dataset.splits.items()}
        prefix = compile_prefix(setup, variables, frozen)
        rows = dataset.train.rows if dataset.train else None
        activations = features.compute(images, (*earlier_cuts, setup.cut), prefix, config, setup.mesh, rows)
    if config.data.views and activations is None:
        why = "the frozen units run in every step" if frozen else "nothing is frozen"
        print(f"config.data.views is not used: {why}, and images change in every epoch")
    if activations is None and config.head.init == "ridge":
        raise ValueError(
            "config.head.init=ridge solves the head from the averages of all images, which are too large for "
            "config.cache: raise memory_gib or disk_gib"
        )
    return activations


def place_splits(setup: Setup, dataset: Dataset, activations: dict[str, Any] | None) -> dict[str, Examples]:
    """Each split as the steps read it: its activations or, without them, its images."""
    config = setup.config
    return {
        name: place_examples(
            split.images if activations is None else activations[name],
            split.labels,
            split.count,
            config.batch_size,
            config.cache.memory_bytes,
            setup.mesh,
        )
        for name, split in dataset.splits.items()
    }


def weigh_classes(config: Config, dataset: Dataset) -> tuple[float, ...] | None:
    """The weight of each class in the training loss, which a printed line says; None if all count as they are."""
    counts = dataset.train_counts
    weights = weigh(config.class_weights, counts)
    if weights is not None:
        print(tables.class_weights_line(dict(zip(counts, weights, strict=True))))
    return weights


def describe_run(setup: Setup, dataset: Dataset) -> Meta:
    """What identifies a run, as JSON: a checkpoint is resumed only if all of this is equal."""
    return {
        "stage": setup.config.stage,
        "cut": setup.cut.position,
        "network": describe_network(setup.model),
        "preprocessing": setup.preprocessing._asdict(),
        "image_size": dataset.image_size,
        "fit": setup.config.data.fit,
        "class_names": dataset.class_names,
        "data": {name: split.identity() for name, split in dataset.splits.items()},
    }


def resume(journal: Journal, setup: Setup, programs: Programs, variables: Tree) -> tuple[TrainState, Progress]:
    """The state and progress of the newest checkpoint or, without one, a first state of `variables`.

    Raises:
      ValueError: if the source weights are of another run than when this run began.
    """
    restored, progress = journal.read(programs.shapes)
    if repr(progress.history[: len(journal.earlier)]) != repr(journal.earlier):
        pretrained = setup.config.pretrained
        raise ValueError(f"{pretrained} is another run than when {journal.workdir} began; give another --workdir")
    mark_running(journal.workdir, setup.config)
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


def record_epoch(
    progress: Progress, config: Config, done: PartialEpoch, evaluation: Evaluation | None, images: int, rate: float
) -> Progress:
    """The progress after an epoch, or after a part of one where `evaluation` is None.

    The epoch has `images` training images; `rate` is the learning rate of its last step.
    """
    if evaluation is None:
        return progress._replace(partial=done)
    row = {
        "stage": config.stage,
        "cut": config.cut,
        "epoch": progress.epoch,
        **metrics.means(done.sums),
        **{f"val_{name}": value for name, value in evaluation.means.items()},
        "seconds": round(done.seconds + evaluation.seconds, 3),
        "images_per_second": round(images / done.seconds, 1),
        "learning_rate": rate,
    }
    return finish_epoch(progress, row, config.patience, config.monitor)


def print_epoch(progress: Progress, last: int) -> None:
    """Prints a line about the epoch that ended. Prints nothing if it was interrupted."""
    if progress.partial.steps == 0:
        print(tables.epoch_line(progress.history[-1], last), flush=True)


def check_converged(progress: Progress, config: Config) -> None:
    """Raises ValueError if no epoch had a finite validation loss."""
    if math.isinf(progress.stopper.best):
        raise ValueError(
            f"no epoch had a finite validation loss: the training diverged; try a smaller "
            f"--config.optimizer.learning_rate than {config.optimizer.learning_rate}"
        )


def draw(config: Config, workdir: Path, dataset: Dataset, found: dict[str, Evaluation], progress: Progress) -> None:
    """Draws some validation images with their predictions, and the curves of all epochs, if there were any. Without
    a validation split there are no predictions but those for images that were learned from, and none are drawn."""
    folder, names = workdir / "figures", dataset.class_names
    if dataset.validation is not None:
        predicted = found["validation"].predicted
        guesses = [names[i] for i in predicted]
        figures.draw_samples(folder, config.seed, dataset.validation, names, predicted, guesses)
    if progress.epoch == 1:
        return
    run = "transfer" if progress.history[0]["stage"] != config.stage else config.stage
    figures.draw_curves(folder / "curves.png", {run: progress.history})


def judge(dataset: Dataset, name: str, evaluation: Evaluation) -> Row:
    """Loss and accuracy on the split `name`, the balanced accuracy, and that of each class: None where it has no
    image."""
    names = dataset.class_names
    confusions = count_confusions(dataset.splits[name].all_labels(), evaluation.predicted, len(names))
    by_class = dict(zip(names, class_accuracies(confusions), strict=True))
    return {**evaluation.means, "balanced_accuracy": balanced_accuracy(confusions), "class_accuracy": by_class}


def count_labels(dataset: Dataset, config: Config) -> Row:
    """How many labels the run has used: all of train, and those of validation if it chose the best epoch."""
    chosen = dataset.validation if config.epochs else None
    return {
        "train": dataset.train.count if dataset.train else 0,
        "validation": chosen.count if chosen else 0,
    }


def summarize(
    progress: Progress, earlier: tuple[Row, ...], judged: dict[str, Row], cut: Cut, best: Tree, proved: int
) -> Row:
    """The training part of `summary.json`: the best epoch, the last one, and the test split.

    `earlier` are the rows of the source run, `judged` is what `judge` says of each split. `best` are the variables of
    the best epoch; `proved` is the number of frozen leaves that are proved unchanged. Without validation, loss and
    accuracy are those of held-out pictures.
    """
    if proved:
        print(f"{proved} frozen leaves (parameters and statistics before {cut.position}) proved unchanged to the bit")
    first, last = progress.history[len(earlier)], progress.history[-1]
    held_out = first.get("solved", {}).get("held_out") or {"loss": None, "accuracy": None}
    return {
        **judged.get("validation", {name: held_out[name] for name in ("loss", "accuracy")}),
        "last": {"loss": last["val_loss"], "accuracy": last["val_accuracy"]},
        "best_epoch": progress.stopper.best_epoch,
        "epochs": progress.epoch - 1 - last_epoch(earlier),
        "params": cut.count(best)._asdict(),
        "frozen_leaves_unchanged": proved,
        **({"solved": first["solved"]} if "solved" in first else {}),
        **({"test": judged["test"]} if "test" in judged else {}),
    }
