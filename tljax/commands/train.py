"""Training: the units from the cut on are trained, the best epoch is kept, the frozen units are proved unchanged."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import jax

from tljax.commands.calibrate import calibrate
from tljax.commands.programs import Programs, Setup, compile_prefix, compile_programs, initialize, make_setup
from tljax.config import Config
from tljax.data.batches import Examples, draw_order, place_examples
from tljax.data.splits import Dataset
from tljax.devices.environment import describe_devices
from tljax.devices.mesh import make_mesh, put, whole
from tljax.devices.processes import interrupted
from tljax.networks.cut import Cut, verify_frozen
from tljax.networks.resnet import describe_network
from tljax.report import pictures, tables
from tljax.runs.checkpoints import Meta, complete, open_checkpoints
from tljax.runs.journal import Journal
from tljax.runs.workdir import begin_run, mark_running
from tljax.storage import signals
from tljax.training import epochs, features, metrics
from tljax.training.epochs import Evaluation
from tljax.training.progress import PartialEpoch, Progress, finish_epoch
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
    begin_run(workdir, config, overwrite=overwrite)
    print(f"{setup.network} on {describe_devices()}\n{tables.network_summary(variables, setup.cut, config.batch_norm)}")

    variables = put(variables, whole(setup.mesh))
    examples, from_activations = read_examples(setup, dataset, variables, frozen, earlier_cuts)
    training, validation = examples["train"], examples["validation"]
    programs = compile_programs(setup, variables, config.epochs * training.steps, from_activations=from_activations)
    train_steps, eval_steps = partial(programs.train, key=step_key), programs.evaluate

    # Fine-tuning continues the epochs of its source.
    earlier = source.history if source and config.stage == "fine_tune" else ()
    last = len(earlier) + config.epochs
    with open_checkpoints(workdir, own=True) as checkpoints:
        about = describe_run(setup, dataset)
        journal = Journal(
            workdir, checkpoints, setup.cut, frozen=frozen, about=about, earlier=earlier, steps=training.steps
        )
        state, progress = resume(journal, setup, programs, variables)
        if not progress.is_done(last):
            print("compiling; the first time this takes a minute or two ...", flush=True)
            state = epochs.warm_up(state, training, validation, train_steps, eval_steps)
        first = progress.epoch
        with signals.deferred():
            while not (progress.is_done(last) or interrupted()):
                name = f"epoch {progress.epoch}/{last}"
                order = draw_order(len(training), training.batch_size, seed=config.seed, epoch=progress.epoch)
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
                evaluation = epochs.try_evaluate(state, validation, eval_steps, interrupted)
                learning_rate = programs.learning_rate(int(state.step) - 1)
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
    found = {name: epochs.evaluate(state, examples[name], eval_steps) for name in examples if name != "train"}
    logits = {name: evaluation.logits for name, evaluation in found.items()}
    calibration = calibrate(setup, workdir, dataset, logits, journal.best_number(progress))
    print(tables.calibration_line(calibration))
    draw(config, workdir, dataset, found["validation"], progress)
    summary = summarize(progress, len(earlier), found, setup.cut, best, proved)
    return summary | {"calibration": calibration, "class_names": dataset.class_names}


def read_examples(
    setup: Setup, dataset: Dataset, variables: Tree, frozen: dict[str, str], earlier_cuts: tuple[Cut, ...]
) -> tuple[dict[str, Examples], bool]:
    """Each split as the training steps read it, and whether it holds activations at the cut instead of images.

    Activations replace images if there are frozen units and nothing random happens before the cut. `frozen` are the
    digests of the frozen leaves.
    """
    config, mesh = setup.config, setup.mesh
    inputs: dict[str, Any] = {name: split.images for name, split in dataset.splits.items()}
    activations = None
    if frozen:
        prefix = compile_prefix(setup, variables, frozen)
        activations = features.compute(inputs, (*earlier_cuts, setup.cut), prefix, config, mesh)
    inputs = activations or inputs
    examples = {
        name: place_examples(
            inputs[name], split.labels, split.count, config.batch_size, config.cache.memory_bytes, mesh
        )
        for name, split in dataset.splits.items()
    }
    return examples, activations is not None


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
    print(f"goes on after epoch {len(progress.history)}{steps}")
    config, done = setup.config, len(progress.history)
    if progress.stopper.stopped and done < len(journal.earlier) + config.epochs:
        reason = f"{config.patience} epochs without a lower val_loss"
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
        "epoch": progress.epoch,
        **metrics.means(done.sums),
        **{f"val_{name}": value for name, value in evaluation.means.items()},
        "seconds": round(done.seconds + evaluation.seconds, 3),
        "images_per_second": round(images / done.seconds, 1),
        "learning_rate": rate,
    }
    return finish_epoch(progress, row, config.patience)


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


def draw(config: Config, workdir: Path, dataset: Dataset, evaluation: Evaluation, progress: Progress) -> None:
    """Draws some validation images with their predictions, and the curves of all epochs."""
    folder, names, predicted = workdir / "figures", dataset.class_names, evaluation.predicted
    guesses = [names[i] for i in predicted]
    pictures.draw_samples(folder, config.seed, dataset.validation, names, predicted, guesses)
    run = "transfer" if progress.history[0]["stage"] != config.stage else config.stage
    pictures.draw_curves(folder / "curves.png", {run: progress.history})


def summarize(progress: Progress, earlier: int, found: dict[str, Evaluation], cut: Cut, best: Tree, proved: int) -> Row:
    """The training part of `summary.json`: the best epoch, the last one, and the test split.

    The first `earlier` epochs are those of the source run. `best` are the variables of the best epoch; `proved` is the
    number of frozen leaves that are proved unchanged.
    """
    if proved:
        print(f"{proved} frozen leaves (parameters and statistics before {cut.position}) proved unchanged to the bit")
    last = progress.history[-1]
    return {
        **found["validation"].means,
        "last": {"loss": last["val_loss"], "accuracy": last["val_accuracy"]},
        "best_epoch": progress.stopper.best_epoch,
        "epochs": len(progress.history) - earlier,
        "params": cut.count(best)._asdict(),
        "frozen_leaves_unchanged": proved,
        **({"test": found["test"].means} if "test" in found else {}),
    }
