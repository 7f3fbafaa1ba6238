"""What more labels would bring: in sentences, and as a chart."""

from collections.abc import Sequence
from typing import NamedTuple

from tljax.data.layouts import join_names
from tljax.report.blocks import Block, Chart, Series, Text
from tljax.text import printable
from tljax.training.learning_curve import FEWEST_LABELS, LearningCurve, Point
from tljax.trees import Row

# How many classes are named at most.
NEEDY_NAMED = 3
# With fewer labels a class the interval held in 80 to 100% of all cases (docs/numbers.md).
ROUGH_LABELS = 15
LABELS = "labels a class"
LAST_DOT = "The last dot of the solved head is that of all labels"


class Tuned(NamedTuple):
    """A fine-tuning, and the accuracy of one network of it for each number of labels, rising; no curve is fitted."""

    name: str
    points: list[Point]


def write_tuned(tuned: Tuned) -> Row:
    """Them as JSON holds them."""
    return {"name": tuned.name, "points": [point._asdict() for point in tuned.points]}


def read_tuned(row: Row | None) -> Tuned | None:
    """Those that `write_tuned` wrote, if there are any."""
    return Tuned(row["name"], [Point(**point) for point in row["points"]]) if row else None


def describe_tuned(tuned: Tuned, among: int) -> list[str]:
    """The accuracy by labels of a fine-tuning that was the most accurate `among` so many."""
    first, *others = [f"{point.accuracy:.2f} with {_count(point.labels)}" for point in tuned.points]
    course = join_names([f"{first} labels a class", *others[:-1]]) + f" and {others[-1]}"
    chosen = f"; that of all labels was chosen, as the best of {among}" * (among > 1)
    return [printable(f"{tuned.name}: accuracy {course} (one network each{chosen})")]


def describe_growth(curve: LearningCurve, class_names: Sequence[str]) -> list[str]:
    """What twice as many labels would bring, or why that is not known, and which classes need more most."""
    return [_describe_course(curve), *map(printable, _name_needy(curve, class_names))]


def _describe_course(curve: LearningCurve) -> str:
    return _describe_gain(curve) if curve.twice else WITHOUT[curve.without](curve)


def _describe_gain(curve: LearningCurve) -> str:
    assert curve.twice is not None
    value, low, high = curve.twice
    # An interval of less than a hundredth would be two numbers that are equal.
    digits = 2 if high - low >= 0.02 else 3
    gain = f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
    there, accuracy = curve.measured[-1].labels, curve.measured[-1].accuracy
    perhaps = ", perhaps nothing" if low <= 0 else ""
    rough = ", roughly, with so few labels" if there < ROUGH_LABELS else ""
    return (
        f"twice as many pictures, {_count(2 * there)} labels a class instead of {_count(there)}, would bring {gain} to "
        f"the accuracy of {accuracy:.2f}{perhaps} (95%{rough}, for a solved head)"
    )


def _count(labels: float) -> str:
    return f"{labels:,.0f}" if labels >= 10 or labels == int(labels) else f"{labels:.1f}"


def _describe_few(curve: LearningCurve) -> str:
    return f"what more pictures would bring is not known: that takes {FEWEST_LABELS} labels a class, or as many groups"


def _describe_flat(curve: LearningCurve) -> str:
    first, last = curve.measured[0], curve.measured[-1]
    return (
        "what more pictures would bring is not known: the accuracy does not rise with the labels beyond chance, "
        f"{first.accuracy:.2f} with {_count(first.labels)} a class and {last.accuracy:.2f} with {_count(last.labels)}"
    )


def _describe_bad(curve: LearningCurve) -> str:
    course = join_names(f"{point.accuracy:.2f} with {_count(point.labels)}" for point in curve.measured)
    return f"what more pictures would bring is not known: no curve fits the accuracy by labels a class, {course}"


WITHOUT = {"few": _describe_few, "flat": _describe_flat, "bad": _describe_bad}


def _name_needy(curve: LearningCurve, class_names: Sequence[str]) -> list[str]:
    """Which classes need more pictures most, if any stands out."""
    needy = [need for need in curve.classes if need.low]
    if not needy or curve.without == "few":
        return []
    named = join_names((f"{class_names[need.label]} ({need.all:.2f} right)" for need in needy), most=NEEDY_NAMED)
    verb = "needs" if len(needy) == 1 else "need"
    return [f"{named} {verb} more most, beside more of the others: a head names a class that it has more of too often"]


def chart_growth(curve: LearningCurve, tuned: Tuned | None = None) -> list[Block]:
    """The accuracy against labels a class, measured and fitted, with the band up to twice as many; and that of a
    fine-tuning."""
    fitted = [
        Series("fitted", _pick(curve.fitted, "accuracy"), 0),
        Series("95% from", _pick(curve.fitted, "low"), 0, "dashed"),
        Series("95% to", _pick(curve.fitted, "high"), 0, "dashed"),
    ]
    measured = [Series("solved head, mean of draws", _pick(curve.measured, "accuracy"), 1, "dots")]
    measured += [Series(f"{tuned.name}, one network each", _pick(tuned.points, "accuracy"), 2, "dots")] if tuned else []
    if not curve.twice:
        return [Text([_describe_course(curve)]), _chart(measured, LAST_DOT)]
    return [_chart([*measured, *fitted], f"{LAST_DOT}; the curve beyond it is carried on")]


def _pick(points: Sequence[Point], name: str) -> list[tuple[float, float | None]]:
    return [(round(point.labels, 1), getattr(point, name)) for point in points]


def _chart(series: Sequence[Series], note: str) -> Chart:
    return Chart("Accuracy by labels", LABELS, "validation accuracy", series, note=f"{note}.")
