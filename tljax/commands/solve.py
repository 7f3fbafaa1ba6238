"""A head that is solved instead of trained: gathers the features, solves on one process, and says what came out."""

import time
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int

from tljax.commands.programs import Setup
from tljax.data.splits import Dataset
from tljax.devices.mesh import gather, put, whole
from tljax.training import calibration, ridge
from tljax.training.state import TrainState
from tljax.trees import Row


class Solution(NamedTuple):
    """A solved head, the labels of all training pictures, and what a run says about it."""

    head: ridge.SolvedHead
    labels: Int[np.ndarray, " n"]
    seconds: float
    about: Row
    """JSON: the penalty, the temperature, the number of copies among the pictures, and the estimated accuracy."""


def solve(dataset: Dataset, averages: Float[np.ndarray, "n features"]) -> Solution:
    """Solves the head on the `averages` that it reads of the training pictures; each process passes those of its own.

    Raises:
      ValueError: if an average is not finite.
    """
    began = time.perf_counter()
    split = dataset.train
    assert split is not None, "a stage that solves its head trains"
    features = gather(averages, split.rows, split.count)
    labels = gather(split.labels, split.rows, split.count)
    head = ridge.solve_head(features, labels, len(dataset.class_names))
    about = {
        "penalty": head.penalty,
        "temperature": head.temperature,
        "pictures": len(labels),
        "copies": ridge.count_repeated(features),
        "held_out": judge_held_out(head.held_out, labels),
    }
    return Solution(head, labels, time.perf_counter() - began, about)


def put_head(state: TrainState, head: ridge.SolvedHead, setup: Setup) -> TrainState:
    """`state` with the solved head, the leader's on every process."""
    leaves = {"kernel": head.kernel.astype(np.float32), "bias": head.bias.astype(np.float32)}
    if jax.process_count() > 1:
        leaves = multihost_utils.broadcast_one_to_all(leaves)
    params = state.variables["params"] | {"head": put(leaves, whole(setup.mesh))}
    return state._replace(variables=state.variables | {"params": params})


def judge_held_out(held_out: ridge.HeldOut, labels: Int[np.ndarray, " n"]) -> Row | None:
    """Mean loss (nats), estimated accuracy and its interval of the pictures that were left out; None if there are none.
    `labels` are those of all pictures."""
    estimate = ridge.estimate_accuracy(held_out, labels)
    if estimate is None:
        return None
    own = calibration.true_probabilities(calibration.softmax(held_out.scores), labels[held_out.rows])
    return {"loss": float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean()), **estimate._asdict()}
