"""Preprocessing and resizing against literal values, Keras, and a resize written another way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tljax.data.preprocessing import CAFFE, TORCH, Resizing, preprocess, resize

KEY = jax.random.key(0)
PIXEL = jnp.asarray([[[[10, 128, 250]]]], jnp.uint8)


def test_caffe_is_bgr_without_the_mean():
    np.testing.assert_allclose(preprocess(PIXEL, CAFFE)[0, 0, 0], [146.061, 11.221, -113.68], rtol=1e-6)


def test_torch_is_rgb_from_0_to_1_standardized():
    np.testing.assert_allclose(preprocess(PIXEL, TORCH)[0, 0, 0], [-1.946656, 0.205182, 2.552854], rtol=1e-5)


def test_caffe_is_the_preprocessing_of_keras():
    from keras.applications.resnet import preprocess_input

    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(preprocess(jnp.asarray(images), CAFFE), preprocess_input(images.copy()))


@pytest.mark.parametrize(
    ("given", "returned"),
    [(jnp.uint8, jnp.float32), (jnp.int32, jnp.float32), (jnp.float32, jnp.float32), (jnp.bfloat16, jnp.bfloat16)],
)
def test_floats_keep_their_type_and_integers_become_float32(given, returned):
    assert preprocess(PIXEL.astype(given), TORCH).dtype == returned
    assert resize(PIXEL.astype(given), 2).dtype == returned


def interpolate(rows: np.ndarray, size: int) -> np.ndarray:
    """Linear along axis 0 with half-pixel centres: output i looks at (i + 1/2) * n / size - 1/2."""
    n = len(rows)
    at = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    low = np.floor(at).astype(int)
    share = (at - low).reshape(-1, *[1] * (rows.ndim - 1))
    return rows[low] * (1 - share) + rows[np.minimum(low + 1, n - 1)] * share


def resize_by_hand(image: np.ndarray, size: int) -> np.ndarray:
    return interpolate(interpolate(image, size).swapaxes(0, 1), size).swapaxes(0, 1)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(5, 5, 9), (4, 4, 8), (7, 3, 5), (9, 9, 5), (1, 1, 3), (32, 32, 224)]
)
def test_resize_is_bilinear_with_half_pixel_centres_and_no_antialiasing(height, width, size):
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    expected = [resize_by_hand(image.astype(np.float64), size) for image in images]
    np.testing.assert_allclose(resize(jnp.asarray(images), size), expected, rtol=1e-5, atol=1e-3)


def test_resize_doubles_a_row_by_quarters():
    row = jnp.asarray([[0.0, 4.0]]).repeat(2, axis=0)[None, :, :, None].repeat(3, axis=3)
    np.testing.assert_array_equal(resize(row, 4)[0, :, :, 0], [[0, 1, 3, 4]] * 4)


def test_resize_to_the_same_size_keeps_the_bytes():
    same = resize(PIXEL.repeat(4, 1).repeat(4, 2), 4)
    assert same.dtype == jnp.uint8
    np.testing.assert_array_equal(same, np.broadcast_to([10, 128, 250], (1, 4, 4, 3)))


@pytest.mark.parametrize(
    ("side", "interpolation"), [(40, "bicubic"), (90, "bicubic"), (90, "bilinear"), (67, "bicubic")]
)
def test_timms_resizing_is_pillows(side, interpolation):
    """timm resizes to the floor of size / crop_pct with Pillow, then torchvision cuts out the centre."""
    # Pillow cuts off what overshoots after each of its two passes: with these values nothing does after the first.
    image = np.random.default_rng(0).integers(60, 200, (side, side, 3), np.uint8)
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    large = np.asarray(Image.fromarray(image).resize((67, 67), resample)).astype(np.float32)
    # torchvision's center_crop: int(round((67 - 64) / 2)).
    expected = large[2:66, 2:66]
    ours = np.asarray(resize(image[None], 64, Resizing(0.95, interpolation, antialias=True)))[0].astype(np.float32)
    assert ours.shape == (64, 64, 3)
    # Pillow rounds to whole grey levels, twice.
    assert np.abs(ours - expected).max() <= 1.5
