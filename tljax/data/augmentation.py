"""Augmentation: pure functions from a batch to a random variant of it, images and labels together.

An augmentation sees the whole batch, not a device's shard or a micro-batch of it, and draws random numbers per image:
the result does not depend on the number of devices. At strength 0 it is the identity.

They are ours: dm-pix and augmax, the libraries in plain JAX, have neither mixing nor most of the operations of
TrivialAugment, and change all images of a batch by the same operation.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num, UInt8

from tljax.config import Data
from tljax.data.trivial_augment import blend, gray, trivial_augment

# image [n h w 3] or, for steps from activations, [n ...]; label int [n] or float [n, classes]; mask bool [n]. Rows with
# a false mask are padding.
Batch = dict[str, Array]
Images = Num[Array, "n h w 3"]
# (batch, key, number of classes) -> batch. An augmentation that mixes images returns labels [n, classes]. It must draw
# the pairs at random, because an image has the same place within its batch in all epochs (`batches.draw_order`).
Augmentation = Callable[[Batch, Key[Array, ""], int], Batch]

# (images, their rows in the split) -> images
View = Callable[[Images, Int[Array, " n"]], Images]

# Folded into the key of the seed, so that views draw other numbers than the order of the images and new weights.
VIEWS_KEY = 2**31 - 1
# Crops of random size are taken from images that are kept at this many times the side of the crops.
MARGIN = 1.15


def kept_side(side: int) -> int:
    """The side at which images are kept where crops of random size give images of the `side`."""
    return round(MARGIN * side)


def find_kept_side(config: Data, side: int) -> int:
    """The side at which training images are kept, to give images of the `side`."""
    return kept_side(side) if any(name == "crop" for name, _ in config.augmentations) else side


def flip(images: Images, key: Key[Array, ""], probability: float) -> Images:
    """Mirrors each image left to right with this `probability`."""
    flipped = jax.random.bernoulli(key, probability, (len(images), 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def shift(images: Images, key: Key[Array, ""], share: float) -> Images:
    """Shifts each image by up to this `share` of its side in both directions, reflecting at the border."""
    n, height, width, channels = images.shape
    margin = int(height * share)
    padded = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
    corners = jax.random.randint(key, (n, 2), 0, 2 * margin + 1)

    def cut_out(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(cut_out)(padded, corners)


def crop(images: Images, key: Key[Array, ""], share: float) -> Float[Array, "n side side 3"]:
    """Cuts out rectangles of random size and shape and enlarges them.

    Up to this `share` of the area is cut off; a rectangle is at most 4/3 as long as wide. `images` have the side
    `kept_side(side)`, and the results have the `side`. torchvision's `RandomResizedCrop` cuts from the whole picture,
    not from the square, and draws again where a rectangle is too long for its area; here such lengths are not drawn.
    """
    n, kept = images.shape[:2]
    area_key, ratio_key, row_key, column_key = jax.random.split(key, 4)
    area = jax.random.uniform(area_key, (n,), minval=1 - share, maxval=1.0)
    # A rectangle of a large area cannot be long.
    longest = jnp.minimum(math.log(4 / 3), -jnp.log(area))
    ratio = jnp.exp(longest * jax.random.uniform(ratio_key, (n,), minval=-1.0, maxval=1.0))
    sizes = [jnp.clip(jnp.round(kept * jnp.sqrt(a)), 1, kept) for a in (area * ratio, area / ratio)]
    starts = [
        jnp.floor(jax.random.uniform(k, (n,)) * (kept - size + 1))
        for k, size in zip((row_key, column_key), sizes, strict=True)
    ]
    return resize_crops(images, starts[0], starts[1], sizes[0], sizes[1], round(kept / MARGIN))


def resize_crops(
    images: Images,
    top: Float[Array, " n"],
    left: Float[Array, " n"],
    height: Float[Array, " n"],
    width: Float[Array, " n"],
    side: int,
) -> Float[Array, "n side side 3"]:
    """A rectangle of each image, resized to `side` with linear interpolation and antialiasing, as in torchvision's
    `resized_crop`."""
    rows = _weigh(top, height, images.shape[1], side)
    columns = _weigh(left, width, images.shape[2], side)
    halfway = jnp.einsum("nyh,nhwc->nywc", rows, images.astype(rows.dtype))
    return jnp.einsum("nxw,nywc->nyxc", columns, halfway)


def _weigh(start: Array, size: Array, pixels: int, side: int) -> Float[Array, "n side pixels"]:
    """How much each of the `pixels` counts in each of the `side` new ones."""
    start, size = (x.reshape(-1, 1, 1) for x in (start, size))
    scale = size / side
    middle = start + (jnp.arange(side, dtype=jnp.float32).reshape(1, -1, 1) + 0.5) * scale - 0.5
    place = jnp.arange(pixels, dtype=jnp.float32).reshape(1, 1, -1)
    near = jnp.maximum(1 - jnp.abs(place - middle) / jnp.maximum(scale, 1.0), 0.0)
    inside = jnp.where((place >= start) & (place < start + size), near, 0.0)
    return inside / jnp.sum(inside, axis=-1, keepdims=True)


def color(images: Images, key: Key[Array, ""], most: float) -> Float[Array, "n h w 3"]:
    """Changes brightness, contrast and saturation by factors of up to 1 - `most` to 1 + `most`, in this order; each as
    torchvision's `ColorJitter` does."""
    n, x = len(images), images.astype(jnp.float32)
    factors = jax.random.uniform(key, (3, n, 1, 1, 1), minval=1 - most, maxval=1 + most)
    x = jnp.clip(factors[0] * x, 0, 255)
    x = blend(x, jnp.mean(gray(x), axis=(1, 2, 3), keepdims=True), factors[1])
    return blend(x, gray(x), factors[2])


