"""What a run predicts for each picture that it did not learn from: `predictions.jsonl`, `test_predictions.jsonl`."""

import math
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tljax.config import is_number
from tljax.runs.files import read_rows
from tljax.runs.saved_values import is_finite, is_text, is_whole
from tljax.text import count_words
from tljax.training.calibration import find_best, log_softmax
from tljax.trees import Row

# The files of the splits that a run is measured on.
PREDICTIONS = {"validation": "predictions.jsonl", "test": "test_predictions.jsonl"}
# The most rows of a file, and the most labels of a row.
MOST_ROWS, MOST_LABELS = 100_000, 5
# The most logits that are ranked at a time.
LOGITS_AT_ONCE = 2**21


class Predictions(NamedTuple):
    """What a network says of the pictures of a split, in their order."""

    ids: tuple[str, ...]
    labels: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    """Indices into the class names; -1 where zero_shot names no class."""
    losses: Float[np.ndarray, " n"]
    """Cross-entropies in nats."""
    top: tuple[tuple[tuple[str, float], ...], ...]
    """The most probable outputs of each picture, at least one, with their probabilities at temperature 1: NaN where
    the network gave none."""

    @property
    def right(self) -> np.ndarray:
        """Whether each picture is right, bool [n]."""
        found: np.ndarray = self.predicted == self.labels
        return found

    @property
    def confidence(self) -> np.ndarray:
        """The highest probability of each picture, float [n]."""
        return np.array([best[0][1] for best in self.top])


def choose_rows(count: int) -> Int[np.ndarray, " rows"]:
    """The rows of a split of `count` pictures that are written: all or, of more than `MOST_ROWS`, so many, spread
    evenly. Splits of equal size have the same."""
    return np.linspace(0, count - 1, min(count, MOST_ROWS)).astype(int)


def describe_pictures(
    ids: Sequence[str],
    labels: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    losses: Float[np.ndarray, " n"],
    best: Iterable[list[list[Any]]],
) -> Iterator[Row]:
    """A row for each picture: its id, its label, the label that is predicted (-1 for none), its cross-entropy (nats),
    and its most probable outputs, each a WordNet id or None, a name and a probability."""
    for name, label, guess, loss, top in zip(ids, labels, predicted, losses, best, strict=True):
        yield {"id": name, "label": int(label), "predicted": int(guess), "loss": float(loss), "top5": top}


def describe_logits(
    ids: Sequence[str], labels: Int[np.ndarray, " n"], logits: Float[np.ndarray, "n classes"], names: Sequence[str]
) -> Iterator[Row]:
    """The rows of `describe_pictures` for pictures with these logits, as they are, without a temperature. Of those
    pictures that `choose_rows` leaves out there is none."""
    for some in _divide(choose_rows(len(labels)), len(names)):
        logs = log_softmax(np.asarray(logits[some], np.float64))
        best = find_best(logits[some], MOST_LABELS)
        probabilities = np.exp(np.take_along_axis(logs, best, axis=1))
        top = (
            [[None, names[i], p] for i, p in zip(*pair, strict=True)]
            for pair in zip(best.tolist(), probabilities.tolist(), strict=True)
        )
        losses = -logs[np.arange(len(some)), labels[some]]
        yield from describe_pictures([ids[i] for i in some], labels[some], best[:, 0], losses, top)


def find_confidences(logits: Float[np.ndarray, "n classes"], rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """The highest probability of each of these `rows`, as it is written."""
    parts = [log_softmax(np.asarray(logits[some], np.float64)).max(axis=1) for some in _divide(rows, logits.shape[1])]
    return np.exp(np.concatenate(parts))


def _divide(rows: Int[np.ndarray, " k"], classes: int) -> list[Int[np.ndarray, " few"]]:
    """`rows` in parts of at most `LOGITS_AT_ONCE` logits."""
    at_once = max(1, LOGITS_AT_ONCE // classes)
    return np.split(rows, range(at_once, len(rows), at_once))


def read_predictions(path: Path, classes: int, pictures: int | None = None) -> Predictions:
    """Reads a file of predictions on so many `pictures`, if their number is known. Rows of earlier versions do not say
    what was `predicted`: it is -1 then.

    Raises:
      ValueError: if it is damaged, or not whole.
      OSError: if it cannot be read.
    """
    rows = read_rows(path)
    wrong = next((row for row in rows if not _is_prediction(row, classes)), None)
    if wrong is not None:
        raise ValueError(f"{reprlib.repr(wrong)} is no row of a run with {classes:,} classes")
    if not rows or (pictures is not None and len(rows) != len(choose_rows(pictures))):
        of = f" of {pictures:,} pictures" if pictures else ""
        raise ValueError(f"it has {count_words(len(rows), 'row')}{of}")
    labels, predicted = (np.array([row.get(key, -1) for row in rows], int) for key in ("label", "predicted"))
    losses = np.array([_number(row["loss"]) for row in rows], float)
    top = tuple(tuple((name, _number(p)) for _, name, p in row["top5"]) for row in rows)
    return Predictions(tuple(row["id"] for row in rows), labels, predicted, losses, top)


def _is_prediction(row: Row, classes: int) -> bool:
    """Whether `row` is one of `describe_pictures`. What was no finite number is None."""
    best = row.get("top5")
    return (
        is_text(row.get("id"))
        and is_whole(row.get("label"), 0, classes - 1)
        and is_whole(row.get("predicted", -1), -1, classes - 1)
        and (row.get("loss", "") is None or is_finite(row.get("loss")))
        and isinstance(best, list)
        and 1 <= len(best) <= MOST_LABELS
        and all(map(_is_guess, best))
    )


def _is_guess(value: Any) -> bool:
    """Whether `value` is an output with its probability. Rounding makes more than 1 of some."""
    if not isinstance(value, list) or len(value) != 3 or not is_text(value[1]):
        return False
    return value[2] is None or is_number(value[2], 0, 1.001)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
