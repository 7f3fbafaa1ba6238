"""Which part of their values curves show. There is no drawing here: PNG files and pages use the same axis."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple, TypeGuard

# An axis is well used if a quarter of the values are above this share of it.
USED = 0.2
# Values that are left out are few, and so many times as high as all others.
FEW, APART = 0.1, 2.0
# What a logarithmic axis shows at most: four powers of ten, with most of the values in them.
DECADES, MOST = 4, 0.75
# How much wider than its values an axis is at each end, and how wide at least, as shares.
SPARE, NARROWEST = 0.05, 0.01


class Axis(NamedTuple):
    """From where to where an axis goes, in the values' unit, and whether it is logarithmic."""

    low: float
    high: float
    log: bool = False

    def label(self, quantity: str) -> str:
        """What stands beside the axis."""
        return f"{quantity} (log)" if self.log else quantity


def choose_axis(values: Iterable[float | None], limit: float | None = None) -> Axis:
    """The axis for the values of all curves of a figure: linear where that shows them, without a few outliers where it
    shows the others then, else logarithmic. It begins at 0 unless all values are far from it.

    Values that are None or not finite count for nothing. With a `limit`, the highest value that there can be, such as 1
    for an accuracy, the axis is linear and shows everything.
    """
    found = sorted(value for value in values if is_number(value))
    if not found:
        return Axis(0.0, 1.0)
    if limit is not None or found[0] < 0 or _is_used(found):
        return _linear(found)
    near = _leave_out(found)
    if near:
        return _linear(near)
    lowest = found[-1] / 10**DECADES
    shown = [value for value in found if value >= lowest > 0]
    return _logarithmic(shown) if shown and len(shown) >= MOST * len(found) else _linear(found)


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether a value can be drawn."""
    return value is not None and math.isfinite(value)


def _is_used(found: Sequence[float]) -> bool:
    """Whether a linear axis up to the last of the sorted values `found` shows more than a few of them."""
    return found[-1] > 0 and found[(3 * (len(found) - 1)) // 4] >= USED * found[-1]


def _leave_out(found: Sequence[float]) -> Sequence[float]:
    """The sorted values without as few of the highest as make the axis well used; nothing if no few of them do."""
    for count in range(1, max(1, int(FEW * len(found))) + 1):
        near, far = found[:-count], found[-count:]
        if len(near) > 2 and far[0] >= APART * near[-1] and _is_used(near):
            return near
    return ()


def _linear(found: Sequence[float]) -> Axis:
    low, high = found[0], found[-1]
    low = 0.0 if 0 <= low < high / 2 else low
    low = min(low, high - NARROWEST * abs(high))
    high = high if high > low else low + 1
    margin = SPARE * (high - low)
    return Axis(low - margin, high + margin)


def _logarithmic(found: Sequence[float]) -> Axis:
    margin = (found[-1] / found[0]) ** SPARE
    return Axis(found[0] / margin, found[-1] * margin, log=True)


# The points of a curve: epoch and value, None where there is no number.
Points = Sequence[tuple[int, float | None]]


def name_hidden(axis: Axis, curves: Iterable[tuple[str, Points]], most: int = 3) -> list[str]:
    """What a reader cannot see of curves, which have names, in at most two lines: points off the axis, of which `most`
    are named, and points that are no numbers."""
    points = [(f"{name}, epoch {epoch}", value) for name, points in curves for epoch, value in points]
    off = [f"{place}: {value:.4g}" for place, value in points if is_off(axis, value)]
    lacking = [place for place, value in points if not is_number(value)]
    return list(chain(_list_some("off the axis", off, most), _list_some("not a number", lacking, most)))


def is_off(axis: Axis, value: float | None) -> bool:
    """Whether a number is beyond an end of the axis."""
    return is_number(value) and not axis.low <= value <= axis.high


def _list_some(what: str, texts: Sequence[str], most: int) -> Iterable[str]:
    more = f"; and {len(texts) - most:,} more" if len(texts) > most else ""
    return [f"{what}: {'; '.join(texts[:most])}{more}"] if texts else []
