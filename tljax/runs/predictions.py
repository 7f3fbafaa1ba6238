"""What a run predicts for each picture that it did not learn from: `predictions.jsonl`, `test_predictions.jsonl`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from tljax.training.calibration import find_best, log_softmax
from tljax.trees import Row

# The files of the splits that a run is measured on.
PREDICTIONS = {"validation": "predictions.jsonl", "test": "test_predictions.jsonl"}
# The most rows of a file, and the most labels of a row.
MOST_ROWS, MOST_LABELS = 100_000, 5
# The most logits that are ranked at a time.
LOGITS_AT_ONCE = 2**21


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
