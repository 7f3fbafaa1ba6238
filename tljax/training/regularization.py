"""What keeps a training from fitting its images too closely: softened and weighted targets, dropout, averaged weights.

All of it is off until a config asks for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from tljax.data.layouts import join_names
from tljax.training.metrics import Targets
from tljax.trees import Tree


def soften(
    targets: Targets, classes: int, smoothing: float, weights: Sequence[float] | None
) -> Float[Array, "n classes"]:
    """Targets whose cross-entropy is the loss with label smoothing and class weights, as in Keras.

    A `smoothing` of s turns a distribution t into (1 - s) t + s / classes (Szegedy et al., arXiv:1512.00567). With
    `weights`, one a class, a row is multiplied by the weight of its class, a mixed one by the mean weight of its
    classes. The mean loss is that over all examples, not over all weights.
    """
    soft = targets if targets.ndim == 2 else jax.nn.one_hot(targets, classes, dtype=jnp.asarray(0.0).dtype)
    scale = 1 if weights is None else soft @ jnp.asarray(weights, soft.dtype)[:, None]
    return scale * ((1 - smoothing) * soft + smoothing / classes)


def balance(counts: Mapping[str, int]) -> tuple[float, ...]:
    """Class weights with which all classes count the same, by their numbers of training images: images / (classes *
    images of the class), as in Keras's guides and in scikit-learn. A class without images has the weight 0 and is none
    of the classes, so that the mean weight of an image is always 1.
    """
    images, classes = sum(counts.values()), sum(count > 0 for count in counts.values())
    return tuple(images / (classes * count) if count else 0.0 for count in counts.values())


def weigh(wanted: str | Mapping[str, float], counts: Mapping[str, int]) -> tuple[float, ...] | None:
    """The weight of each class in the training loss; None if all count as they are. `wanted` is
    `config.class_weights`, `counts` are the training images of each class.

    Raises:
      ValueError: if a class of `wanted` is not among them, or all weights are 0.
    """
    if wanted == "none":
        return None
    if isinstance(wanted, str):
        return balance(counts)
    if unknown := sorted(wanted.keys() - counts.keys()):
        raise ValueError(f"config.class_weights names {unknown[0]!r}; the classes are {join_names(counts)}")
    weights = tuple(float(wanted.get(name, 1.0)) for name in counts)
    if not any(weights):
        raise ValueError("config.class_weights is 0 for each class: nothing would be learned")
    return weights


def draw_noise(
    key: Key[Array, ""], rate: float, examples: int, inputs: Sequence[int], dtype: Any
) -> tuple[Float[Array, "examples _"], ...]:
    """Dropout (Srivastava et al., 2014): a factor for each input of each layer of the head, one row an example.

    It is 0 with the probability `rate`, else 1 / (1 - rate). `inputs` are the numbers of inputs of the layers.
    """
    keys = jax.random.split(key, len(inputs))
    return tuple(
        jax.random.bernoulli(key, 1 - rate, (examples, width)).astype(dtype) / (1 - rate)
        for key, width in zip(keys, inputs, strict=True)
    )


def move_average(average: Tree, new: Tree, step: Int[Array, ""], decay: float) -> Tree:
    """The moving average of weights after the update with the number `step`, counted from 0, which gave `new`.

    The decay warms up as min(decay, (1 + step) / (10 + step)), as in TensorFlow's ExponentialMovingAverage: else the
    first weights would stay in the average for long. What does not change stays as it is to the bit.
    """
    steps = step.astype(jnp.float32)
    share = 1 - jnp.minimum(decay, (1 + steps) / (10 + steps))
    return jax.tree.map(lambda a, b: a + share.astype(a.dtype) * (b - a), average, new)
