"""What a run keeps for those who predict with it: a few validation pictures with their logits, and the calibration."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from tljax.runs.files import read_arrays, read_file, write_arrays
from tljax.training.calibration import TEMPERATURES

REFERENCE = "reference.npz"
# How many images are kept.
KEPT_IMAGES = 8
# Logits that are computed again may differ by this much, relative to the largest. Numbers of bfloat16 are 0.8% apart.
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}


class Reference(NamedTuple):
    """The content of `reference.npz`. `best` is the number of the checkpoint that it belongs to, `compute` the type in
    which the logits were computed."""

    best: int
    compute: str
    images: UInt8[np.ndarray, "n size size 3"]
    logits: Float[np.ndarray, "n classes"]
    temperature: float
    scores: Float[np.ndarray, " pictures"]
    """`calibration.true_probabilities` of the pictures that the calibration was fitted on."""


def write_reference(workdir: Path, reference: Reference) -> None:
    """Writes the reference of a run, whole or not at all.

    Raises:
      OSError: if it cannot be written.
    """
    write_arrays(workdir / REFERENCE, reference._asdict())


def read_reference(workdir: Path) -> Reference | None:
    """The reference of a run; None if there is none, as in runs of 0.1.0.

    Raises:
      ValueError: if it is damaged, or no reference.
      OSError: if the system does not allow reading now.
    """
    path = workdir / REFERENCE
    try:
        # Read at once: a run that begins anew may delete or replace the file.
        content = read_file(path)
    except FileNotFoundError:
        return None
    try:
        arrays = read_arrays(content)
        found = Reference(*(arrays[name] for name in Reference._fields))
        reference = found._replace(
            best=int(found.best),
            compute=str(found.compute),
            temperature=float(found.temperature),
        )
        _check(reference)
    # A damaged archive raises errors of many types.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"{path} is damaged ({reason}): delete it to predict without testing the network, or run that stage again"
        ) from error
    return reference


def _check(reference: Reference) -> None:
    """Raises ValueError unless types and shapes are those of a reference."""
    images, logits, scores = reference.images, reference.logits, reference.scores
    shapes = images.ndim == 4 and images.shape[3] == 3 and logits.ndim == 2 and len(logits) == len(images)
    types = images.dtype == np.uint8 and logits.dtype == np.float32 and scores.dtype == np.float64
    if not (shapes and types and scores.ndim == 1 and len(images)):
        raise ValueError("its arrays are not those of a run")
    low, high = TEMPERATURES
    sorted_probabilities = bool((np.diff(scores, prepend=0, append=1) >= 0).all())
    if not (np.isfinite(logits).all() and sorted_probabilities and low <= reference.temperature <= high):
        raise ValueError("its values are not those of a run")
    if reference.compute not in TOLERANCES:
        raise ValueError(f"its logits were computed in {reference.compute!r}")


def find_difference(reference: Reference, logits: Float[np.ndarray, "n classes"], compute: str) -> str | None:
    """How newly computed logits of the kept images differ from those that were kept, in words; None if they do not.

    `compute` is the type in which they were computed. In bfloat16 the predicted classes must be the same too, where the
    kept logits tell two classes clearly apart.
    """
    coarse = "bfloat16" if "bfloat16" in (compute, reference.compute) else "float32"
    kept, allowed = reference.logits, TOLERANCES[coarse] * np.abs(reference.logits).max()
    if kept.shape != logits.shape:
        return f"they have {logits.shape[1]} classes, then {kept.shape[1]}"
    difference = float(np.abs(kept - logits).max())
    # Written so that NaN is a difference too.
    if not difference <= allowed:
        return f"they differ by {difference:.2g}, at most {allowed:.2g} is rounding ({coarse})"
    second, first = np.sort(kept, axis=1)[:, -2:].T
    wrong = (kept.argmax(1) != logits.argmax(1)) & (first - second > 2 * allowed)
    return f"{int(wrong.sum())} of {len(kept)} have another class" if wrong.any() else None
