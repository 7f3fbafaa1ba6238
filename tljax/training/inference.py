"""A network in inference mode: pure functions of folded variables, and one way to run them on the devices.

Evaluation, zero_shot, and the frozen units all use these functions. Activations at a unit are the inputs of that unit.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Num

from tljax.data.preprocessing import AS_KERAS, Preprocessing, Resizing, preprocess, resize
from tljax.devices.mesh import by_row, whole
from tljax.networks.kernels.microbatch import map_rows
from tljax.networks.resnet import ResNet, fold
from tljax.training import metrics
from tljax.trees import Tree

# A CPU runs this unit and all after it on whole batches: their maps are so small that a micro-batch would make small
# matrix products. On 2 cores of an AMD EPYC, images of 32 pixels, batch 256, a forward pass does 1,443 images/s this
# way, 1,359 with micro-batches to conv3_block1 only, 1,281 without any.
WHOLE_FROM = "conv4_block1"


def find_place(unit: str, model: ResNet) -> int:
    """The place of `unit` among the network's units; that of the head if the network ends before it."""
    return model.units.index(unit if unit in model.units else "head")


class Inference(NamedTuple):
    """A network with folded BatchNorms. `folded` is the result of `fold`: arrays on the devices, or their shapes."""

    model: ResNet
    preprocessing: Preprocessing
    folded: Tree
    mesh: Mesh

    def program(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function(folded, *rows, model=..., preprocessing=...)`, jitted, with its outputs sharded by rows."""
        bound = partial(function, model=self.model, preprocessing=self.preprocessing)
        return jax.jit(bound, out_shardings=by_row(self.mesh))


def start_inference(model: ResNet, preprocessing: Preprocessing, variables: Tree, mesh: Mesh) -> Inference:
    """Folds `variables`, those of the network or of its units on one side of a cut; every device of `mesh` has all."""
    folded = jax.jit(partial(fold, model), out_shardings=whole(mesh))(variables)
    return Inference(model, preprocessing, folded, mesh)


def run_prefix(
    folded: Tree,
    x: Num[Array, "n ..."],
    *,
    model: ResNet,
    end: str,
    preprocessing: Preprocessing,
    start: str | None = None,
) -> Float[Array, "n ..."]:
    """Activations at `end`, computed from RGB pixels 0..255 or, with `start`, from activations there."""
    prepare = partial(preprocess, preprocessing=preprocessing) if start is None else lambda x: x
    return run_units(model.folded, folded, x, end=end, start=start or model.units[0], prepare=prepare)


def run_units(
    model: ResNet,
    variables: Tree,
    x: Num[Array, "n ..."],
    *,
    end: str,
    start: str,
    prepare: Callable[[Array], Array] = lambda x: x,
) -> Float[Array, "n ..."]:
    """`model.prefix` applied to `prepare(x)`; a CPU runs the units before `WHOLE_FROM` in micro-batches."""

    def run(x: Array, start: str, end: str) -> Array:
        h: Any = model.apply(variables, x, end, start, method="prefix")
        return h

    last = model.units[min(find_place(end, model), find_place(WHOLE_FROM, model))]
    if find_place(start, model) >= find_place(last, model):
        return run(prepare(x), start, end)
    return run(map_rows(lambda x: run(prepare(x), start, last), x), last, end)


def read_head(folded: Tree, averages: Float[Array, "n features"], model: ResNet) -> Float[Array, "n classes"]:
    """Logits: the head applied to its inputs, the averaged features."""
    logits: Any = model.folded.apply(folded, averages, "head", method="suffix")
    return logits


def run_suffix(folded: Tree, h: Float[Array, "n ..."], *, model: ResNet, start: str) -> Float[Array, "n classes"]:
    """Logits, computed from activations at `start`."""
    return read_head(folded, run_units(model.folded, folded, h, end="head", start=start), model)


def predict_logits(
    folded: Tree, images: Num[Array, "n h w 3"], *, model: ResNet, preprocessing: Preprocessing, mirror: bool
) -> Float[Array, "n classes"]:
    """Logits of RGB images, pixels 0..255; with `mirror` the mean of theirs and of their mirror images'."""
    views = [images, images[:, :, ::-1]] if mirror else [images]
    read = partial(run_prefix, folded, model=model, end="head", preprocessing=preprocessing)
    logits = [read_head(folded, read(view), model) for view in views]
    return sum(logits[1:], logits[0]) / len(logits)


def average_activations(
    folded: Tree, images: Num[Array, "n h w 3"], *, model: ResNet, preprocessing: Preprocessing, at: str
) -> Float[Array, "n c"]:
    """What the unit `at` reads, averaged over the positions that it reads."""
    h = run_prefix(folded, images, model=model, end=at, preprocessing=preprocessing)
    return jnp.mean(h, axis=tuple(range(1, h.ndim - 1)), dtype=jnp.float32)


def average_units(
    folded: Tree, images: Num[Array, "n h w 3"], *, model: ResNet, preprocessing: Preprocessing, units: Sequence[str]
) -> tuple[Float[Array, "n c"], ...]:
    """What a head at each of `units` would read of RGB images, pixels 0..255: averages over all positions."""

    def run(x: Array, start: str, end: str) -> tuple[Array, dict[str, Array]]:
        found: Any = model.folded.apply(folded, x, end, start, method="averages")
        return found

    last, first = max(units, key=model.units.index), model.units[0]
    middle = model.units[min(find_place(last, model), find_place(WHOLE_FROM, model))]
    h, early = map_rows(lambda x: run(preprocess(x, preprocessing), first, middle), images)
    _, late = run(h, middle, last)
    found = early | late
    return tuple(found[unit] for unit in units)


def contributions(
    folded: Tree, images: Num[Array, "n h w 3"], *, model: ResNet, preprocessing: Preprocessing, mirror: bool
) -> Float[Array, "n h w classes"]:
    """What each position of the last map contributes to each logit of `predict_logits`. With global average pooling and
    a dense head, a logit is exactly the sum of these over all positions, plus the head's bias (Zhou et al., Learning
    Deep Features for Discriminative Localization, 2016)."""

    def contribute(images: Array) -> Array:
        features = read_last_map(folded, images, model=model, preprocessing=preprocessing)
        sums = jnp.dot(features, folded["params"]["head"]["kernel"], precision=jax.lax.Precision.HIGHEST)
        return sums / (features.shape[1] * features.shape[2])

    plain = contribute(images)
    return (plain + contribute(images[:, :, ::-1])[:, :, ::-1]) / 2 if mirror else plain


def contribute_to(
    folded: Tree,
    x: Num[Array, "n ..."],
    labels: Int[Array, " n"],
    *,
    model: ResNet,
    preprocessing: Preprocessing,
    start: str | None,
) -> Float[Array, "n h w"]:
    """What each position contributes to the logit of the label of each image, as `contributions` has it for all labels.
    It is computed from images or, with `start`, from activations there."""
    features = read_last_map(folded, x, model=model, preprocessing=preprocessing, start=start)
    own = folded["params"]["head"]["kernel"][:, labels]
    sums = jnp.einsum("nhwf,fn->nhw", features, own, precision=jax.lax.Precision.HIGHEST)
    return sums / (features.shape[1] * features.shape[2])


def read_last_map(
    folded: Tree, x: Num[Array, "n ..."], *, model: ResNet, preprocessing: Preprocessing, start: str | None = None
) -> Float[Array, "n h w f"]:
    """The activations at all positions whose average the head reads, in the dtype of its kernel: computed from images
    or, with `start`, from activations there."""
    last = model.units[-2]
    h = run_prefix(folded, x, model=model, end=last, preprocessing=preprocessing, start=start)
    features: Any = model.folded.apply(folded, h, last, method="last_map")
    return features.astype(folded["params"]["head"]["kernel"].dtype)


def classify(
    folded: Tree,
    images: Num[Array, "n h w 3"],
    labels: Int[Array, " n"],
    *,
    model: ResNet,
    preprocessing: Preprocessing,
    size: int,
    resizing: Resizing = AS_KERAS,
) -> tuple[Float[Array, "n classes"], Float[Array, " n"]]:
    """Probabilities and cross-entropies (nats) of RGB images, pixels 0..255, which are first resized to `size`."""
    inputs = resize(images, size, resizing)
    averages = run_prefix(folded, inputs, model=model, end="head", preprocessing=preprocessing)
    logits = read_head(folded, averages, model)
    return jax.nn.softmax(logits), metrics.cross_entropy(logits, labels)
