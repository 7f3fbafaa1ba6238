"""How far a stage's probabilities can be believed: before and after the temperature, and in sets of labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from tljax.report import printed
from tljax.report.blocks import Block, Chart, Details, Series, Sheet, Text
from tljax.report.shown import GROUPED_INTERVAL, Shown, has_groups
from tljax.training.calibration import accuracy_interval
from tljax.trees import Row

LINES = {"without_temperature": "uncalibrated", "with_temperature": "calibrated by the temperature"}


def describe_trust(shown: Shown) -> list[Block]:
    """The calibration of a stage in words, its reliability diagram, and the sets of labels."""
    calibration = (shown.record.summary or {}).get("calibration")
    if not calibration:
        return [Text([f"Nothing is known of the probabilities of {shown.label}."])]
    words = Text([f"{printed.calibration_line(calibration).capitalize()}."])
    return [
        words,
        *_chart_reliability(shown.label, calibration),
        *_tabulate_sets(calibration, grouped=has_groups(shown)),
    ]


def _chart_reliability(label: str, calibration: Row) -> list[Block]:
    bins: Mapping[str, Sequence[Sequence[float]]] = calibration.get("bins") or {}
    if not bins.get("without_temperature"):
        return []
    # Where no temperature is used, both are the same.
    kinds = list(LINES)[: 1 if calibration["temperature"] == 1 else 2]
    series = [
        Series(LINES[kind], [(x, y) for _, x, y in bins[kind]], i, "dots")
        for i, kind in enumerate(kinds)
        if bins.get(kind)
    ]
    note = (
        f"On {_name_pictures(calibration)}. A dot stands for pictures with about the same "
        "probability: on the line they are right as often as it says. A dot of few pictures lies anywhere."
    )
    chart = Chart(
        f"Reliability of {label}", "highest probability", "share that is right", series, y_range=(0.0, 1.0),
        diagonal=True, note=note,
    )  # fmt: skip
    sheets = [_tabulate_bins(LINES[kind], bins[kind]) for kind in kinds if bins.get(kind)]
    return [chart, Details("How many pictures each dot stands for", sheets)]


def _tabulate_bins(name: str, bins: Sequence[Sequence[float]]) -> Sheet:
    rows = [(f"{x:.2f}", int(n), f"{y:.2f} {_interval(y, int(n))}") for n, x, y in bins]
    return Sheet([f"mean probability, {name}", "pictures", "share that is right (95%)"], rows)


def _interval(share: float, pictures: int) -> str:
    if not pictures:
        return ""
    low, high = accuracy_interval(share, pictures)
    return f"({low:.2f} to {high:.2f})"


def _name_pictures(calibration: Row) -> str:
    """The pictures that the probabilities are measured on. Earlier versions did not count them."""
    measured = calibration["measured_on"]
    return f"{measured['images']:,} pictures of {measured['split']}" if "images" in measured else measured["split"]


def _tabulate_sets(calibration: Row, *, grouped: bool) -> list[Block]:
    images = calibration["measured_on"].get("images", 0)
    found = calibration.get("coverage") or {}
    rows = [_describe_sets(promised, sets, images) for promised, sets in found.items()]
    if not rows:
        return []
    columns = ["promised", "sets with the right label (95%)", "labels in a set", "sets by their number of labels"]
    caption = f"Sets of labels (predict --coverage), on {_name_pictures(calibration)}. Brackets: the interval of 95%."
    if grouped:
        caption += f" {GROUPED_INTERVAL}"
    return [Sheet(columns, rows, caption)]


def _describe_sets(promised: str, found: Mapping[str, Any], images: int) -> tuple[str, ...]:
    sizes = enumerate(found.get("sizes") or (), start=1)
    counts = ", ".join(f"{size}{' or more' * (size == 10)}: {n:,}" for size, n in sizes if n)
    covered = f"{found['covered']:.2f} {_interval(found['covered'], images)}"
    return f"{float(promised):.2f}", covered, f"{found['labels']:.2f}", counts or "-"
