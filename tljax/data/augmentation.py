"""Augmentation: random variants of a batch, images and labels together, each a pure function.

A batch is augmented whole, before it is parted for devices or for their caches, and draws are made per image: the
result does not depend on how many devices there are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Num

# image [n h w 3], label int [n] or float [n, classes], mask bool [n]; a row with a false mask is no example.
Batch = dict[str, Array]
Images = Num[Array, "n h w 3"]
# (batch, key, number of classes) -> batch. Whoever mixes images gives labels [n, classes], and draws who meets whom: an
# image has the same place in the batches of all epochs (`batches.draw_order`).
Augmentation = Callable[[Batch, Key[Array, ""], int], Batch]


def keep(batch: Batch, key: Key[Array, ""], classes: int) -> Batch:
    """The batch as it is."""
    return batch


def flip(batch: Batch, key: Key[Array, ""], classes: int) -> Batch:
    """Each image is mirrored left to right with probability 1/2."""
    flip_key, _ = jax.random.split(key)
    return batch | {"image": _flip(batch["image"], flip_key)}


def flip_crop(batch: Batch, key: Key[Array, ""], classes: int) -> Batch:
    """Each image is mirrored as by `flip` and shifted by up to an eighth of its side, reflecting at the border."""
    flip_key, shift_key = jax.random.split(key)
    return batch | {"image": _shift(_flip(batch["image"], flip_key), shift_key)}


# By the values of `config.data.augment`.
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
