"""What the axes of a chart show."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tljax.report.blocks import Chart, Series

Range = tuple[float, float]
# How far an axis goes beyond its values: a share of their range, and a factor on a logarithmic one.
BEYOND, BEYOND_LOG = 0.05, 1.2


class Axes(NamedTuple):
    """`x`, `y`: from where to where the axes go; `xs`: all places with a point, by size."""

    x: Range
    y: Range
    xs: list[float]


def choose_axes(chart: Chart) -> Axes | None:
    """The axes of a chart; `None` if it has no point that can be drawn."""
    points = [(x, y) for series in chart.series for x, y in _find_drawn(series, chart.log_y)]
    if not points:
        return None
    square = chart.y_range or (0.0, 1.0)
    across = [*(x for x, _ in points), *(mark.x for mark in chart.marks if math.isfinite(mark.x))]
    upright = [y for _, y in points]
    return Axes(
        x=square if chart.diagonal else _span(across, 0.0),
        y=chart.y_range
        or (square if chart.diagonal else _span_log(upright) if chart.log_y else _span(upright, BEYOND)),
        xs=_find_places(chart.series),
    )


def _find_drawn(series: Series, log: bool) -> list[tuple[float, float]]:
    """The points that are no gap."""
    known = [(x, y) for x, y in series.points if y is not None and math.isfinite(x) and math.isfinite(y)]
    return [(x, y) for x, y in known if y > 0 or not log]


def _find_places(series: Iterable[Series]) -> list[float]:
    return sorted({x for one in series for x, _ in one.points if math.isfinite(x)})


def _span(values: Sequence[float], beyond: float) -> Range:
    """From the least to the greatest value and a share `beyond`, but not across 0 where an axis begins there."""
    low, high = min(values), max(values)
    more = (high - low) * beyond if low < high else abs(low) / 2 or 0.5
    return low - more * (low != 0), high + more


def _span_log(values: Sequence[float]) -> Range:
    return min(values) / BEYOND_LOG, max(values) * BEYOND_LOG
