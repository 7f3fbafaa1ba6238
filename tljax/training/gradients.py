"""Exact gradients of the trainable units, by the fastest method on each backend: folded units, micro-batches."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from tljax.networks.cut import Cut
from tljax.networks.kernels.microbatch import add_rows
from tljax.networks.resnet import ResNet, fold
from tljax.training import metrics
from tljax.training.inference import WHOLE_FROM, find_place
from tljax.training.metrics import Sums, Targets
from tljax.trees import Tree


class CutBatch(NamedTuple):
    """A batch of activations at the cut, with targets. Rows with a false `mask` are padding and have no effect."""

    h: Float[Array, "n ..."]
    targets: Targets
    mask: Bool[Array, " n"]
    noise: tuple[Float[Array, "n _"], ...] = ()
    """What the inputs of each layer of the head are multiplied by; empty: nothing."""


class Gradients(NamedTuple):
    """Gradients of the mean loss by parameter, the sums from which that loss is computed, and the new running
    statistics, which are empty unless BatchNorm normalizes with those of the batch."""

    params: Tree
    sums: Sums
    batch_stats: Tree


def compute_gradients(model: ResNet, cut: Cut, trained: Tree, rows: CutBatch, *, train_batch_norm: bool) -> Gradients:
    """Gradients of the units from the cut on; `trained` are their variables.

    With `train_batch_norm`, the units normalize with the batch's statistics. Without it, they are folded: their
    BatchNorms become part of the convolutions (`resnet.fold`), and the gradients are converted to those of the original
    parameters. A folded unit does not normalize its maps, and keeps less for the backward pass.

    A CPU folds only the units before `WHOLE_FROM`, since folding larger kernels takes longer than it saves on small
    maps. If there are any, it adds up the gradients of micro-batches.
    """
    blocks = cut.trained[:-1]
    if train_batch_norm or not blocks:
        # Batch statistics need the outputs of the convolutions as they are, not folded.
        return Gradients(*_differentiate(trained, rows, (), False, model, cut, train_batch_norm))
    large = [unit for unit in blocks if find_place(unit, model) < find_place(WHOLE_FROM, model)]
    settings: dict[str, Any] = {"model": model, "cut": cut, "train_batch_norm": False}
    return Gradients(
        *jax.lax.platform_dependent(
            trained,
            rows,
            cpu=partial(_differentiate, folded_units=large, in_parts=bool(large), **settings),
            default=partial(_differentiate, folded_units=blocks, in_parts=False, **settings),
        )
    )


def _differentiate(
    trained: Tree,
    rows: CutBatch,
    folded_units: Sequence[str],
    in_parts: bool,
    model: ResNet,
    cut: Cut,
    train_batch_norm: bool,
) -> tuple[Tree, Sums, Tree]:
    """The fields of `Gradients`, with `folded_units` folded, over all rows at once or in micro-batches."""
    network = model.clone(folded_units=tuple(folded_units))
    dtype = trained["params"]["head"]["kernel"].dtype
    examples = jnp.maximum(jnp.sum(rows.mask.astype(dtype)), 1)
    fold_units = partial(_fold_units, model, trained["batch_stats"], folded_units)
    params, unfold, stats = jax.vjp(fold_units, trained["params"], has_aux=True)

    def loss(params: Tree, rows: CutBatch) -> tuple[Array, tuple[Sums, Tree]]:
        variables = {"params": params, "batch_stats": stats}
        mutable = ["batch_stats"] if train_batch_norm else []
        arguments = rows.h, cut.position, train_batch_norm, rows.mask, rows.noise
        logits, updated = network.apply(variables, *arguments, method="suffix", mutable=mutable)
        sums = metrics.sum_examples(logits, rows.targets, rows.mask)
        return sums.loss / examples, (sums, updated.get("batch_stats", {}))

    def differentiate(rows: CutBatch) -> tuple[Tree, tuple[Sums, Tree]]:
        return jax.grad(loss, has_aux=True)(params, rows)

    if in_parts:
        zeros: Any = jax.tree.map(jnp.zeros_like, params), (metrics.zeros((), dtype), {})
        gradients, (sums, new_stats) = add_rows(differentiate, zeros, rows)
    else:
        gradients, (sums, new_stats) = differentiate(rows)
    return unfold(gradients)[0], sums, new_stats


def _fold_units(model: ResNet, stats: Tree, units: Sequence[str], params: Tree) -> tuple[Tree, Tree]:
    """The parameters with `units` folded, and the running statistics of the other units."""
    folded = fold(model, {"params": params, "batch_stats": stats}, units)
    return folded["params"], folded["batch_stats"]