def erase(images: Images, key: Key[Array, ""], probability: float) -> Images:
    """Covers a rectangle of each image with its mean colour, with this `probability`.

    Area and shape are those of Zhong et al., "Random Erasing Data Augmentation" (arXiv:1708.04896), as in torchvision's
    `RandomErasing`: 2% to 33% of the image, 0.3 to 3.3 times as high as wide.
    """
    n, height, width, _ = images.shape
    chosen_key, area_key, ratio_key, place_key = jax.random.split(key, 4)
    area = jax.random.uniform(area_key, (n,), minval=0.02, maxval=0.33) * (height * width)
    ratio = jnp.exp(jax.random.uniform(ratio_key, (n,), minval=math.log(0.3), maxval=math.log(3.3)))
    rows = jnp.minimum(jnp.round(jnp.sqrt(area * ratio)), height)
    columns = jnp.minimum(jnp.round(jnp.sqrt(area / ratio)), width)
    places = jax.random.uniform(place_key, (2, n))
    top, left = jnp.floor(places[0] * (height - rows + 1)), jnp.floor(places[1] * (width - columns + 1))
    inside = _inside(height, top, top + rows).reshape(n, -1, 1, 1) & _inside(width, left, left + columns).reshape(
        n, 1, -1, 1
    )
    chosen = jax.random.bernoulli(chosen_key, probability, (n, 1, 1, 1))
    mean = jnp.mean(images, axis=(1, 2), keepdims=True, dtype=jnp.float32).astype(images.dtype)
    return jnp.where(chosen & inside, mean, images)


def _inside(length: int, start: Array, end: Array) -> Array:
    """Whether each of `length` places is from `start` on and before `end`, bool [n, length]."""
    place = jnp.arange(length, dtype=start.dtype).reshape(1, -1)
    return (place >= start.reshape(-1, 1)) & (place < end.reshape(-1, 1))


