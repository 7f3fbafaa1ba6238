"""A head that is solved instead of trained: gathers the features, solves on one process, and says what came out."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int

from tljax.data.datasets import Dataset
from tljax.devices.mesh import gather, put, whole
from tljax.stages.assembly import Assembly
from tljax.stages.programs import Setup
from tljax.training import calibration, epochs, ridge
from tljax.training.epochs import Evaluation
from tljax.training.grouped import share_out
from tljax.training.progress import Progress
from tljax.training.regularization import weigh
from tljax.training.state import TrainState
from tljax.trees import Row


class Solution(NamedTuple):
    """A solved head, the labels of all training pictures, and what a run says about it."""

    head: ridge.SolvedHead
    labels: Int[np.ndarray, " n"]
    seconds: float
    about: Row
    """JSON: the penalty, the temperature, the numbers of pictures, of copies among them, of classes with a `single`
    picture or group and, where pictures belong together, of `groups`, and the estimated accuracy."""


def solve_if_asked(
    setup: Setup, dataset: Dataset, activations: dict[str, Any] | None, progress: Progress
) -> Solution | None:
    """The solved head if `config.head.init` asks for it and it is needed: to start from, or, without a validation
    split, to say how good it is. `activations` are those of each split that the head reads.

    Raises:
      ValueError: if an activation is not finite.
    """
    if setup.config.head.init != "ridge" or (progress.history and dataset.validation is not None):
        return None
    assert activations is not None, "assemble refuses that"
    return solve(dataset, activations["train"], weigh(setup.config.class_weights, dataset.train_counts))


def start_from_solution(
    solution: Solution, made: Assembly, state: TrainState
) -> tuple[TrainState, Row, dict[str, Evaluation]]:
    """`state` with the solved head, its metrics (the row with the epoch 0), and its evaluations by split."""
    setup, examples = made.setup, made.examples
    state = put_head(state, solution.head, setup)
    splits = [name for name in ("train", "validation") if name in examples]
    found: dict[str, Evaluation] = {
        name: epochs.evaluate(state, examples[name], made.programs.evaluate) for name in splits
    }
    validation = found["validation"].means if "validation" in found else {"loss": None, "accuracy": None}
    row: Row = {
        "stage": setup.config.stage,
        "cut": setup.config.cut,
        "epoch": 0,
        **found["train"].means,
        **{f"val_{name}": value for name, value in validation.items()},
        "seconds": round(solution.seconds, 3),
        "images_per_second": None,
        "learning_rate": None,
        "solved": solution.about,
    }
    return state, row, found


def solve(
    dataset: Dataset,
    averages: Float[np.ndarray, "n features"] | tuple[np.ndarray, ...],
    weights: tuple[float, ...] | None = None,
) -> Solution:
    """Solves the head on the `averages` that it reads of the training pictures, a tuple of arrays if there are several
    views; each process passes those of its own. `weights` are those of the classes, None if all count the same.

    Raises:
      ValueError: if an average is not finite.
    """
    began = time.perf_counter()
    split = dataset.train
    assert split is not None, "a stage that solves its head trains"
    views = averages if isinstance(averages, tuple) else (averages,)
    gathered = [gather(view, split.rows, split.count) for view in views]
    features = gathered[0] if len(views) == 1 else np.concatenate(gathered)
    labels, groups = split.all_labels(), split.all_groups()
    head = ridge.solve_head(features, labels, len(dataset.class_names), len(views), weights, groups)
    shares = share_out(labels, np.arange(len(labels)) if head.held_out.groups is None or groups is None else groups)
    named = {} if head.held_out.groups is None else {"groups": len(shares.members)}
    about = {
        "penalty": head.penalty,
        "temperature": head.temperature,
        "pictures": len(labels),
        "copies": ridge.count_copies(gathered[0], groups),
        "single": int(np.sum(shares.holders == 1)),
        **named,
        "held_out": judge_held_out(head.held_out, labels, dataset.class_names, weights),
    }
    return Solution(head, labels, time.perf_counter() - began, about)


def put_head(state: TrainState, head: ridge.SolvedHead, setup: Setup) -> TrainState:
    """`state` with the solved head, the leader's on every process."""
    leaves = {"kernel": head.kernel.astype(np.float32), "bias": head.bias.astype(np.float32)}
    if jax.process_count() > 1:
        leaves = multihost_utils.broadcast_one_to_all(leaves)

    def replace(variables: Any) -> Any:
        return variables | {"params": variables["params"] | {"head": put(leaves, whole(setup.mesh))}}

    raw = replace(state.raw) if state.raw else state.raw
    return state._replace(variables=replace(state.variables), raw=raw)


def judge_held_out(
    held_out: ridge.HeldOut, labels: Int[np.ndarray, " n"], names: Sequence[str], weights: ridge.ClassWeights
) -> Row | None:
    """What the pictures that were left out say: mean loss (nats), estimated accuracy and what it is at least, balanced
    accuracy, and the class with the lowest; None if there are none. Where groups were left out, also their number, and
    in how many a class is on average. `labels` are those of all pictures, `weights` those of the classes."""
    estimate = ridge.estimate_accuracy(held_out, labels, weights)
    if estimate is None:
        return None
    own = calibration.true_probabilities(calibration.softmax(held_out.scores), labels[held_out.rows])
    by_class = calibration.class_accuracies(estimate.confusions)
    worst = min((i for i, right in enumerate(by_class) if right is not None), key=lambda i: by_class[i] or 0.0)
    return {
        "loss": float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean()),
        "accuracy": estimate.accuracy,
        "at_least": estimate.at_least,
        "pictures": estimate.pictures,
        **_count_groups(held_out, labels),
        "balanced_accuracy": calibration.balanced_accuracy(estimate.confusions),
        "worst_class": {
            "name": names[worst],
            "accuracy": by_class[worst],
            "pictures": int(estimate.confusions[worst].sum()),
        },
    }


def _count_groups(held_out: ridge.HeldOut, labels: Int[np.ndarray, " n"]) -> Row:
    if held_out.groups is None:
        return {}
    shares = share_out(labels[held_out.rows], held_out.groups)
    return {"groups": len(shares.members), "of_a_class": float(shares.holders[shares.holders > 0].mean())}
