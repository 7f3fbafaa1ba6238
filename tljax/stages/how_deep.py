"""A study of how much of the source weights to train: a probe, candidates that are ordinary runs, and the answer."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from tljax.config import AUTO, NOT_READ, Config, HowDeep, Lesson, Own, as_json, jsonable
from tljax.data.datasets import Dataset, Extent, size_up
from tljax.data.layouts import join_names
from tljax.devices.mesh import gather
from tljax.devices.processes import max_over_processes, wait
from tljax.networks.architectures import Architecture, find_architecture
from tljax.report.cheapest import Candidate, choose_answer
from tljax.report.depth import describe_answer
from tljax.report.more_labels import Tuned, describe_growth, describe_tuned, write_tuned
from tljax.report.origin import find_program
from tljax.report.study import describe_chosen, describe_steps, describe_tested, draw_study, write_sections
from tljax.runs.files import read_json, read_rows, write_json
from tljax.runs.predictions import PREDICTIONS, choose_rows, read_predictions
from tljax.runs.records import read_answer
from tljax.runs.saved_values import PLAN_RULES, check_values
from tljax.runs.workdir import ANSWER, CONFIG, ENVIRONMENT, METRICS, RECIPE, SUMMARY
from tljax.stages import probe
from tljax.stages.candidates import (
    SOLVED,
    START,
    TUNED_FROM,
    Candidates,
    find_finalists,
    find_most_accurate,
    has_fewer,
    list_candidates,
    list_fewer,
    list_repeats,
    list_seeds,
    name_network,
)
from tljax.stages.late_test import evaluate_test
from tljax.stages.lessons import Ran, claim_lesson, leave_report, run_stages, stage_configs
from tljax.stages.overlap import count_known, refuse_known
from tljax.stages.prices import KEPT_BACK, keep_fitting
from tljax.stages.probe import PlacedHead, compare_heads
from tljax.stages.recipe import STUDY, describe_extent, resolve
from tljax.stages.retrain import spell
from tljax.stages.rules import AT_THE_END, HeadPlace, choose_augmentation, choose_place, why_not_asked
from tljax.stages.stage import check_classes, check_stage, load_data
from tljax.training.calibration import accuracy_interval
from tljax.training.grouped import GroupNumbers
from tljax.training.learning_curve import Labelled, Point, describe_curve, find_curve, measure_growth
from tljax.training.places import list_places
from tljax.training.regularization import weigh
from tljax.trees import Row
from tljax.weights.pretrained import Weights


def run_study(study: HowDeep, workdir: Path, overwrite: bool, began: float) -> dict[str, Row]:
    """Runs the candidates of a study, the best two with more seeds, and says which one to take. Returns the summaries.

    The study `began` then, in the seconds of `time.perf_counter`.
    """
    lesson, plan = resolve(study, workdir, overwrite, began, choose_study)
    check_plan(plan, workdir)
    with claim_lesson(lesson, workdir, overwrite):
        if not overwrite:
            keep_config(lesson, workdir)
        ran = run_stages(lesson, workdir, overwrite, plan)
        if "finalists" not in plan[STUDY]:
            known = plan["reasons"]
            lesson, plan = add_repeats(study.time_limit, lesson, plan, ran.summaries)
            print("\n".join(["", *(f"- {reason}" for reason in plan["reasons"][len(known) :])]))
            write_json(workdir / RECIPE, plan)
            keep_config(lesson, workdir)
            ran = run_stages(lesson, workdir, False, plan, before=ran)
        found = find_answer(lesson, plan, workdir, ran)
        ran = test_answer(lesson, plan, workdir, found, ran)
        test = ran.summaries[found["chosen"]].get("test")
        print("\n".join(["", *found["said"], *describe_tested(found, test), found["command"]]))
        drawn = draw_study(found, workdir / "figures")
        leave_report(lesson, workdir, ran, plan["reasons"], write_sections(found, test, drawn))
    return ran.summaries


def check_plan(plan: Row, workdir: Path) -> None:
    try:
        check_values(plan, PLAN_RULES, PLAN_RULES)
    except ValueError as error:
        raise ValueError(
            f"{workdir / RECIPE} is damaged ({error}); bring it back, give another --workdir, or --overwrite"
        ) from error


def keep_config(lesson: Lesson, workdir: Path) -> None:
    """Writes `config.json` anew where the plan has got more stages since: a kill may have come between the two."""
    wait(f"{workdir} has its plan")
    if (workdir / CONFIG).exists():
        saved = read_json(workdir / CONFIG)
        stages = saved.get("stages") if isinstance(saved, dict) else None
        if isinstance(stages, dict) and stages.keys() < lesson.stages.keys():
            write_json(workdir / CONFIG, as_json(lesson))
    wait(f"{workdir} has its config")


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


def add_repeats(minutes: float | None, lesson: Lesson, plan: Row, summaries: Mapping[str, Row]) -> tuple[Lesson, Row]:
    """Lesson and plan with the best two candidates once more with other seeds, and the best fine-tuning with fewer
    labels, as far as the limit of so many minutes has room."""
    accuracies = {name: summary["accuracy"] for name, summary in summaries.items() if name != START}
    finalists = find_finalists(accuracies)
    vary = [name for name in finalists if name != SOLVED or is_drawn(lesson)]
    repeats = list_repeats(vary, lesson.stages, lesson.own, lesson.seed)
    fewer = choose_fewer(find_most_accurate(accuracies), lesson, summaries)
    why = f"the best two, {join_names(finalists)}, are run with more seeds: one network may be lucky"
    reasons = [why, *(f"{SOLVED} is the same with every seed" for name in finalists if name not in vary)]
    if minutes is not None:
        left = find_rest(minutes, plan, summaries)
        repeats, left = keep_first(repeats, price_repeats(repeats, summaries), left, minutes)
        fewer, _ = keep_first(fewer, price_fewer(fewer, lesson, summaries), left, minutes)
    grown = replace(
        lesson,
        stages=lesson.stages | repeats.stages | fewer.stages,
        own=lesson.own | repeats.own | fewer.own,
    )
    own, stages = (as_json(grown)[name] for name in ("own", "stages"))
    about, reasons = plan[STUDY] | {"finalists": finalists}, [*reasons, *repeats.reasons, *fewer.reasons]
    return grown, plan | {"stages": stages, "own": own, "reasons": [*plan["reasons"], *reasons], STUDY: about}


def choose_fewer(name: str | None, lesson: Lesson, summaries: Mapping[str, Row]) -> Candidates:
    """The stages in which the fine-tuning `name`, if there is one, has fewer labels."""
    if name is None:
        return Candidates({}, {}, ())
    if lesson.data.group is not None:
        why = f"pictures are drawn one by one, which cuts groups (config.data.group={lesson.data.group})"
        return Candidates({}, {}, (f"{name} is not trained with fewer labels: {why}",))
    counts = summaries[name]["data"]["splits"]["train"]["classes"].values()
    return list_fewer(name, lesson.stages[name].cut, list(counts), jax.device_count())


def is_drawn(lesson: Lesson) -> bool:
    """Whether a solved head depends on the seed: what it reads of several views does, unless these are mirror images
    alone."""
    return lesson.data.views is not None and [name for name, _ in lesson.data.augmentations] != ["flip"]


def find_rest(minutes: float, plan: Row, summaries: Mapping[str, Row]) -> float:
    """The seconds that are left of a time limit, by what the stages took."""
    spent = plan[STUDY]["seconds"] + sum(summary["seconds"] for summary in summaries.values())
    return 60 * minutes * (1 - KEPT_BACK) - max_over_processes(math.ceil(spent))


def price_repeats(repeats: Candidates, summaries: Mapping[str, Row]) -> dict[str, float]:
    """The seconds of each: those of the stage that it repeats."""
    return {name: summaries[name.rpartition("_seed")[0]]["seconds"] for name in repeats.stages}


def price_fewer(fewer: Candidates, lesson: Lesson, summaries: Mapping[str, Row]) -> dict[str, float]:
    """The seconds of each stage with fewer labels: those with all, since fewer pictures may be shown more often. A head
    has those of its fine-tuning, too, without which it is of no use."""
    prices: dict[str, float] = {}
    for name, own in fewer.own.items():
        if own.start is not None:
            tuned = name.rpartition("_")[0]
            start = lesson.origins()[tuned]
            prices |= {own.start: summaries[tuned]["seconds"] + summaries[str(start)]["seconds"], name: 0.0}
    return prices


def keep_first(later: Candidates, prices: Mapping[str, float], left: float, minutes: float) -> tuple[Candidates, float]:
    """Of stages with these prices, in seconds, the first ones that fit into what is left of a time limit, with the
    reason; and what is left after them."""
    for name in later.stages:
        price = max_over_processes(math.ceil(prices[name]))
        if price > left:
            late = list(later.stages)[list(later.stages).index(name) :]
            said = f"not run, since config.time_limit={minutes:g} minutes has no room for it: {join_names(late)}"
            return later.without(late)._replace(reasons=(*later.reasons, said)), left
        left -= price
    return later, left


def find_answer(lesson: Lesson, plan: Row, workdir: Path, ran: Ran) -> Row:
    """What `how_deep.json` holds: which candidate to take, and what else there is to say. It is written once."""
    wait(f"{workdir} has its runs")
    if max_over_processes((workdir / ANSWER).exists()):
        return read_answer(workdir / ANSWER)
    about, groups = plan[STUDY], find_groups(lesson, ran)
    # Those of the leader: each process has measured seconds of its own.
    summaries = {name: read_json(workdir / name / SUMMARY) for name in ran.summaries}
    names = sort_candidates(summaries, lesson.own)
    candidates = [
        Candidate(name, read_rights(workdir, seeds, summaries), find_price(name, lesson, about, workdir, summaries))
        for name, seeds in list_seeds(names, lesson.stages).items()
    ]
    answer = choose_answer(candidates, groups)
    tuned = find_tuned(lesson, about["pictures"], summaries)
    newest: Row = next(reversed(read_rows(workdir / ENVIRONMENT)), {})
    found = {
        "chosen": answer.chosen.name,
        "said": [
            describe_answer(answer),
            *describe_steps(candidates, groups),
            *describe_chosen([name for name in names if lesson.stages[name].epochs]),
            *about.get("more_labels", []),
            *(describe_tuned(tuned, sum(name.startswith(TUNED_FROM) for name in names)) if tuned else []),
        ],
        "command": f"{find_program(newest)} {spell(lesson, answer.chosen.name)}",
        "candidates": [
            {"name": one.name, "accuracy": one.accuracy, "seeds": len(one.right), "seconds": round(one.seconds, 1)}
            for one in candidates
        ],
        **{name: about[name] for name in ("place", "heads", "growth", "pictures")},
        "tuned_by_labels": tuned and write_tuned(tuned),
    }
    write_json(workdir / ANSWER, found)
    return found


def sort_candidates(summaries: Mapping[str, Row], own: Mapping[str, Own]) -> list[str]:
    """The candidates in the order in which they ran; their repeats, and those with fewer labels, follow all of them."""
    names = [name for name in summaries if name != START and not has_fewer(name, own)]
    return [name for name in names if not _is_repeat(name, summaries)]


def _is_repeat(name: str, names: Mapping[str, Row]) -> bool:
    return name.rpartition("_seed")[0] in names


def find_tuned(lesson: Lesson, pictures: int, summaries: Mapping[str, Row]) -> Tuned | None:
    """The fine-tuning that was trained with fewer labels, too: its accuracies on so many validation pictures. None if
    none was."""
    fewer = [name for name in summaries if has_fewer(name, lesson.own) and lesson.own[name].start is not None]
    if not fewer:
        return None
    name = fewer[0].rpartition("_")[0]
    return Tuned(name, sorted(measure_point(summaries[each], pictures) for each in (name, *fewer)))


def measure_point(summary: Row, pictures: int) -> Point:
    """The accuracy of a stage on so many validation pictures, by the labels a class that it learned from."""
    labels = summary["data"]["splits"]["train"]["images"] / len(summary["class_names"])
    return Point(labels, summary["accuracy"], *accuracy_interval(summary["accuracy"], pictures))


def find_groups(lesson: Lesson, ran: Ran) -> GroupNumbers | None:
    """Which validation pictures, of those with a row in the predictions, belong together."""
    if lesson.data.group is None:
        return None
    read = next(iter(ran.datasets.values()), None) or load_data(lesson.config(SOLVED, lesson.pretrained))
    assert read.validation is not None, "a study has one"
    groups = read.validation.all_groups()
    return None if groups is None else groups[choose_rows(read.validation.count)]


def read_rights(workdir: Path, stages: Sequence[str], summaries: Mapping[str, Row]) -> np.ndarray:
    """Which validation pictures each of these stages is right on, bool [stages n]."""
    classes = len(summaries[stages[0]]["class_names"])
    paths = [workdir / name / PREDICTIONS["validation"] for name in stages]
    return np.stack([read_predictions(path, classes).right for path in paths])


def find_price(name: str, lesson: Lesson, about: Row, workdir: Path, summaries: Mapping[str, Row]) -> float:
    """Seconds of one network of a candidate: of its stage, and of the pass and the head that come before it. A stage
    that was interrupted took its epochs at least."""
    epochs = sum(row["seconds"] for row in read_rows(workdir / name / METRICS))
    own = max(float(summaries[name]["seconds"]), epochs)
    start = lesson.origins()[name]
    passes = {row["unit"]: row["seconds"] or 0.0 for row in about["heads"]}
    if lesson.stages[name].stage == "feature_extraction":
        return max(own, passes.get(lesson.stages[name].head.at, 0.0))
    return own + (0.0 if start is None else find_price(start, lesson, about, workdir, summaries))


def test_answer(lesson: Lesson, plan: Row, workdir: Path, found: Row, ran: Ran) -> Ran:
    """The summaries after the test split was evaluated for the answer alone, if there is one and it is asked for."""
    asked = plan["asked"]["data"]["test_split"]
    if asked == NOT_READ:
        return ran
    chosen = found["chosen"]
    summary = evaluate_test(stage_configs(lesson, workdir)[chosen], workdir / chosen, asked)
    return ran._replace(summaries=ran.summaries | {chosen: summary})