def draw_partners(mask: Array, key: Key[Array, ""]) -> Int[Array, " n"]:
    """Another row for each row that the `mask` counts, at random: the next one in a ring of all of them. A row alone in
    the ring, or not counted, gets itself."""
    n = len(mask)
    order = jnp.argsort(jnp.where(mask, jax.random.uniform(key, (n,)), 2.0))
    place = jnp.arange(n)
    following = jnp.where(place < jnp.sum(mask), order[(place + 1) % jnp.maximum(jnp.sum(mask), 1)], order)
    return jnp.zeros(n, order.dtype).at[order].set(following)


def mixup(batch: Batch, key: Key[Array, ""], alpha: float) -> Batch:
    """Adds to each image a part of another, and to its targets as much of the other's (Zhang et al.,
    arXiv:1710.09412). The share that stays is drawn from Beta(`alpha`, `alpha`)."""
    partner_key, share_key = jax.random.split(key)
    partner = draw_partners(batch["mask"], partner_key)
    share = _draw_share(share_key, alpha, len(partner))
    x, s = batch["image"].astype(jnp.float32), share.reshape(-1, 1, 1, 1)
    return batch | {"image": s * x + (1 - s) * x[partner], "label": _mix_targets(batch["label"], partner, share)}


def cutmix(batch: Batch, key: Key[Array, ""], alpha: float) -> Batch:
    """Replaces a rectangle of each image by that of another, and as much of its targets (Yun et al.,
    arXiv:1905.04899).

    The rectangle has the proportions of the image and a random centre; a share of the area drawn from Beta(`alpha`,
    `alpha`) lies outside of it. What of it lies beyond the border is left out. So the targets are mixed by the share of
    pixels that the image really keeps."""
    n, height, width, _ = batch["image"].shape
    partner_key, share_key, place_key = jax.random.split(key, 3)
    partner = draw_partners(batch["mask"], partner_key)
    side = jnp.sqrt(1 - _draw_share(share_key, alpha, n))
    middle = jax.random.uniform(place_key, (2, n))
    rows, columns = (
        _inside(length, jnp.round(length * (m - side / 2)), jnp.round(length * (m + side / 2)))
        for length, m in zip((height, width), middle, strict=True)
    )
    inside = rows.reshape(n, -1, 1) & columns.reshape(n, 1, -1)
    share = 1 - jnp.mean(inside, axis=(1, 2), dtype=jnp.float32)
    images = jnp.where(inside.reshape(*inside.shape, 1), batch["image"][partner], batch["image"])
    return batch | {"image": images, "label": _mix_targets(batch["label"], partner, share)}


def _draw_share(key: Key[Array, ""], alpha: float, n: int) -> Float[Array, " n"]:
    """What stays of each image. At 0 there is no such distribution, and all stays."""
    return jax.random.beta(key, alpha, alpha, (n,)) if alpha else jnp.ones(n)


def _mix_targets(targets: Array, partner: Array, share: Array) -> Float[Array, "n classes"]:
    return share.reshape(-1, 1) * targets + (1 - share.reshape(-1, 1)) * targets[partner]


# What `config.data.augment` names.
CHANGES: dict[str, Callable[[Images, Key[Array, ""], float], Images]] = {
    "flip": flip,
    "shift": shift,
    "crop": crop,
    "color": color,
    "trivial": trivial_augment,
    "erase": erase,
}
MIXES: dict[str, Callable[[Batch, Key[Array, ""], float], Batch]] = {"mixup": mixup, "cutmix": cutmix}


