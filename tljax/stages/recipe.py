"""A recipe becomes a lesson: once, before its run begins. A run that goes on reads what it became."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.config import AUTO, Config, Data, Lesson, Recipe, Stage, as_json
from tljax.data.augmentation import find_kept_side
from tljax.data.batches import draw_order, place_examples
from tljax.data.datasets import Extent, size_up
from tljax.devices.mesh import make_mesh, own_rows
from tljax.devices.processes import leads, max_over_processes
from tljax.runs.files import read_json
from tljax.runs.saved_configs import build, fill_in, find_changes
from tljax.runs.workdir import CONFIG, RECIPE
from tljax.stages.lessons import stage_configs
from tljax.stages.programs import compile_prefix, compile_programs, initialize, make_setup
from tljax.stages.rules import (
    VARIANT,
    WHY_VARIANT,
    Augmentation,
    Choice,
    Limit,
    choose_augmentation,
    choose_stages,
)
from tljax.stages.stage import check_stage
from tljax.training import features
from tljax.trees import Row
from tljax.weights.pretrained import Weights, load_weights

# Steps that are timed.
TIMED = 2
# Share of a time limit that is planned with: reading data, the evaluation at the end and the pictures take the rest.
PLANNED = 0.9
# Seconds that the smallest checkpoint takes, and bytes that are written in a second, digests included: 280 MB in 2 to 3
# seconds on a shared machine.
LEAST, WRITTEN = 0.3, 1e8
# More epochs than any rule chooses.
MOST = 10**6


class Rates(NamedTuple):
    """Seconds on this machine: for compiling, for the frozen units of one image, for a step of each kind, and for a
    checkpoint."""

    compiling: float
    frozen: float
    training: float
    evaluation: float
    checkpoint: float


class Pace(NamedTuple):
    """Seconds of a run on this machine."""

    once: float
    """For what happens once: the frozen units, compiling."""
    epoch: float

    def __str__(self) -> str:
        return f"{self.once:.0f} s once and {self.epoch:.1f} s an epoch, as measured"


def resolve(recipe: Recipe, workdir: Path, overwrite: bool) -> tuple[Lesson, Row]:
    """The lesson that `recipe` is in `workdir`, and what `recipe.json` holds: what was asked, what was chosen (the
    variant, stages, settings of the data), and the reasons.

    A run that is there keeps its stages. Otherwise they are chosen by the extent of the data and, with a time limit, by
    how long a few steps take on this machine.

    Raises:
      ValueError: if a setting is wrong, the data has nothing to learn from, or `workdir` holds a run of something else.
    """
    recipe.check()
    known = None if overwrite else _read(recipe, workdir)
    if known is None:
        asked = as_json(recipe)
        recipe, why_variant = _choose_variant(recipe)
        choice, data = _choose(recipe, workdir)
        known = {
            "asked": asked,
            "variant": recipe.variant,
            "stages": as_json(Lesson(stages=choice.stages))["stages"],
            "data": data,
            "reasons": [*choice.reasons, *why_variant],
        }
    else:
        recipe = replace(recipe, variant=known.get("variant", recipe.variant))
        print("the recipe, as it was chosen when this run began:")
    try:
        lesson = recipe.lesson(build(dict[str, Stage], known["stages"] or None), **known["data"])
        for name, config in stage_configs(lesson, workdir).items():
            check_stage(config, name=name)
        print("\n".join(f"- {reason}" for reason in known["reasons"]))
        return lesson, known
    except (TypeError, AttributeError, KeyError) as error:
        raise _damaged(workdir, error) from error


def _damaged(workdir: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{workdir / RECIPE} is damaged ({type(error).__name__}: {error}); bring it back, give another --workdir, or "
        "--overwrite"
    )


def _read(recipe: Recipe, workdir: Path) -> Row | None:
    """What `recipe.json` of a run in `workdir` holds. None if there is no run.

    Raises:
      ValueError: if it holds a run of another recipe or of none.
    """
    if not max_over_processes(leads() and (workdir / RECIPE).exists()):
        if max_over_processes(leads() and (workdir / CONFIG).exists()):
            raise ValueError(f"{workdir} holds a run of no recipe; give its config, another --workdir, or --overwrite")
        return None
    known: Row = read_json(workdir / RECIPE)
    try:
        changes = find_changes(fill_in({**known["asked"]}, Recipe), as_json(recipe))
    except (TypeError, AttributeError, KeyError) as error:
        raise _damaged(workdir, error) from error
    if changes:
        raise ValueError(
            f"{workdir} holds a run of another recipe ({'; '.join(changes)}); give its settings, another --workdir, or "
            "--overwrite"
        )
    return known


def _choose(recipe: Recipe, workdir: Path) -> tuple[Choice, Row]:
    """The stages for the data, and for this machine if there is a time limit; and settings of the data. What is chosen
    can run."""
    extent, pretrained = size_up(recipe.data, recipe.seed), recipe.pretrained is not None
    choose = partial(choose_stages, extent, pretrained, jax.device_count())
    choice = choose()
    changes = _choose_augmentation(recipe.data, choice, extent)
    lesson = recipe.lesson(choice.stages, **changes.settings)
    for name, config in stage_configs(lesson, workdir).items():
        check_stage(config, name=name)
    print(f"a recipe for {describe_extent(extent)}:")
    name, stage = list(choice.stages.items())[-1]
    if recipe.time_limit is not None and recipe.compile_for is None and stage.epochs:
        choice = choose(find_limit(recipe, lesson.config(name, recipe.pretrained), extent, recipe.time_limit))
        changes = _choose_augmentation(recipe.data, choice, extent)
    reasons = (*choice.reasons, changes.why)
    if recipe.time_limit is not None and not stage.epochs:
        reasons += (f"config.time_limit={recipe.time_limit:g} changes nothing: no stage is trained in epochs",)
    return choice._replace(reasons=reasons), changes.settings


def _choose_variant(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with the variant of a new network, and why."""
    if recipe.pretrained is not None or recipe.variant is not None:
        return recipe, []
    return replace(recipe, variant=VARIANT), [WHY_VARIANT]


