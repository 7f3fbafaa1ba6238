"""Which candidates of a study fit into its time limit: each is timed before, and the slowest are left out."""

import math
import time
from typing import NamedTuple

from tljax.config import HowDeep, Lesson
from tljax.data.datasets import Extent
from tljax.devices.processes import max_over_processes
from tljax.stages.candidates import SOLVED, Candidates
from tljax.stages.time_limit import KEPT_BACK, TIMED, add_up, agree
from tljax.stages.timing import list_configs, measure_rates
from tljax.trees import Row
from tljax.weights.pretrained import Weights


class Fitting(NamedTuple):
    """The candidates that fit, and in a line each what was timed and what was left out."""

    candidates: Candidates
    reasons: tuple[str, ...]
    left_out: tuple[str, ...]


def keep_fitting(
    study: HowDeep, candidates: Candidates, data: Row, source: Weights, extent: Extent, began: float
) -> Fitting:
    """The candidates that fit into the time limit of a study that `began` then, in the seconds of `time.perf_counter`:
    the solved head always, and the others from the cheapest on. `data` are settings of the data."""
    if study.time_limit is None:
        return Fitting(candidates, (), ())
    limit, others, planned = 60 * study.time_limit, [name for name in candidates.names if name != SOLVED], 0
    name_limit, reasons = f"config.time_limit={study.time_limit:g} minutes", []
    for place, name in enumerate(others):
        print(f"timing the steps of {name}; compiling takes a minute or two ...", flush=True)
        lesson = make_lesson(study, candidates, name, data)
        seconds = estimate(lesson, source, extent, TIMED * limit / len(others))
        left = find_left(limit, began) - planned
        if seconds > left:
            reasons.append(f"{name} would take about {seconds:,} s, and of {name_limit} {max(left, 0):,} s are left")
            later = others[place + 1 :]
            reasons += [f"{each} is left out, too: what trains more takes longer" for each in later]
            return Fitting(candidates.without([name, *later]), tuple(reasons), (name, *later))
        planned += seconds
        reasons.append(f"{name} takes about {seconds:,} s, which fit into {name_limit}")
    return Fitting(candidates, tuple(reasons), ())


def make_lesson(study: HowDeep, candidates: Candidates, name: str, data: Row) -> Lesson:
    """The lesson of one candidate, after the head that it starts from."""
    start = candidates.own[name].start if name in candidates.own else None
    names = [name] if start is None else [start, name]
    lesson = study.lesson({each: candidates.stages[each] for each in names}, **data)
    lesson.own = {name: candidates.own[name]} if name in candidates.own else {}
    return lesson


def estimate(lesson: Lesson, source: Weights, extent: Extent, seconds: float) -> int:
    """About how many seconds the candidate of a `lesson` takes on its whole schedule, once the pictures are there. It
    is timed for about so many `seconds`."""
    config = list_configs(lesson)[-1]
    rates = measure_rates(lesson, None if config.stage == "from_scratch" else source, extent, seconds)
    found = agree(add_up(rates, extent, lesson, 0.0, {}))
    return math.ceil(sum(found.parts.values()) - found.parts["reading pictures"] + config.epochs * found.epoch)


def find_left(limit: float, began: float) -> int:
    """The seconds of a `limit` that are left for candidates."""
    return int(limit * (1 - KEPT_BACK)) - max_over_processes(math.ceil(time.perf_counter() - began))