def make_view(named: tuple[tuple[str, float], ...], number: int, seed: int) -> View:
    """The function that makes view `number` of each image: a random variant that depends on `seed`, `number` and the
    image's row in its split alone. The first, number 0, is the image as it is; with crop all of it is resized to the
    side. Where `named` has flip, each second view is mirrored, so that two show all that flip can show."""
    if number == 0:
        named = tuple((name, 0.0) for name, _ in named if name == "crop")
    mirrored = number % 2 == 1 and any(name == "flip" for name, _ in named)
    others = compose(tuple(pair for pair in named if pair[0] != "flip"))

    def change(image: Array, key: Key[Array, ""]) -> Array:
        batch = {"image": image[None], "label": jnp.zeros(1, jnp.int32), "mask": jnp.ones(1, bool)}
        return others(batch, key, 1)["image"][0]

    def view(images: Images, rows: Int[Array, " n"]) -> Images:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), VIEWS_KEY), number)
        keys = jax.vmap(partial(jax.random.fold_in, key))(rows)
        return jax.vmap(change)(images[:, :, ::-1] if mirrored else images, keys)

    return view


class Draw(NamedTuple):
    """An augmentation, its strength, and the key of its draws."""

    name: str
    strength: float
    key: Key[Array, ""]


def compose(named: tuple[tuple[str, float], ...]) -> Augmentation:
    """One augmentation of these names and strengths. Images are changed in the order of the list and then mixed; of two
    ways to mix, each image draws one."""

    def augment(batch: Batch, key: Key[Array, ""], classes: int) -> Batch:
        # The keys of the first two are those of `jax.random.split`, as of old.
        draws = [Draw(*pair, jax.random.fold_in(key, i)) for i, pair in enumerate(named)]
        for name, strength, own in draws:
            if name in CHANGES:
                batch = batch | {"image": CHANGES[name](batch["image"], own, strength)}
        mixes = [draw for draw in draws if draw.name in MIXES]
        return _mix(batch, mixes, jax.random.fold_in(key, len(named)), classes) if mixes else batch

    return augment


def _mix(batch: Batch, draws: list[Draw], key: Key[Array, ""], classes: int) -> Batch:
    """The batch with targets [n, classes], mixed in the one way or, drawn for each image, in one of the two."""
    batch = batch | {"label": jax.nn.one_hot(batch["label"], classes, dtype=jnp.float32)}
    mixed, *others = [MIXES[name](batch, own, strength) for name, strength, own in draws]
    for other in others:
        chosen = jax.random.bernoulli(key, shape=(len(other["label"]),))
        image = jnp.where(
            chosen.reshape(-1, 1, 1, 1), other["image"].astype(jnp.float32), mixed["image"].astype(jnp.float32)
        )
        mixed = mixed | {"image": image, "label": jnp.where(chosen.reshape(-1, 1), other["label"], mixed["label"])}
    return mixed


def show_views(named: tuple[tuple[str, float], ...], count: int, seed: int) -> View:
    """The function that makes so many views of each image, [n count h w 3], as `make_view` does."""
    views = [make_view(named, number, seed) for number in range(count)]
    return lambda images, rows: jnp.stack([to_pixels(view(images, rows)) for view in views], axis=1)


def show_draws(named: tuple[tuple[str, float], ...], count: int, key: Key[Array, ""], classes: int) -> View:
    """The function that gives each image as it is, and as the first `count` steps of a run with this `key` would change
    it if the images were their batch: [n 1+count h w 3]."""
    as_it_is, augment = make_view(named, 0, 0), compose(named)

    def draw(images: Images, rows: Int[Array, " n"]) -> Images:
        batch = {"image": images, "label": jnp.zeros(len(rows), jnp.int32), "mask": jnp.ones(len(rows), bool)}

        def change(step: Array) -> Array:
            return to_pixels(augment(batch, jax.random.fold_in(key, step), classes)["image"])

        drawn = jnp.moveaxis(jax.lax.map(change, jnp.arange(count)), 0, 1)
        return jnp.concatenate([to_pixels(as_it_is(images, rows))[:, None], drawn], axis=1)

    return draw


def to_pixels(images: Images) -> UInt8[Array, "n h w 3"]:
    """Images as they can be shown."""
    return jnp.clip(jnp.round(images.astype(jnp.float32)), 0, 255).astype(jnp.uint8)
