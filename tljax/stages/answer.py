"""The answer of a study: what its runs left is read, and one of the candidates is chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tljax.config import Lesson, Own
from tljax.devices.processes import max_over_processes, wait
from tljax.report.cheapest import Candidate, choose_answer
from tljax.report.depth import describe_answer
from tljax.report.more_labels import Tuned, describe_tuned, write_tuned
from tljax.report.origin import find_program
from tljax.report.study import describe_chosen, describe_steps
from tljax.runs.files import read_json, read_rows, write_json
from tljax.runs.predictions import PREDICTIONS, choose_rows, read_predictions
from tljax.runs.records import read_answer
from tljax.runs.workdir import ANSWER, ENVIRONMENT, METRICS, SUMMARY
from tljax.stages.candidates import SOLVED, START, TUNED_FROM, find_original, has_fewer, list_seeds
from tljax.stages.lessons import Ran
from tljax.stages.recipe import STUDY
from tljax.stages.retrain import spell
from tljax.stages.stage import load_data
from tljax.training.calibration import accuracy_interval
from tljax.training.grouped import GroupNumbers
from tljax.training.learning_curve import Point
from tljax.trees import Row


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
    return [name for name in names if find_original(name) not in summaries]


def find_tuned(lesson: Lesson, pictures: int, summaries: Mapping[str, Row]) -> Tuned | None:
    """The fine-tuning that was trained with fewer labels, too: its accuracies on so many validation pictures. None if
    none was."""
    fewer = [name for name in summaries if has_fewer(name, lesson.own) and lesson.own[name].start is not None]
    if not fewer:
        return None
    name = find_original(fewer[0])
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
