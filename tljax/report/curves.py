"""What the curves of runs show: lines, the best epochs, changes of stage. There is no drawing here."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from tljax.report.axes import Axis, Points, choose_axis, is_number
from tljax.trees import Row

# The metrics that are drawn, with the highest value that there can be.
LIMITS = {"loss": None, "accuracy": 1.0}


class Course(NamedTuple):
    """The epochs of a run, in which a stage may follow another, and the best epoch of its last stage."""

    rows: Sequence[Row]
    best: int | None = None


class Line(NamedTuple):
    """A metric of a run on one of its splits. No two lines of a figure have the same `color`, a number from 0."""

    name: str
    color: int
    points: Points
    train: bool
    best: int | None = None
    """The best epoch, of a line of validation: that is what chose it."""


def keep_trained(courses: Mapping[str, Course]) -> dict[str, Course]:
    """Those with an epoch: one with a solved head alone has a point, and no curve."""
    return {name: course for name, course in courses.items() if any(row["epoch"] for row in course.rows)}


def list_lines(courses: Mapping[str, Course], metric: str) -> list[Line]:
    """The lines of a metric, for each run validation, unless it has none, and then train."""
    lines = []
    for i, (name, (rows, best)) in enumerate(courses.items()):
        validation, train = _points(rows, f"val_{metric}"), _points(rows, metric)
        # A loss of a run that diverged may be no number, its accuracy always is one.
        if any(is_number(value) for _, value in _points(rows, "val_accuracy")):
            lines.append(Line(f"{name}, validation", 2 * i, validation, train=False, best=best))
        lines.append(Line(f"{name}, train", 2 * i + 1, train, train=True))
    return lines


def _points(rows: Sequence[Row], key: str) -> Points:
    return tuple((row["epoch"], row[key]) for row in rows)


def find_axis(lines: Sequence[Line], metric: str) -> Axis:
    """The axis that the lines of a metric share."""
    return choose_axis((value for line in lines for _, value in line.points), LIMITS[metric])


def list_changes(courses: Mapping[str, Course]) -> list[tuple[float, str]]:
    """Between which epochs a stage begins, and which one."""
    steps = [step for course in courses.values() for step in pairwise(course.rows)]
    return sorted(
        {(before["epoch"] + 0.5, after["stage"]) for before, after in steps if not is_same_stage(before, after)}
    )


def is_same_stage(a: Row, b: Row) -> bool:
    """Whether two epochs are of one stage, as far as they tell: those of older versions do not say what was frozen."""
    return (a["stage"], a.get("cut")) == (b["stage"], b.get("cut"))


def rates(course: Course) -> list[tuple[int, float]]:
    """The learning rate at the end of each epoch. A solved head has none."""
    return [(row["epoch"], row["learning_rate"]) for row in _with_rate(course)]


def changes_rate(course: Course) -> bool:
    """Whether the learning rate changes within a stage."""
    steps = pairwise(_with_rate(course))
    return any(is_same_stage(a, b) and a["learning_rate"] != b["learning_rate"] for a, b in steps)


def _with_rate(course: Course) -> list[Row]:
    return [row for row in course.rows if row.get("learning_rate") is not None]
