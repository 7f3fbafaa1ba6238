"""The steps as pure functions, un-jitted: (state, batch, key) in, new state and sums out; and many steps in one."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, Num

from tljax import metrics, microbatch, partition
from tljax.batches import Chunk
from tljax.preprocess import Preprocessing, augment, preprocess, resize
from tljax.resnet import ResNet, fold
from tljax.state import TrainState

# What stands between a batch and the cut: (variables of the frozen units, images, key) -> activations at the cut.
Embed = Callable[[dict[str, Any], Array, Key[Array, ""]], Array]

# From here on the maps are so small that a few images make small matrix products. On 2 cores of an AMD EPYC, images of
# 32 pixels, batch 256: forward 1,443 images/s, 1,359 with micro-batches to conv3_block1 only, 1,281 without any.
WHOLE_FROM = "conv4_block1"


def create_state(params: Any, batch_stats: Any, tx: optax.GradientTransformation, cut: str) -> TrainState:
    """A state before its first step; the optimizer is initialized on the trainable half of the given weights."""
    trainable = partition.split(params, cut)[1]
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, tx.init(trainable))


def embed_images(
    frozen: dict[str, Any],
    images: Num[Array, "n h w 3"],
    key: Key[Array, ""],
    *,
    model: ResNet,
    cut: str,
    preprocessing: Preprocessing,
    augmentation: str = "none",
) -> Float[Array, "n h2 w2 c"]:
    """RGB pixels 0..255 -> activations at the cut, through augmentation, preprocessing and the frozen units."""
    images = augment(images, key, augmentation)
    return run_prefix(fold(model, frozen), images, model=model, cut=cut, preprocessing=preprocessing)


def run_prefix(
    folded: dict[str, Any],
    x: Num[Array, "n ..."],
    *,
    model: ResNet,
    cut: str,
    preprocessing: Preprocessing,
    start: str | None = None,
) -> Float[Array, "n ..."]:
    """RGB pixels 0..255, or activations at `start`, -> activations at `cut`; `folded` are the variables that
    `resnet.fold` gives."""
    prepare = partial(preprocess, preprocessing=preprocessing) if start is None else lambda x: x
    return run_units(model.folded, folded, x, cut=cut, start=start or model.units[0], prepare=prepare)


def run_units(
    model: ResNet,
    variables: dict[str, Any],
    x: Num[Array, "n ..."],
    *,
    cut: str,
    start: str,
    prepare: Callable[[Array], Array] = lambda x: x,
) -> Float[Array, "n ..."]:
    """What `model.prefix` gives of `prepare(x)`, on a CPU the units before `WHOLE_FROM` in micro-batches."""

    def run(x: Array, start: str, cut: str) -> Array:
        h: Any = model.apply(variables, x, cut, start, method="prefix")
        return h

    last = min(cut, WHOLE_FROM, key=model.units.index)
    if model.units.index(start) >= model.units.index(last):
        return run(prepare(x), start, cut)
    return run(microbatch.map_rows(lambda x: run(prepare(x), start, last), x), last, cut)


def pass_activations(frozen: dict[str, Any], h: Array, key: Key[Array, ""]) -> Array:
    """Stands for `embed_images` where the batch holds activations at the cut already."""
    return h


def train_step(
    state: TrainState,
    batch: dict[str, Array],
    key: Key[Array, ""],
    *,
    model: ResNet,
    tx: optax.GradientTransformation,
    cut: str,
    embed: Embed,
    train_batch_norm: bool,
) -> tuple[TrainState, metrics.Sums]:
    """One update of the units from `cut` on; returns the new state and the sums before the update.

    `batch`: image [n ...], label int [n], mask bool [n]; rows with a false mask count for nothing, neither in the
    mean loss nor in batch statistics. `key` is the run's: the step folds in its own number. Frozen leaves are passed
    through untouched. With `train_batch_norm` the units that train normalize with the batch's statistics. Without, they
    are folded, on a CPU those before `WHOLE_FROM`, and if there are any, it adds the gradients of micro-batches.
    """
    frozen_params, params = partition.split(state.params, cut)
    frozen_stats, stats = partition.split(state.batch_stats, cut)
    frozen = {"params": frozen_params, "batch_stats": frozen_stats}
    h = jax.lax.stop_gradient(embed(frozen, batch["image"], jax.random.fold_in(key, state.step)))

    examples = jnp.maximum(jnp.sum(batch["mask"].astype(_dtype(state))), 1)

    def measure_gradients(
        params: Any, *rows: Array, units: Sequence[str], in_parts: bool = False
    ) -> tuple[Any, tuple[metrics.Sums, Any]]:
        """Gradients with these `units` folded, sums, and new statistics."""
        network = model.clone(folded_units=tuple(units))
        variables, unfold, rest = jax.vjp(partial(_fold, model, stats, units), params, has_aux=True)

        def loss(params: Any, h: Array, label: Array, mask: Array) -> tuple[Array, tuple[metrics.Sums, Any]]:
            logits, updated = network.apply(
                {"params": params, "batch_stats": rest},
                h,
                cut,
                train_batch_norm,
                mask,
                method="suffix",
                mutable=["batch_stats"] if train_batch_norm else [],
            )
            sums = metrics.measure(logits, label, mask)
            return sums.loss / examples, (sums, updated.get("batch_stats", {}))

        gradients = partial(jax.grad(loss, has_aux=True), variables)
        if in_parts:
            zeros: Any = jax.tree.map(jnp.zeros_like, variables), (metrics.zeros((), _dtype(state)), {})
            grads, others = microbatch.add_rows(gradients, zeros, *rows)
        else:
            grads, others = gradients(*rows)
        (grads,) = unfold(grads)
        return grads, others

    arguments = params, h, batch["label"], batch["mask"]
    blocks = model.units[model.units.index(cut) : -1]
    if train_batch_norm or not blocks:
        # Batch statistics are of what the convolutions themselves give.
        grads, (sums, new_stats) = measure_gradients(*arguments, units=())
    else:
        # Folded, a unit has nothing to normalize at each position of its maps, and less to keep for the backward pass.
        # On a CPU, folding the larger kernels takes longer than that on small maps.
        large = [unit for unit in blocks if model.units.index(unit) < model.units.index(WHOLE_FROM)]
        grads, (sums, new_stats) = jax.lax.platform_dependent(
            *arguments,
            cpu=partial(measure_gradients, units=large, in_parts=bool(large)),
            default=partial(measure_gradients, units=blocks),
        )
    updates, opt_state = tx.update(grads, state.opt_state, params)
    new_params = optax.apply_updates(params, updates)
    new_state = TrainState(
        step=state.step + 1,
        params=partition.merge(frozen_params, new_params),
        batch_stats=partition.merge(frozen_stats, {**stats, **new_stats}),
        opt_state=opt_state,
    )
    return new_state, sums


def eval_step(
    state: TrainState, batch: dict[str, Array], key: Key[Array, ""], *, model: ResNet, cut: str, embed: Embed
) -> tuple[metrics.Sums, Int[Array, " n"]]:
    """Sums over one batch and its predicted labels, BatchNorm in inference mode; `embed` must not augment."""
    frozen_params, params = partition.split(state.params, cut)
    frozen_stats, stats = partition.split(state.batch_stats, cut)
    h = embed({"params": frozen_params, "batch_stats": frozen_stats}, batch["image"], key)
    # No gradient is wanted, and the compiler folds before the loop over the batches, not in it.
    folded = fold(model, {"params": params, "batch_stats": stats})
    averages = run_units(model.folded, folded, h, cut="head", start=cut)
    logits: Any = model.folded.apply(folded, averages, "head", method="suffix")
    return metrics.measure(logits, batch["label"], batch["mask"]), jax.lax.argmax(logits, 1, jnp.int32)


def train_steps(
    state: TrainState, chunk: Chunk, start: Int[Array, ""], stop: Int[Array, ""], key: Key[Array, ""], **settings: Any
) -> tuple[TrainState, metrics.Sums]:
    """`train_step` with its `settings` for the batches `start` to `stop` of `chunk`; returns the sums of each,
    [steps], zero where no step was made."""
    step = lambda state, batch: train_step(state, batch, key, **settings)  # noqa: E731
    return _run_steps(step, state, metrics.zeros(len(chunk.rows), _dtype(state)), chunk, start, stop)


def eval_steps(
    state: TrainState, chunk: Chunk, start: Int[Array, ""], stop: Int[Array, ""], key: Key[Array, ""], **settings: Any
) -> tuple[metrics.Sums, Int[Array, "steps n"]]:
    """`eval_step` with its `settings` for the batches `start` to `stop` of `chunk`, as `train_steps`."""
    step = lambda _, batch: ((), eval_step(state, batch, key, **settings))  # noqa: E731
    zeros = metrics.zeros(len(chunk.rows), _dtype(state)), jnp.zeros(chunk.rows.shape, jnp.int32)
    return _run_steps(step, (), zeros, chunk, start, stop)[1]


def _fold(model: ResNet, stats: Any, units: Sequence[str], params: Any) -> tuple[Any, Any]:
    """Parameters with `units` folded, and the statistics of the others."""
    folded = fold(model, {"params": params, "batch_stats": stats}, units)
    return folded["params"], folded["batch_stats"]


def _dtype(state: TrainState) -> Any:
    """That of logits and losses."""
    return state.params["head"]["kernel"].dtype


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


def classify(
    folded: dict[str, Any],
    images: Num[Array, "n h w 3"],
    labels: Int[Array, " n"],
    *,
    model: ResNet,
    preprocessing: Preprocessing,
    size: int,
) -> tuple[Float[Array, "n classes"], Float[Array, " n"]]:
    """Probabilities and cross-entropies (nats) of RGB pixels 0..255, resized to the `size` that the weights want;
    `folded` are the variables that `resnet.fold` gives."""
    averages = run_prefix(folded, resize(images, size), model=model, cut="head", preprocessing=preprocessing)
    logits: Any = model.folded.apply(folded, averages, "head", method="suffix")
    return jax.nn.softmax(logits), metrics.cross_entropy(logits, labels)
