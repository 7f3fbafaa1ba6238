"""TrivialAugment: each image is changed by one operation, drawn at random, with a random magnitude.

Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation" (arXiv:2103.10158), in the wide
range and with the operations as Pillow and torchvision (`TrivialAugmentWide`) define them, on whole numbers 0..255. Two
kinds differ: images are sheared about their centre, where torchvision shears about the upper left corner, and shifts
are rounded to the nearest pixel, where torchvision cuts off the fraction.
All images go through all operations, and each keeps the result of its own: on 32 pixels that is faster than a branch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num

# Pixels of whole numbers 0..255, kept as float32.
FloatImages = Float[Array, "n h w 3"]
Magnitude = Float[Array, " n"]

# Steps of the magnitude between nothing and the largest, as in torchvision.
MAGNITUDES = 31
# The largest magnitude of each operation, from torchvision's table: shares of an enhancement, and of a shear; pixels;
# degrees; bits that are left out; how far the threshold falls from 255.
ENHANCE, SHEAR, TRANSLATE, ROTATE, POSTERIZE, SOLARIZE = 0.99, 0.99, 32.0, 135.0, 6.0, 255.0


def trivial_augment(images: Num[Array, "n h w 3"], key: Key[Array, ""], share: float) -> FloatImages:
    """Changes each image, with probability `share`, by one operation. A sign is drawn where an operation has one."""
    n = len(images)
    choice_key, size_key, sign_key, share_key = jax.random.split(key, 4)
    choice = jax.random.randint(choice_key, (n,), 0, len(OPERATIONS))
    size = jax.random.randint(size_key, (n,), 0, MAGNITUDES).astype(jnp.float32) / (MAGNITUDES - 1)
    sign = jnp.where(jax.random.bernoulli(sign_key, shape=(n,)), 1.0, -1.0).astype(jnp.float32)
    changed = apply(jnp.round(images.astype(jnp.float32)), choice, size, sign)
    chosen = jax.random.bernoulli(share_key, share, (n,))
    return jnp.where(_wide(chosen), changed, images.astype(jnp.float32))


def apply(images: FloatImages, choice: Int[Array, " n"], size: Magnitude, sign: Magnitude) -> FloatImages:
    """Changes each image by the operation with the number `choice` (see `OPERATIONS`), at `size` 0..1 of its largest
    magnitude, in the direction `sign`."""
    moved = _transform(images, choice, size, sign)
    results = [operation(images, size, sign) for operation in _PIXELWISE]
    number = choice.reshape(-1, 1, 1, 1) - len(_MOVES)
    return jnp.select([number == i for i in range(len(results))], results, moved)


def _wide(x: Array) -> Array:
    return x.reshape(-1, 1, 1, 1)


def blend(images: FloatImages, other: Array, factor: Float[Array, "n 1 1 1"]) -> FloatImages:
    """`images`, whose difference from `other` is multiplied by `factor`."""
    return jnp.clip(factor * images + (1 - factor) * other, 0, 255)


def gray(images: FloatImages) -> Float[Array, "n h w 1"]:
    """The brightness of each pixel, by torchvision's `rgb_to_grayscale`."""
    weights = jnp.array([0.2989, 0.587, 0.114], images.dtype).reshape(1, 1, 1, 3)
    return jnp.sum(images * weights, axis=-1, keepdims=True)


def _enhance(images: FloatImages, other: Array, by: Magnitude) -> FloatImages:
    """`images`, whose difference from `other` grows by up to `ENHANCE`, in whole numbers."""
    return jnp.floor(blend(images, other, _wide(1 + ENHANCE * by)))


def identity(images: FloatImages, size: Magnitude, sign: Magnitude) -> FloatImages:
    return images


def brightness(images: FloatImages, size: Magnitude, sign: Magnitude) -> FloatImages:
    return _enhance(images, jnp.zeros_like(images), size * sign)


def color(images: FloatImages, size: Magnitude, sign: Magnitude) -> FloatImages:
    return _enhance(images, jnp.floor(gray(images)), size * sign)


def contrast(images: FloatImages, size: Magnitude, sign: Magnitude) -> FloatImages:
    mean = jnp.mean(jnp.floor(gray(images)), axis=(1, 2, 3), keepdims=True)
    return _enhance(images, mean, size * sign)


def sharpness(images: FloatImages, size: Magnitude, sign: Magnitude) -> FloatImages:
    """Blends with a smoothed image, whose border is that of the image."""
    _, h, w, _ = images.shape
    rows = sum(jnp.pad(images, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, i : i + h] for i in range(3))
    total = sum(jnp.pad(rows, ((0, 0), (0, 0), (1, 1), (0, 0)))[:, :, i : i + w] for i in range(3))
    smooth = jnp.round((total + 4 * images) / 13)
    inside = (jnp.arange(h) % (h - 1) > 0).reshape(1, h, 1, 1) & (jnp.arange(w) % (w - 1) > 0).reshape(1, 1, w, 1)
    return _enhance(images, jnp.where(inside, smooth, images), size * sign)


