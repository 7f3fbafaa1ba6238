"""What a study becomes: the place that its probe chooses, and the candidates that fit into its time limit."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax

from tljax.config import AUTO, NOT_READ, Config, HowDeep, Lesson, as_json, jsonable
from tljax.data.datasets import Dataset, Extent, size_up
from tljax.data.layouts import join_names
from tljax.devices.mesh import gather
from tljax.networks.architectures import Architecture, find_architecture
from tljax.report.more_labels import describe_growth
from tljax.stages import probe
from tljax.stages.candidates import SOLVED, START, list_candidates, name_network
from tljax.stages.lessons import stage_configs
from tljax.stages.overlap import count_known, refuse_known
from tljax.stages.prices import keep_fitting
from tljax.stages.probe import PlacedHead, compare_heads
from tljax.stages.recipe import STUDY, describe_extent
from tljax.stages.rules import AT_THE_END, HeadPlace, choose_augmentation, choose_place, why_not_asked
from tljax.stages.stage import check_classes, check_stage, load_data
from tljax.training.learning_curve import Labelled, describe_curve, find_curve, measure_growth
from tljax.training.places import list_places
from tljax.training.regularization import weigh
from tljax.trees import Row
from tljax.weights.pretrained import Weights


def choose_study(study: HowDeep, workdir: Path, source: Weights | None, began: float) -> Row:
    """What a study becomes: a solved head at every unit is measured, and the candidates are those that fit into the
    time limit. Without weights, where programs are only compiled, all of them."""
    extent = size_up(study.data, study.seed, counting=True)
    network = source.architecture if source else find_architecture(study.network)
    data = {**choose_changes(study, extent), "test_split": NOT_READ}
    study = replace(study, network=name_network(network) or study.network)
    if source is not None:
        study.variant = cast(Any, source.variant)
    print(f"a study of {describe_extent(extent)}:")
    candidates = list_candidates(extent, network, "head", jax.device_count(), study.data.augment)
    lesson = replace(study.lesson(candidates.stages, **data), own=candidates.own)
    for name, config in stage_configs(lesson, workdir).items():
        check_stage(config, name=name)
    reasons: list[str] = []
    about: Row = {"place": "head", "heads": [], "growth": None, "pictures": extent.validation}
    if source is not None:
        about, why = run_probe(study.lesson({START: candidates.stages[SOLVED]}, **data), source, extent)
        candidates = list_candidates(extent, network, about["place"], jax.device_count(), study.data.augment)
        fitting = keep_fitting(study, candidates, data, source, extent, began)
        candidates, reasons = fitting.candidates, [why, *fitting.reasons]
    lesson = replace(study.lesson(candidates.stages, **data), own=candidates.own)
    own, stages = (as_json(lesson)[name] for name in ("own", "stages"))
    seconds = round(time.perf_counter() - began, 1)
    return {
        "network": study.network,
        "variant": study.variant,
        "stages": stages,
        "own": own,
        "data": data,
        "reasons": [*reasons, *candidates.reasons],
        STUDY: about | {"seconds": seconds},
    }


def choose_changes(study: HowDeep, extent: Extent) -> Row:
    """How training pictures are changed: as in a recipe that transfers, unless it is given."""
    if study.data.augment == AUTO:
        return choose_augmentation({}, extent.images).settings
    return {"augment": study.data.augment, "views": study.data.views}


def run_probe(lesson: Lesson, source: Weights, extent: Extent) -> tuple[Row, str]:
    """What a solved head at each unit came to, with the place that is chosen and what more labels would bring there;
    and why that place. `lesson` has the head at the end of the network."""
    config = lesson.config(START, lesson.pretrained)
    dataset = load_data(config)
    check_classes(config, dataset)
    if source.is_run:
        refuse_known(count_known(dataset, source.learned, of_train=True), dataset, source.name)
    found = probe_units(config, dataset, source)
    print(f"\n{probe.describe(found)}\n")
    place = find_place(found.heads, dataset, source.architecture, extent)
    read = label_averages(found.heads[place.unit], dataset)
    curve = find_curve(measure_growth(*read, *weigh_all(config, dataset)))
    assert dataset.validation is not None, "a study has one"
    about = {
        "place": place.unit,
        "heads": [head.row for head in found.heads.values()],
        "growth": describe_curve(curve),
        "pictures": dataset.validation.count,
        "more_labels": describe_growth(curve, dataset.class_names),
    }
    return jsonable(about), f"{SOLVED}: {place.why}"


def probe_units(config: Config, dataset: Dataset, source: Weights) -> probe.Probe:
    """A solved head at every unit or, where the cache has no room for what these read, at the places of a recipe.

    Raises:
      ValueError: if it has no room for these either.
    """
    units = source.architecture.units[1:]
    numbers = {name: split.count for name, split in dataset.splits.items()}
    others = sum(numbers.values()) - numbers["train"]
    if why := probe.find_obstacle(config, source.architecture, units, numbers["train"], others):
        units = list_places(source.architecture)
        print(f"a head is solved at {join_names(units)} alone, and not at every unit: {why}")
    return probe.probe(config, dataset, source, units)


def find_place(heads: Mapping[str, PlacedHead], dataset: Dataset, source: Architecture, extent: Extent) -> HeadPlace:
    """Where the solved head reads, by the rule of a recipe."""
    if why := why_not_asked(extent):
        return HeadPlace("head", f"{AT_THE_END}: {why}")
    return choose_place(compare_heads({unit: heads[unit] for unit in list_places(source)}, dataset))


def label_averages(head: PlacedHead, dataset: Dataset) -> tuple[Labelled, Labelled]:
    """What the head reads of all training and validation pictures as they are, with their labels."""
    found = []
    for name in ("train", "validation"):
        split = dataset.splits[name]
        features = gather(head.averages[name][0], split.rows, split.count)
        found.append(Labelled(features, split.all_labels(), split.all_groups()))
    return found[0], found[1]


def weigh_all(config: Config, dataset: Dataset) -> tuple[int, tuple[float, ...] | None]:
    """The number of classes, and their weights."""
    return len(dataset.class_names), weigh(config.class_weights, dataset.train_counts)
