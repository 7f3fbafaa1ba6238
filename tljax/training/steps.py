"""The training and evaluation steps as pure functions, not jitted: single steps, and loops of many steps."""

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
from tljax.training.gradients import CutBatch, compute_gradients
from tljax.training.inference import run_prefix, run_suffix
from tljax.training.metrics import Targets
from tljax.training.regularization import draw_noise, move_average
from tljax.training.state import TrainState
from tljax.trees import Tree


class Procedure(NamedTuple):
    """Everything that all steps of a run have in common: network, cut, optimizer and options."""

    model: ResNet
    cut: Cut
    tx: optax.GradientTransformation
    augment: Callable[[Batch, Key[Array, ""]], Batch]
    """Applied to each training batch as a whole."""
    embed: Callable[[Tree, Array], Array]
    """(variables of the frozen units, images or activations at the cut) -> activations at the cut."""
    train_batch_norm: bool
    """Whether the trainable units normalize with the batch's statistics instead of the running statistics."""
    soften: Callable[[Targets], Targets] = lambda targets: targets
    """What makes the targets of the loss from those of the examples."""
    dropout: float = 0.0
    """The share of the inputs of the head's layers that are set to 0."""
    ema_decay: float = 0.0
    """The decay of the averaged weights, if the state has raw ones beside them."""


# Numbers the noise of a step. The augmentation folds smaller numbers, from 0 on, into the same key.
NOISE_KEY = 1000


def embed_images(
    frozen: Tree, images: Num[Array, "n h w 3"], *, model: ResNet, cut: Cut, preprocessing: Preprocessing
) -> Float[Array, "n ..."]:
    """Activations at the cut: RGB pixels 0..255 go through preprocessing and the frozen units."""
    return run_prefix(fold(model, frozen), images, model=model, end=cut.position, preprocessing=preprocessing)


def pass_activations(frozen: Tree, h: Array) -> Array:
    """Replaces `embed_images` if batches hold activations at the cut already: returns them unchanged."""
    return h


def train_step(
    state: TrainState, batch: Batch, key: Key[Array, ""], procedure: Procedure
) -> tuple[TrainState, metrics.Sums]:
    """Makes one update of the units from the cut on; returns the new state and the sums before the update, those of the
    loss that is minimized.

    `batch` holds image [n ...], label int [n] or float [n, classes], and mask bool [n]. Rows with a false mask count
    neither in the mean loss nor in batch statistics. `key` is the key of the run; the step folds in its own number.
    Frozen leaves are returned unchanged.
    """
    model, cut, tx = procedure.model, procedure.cut, procedure.tx
    frozen, averaged = cut.split(state.variables)
    trained = state.raw or averaged

    key = jax.random.fold_in(key, state.step)
    batch = procedure.augment(batch, key)
    h = jax.lax.stop_gradient(procedure.embed(frozen, batch["image"]))
    noise: tuple[Array, ...] = ()
    if procedure.dropout:
        noise_key, rows = jax.random.fold_in(key, NOISE_KEY), len(batch["mask"])
        noise = draw_noise(noise_key, procedure.dropout, rows, model.head_inputs, _dtype(state))

    examples = CutBatch(h, procedure.soften(batch["label"]), batch["mask"], noise)
    gradients = compute_gradients(model, cut, trained, examples, train_batch_norm=procedure.train_batch_norm)

    updates, opt_state = tx.update(gradients.params, state.opt_state, trained["params"])
    new_trained = {
        "params": optax.apply_updates(trained["params"], updates),
        "batch_stats": {**trained["batch_stats"], **gradients.batch_stats},
    }
    if not state.raw:
        return TrainState(state.step + 1, merge(frozen, new_trained), opt_state), gradients.sums
    averaged = move_average(averaged, new_trained, state.step, procedure.ema_decay)
    return TrainState(state.step + 1, merge(frozen, averaged), opt_state, new_trained), gradients.sums


def eval_step(state: TrainState, batch: Batch, procedure: Procedure) -> tuple[metrics.Sums, Float[Array, "n classes"]]:
    """Sums over one batch, and its logits, with BatchNorm in inference mode and without augmentation."""
    model, cut = procedure.model, procedure.cut
    frozen, trained = cut.split(state.variables)
    h = procedure.embed(frozen, batch["image"])
    # Folding pays off: no gradient is needed, and the compiler folds once, before the loop over the batches.
    logits = run_suffix(fold(model, trained), h, model=model, start=cut.position)
    return metrics.sum_examples(logits, batch["label"], batch["mask"]), logits


def train_steps(
    state: TrainState,
    chunk: Chunk,
    start: Int[Array, ""],
    stop: Int[Array, ""],
    key: Key[Array, ""],
    procedure: Procedure,
) -> tuple[TrainState, metrics.Sums]:
    """Runs `train_step` on the batches `start` to `stop - 1` of `chunk`; returns the new state and the sums.

    The sums are arrays [steps] with one number for each batch of the chunk, zero where no step was made.
    """
    step = partial(train_step, key=key, procedure=procedure)
    return _run_steps(step, state, metrics.zeros(len(chunk.rows), _dtype(state)), chunk, start, stop)


def eval_steps(
    state: TrainState, chunk: Chunk, start: Int[Array, ""], stop: Int[Array, ""], procedure: Procedure
) -> tuple[metrics.Sums, Float[Array, "steps n classes"]]:
    """Runs `eval_step` on the batches `start` to `stop - 1` of `chunk`; returns sums and logits.

    Both have one entry for each batch of the chunk, zero where no step was made.
    """
    step = lambda _, batch: ((), eval_step(state, batch, procedure))  # noqa: E731
    dtype = _dtype(state)
    logits = jnp.zeros((*chunk.rows.shape, procedure.model.num_classes), dtype)
    return _run_steps(step, (), (metrics.zeros(len(chunk.rows), dtype), logits), chunk, start, stop)[1]


def _dtype(state: TrainState) -> Any:
    """The dtype of logits and losses."""
    return state.variables["params"]["head"]["kernel"].dtype


def _run_steps(
    step: Callable[..., Any], carry: Any, outputs: Any, chunk: Chunk, start: Array, stop: Array
) -> tuple[Any, Any]:
    """Runs `step` on the batches `start` to `stop - 1` of `chunk` and writes its results into `outputs` [steps ...].

    The bounds are arguments, not constants: one compiled program runs any number of steps, without masked ones.
    """

    def body(i: Array, both: tuple[Any, Any]) -> tuple[Any, Any]:
        carry, outputs = both
        carry, new = step(carry, chunk.batch(i))
        return carry, jax.tree.map(lambda kept, output: kept.at[i].set(output), outputs, new)

    return jax.lax.fori_loop(start, stop, body, (carry, outputs))
