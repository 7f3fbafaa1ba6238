"""After training: what a page shows that needs the network or random draws, made while both are there."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from tljax.data.datasets import Dataset, Split
from tljax.devices.mesh import on_host
from tljax.devices.processes import leads
from tljax.report.choice import least_confident_right, most_confident_mistakes, spread_over_classes
from tljax.runs.evidence import (
    EVIDENCE,
    LARGEST_SIDE,
    SHOWN_OF_EACH,
    SHOWN_PICTURES,
    SHOWN_VARIANTS,
    Evidence,
    digest_predictions,
    to_maps,
    write_evidence,
)
from tljax.runs.predictions import choose_rows, find_confidences
from tljax.stages.assembly import Assembly, split_seed
from tljax.stages.programs import Setup, compile_maps, compile_variants
from tljax.training.epochs import Evaluation
from tljax.trees import Tree

# The most pixels of the pictures whose maps are computed at a time.
PIXELS_AT_ONCE = 2**20


def keep_evidence(
    made: Assembly, workdir: Path, dataset: Dataset, found: dict[str, Evaluation], variables: Tree, best: int
) -> None:
    """Writes `evidence.npz`. If that fails, it says so in one line, and the run goes on: a page is not worth a run.

    `found` are the evaluations by split, and `variables` are those of the checkpoint `best`. With several processes,
    the leader alone does this, for pictures that it reads.
    """
    if not leads():
        return
    try:
        evidence = make_evidence(made, dataset, found, variables, best)
        predictions = digest_predictions(workdir) if "validation" in found else ""
        write_evidence(workdir, evidence._replace(predictions=predictions))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(f"{workdir / EVIDENCE} is not written ({reason}); the run goes on without it")


def make_evidence(
    made: Assembly, dataset: Dataset, found: dict[str, Evaluation], variables: Tree, best: int
) -> Evidence:
    """The evidence of a run; the arguments are those of `keep_evidence`."""
    assert dataset.train is not None, "it trains"
    rows, maps = np.arange(0), np.zeros((0, 1, 1))
    if dataset.validation is not None:
        own = choose_shown(dataset.validation, found["validation"].logits)
        rows = dataset.validation.rows[own]
        if has_maps(made.setup, dataset.image_size) and len(own):
            predicted = found["validation"].logits[rows].argmax(axis=1)
            maps = make_maps(made, dataset.validation, own, predicted, variables)
    return Evidence(best, rows, to_maps(maps), *show_training(made, dataset.train))


def choose_shown(split: Split, logits: Float[np.ndarray, "count classes"]) -> Int[np.ndarray, " k"]:
    """Places among the pictures that this process reads: of those with a row in `predictions.jsonl` the most confident
    mistakes, then the least confident right predictions. `logits` are those of the whole split."""
    places = np.flatnonzero(np.isin(split.rows, choose_rows(split.count)))
    rows = split.rows[places]
    confidences, right = find_confidences(logits, rows), logits[rows].argmax(axis=1) == split.labels[places]
    chosen = [choose(confidences, right, SHOWN_OF_EACH) for choose in (most_confident_mistakes, least_confident_right)]
    return places[np.concatenate(chosen)]


def has_maps(setup: Setup, side: int) -> bool:
    """Whether a logit is a sum over several positions of images of this `side`."""
    return not setup.model.hidden and setup.model.architecture.map_side(side) > 1


def make_maps(
    made: Assembly, split: Split, own: Int[np.ndarray, " k"], labels: Int[np.ndarray, " k"], variables: Tree
) -> Float[np.ndarray, "k h w"]:
    """What each position contributes to the logits of the `labels`, of the pictures at the places `own` of validation,
    on one device of this process. Where activations at the cut are kept, only the units behind them run."""
    setup, start = made.setup, made.setup.cut.position
    if made.activations is None or start == "head":
        start, inputs = "", np.asarray(split.images[own])
    else:
        inputs, variables = np.asarray(made.activations["validation"][own]), setup.cut.split(variables)[1]
    run, leaves = compile_maps(setup, start or None), jax.tree.map(on_host, variables)
    at_once = min(2 * SHOWN_OF_EACH, max(1, PIXELS_AT_ONCE // split.images.shape[1] ** 2))
    missing = -len(own) % at_once
    inputs, labels = (np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in (inputs, labels))
    parts = [run(leaves, inputs[i : i + at_once], labels[i : i + at_once]) for i in range(0, len(inputs), at_once)]
    return np.concatenate(parts)[: len(own)]


def show_training(
    made: Assembly, split: Split
) -> tuple[UInt8[np.ndarray, "r c s s 3"], Int[np.ndarray, " r"], tuple[str, ...]]:
    """Some training pictures as the network gets them, their rows in the split, and what each column is: the pictures
    as they are, then draws of the augmentation or, where activations of views were computed, those views."""
    chosen = spread_over_classes(split.labels, SHOWN_PICTURES)
    images, rows, config = np.asarray(split.images[chosen]), split.rows[chosen], made.setup.config
    viewed = made.activations is not None
    if config.data.augmentations:
        key = split_seed(config.seed)[1]
        program = compile_variants(made.setup, SHOWN_VARIANTS, key, from_activations=viewed)
        views = np.asarray(program(jnp.asarray(images), jnp.asarray(rows, jnp.int32)))
    else:
        views = images[:, None]
    name, first = ("view", 2) if viewed else ("draw", 1)
    titles = ("as it is", *(f"{name} {i}" for i in range(first, first + views.shape[1] - 1)))
    return shrink(views), rows, titles


def shrink(views: UInt8[np.ndarray, "r c side side 3"]) -> UInt8[np.ndarray, "r c s s 3"]:
    """Images that are larger than `LARGEST_SIDE`, made smaller."""
    if views.shape[2] <= LARGEST_SIDE:
        return views
    size = (LARGEST_SIDE, LARGEST_SIDE)
    small = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for row in views for one in row]
    return np.stack(small).reshape(*views.shape[:2], *size, 3)
