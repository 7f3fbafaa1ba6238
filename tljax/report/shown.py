"""A stage as a page shows it: what it has left, its pictures, and which of them are shown."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int

from tljax.report.belief import is_left_out
from tljax.report.choice import least_confident_right, most_confident_mistakes
from tljax.report.pictures import Album
from tljax.runs.predictions import Predictions
from tljax.runs.records import RunRecord, StageRecord

_T = TypeVar("_T")
# Gives the pictures of a split of a stage.
FindAlbum = Callable[[StageRecord, str], Album]
# How many of each kind a gallery shows, and how many a cell of the confusion matrix.
IN_GALLERY, IN_CELL = 12, 12
GROUPED_INTERVAL = (
    "It counts pictures, not groups: as those of a group are often right or wrong together, it is too narrow."
)


class ShownRows(NamedTuple):
    """Which pictures of a stage a page shows, as rows of its predictions."""

    mistakes: Int[np.ndarray, " k"]
    unsure: Int[np.ndarray, " k"]
    cells: Mapping[tuple[int, int], Int[np.ndarray, " k"]]
    """By label and prediction, the most confident first."""


class Shown(NamedTuple):
    """A stage as a page shows it."""

    label: str
    """Its name; with that of its run, where a page shows several."""
    record: StageRecord
    run: RunRecord
    album: Album
    chosen: ShownRows | None
    """None where nothing is known of single pictures."""

    @property
    def part(self) -> str:
        """The split whose pictures are shown: a test split is looked at only where nothing is known of another."""
        return choose_part(self.record)

    @property
    def predictions(self) -> Predictions | None:
        return choose_predictions(self.record)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple((self.record.summary or {}).get("class_names", ()))

    @property
    def images(self) -> int:
        """The number of pictures in the split that is shown."""
        found = self.predictions
        recorded = ((self.record.summary or {}).get("data") or {}).get("splits", {}).get(self.part, {})
        return int(recorded.get("images", 0 if found is None else len(found.ids)))

    @property
    def lacking(self) -> str:
        """Why nothing is known of single pictures."""
        if self.record.summary is None:
            return f"{self.label} is not finished."
        left_out = is_left_out(self.record.summary)
        why = "there was no validation split" if left_out else "there is no file of what it predicts"
        return f"Nothing is known of single pictures of {self.label}: {why}."

    @property
    def unpredicted(self) -> str:
        """Why no picture is right or wrong; empty where one is."""
        found, unmapped = self.predictions, (self.record.summary or {}).get("unmapped_classes", ())
        if found is None or (found.predicted >= 0).any():
            return ""
        if set(self.names) <= set(unmapped):
            return f"{self.label} predicts none of these classes: none has a counterpart in its source."
        return f"Which class {self.label} takes a picture for is not known: its version did not write that."

    def key(self, row: int) -> str | None:
        """What the page calls the picture in a row of the predictions; None if it is not at hand."""
        found = self.predictions
        return None if found is None else self.album.key(found.ids[row])


def has_groups(shown: Shown) -> bool:
    """Whether something says which pictures belong together."""
    summary = shown.record.summary or {}
    return "worth" in summary or "worth" in summary.get("test", {})


def choose_part(record: StageRecord) -> str:
    """`Shown.part` of a stage. Without validation, zero_shot classifies the training pictures."""
    if record.validation is None and record.test is not None:
        return "test"
    return "train" if is_left_out(record.summary or {}) else "validation"


def choose_predictions(record: StageRecord) -> Predictions | None:
    """The predictions of the split `choose_part`."""
    return record.test if choose_part(record) == "test" else record.validation


def choose_shown(predictions: Predictions | None) -> ShownRows | None:
    """The most confident mistakes, the least confident right ones, and some of each cell of the confusion matrix."""
    if predictions is None:
        return None
    confidence, right = predictions.confidence, predictions.right
    return ShownRows(
        most_confident_mistakes(confidence, right, IN_GALLERY),
        least_confident_right(confidence, right, IN_GALLERY),
        _fill_cells(predictions, confidence),
    )


def _fill_cells(
    predictions: Predictions, confidence: Float[np.ndarray, " n"]
) -> dict[tuple[int, int], Int[np.ndarray, " k"]]:
    order = np.argsort(-confidence, kind="stable")
    found: dict[tuple[int, int], list[int]] = {}
    for row in order.tolist():
        cell = found.setdefault((int(predictions.labels[row]), int(predictions.predicted[row])), [])
        if len(cell) < IN_CELL:
            cell.append(row)
    return {place: np.array(rows) for place, rows in found.items()}


def rank_rows(chosen: ShownRows) -> tuple[list[int], list[int], list[int]]:
    """The rows of a stage that its galleries show, those of its confusions, and right ones: cells take turns."""
    wrong = [rows.tolist() for (label, predicted), rows in chosen.cells.items() if label != predicted]
    right = [rows.tolist() for (label, predicted), rows in chosen.cells.items() if label == predicted]
    return [*chosen.mistakes.tolist(), *chosen.unsure.tolist()], list(take_turns(wrong)), list(take_turns(right))


def take_turns(groups: Iterable[Sequence[_T]]) -> Iterator[_T]:
    """The first of each group, then the second of each, and so on."""
    return (one for one in chain.from_iterable(zip_longest(*groups)) if one is not None)
