"""Each operation of TrivialAugment does what Pillow's does; what is drawn is the operation, its magnitude and sign."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tljax.data import trivial_augment as ta

SIDE, N = 24, 8


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Smooth pictures with some noise, and one of a single colour."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (N, 6, 6, 3), np.uint8)
    big = np.stack([np.asarray(Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for x in small])
    noisy = np.clip(big + rng.normal(0, 8, big.shape), 0, 255).astype(np.uint8)
    noisy[-1] = 77
    return noisy


def turn(image: Image.Image, matrix: list[float]) -> Image.Image:
    """Pillow's nearest-neighbour transform about the centre; its matrices count from the corner of a pixel."""
    a, b, c, d, e, f = matrix
    middle = SIDE / 2
    shifted = (a, b, c + middle - a * middle - b * middle, d, e, f + middle - d * middle - e * middle)
    return image.transform(image.size, Image.Transform.AFFINE, shifted, Image.Resampling.NEAREST)


def pillow(image: Image.Image, name: str, size: float, sign: float) -> Image.Image:
    by = size * sign
    factor = 1 + ta.ENHANCE * by
    cos, sin = np.cos(np.deg2rad(ta.ROTATE * by)), np.sin(np.deg2rad(ta.ROTATE * by))
    return {
        "shear_x": lambda: turn(image, [1, ta.SHEAR * by, 0, 0, 1, 0]),
        "shear_y": lambda: turn(image, [1, 0, 0, ta.SHEAR * by, 1, 0]),
        "translate_x": lambda: turn(image, [1, 0, round(ta.TRANSLATE * by), 0, 1, 0]),
        "translate_y": lambda: turn(image, [1, 0, 0, 0, 1, round(ta.TRANSLATE * by)]),
        "rotate": lambda: turn(image, [cos, sin, 0, -sin, cos, 0]),
        "identity": lambda: image,
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "color": lambda: ImageEnhance.Color(image).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(ta.POSTERIZE * size)),
        "solarize": lambda: ImageOps.solarize(image, 255 - ta.SOLARIZE * size),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }[name]()


@pytest.mark.parametrize("name", ta.OPERATIONS)
def test_each_operation_is_pillow_s(pictures, name):
    for size in (0.0, 1 / 6, 0.5, 1.0):
        for sign in (-1.0, 1.0):
            choice = jnp.full(N, ta.OPERATIONS.index(name))
            ours = ta.apply(
                jnp.asarray(pictures, jnp.float32),
                choice,
                jnp.full(N, size, jnp.float32),
                jnp.full(N, sign, jnp.float32),
            )
            theirs = np.stack([np.asarray(pillow(Image.fromarray(x), name, size, sign)) for x in pictures])
            difference = np.abs(np.asarray(ours) - theirs)
            # Rounding halves makes one level; turned by 135 degrees, some places lie between two pixels.
            assert (difference > 1).mean() < (0.03 if (name, size) == ("rotate", 1) else 1e-9), (size, sign)


def test_identity_operations_and_probability_0_change_nothing(pictures):
    images = jnp.asarray(pictures)
    np.testing.assert_array_equal(ta.trivial_augment(images, jax.random.key(0), 0.0), pictures)
    # Two have no size, and solarize always inverts the brightest value.
    for name in set(ta.OPERATIONS) - {"autocontrast", "equalize", "solarize"}:
        zero = jnp.zeros(N, jnp.float32)
        ours = ta.apply(images.astype(jnp.float32), jnp.full(N, ta.OPERATIONS.index(name)), zero, zero + 1)
        np.testing.assert_array_equal(ours, pictures, err_msg=name)


def test_each_image_draws_its_own_operation(pictures):
    """64 copies of one picture show most of the 14 operations in both directions."""
    copies = jnp.asarray(np.repeat(pictures[:1], 64, axis=0))
    out = np.asarray(ta.trivial_augment(copies, jax.random.key(0), 1.0))
    assert len({x.tobytes() for x in out}) > 40
    assert out.min() >= 0 and out.max() <= 255
    np.testing.assert_array_equal(out, np.round(out))
