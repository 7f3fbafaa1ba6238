"""What a run keeps for its page that needs the network or random draws: maps of some validation pictures, and training
pictures as the network gets them."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float16, Int, UInt8

from tljax.runs.files import read_arrays, read_file, write_arrays
from tljax.runs.predictions import PREDICTIONS

EVIDENCE = "evidence.npz"
# The most validation pictures with maps: so many mistakes, and so many right predictions.
SHOWN_OF_EACH = 12
# The most training pictures, the most variants of each, and their largest side.
SHOWN_PICTURES, SHOWN_VARIANTS, LARGEST_SIDE = 6, 6, 96


class Evidence(NamedTuple):
    """The content of `evidence.npz`."""

    best: int
    """The number of the checkpoint that it belongs to."""
    rows: Int[np.ndarray, " k"]
    """Rows of the validation split: the most confident mistakes, then the least confident right predictions."""
    maps: Float16[np.ndarray, "m h w"]
    """What each position of the last map contributes to the logit of the predicted label; one for each of the `rows`,
    or none."""
    views: UInt8[np.ndarray, "r c s s 3"]
    """Training pictures as the network gets them, each in several columns."""
    view_rows: Int[np.ndarray, " r"]
    """Their rows in the training split."""
    view_titles: tuple[str, ...]
    """The titles of the columns."""
    predictions: str = ""
    """The SHA-256 of the `predictions.jsonl` that it belongs to; empty where there is none, as in earlier versions."""


def to_maps(maps: Float[np.ndarray, "m h w"]) -> Float16[np.ndarray, "m h w"]:
    """Maps as they are kept; none if one has a value that is no number."""
    most = np.finfo(np.float16).max
    kept = maps if np.isfinite(maps).all() else maps[:0]
    return kept.clip(-most, most).astype(np.float16)


def write_evidence(workdir: Path, evidence: Evidence) -> None:
    """Writes the evidence of a run, whole or not at all.

    Raises:
      OSError: if it cannot be written.
    """
    write_arrays(workdir / EVIDENCE, evidence._asdict())


def read_evidence(workdir: Path) -> Evidence | None:
    """The evidence of a run; None if there is none, as in runs of earlier versions.

    Raises:
      ValueError: if it is damaged, no evidence, or that of another run.
      OSError: if the system does not allow reading now.
    """
    path = workdir / EVIDENCE
    try:
        content = read_file(path)
    except FileNotFoundError:
        return None
    try:
        arrays = read_arrays(content)
        found = Evidence(**{"predictions": "", **{name: arrays[name] for name in Evidence._fields if name in arrays}})
        titles, predictions = tuple(map(str, found.view_titles)), str(found.predictions)
        evidence = found._replace(best=int(found.best), view_titles=titles, predictions=predictions)
        _check(evidence)
    # A damaged archive raises errors of many types.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{path} is damaged ({reason}): delete it, or run that stage again") from error
    if evidence.predictions and evidence.predictions != digest_predictions(workdir):
        raise ValueError(f"{path} belongs to other predictions than those beside it: bring back its own, or delete it")
    return evidence


def digest_predictions(workdir: Path) -> str:
    """The SHA-256 of a run's `predictions.jsonl`; empty if there is none."""
    try:
        return hashlib.sha256(read_file(workdir / PREDICTIONS["validation"])).hexdigest()
    except FileNotFoundError:
        return ""


def _check(evidence: Evidence) -> None:
    """Raises ValueError unless types, shapes and values are those of evidence."""
    rows, maps, views, view_rows = evidence.rows, evidence.maps, evidence.views, evidence.view_rows
    if not (rows.ndim == view_rows.ndim == 1 and maps.ndim == 3 and views.ndim == 5 and views.shape[4] == 3):
        raise ValueError("its arrays are not those of a run")
    if not (rows.dtype.kind == view_rows.dtype.kind == "i" and maps.dtype == np.float16 and views.dtype == np.uint8):
        raise ValueError("its arrays are of other types than a run's")
    counts = len(maps) in (0, len(rows)) and views.shape[:2] == (len(view_rows), len(evidence.view_titles))
    few = len(rows) <= 2 * SHOWN_OF_EACH and len(views) <= SHOWN_PICTURES and views.shape[1] <= SHOWN_VARIANTS
    sides = views.shape[2] == views.shape[3] <= LARGEST_SIDE
    values = np.isfinite(maps).all() and (rows >= 0).all() and (view_rows >= 0).all()
    pixels = maps.size >= len(maps) and views.size >= len(views)
    if not (counts and few and sides and values and pixels):
        raise ValueError("its values are not those of a run")