def _choose_augmentation(data: Data, choice: Choice, extent: Extent) -> Augmentation:
    if data.augment == AUTO:
        return choose_augmentation(choice.stages, extent.images)
    why = f"config.data.augment={data.augment} is as it was given, and not chosen ({AUTO})"
    return Augmentation({"augment": data.augment, "views": data.views}, why)


def describe_extent(extent: Extent) -> str:
    images, validation, classes, side = extent
    return f"{images:,} pictures in {classes} classes at {side} pixels, and {validation:,} to validate on"


def find_limit(recipe: Recipe, config: Config, extent: Extent, minutes: float) -> Limit:
    """The number of epochs that fit into `minutes`; one if none does."""
    print(f"timing {TIMED} steps of {config.stage}; compiling them takes a minute or two ...", flush=True)
    began = time.perf_counter()
    source = load_weights(recipe.pretrained, recipe.network, recipe.variant) if recipe.pretrained else None
    pace = find_pace(measure_rates(config, source, extent), extent, config)
    left = PLANNED * 60 * minutes - (time.perf_counter() - began) - pace.once
    # Every process takes the number of the slowest.
    fit = -max_over_processes(-math.floor(min(left / pace.epoch, MOST)))
    if fit < 1:
        print(f"WARNING config.time_limit={minutes:g} minutes is too short for one epoch: the run takes longer")
    return Limit(max(fit, 1), f"config.time_limit={minutes:g} minutes: {pace}")


def find_pace(rates: Rates, extent: Extent, config: Config) -> Pace:
    """The pace of the stage `config` on data of this `extent`: every view of an image goes through the frozen units
    once, and an epoch is a pass of training, an evaluation and a checkpoint."""
    training, evaluation = (math.ceil(images / config.batch_size) for images in (extent.images, extent.validation))
    return Pace(
        rates.compiling + _count_passes(extent, config) * rates.frozen,
        training * rates.training + evaluation * rates.evaluation + rates.checkpoint,
    )


def _count_passes(extent: Extent, config: Config) -> int:
    """Images that go through the frozen units once, each view of one counted."""
    return extent.images * (config.data.views or 1) + extent.validation


def measure_rates(config: Config, source: Weights | None, extent: Extent) -> Rates:
    """How long the stage `config` takes for images of this `extent` with the network of `source`. A few steps are timed
    on random images with random weights, since the time depends on neither. Where the activations of all images
    cannot be kept, the frozen units run in each of the steps."""
    mesh = make_mesh()
    setup = make_setup(config, source, extent.classes, mesh)
    variables = initialize(setup, None, (), jax.random.key(0))
    count, rng = TIMED * config.batch_size, np.random.default_rng(0)
    rows = len(own_rows(mesh, config.batch_size, count))
    frozen = setup.cut.digest(variables)
    labels = rng.integers(0, extent.classes, rows).astype(np.int32)

    def draw_images(side: int) -> Any:
        return rng.integers(0, 256, (rows, side, side, 3), np.uint8)

    before, activations = Timed(0.0, 0.0, None), None
    if frozen and not features.why_not(config):
        prefix = compile_prefix(setup, variables, frozen)
        unkept = replace(config, cache=replace(config.cache, memory_gib=math.inf, disk_gib=0))
        few = {"": draw_images(extent.side)}
        before = call_twice(lambda _: features.compute(few, (setup.cut,), prefix, unkept, mesh), None)
        activations = before.result
    if activations:
        gib = _count_passes(extent, config) * activations[""].nbytes / count / 2**30
        obstacle = features.why_too_large(config, gib)
        if obstacle:
            print(f"the frozen units run in every step: {obstacle}")
            before, activations = Timed(0.0, 0.0, None), None
    inputs = activations[""] if activations else draw_images(find_kept_side(config.data, extent.side))
    programs = compile_programs(setup, variables, TIMED, from_activations=activations is not None)
    examples = place_examples(inputs, labels, count, config.batch_size, inputs.nbytes, mesh)
    ((chunk, _),) = examples.chunks(draw_order(count, config.batch_size, seed=0, epoch=1))
    steps, key = (np.int32(0), np.int32(TIMED)), jax.random.key(0)
    training = call_twice(lambda state: programs.train(state, chunk, *steps, key=key)[0], programs.create(variables))
    state = training.result
    evaluation = call_twice(lambda _: programs.evaluate(state, chunk, *steps), None)

    return Rates(
        sum(timed.compiling for timed in (before, training, evaluation)),
        before.seconds / count,
        training.seconds / TIMED,
        evaluation.seconds / TIMED,
        LEAST + sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / WRITTEN,
    )


class Timed(NamedTuple):
    """The second of two calls: its seconds, how much longer the first one took, and what it returned."""

    seconds: float
    compiling: float
    result: Any


def call_twice(call: Callable[[Any], Any], argument: Any) -> Timed:
    """Times `call(call(argument))`."""
    times = [time.perf_counter()]
    for _ in range(2):
        argument = jax.block_until_ready(call(argument))
        times.append(time.perf_counter())
    first, second = np.diff(times).tolist()
    return Timed(second, max(0.0, first - second), argument)
