"""Charts of the epochs of runs."""

from collections.abc import Iterable, Mapping

from tljax.report.axes import Axis, name_hidden
from tljax.report.blocks import Block, Chart, Mark, Series, Text
from tljax.report.curves import (
    LIMITS,
    Course,
    Line,
    changes_rate,
    find_axis,
    keep_trained,
    list_changes,
    list_lines,
    rates,
)

TITLES = {"loss": "loss (cross-entropy in nats)", "accuracy": "accuracy"}
BEST = (
    "a dot is the best epoch, which is kept: the one with the lowest validation loss, unless config.monitor says else"
)
NO_EPOCHS = "No stage here trained by epochs, so there is no curve."


def find_chains(origins: Mapping[str, str | None], trained: Iterable[str]) -> list[list[str]]:
    """The `trained` stages in rows: each that no other goes on from, after those that it goes on from itself."""
    there = list(trained)
    begun_from = {origins.get(name) for name in there}
    chains = []
    for last in (name for name in there if name not in begun_from):
        chain, before = [last], origins.get(last)
        while before in there:
            chain, before = [before, *chain], origins.get(before)
        chains.append(chain)
    return chains


def chart_courses(courses: Mapping[str, Course]) -> list[Block]:
    """Charts of loss, accuracy and, where it changes, the learning rate of runs over their epochs."""
    trained = keep_trained(courses)
    if not trained:
        return [Text([NO_EPOCHS])]
    marks = [Mark(epoch, f"{stage} begins") for epoch, stage in list_changes(trained)]
    charts = [_chart_metric(trained, metric, marks) for metric in LIMITS]
    return [*charts, *([_chart_rates(trained, marks)] if any(map(changes_rate, trained.values())) else [])]


def _chart_metric(courses: Mapping[str, Course], metric: str, marks: list[Mark]) -> Chart:
    lines = list_lines(courses, metric)
    axis = find_axis(lines, metric)
    return Chart(
        title=TITLES[metric],
        x_label="epoch",
        y_label=axis.label(metric),
        series=[*map(_draw_line, lines), *(_draw_best(line) for line in lines if line.best is not None)],
        marks=marks,
        log_y=axis.log,
        y_range=(axis.low, axis.high),
        note="; ".join([*_describe_axis(axis, lines), *([BEST] if any(line.best for line in lines) else [])]),
    )


def _draw_line(line: Line) -> Series:
    return Series(line.name, line.points, line.color % 8, "line" if line.train else "dashed")


def _draw_best(line: Line) -> Series:
    name = f"best epoch of {line.name.removesuffix(', validation')}"
    return Series(name, [point for point in line.points if point[0] == line.best], line.color % 8, "dots")


def _describe_axis(axis: Axis, lines: list[Line]) -> list[str]:
    hidden = name_hidden(axis, [(line.name, line.points) for line in lines])
    return ["the axis is logarithmic", *hidden] if axis.log else hidden


def _chart_rates(courses: Mapping[str, Course], marks: list[Mark]) -> Chart:
    series = [Series(name, rates(course), 2 * i % 8, "line") for i, (name, course) in enumerate(courses.items())]
    return Chart("learning rate", "epoch", "learning rate of the last step", series, marks)
