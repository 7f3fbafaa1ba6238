"""What a study runs after its candidates: the best two with more seeds, and the best fine-tuning with fewer labels."""

import math
from collections.abc import Mapping
from dataclasses import replace

import jax

from tljax.config import Lesson, as_json
from tljax.data.layouts import join_names
from tljax.devices.processes import max_over_processes
from tljax.stages.candidates import (
    SOLVED,
    START,
    Candidates,
    find_finalists,
    find_most_accurate,
    find_original,
    list_fewer,
    list_repeats,
)
from tljax.stages.prices import KEPT_BACK
from tljax.stages.recipe import STUDY
from tljax.trees import Row


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
    return {name: summaries[find_original(name)]["seconds"] for name in repeats.stages}


def price_fewer(fewer: Candidates, lesson: Lesson, summaries: Mapping[str, Row]) -> dict[str, float]:
    """The seconds of each stage with fewer labels: those with all, since fewer pictures may be shown more often. A head
    has those of its fine-tuning, too, without which it is of no use."""
    prices: dict[str, float] = {}
    for name, own in fewer.own.items():
        if own.start is not None:
            tuned = find_original(name)
            start = lesson.origins()[tuned]
            prices |= {own.start: summaries[tuned]["seconds"] + summaries[str(start)]["seconds"], name: 0.0}
    return prices


def keep_first(later: Candidates, prices: Mapping[str, float], left: float, minutes: float) -> tuple[Candidates, float]:
    """The first of the stages with these prices, in seconds, that fit into what is left of a time limit, with the
    reason; and what is left after them."""
    for name in later.stages:
        price = max_over_processes(math.ceil(prices[name]))
        if price > left:
            late = list(later.stages)[list(later.stages).index(name) :]
            said = f"not run, since config.time_limit={minutes:g} minutes has no room for it: {join_names(late)}"
            return later.without(late)._replace(reasons=(*later.reasons, said)), left
        left -= price
    return later, left
