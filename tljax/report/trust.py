"""How far a stage's probabilities can be believed: before and after the temperature, and in sets of labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from tljax.report import printed
from tljax.report.blocks import Block, Chart, Series, Sheet, Text
from tljax.report.shown import Shown
from tljax.trees import Row

LINES = {"without_temperature": "as they come", "with_temperature": "with the temperature"}


def describe_trust(shown: Shown) -> list[Block]:
    """The calibration of a stage in words, its reliability diagram, and the sets of labels."""
    calibration = (shown.record.summary or {}).get("calibration")
    if not calibration:
        return [Text([f"Nothing is known of the probabilities of {shown.label}."])]
    words = Text([f"{printed.calibration_line(calibration).capitalize()}."])
    return [words, *_chart_reliability(shown.label, calibration), *_tabulate_sets(calibration)]


def _chart_reliability(label: str, calibration: Row) -> list[Block]:
    bins: Mapping[str, Sequence[Sequence[float]]] = calibration.get("bins") or {}
    if not bins.get("without_temperature"):
        return []
    # Where no temperature is used, both are the same.
    kinds = list(LINES)[: 1 if calibration["temperature"] == 1 else 2]
    series = [
        Series(LINES[kind], [(x, y) for _, x, y in bins[kind]], i, "dashed" if i else "line")
        for i, kind in enumerate(kinds)
        if bins.get(kind)
    ]
    fewest = min(int(n) for n, _, _ in bins[kinds[0]])
    note = (
        f"On {_name_pictures(calibration)}. On the diagonal, of the answers with 80% just 80% "
        f"are right. A point stands for the pictures with about the same probability, of which there are as few as "
        f"{fewest:,}: points of few pictures lie anywhere."
    )
    return [
        Chart(
            f"Reliability of {label}", "highest probability", "share that is right", series, y_range=(0.0, 1.0),
            diagonal=True, note=note,
        )
    ]  # fmt: skip


def _name_pictures(calibration: Row) -> str:
    """The pictures that the probabilities are measured on. Earlier versions did not count them."""
    measured = calibration["measured_on"]
    return f"{measured['images']:,} pictures of {measured['split']}" if "images" in measured else measured["split"]


def _tabulate_sets(calibration: Row) -> list[Block]:
    rows = [_describe_sets(promised, found) for promised, found in (calibration.get("coverage") or {}).items()]
    if not rows:
        return []
    columns = ["promised", "sets with the right label", "labels in a set", "sets by their number of labels"]
    caption = f"Sets of labels (predict --coverage), on {_name_pictures(calibration)}."
    return [Sheet(columns, rows, caption)]


def _describe_sets(promised: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = enumerate(found.get("sizes") or (), start=1)
    counts = ", ".join(f"{size}{' or more' * (size == 10)}: {n:,}" for size, n in sizes if n)
    return f"{float(promised):.0%}", f"{found['covered']:.1%}", f"{found['labels']:.2f}", counts or "-"
