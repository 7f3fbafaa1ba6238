"""The steps as pure functions, un-jitted: state and batch in, new state and sums out; and many steps in one."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, Num

from tljax.data.augmentation import Batch
from tljax.data.batches import Chunk
from tljax.data.preprocessing import Preprocessing
from tljax.networks.cut import Cut, merge
from tljax.networks.resnet import ResNet, fold
from tljax.training import metrics
from tljax.training.gradients import Rows, compute_gradients
from tljax.training.inference import run_prefix, run_suffix
from tljax.training.state import TrainState
from tljax.trees import Tree


class Procedure(NamedTuple):
    """What all steps of a run follow."""

    model: ResNet
    cut: Cut
    tx: optax.GradientTransformation
    augment: Callable[[Batch, Key[Array, ""]], Batch]
    """Training batches pass through it, whole."""
    embed: Callable[[Tree, Array], Array]
    """(variables of the frozen units, images) -> activations at the cut."""
    train_batch_norm: bool
    """The units that train normalize with the batch's statistics, not the running ones."""


def embed_images(
    frozen: Tree, images: Num[Array, "n h w 3"], *, model: ResNet, cut: Cut, preprocessing: Preprocessing
) -> Float[Array, "n ..."]:
    """RGB pixels 0..255 -> activations at the cut, through preprocessing and the frozen units."""
    return run_prefix(fold(model, frozen), images, model=model, end=cut.position, preprocessing=preprocessing)


def pass_activations(frozen: Tree, h: Array) -> Array:
    """Stands for `embed_images` where the batch holds activations at the cut already."""
    return h


def train_step(
    state: TrainState, batch: Batch, key: Key[Array, ""], procedure: Procedure
) -> tuple[TrainState, metrics.Sums]:
    """One update of the units from the cut on; returns the new state and the sums before the update.

    `batch`: image [n ...], label int [n] or float [n, classes], mask bool [n]; rows with a false mask count for
    nothing, neither in the mean loss nor in batch statistics. `key` is the run's: the step folds in its own number.
    Frozen leaves are passed through untouched.
    """
    model, cut, tx = procedure.model, procedure.cut, procedure.tx
    frozen, trained = cut.split(state.variables)

    batch = procedure.augment(batch, jax.random.fold_in(key, state.step))
    h = jax.lax.stop_gradient(procedure.embed(frozen, batch["image"]))

    rows = Rows(h, batch["label"], batch["mask"])
    gradients = compute_gradients(model, cut, trained, rows, train_batch_norm=procedure.train_batch_norm)

    updates, opt_state = tx.update(gradients.params, state.opt_state, trained["params"])
    new_trained = {
        "params": optax.apply_updates(trained["params"], updates),
        "batch_stats": {**trained["batch_stats"], **gradients.batch_stats},
    }
    return TrainState(state.step + 1, merge(frozen, new_trained), opt_state), gradients.sums


def eval_step(state: TrainState, batch: Batch, procedure: Procedure) -> tuple[metrics.Sums, Int[Array, " n"]]:
    """Sums over one batch and its predicted labels, BatchNorm in inference mode, nothing augmented."""
    model, cut = procedure.model, procedure.cut
    frozen, trained = cut.split(state.variables)
    h = procedure.embed(frozen, batch["image"])
    # No gradient is wanted, and the compiler folds before the loop over the batches, not in it.
    logits = run_suffix(fold(model, trained), h, model=model, start=cut.position)
    return metrics.sum_examples(logits, batch["label"], batch["mask"]), jax.lax.argmax(logits, 1, jnp.int32)


def train_steps(
    state: TrainState,
    chunk: Chunk,
    start: Int[Array, ""],
    stop: Int[Array, ""],
    key: Key[Array, ""],
    procedure: Procedure,
) -> tuple[TrainState, metrics.Sums]:
    """`train_step` for the batches `start` to `stop` of `chunk`; returns the sums of each, [steps], zero where no step
    was made."""
    step = partial(train_step, key=key, procedure=procedure)
    return _run_steps(step, state, metrics.zeros(len(chunk.rows), _dtype(state)), chunk, start, stop)


def eval_steps(
    state: TrainState, chunk: Chunk, start: Int[Array, ""], stop: Int[Array, ""], procedure: Procedure
) -> tuple[metrics.Sums, Int[Array, "steps n"]]:
    """`eval_step` for the batches `start` to `stop` of `chunk`, as `train_steps`."""
    step = lambda _, batch: ((), eval_step(state, batch, procedure))  # noqa: E731
    zeros = metrics.zeros(len(chunk.rows), _dtype(state)), jnp.zeros(chunk.rows.shape, jnp.int32)
    return _run_steps(step, (), zeros, chunk, start, stop)[1]


def _dtype(state: TrainState) -> Any:
    """That of logits and losses."""
    return state.variables["params"]["head"]["kernel"].dtype


def _run_steps(
    step: Callable[..., Any], carry: Any, outputs: Any, chunk: Chunk, start: Array, stop: Array
) -> tuple[Any, Any]:
    """`outputs` [steps ...] are filled in. The bounds are arguments: one program runs any number of steps, and none of
    them is masked."""

    def body(i: Array, both: tuple[Any, Any]) -> tuple[Any, Any]:
        carry, outputs = both
        carry, new = step(carry, chunk.batch(i))
        return carry, jax.tree.map(lambda kept, output: kept.at[i].set(output), outputs, new)

    return jax.lax.fori_loop(start, stop, body, (carry, outputs))
