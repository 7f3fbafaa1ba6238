"""Augmentation: pure functions from a batch to a random variant of it, images and labels together.

An augmentation sees the whole batch, not a device's shard or a micro-batch of it, and draws random numbers per image:
the result does not depend on the number of devices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Num

# image [n h w 3], label int [n] or float [n, classes], mask bool [n]; rows with a false mask are padding.
Batch = dict[str, Array]
Images = Num[Array, "n h w 3"]
# (batch, key, number of classes) -> batch. An augmentation that mixes images returns labels [n, classes]. It must draw
# the pairs at random, because an image has the same place within its batch in all epochs (`batches.draw_order`).
Augmentation = Callable[[Batch, Key[Array, ""], int], Batch]


def keep(batch: Batch, key: Key[Array, ""], classes: int) -> Batch:
    """Returns the batch unchanged."""
    return batch


def flip(batch: Batch, key: Key[Array, ""], classes: int) -> Batch:
    """Mirrors each image left to right with probability 1/2."""
    flip_key, _ = jax.random.split(key)
    return batch | {"image": _flip(batch["image"], flip_key)}


def flip_crop(batch: Batch, key: Key[Array, ""], classes: int) -> Batch:
    """Mirrors each image as `flip` does, then shifts it by up to an eighth of its side, reflecting at the border."""
    flip_key, shift_key = jax.random.split(key)
    return batch | {"image": _shift(_flip(batch["image"], flip_key), shift_key)}


# Keys are the values of `config.data.augment`.
AUGMENTATIONS: dict[str, Augmentation] = {
    "none": keep,
    "flip": flip,
    "flip_crop": flip_crop,
}


def _flip(images: Images, key: Key[Array, ""]) -> Images:
    flipped = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def _shift(images: Images, key: Key[Array, ""]) -> Images:
    n, height, width, channels = images.shape
    margin = height // 8
    padded = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
    corners = jax.random.randint(key, (n, 2), 0, 2 * margin + 1)

    def crop(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(crop)(padded, corners)