def posterize(images: FloatImages, size: Magnitude, sign: Magnitude) -> FloatImages:
    """Keeps the upper bits: from all eight down to two."""
    step = _wide(2 ** jnp.round(POSTERIZE * size))
    return jnp.floor(images / step) * step


def solarize(images: FloatImages, size: Magnitude, sign: Magnitude) -> FloatImages:
    """Inverts what reaches the threshold."""
    return jnp.where(images >= _wide(255 - SOLARIZE * size), 255 - images, images)


def autocontrast(images: FloatImages, size: Magnitude, sign: Magnitude) -> FloatImages:
    """Stretches each channel to 0..255."""
    low, high = (reduce(images, axis=(1, 2), keepdims=True) for reduce in (jnp.min, jnp.max))
    flat = high == low
    return jnp.where(flat, images, jnp.floor(jnp.clip((images - low) * (255 / jnp.where(flat, 1, high - low)), 0, 255)))


def equalize(images: FloatImages, size: Magnitude, sign: Magnitude) -> FloatImages:
    """Gives each channel a flat histogram, by Pillow's rule."""
    n, h, w, channels = images.shape
    flat = images.astype(jnp.int32).transpose(0, 3, 1, 2).reshape(n * channels, h * w)
    own = jnp.arange(n * channels).reshape(-1, 1)
    counts = jnp.zeros((n * channels, 256), jnp.int32).at[own, flat].add(1)
    # The pixels of the brightest value do not count, and the rest is dealt out to 255 steps.
    last = 255 - jnp.argmax(counts[:, ::-1] > 0, axis=1)
    step = (h * w - counts[own[:, 0], last]) // 255
    before = jnp.cumsum(counts, axis=1) - counts
    table = jnp.clip((before + step.reshape(-1, 1) // 2) // jnp.maximum(step, 1).reshape(-1, 1), 0, 255)
    found = jnp.where(step.reshape(-1, 1) == 0, flat, table[own, flat])
    return found.reshape(n, channels, h, w).transpose(0, 2, 3, 1).astype(images.dtype)


def _transform(images: FloatImages, choice: Int[Array, " n"], size: Magnitude, sign: Magnitude) -> FloatImages:
    """The images sheared, shifted or turned about their centre; what comes from outside is black, and each pixel is
    that whose centre is nearest."""
    n, h, w, channels = images.shape
    by = size * sign
    zero, one = jnp.zeros_like(by), jnp.ones_like(by)
    angle = jnp.deg2rad(ROTATE * by)
    # Where each place of the result comes from: x' = a x + b y + c, y' = d x + e y + f, about the centre.
    matrices = {
        "shear_x": (one, SHEAR * by, zero, zero, one, zero),
        "shear_y": (one, zero, zero, SHEAR * by, one, zero),
        "translate_x": (one, zero, TRANSLATE * by, zero, one, zero),
        "translate_y": (one, zero, zero, zero, one, TRANSLATE * by),
        "rotate": (jnp.cos(angle), jnp.sin(angle), zero, -jnp.sin(angle), jnp.cos(angle), zero),
    }
    columns = [jnp.stack([matrices[name][i] for name in _MOVES], axis=1) for i in range(6)]
    own = jnp.clip(choice, 0, len(_MOVES) - 1).reshape(-1, 1)
    a, b, c, d, e, f = (jnp.take_along_axis(column, own, axis=1).reshape(n, 1, 1) for column in columns)
    y = (jnp.arange(h, dtype=jnp.float32) - (h - 1) / 2).reshape(1, h, 1)
    x = (jnp.arange(w, dtype=jnp.float32) - (w - 1) / 2).reshape(1, 1, w)
    column = jnp.round(a * x + b * y + c + (w - 1) / 2).astype(jnp.int32)
    row = jnp.round(d * x + e * y + f + (h - 1) / 2).astype(jnp.int32)
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    place = jnp.clip(row, 0, h - 1) * w + jnp.clip(column, 0, w - 1)
    pixels = jnp.take_along_axis(images.reshape(n, h * w, channels), place.reshape(n, h * w, 1), axis=1)
    return jnp.where(inside.reshape(n, h, w, 1), pixels.reshape(images.shape), 0)


_MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_PIXELWISE = (identity, brightness, color, contrast, sharpness, posterize, solarize, autocontrast, equalize)
# The operations by their numbers.
OPERATIONS = (*_MOVES, *(operation.__name__ for operation in _PIXELWISE))
