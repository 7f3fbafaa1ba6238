"""A recipe becomes a lesson: once, before its run begins. A run that goes on reads what it became."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax

from tljax.config import AUTO, Config, Data, HowDeep, Lesson, Own, Recipe, Stage, as_json
from tljax.data.datasets import Extent, size_up
from tljax.devices.processes import as_leader, leads, max_over_processes
from tljax.networks.architectures import Architecture, find_architecture
from tljax.runs.files import read_json
from tljax.runs.saved_configs import build_settings, fill_in, find_changes, go_on_as_begun
from tljax.runs.workdir import CONFIG, RECIPE
from tljax.stages.lessons import stage_configs
from tljax.stages.probe import describe, find_obstacle, probe
from tljax.stages.rules import (
    AT_THE_END,
    VARIANT,
    WHY_VARIANT,
    AugmentationChoice,
    Choice,
    HeadPlace,
    Limit,
    choose_augmentation,
    choose_place,
    choose_stages,
    why_not_asked,
)
from tljax.stages.stage import check_stage, load_data, settle_images
from tljax.stages.time_limit import find_limit
from tljax.training.places import list_places
from tljax.trees import Row
from tljax.weights.pretrained import Weights, load_weights

RecipeT = TypeVar("RecipeT", Recipe, HowDeep)
# What the recipe of a study has besides: what the probe measured, and what was left out.
STUDY = "study"
# Where one epoch would fit, a run has one.
ONE_EPOCH = Limit(1, "the time limit")


# Gives what a recipe becomes: the variant, stages, settings of the data, and the reasons.
ChooseAll = Callable[[RecipeT, Path, Weights | None, float], Row]


def resolve(
    recipe: RecipeT, workdir: Path, overwrite: bool, began: float, choose: ChooseAll[RecipeT]
) -> tuple[Lesson, Row]:
    """The lesson that `recipe` is in `workdir`, and what `recipe.json` holds: what was asked, what `choose` chose, and
    the reasons.

    A run that is there keeps its stages. The time limit counts from when the run `began`, in the seconds of
    `time.perf_counter`.

    Raises:
      ValueError: if a setting is wrong, the data has nothing to learn from, or `workdir` holds a run of something else.
    """
    recipe.check()
    begun = None if overwrite else _read(recipe, workdir)
    if begun is None:
        source = _load_source(recipe)
        recipe = replace(recipe, data=settle_images(recipe.data, source))
        # Each process has chosen by what it has measured, and all run what the leader has chosen.
        known = as_leader({"asked": as_json(recipe), **choose(recipe, workdir, source, began)})
    else:
        recipe, known = begun
        print("the recipe, as it was chosen when this run began:")
    try:
        lesson = build_lesson(recipe, known)
        for name, config in stage_configs(lesson, workdir).items():
            check_stage(config, name=name)
        print("\n".join(f"- {reason}" for reason in known["reasons"]))
        return lesson, known
    except (TypeError, AttributeError, KeyError) as error:
        raise _damaged(workdir, error) from error


def build_lesson(recipe: Recipe, known: Row) -> Lesson:
    """The lesson of what was chosen for a recipe.

    Raises:
      TypeError, AttributeError, KeyError, ValueError: if it is damaged.
    """
    chosen = {name: known[name] for name in ("network", "variant") if name in known}
    stages = build_settings(dict[str, Stage], known["stages"] or None)
    lesson = replace(recipe, **chosen).lesson(stages, **known["data"])
    return replace(lesson, own=build_settings(dict[str, Own], known.get("own", {})))


def choose_recipe(recipe: Recipe, workdir: Path, source: Weights | None, began: float) -> Row:
    """What a recipe becomes: its stages are chosen by the extent of the data and, with a time limit, by how long a few
    steps take on this machine."""
    recipe, why_variant = _choose_variant(recipe)
    choice, data = _choose(recipe, workdir, source, began)
    return {
        "variant": recipe.variant,
        "stages": as_json(Lesson(stages=choice.stages))["stages"],
        "data": data,
        "reasons": [*choice.reasons, *why_variant],
    }


def _damaged(workdir: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{workdir / RECIPE} is damaged ({type(error).__name__}: {error}); bring it back, give another --workdir, or "
        "--overwrite"
    )


def _read(recipe: RecipeT, workdir: Path) -> tuple[RecipeT, Row] | None:
    """The `recipe` for a run in `workdir`, and what its `recipe.json` holds. None if there is no run.

    Raises:
      ValueError: if it holds a run of another recipe or of none.
    """
    if not max_over_processes(leads() and (workdir / RECIPE).exists()):
        if max_over_processes(leads() and (workdir / CONFIG).exists()):
            raise ValueError(f"{workdir} holds a run of no recipe; give its config, another --workdir, or --overwrite")
        return None
    known: Row = read_json(workdir / RECIPE)
    try:
        recipe = go_on_as_begun(recipe, known["asked"])
        changes = find_changes(fill_in({**known["asked"]}, type(recipe)), as_json(recipe))
        if (STUDY in known) != isinstance(recipe, HowDeep):
            changes = ["a study before, a recipe now" if STUDY in known else "a recipe before, a study now"]
    except (TypeError, AttributeError, KeyError) as error:
        raise _damaged(workdir, error) from error
    if changes:
        raise ValueError(
            f"{workdir} holds a run of another recipe ({'; '.join(changes)}); give its settings, another --workdir, or "
            "--overwrite"
        )
    return recipe, known


def _load_source(recipe: Recipe) -> Weights | None:
    """The weights that `recipe` transfers from; None from scratch, and where programs are only compiled."""
    if recipe.pretrained is None or recipe.compile_for is not None:
        return None
    return load_weights(recipe.pretrained, recipe.network, recipe.variant)


class Chosen(NamedTuple):
    """The stages, how pictures are changed, and the lesson of both."""

    stages: Choice
    changes: AugmentationChoice
    lesson: Lesson


def _choose(recipe: Recipe, workdir: Path, source: Weights | None, began: float) -> tuple[Choice, Row]:
    """The stages for the data, and for this machine if there is a time limit; and settings of the data. What is chosen
    can run."""
    network = source.architecture if source else find_architecture(recipe.network)
    pretrained = recipe.pretrained is not None
    choose = partial(_choose_for, recipe, network if pretrained else None)
    extent = size_up(recipe.data, recipe.seed, counting=pretrained)
    chosen = choose(extent)
    for name, config in stage_configs(chosen.lesson, workdir).items():
        check_stage(config, name=name)
    print(f"a recipe for {describe_extent(extent)}:")
    if source is not None:
        place = _ask(stage_configs(chosen.lesson, workdir)["feature_extraction"], extent, source)
        choose = partial(choose, place=place)
        chosen = choose(extent)
    trains = list(chosen.lesson.stages.values())[-1].epochs > 0
    if recipe.time_limit is not None and recipe.compile_for is None and trains:
        limit = find_limit(recipe, chosen.lesson, source, extent, began, lambda few: choose(few, ONE_EPOCH).lesson)
        chosen = choose(extent, limit)
    reasons = (*chosen.stages.reasons, chosen.changes.why)
    if recipe.time_limit is not None and not trains:
        reasons += (f"config.time_limit={recipe.time_limit:g} changes nothing: no stage is trained in epochs",)
    return chosen.stages._replace(reasons=reasons), chosen.changes.settings


def _ask(config: Config, extent: Extent, source: Weights) -> HeadPlace:
    """Where the head of a stage that solves one reads, by training pictures that are left out."""
    units = list_places(source.architecture)
    if why := why_not_asked(extent) or find_obstacle(
        config, source.architecture, units, extent.images, extent.validation
    ):
        return HeadPlace("head", f"{AT_THE_END}: {why}")
    found = probe(config, load_data(config), source, units)
    print(describe(found))
    return choose_place(found.differences)


def _choose_for(
    recipe: Recipe,
    network: Architecture | None,
    extent: Extent,
    limit: Limit | None = None,
    place: HeadPlace | None = None,
) -> Chosen:
    """What is chosen for data of this `extent`, with source weights of the `network`, if there are any."""
    choice = choose_stages(extent, network, jax.device_count(), limit, place)
    changes = _choose_augmentation(recipe.data, choice, extent)
    return Chosen(choice, changes, recipe.lesson(choice.stages, **changes.settings))


def _choose_variant(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with the variant of a new network, and why."""
    if recipe.pretrained is not None or recipe.variant is not None:
        return recipe, []
    return replace(recipe, variant=VARIANT), [WHY_VARIANT]


def _choose_augmentation(data: Data, choice: Choice, extent: Extent) -> AugmentationChoice:
    if data.augment == AUTO:
        return choose_augmentation(choice.stages, extent.images)
    why = f"config.data.augment={data.augment} is as it was given, and not chosen ({AUTO})"
    return AugmentationChoice({"augment": data.augment, "views": data.views}, why)


def describe_extent(extent: Extent) -> str:
    images, validation, classes = extent.images, extent.validation, extent.classes
    return f"{images:,} pictures in {classes} classes at {extent.side} pixels, and {validation:,} to validate on"
