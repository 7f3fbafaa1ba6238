"""How deep to go: accuracies and prices by unit as a chart, and the answer of a study in one sentence."""

from collections.abc import Sequence
from typing import NamedTuple

from tljax.data.layouts import join_names
from tljax.report.blocks import Block, Chart, Mark, Series
from tljax.report.cheapest import Candidate, Cheapest
from tljax.text import count_words, printable


class UnitResult(NamedTuple):
    """A unit, the validation accuracy of a head that reads what it would read, with an interval of 95%, and what the
    pass up to it takes."""

    unit: str
    accuracy: float
    low: float
    high: float
    seconds: float


def chart_places(places: Sequence[UnitResult]) -> list[Block]:
    """Accuracy and price against the unit, in the order of the network. Units are numbers on the axis, and the first of
    each stage is named."""
    marks = [Mark(i, place.unit) for i, place in enumerate(places) if begins_stage(places, i)]
    accuracies = [
        Series("accuracy", [(i, place.accuracy) for i, place in enumerate(places)], 0),
        Series("95% from", [(i, place.low) for i, place in enumerate(places)], 0, "dashed"),
        Series("95% to", [(i, place.high) for i, place in enumerate(places)], 0, "dashed"),
    ]
    price = Series("seconds", [(i, place.seconds) for i, place in enumerate(places)], 1)
    return [
        Chart("Accuracy by unit", "unit", "validation accuracy", accuracies, marks),
        Chart("Price by unit", "unit", "seconds", [price], marks),
    ]


def begins_stage(places: Sequence[UnitResult], i: int) -> bool:
    """Whether a unit is the first of its stage: conv4_block1, and the head."""
    return i == 0 or places[i].unit.split("_")[0] != places[i - 1].unit.split("_")[0]


def describe_answer(answer: Cheapest) -> str:
    """What to train, with its evidence and its price, in one sentence."""
    chosen, best = answer.chosen, answer.best
    said = f"train {chosen.name}: accuracy {chosen.accuracy:.3f} on {_where(chosen)}, {_time(chosen.seconds)}"
    if best is not chosen:
        value, low, high = (f"{x:+.3f}" for x in (answer.difference.value, *_ends(answer)))
        said += (
            f"; the best, {best.name}, has {best.accuracy:.3f} for {_time(best.seconds)}, which is {value} "
            f"({low} to {high}) and within one standard error"
        )
    elif answer.pairs:
        said += ", which is the best, and none that is cheaper is within one standard error of it"
    return printable(f"{said}; {_describe_worse(answer)}")


def _ends(answer: Cheapest) -> tuple[float, float]:
    return answer.difference.low, answer.difference.high


def _where(candidate: Candidate) -> str:
    seeds, pictures = candidate.right.shape
    return f"{count_words(pictures, 'validation picture')}{f' over {seeds} seeds' * (seeds > 1)}"


def _describe_worse(answer: Cheapest) -> str:
    """Which candidates are worse than another, and that the others may not be."""
    names = dict.fromkeys(worse.name for worse in answer.worse)
    if not answer.pairs:
        return "nothing was compared with it"
    over = f"Holm over {count_words(answer.pairs, 'pair')}{' of networks of one seed' * answer.of_one_seed}"
    if not names:
        return f"no other is worse beyond chance ({over})"
    return f"worse than another, and not by chance ({over}): {join_names(names)}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
