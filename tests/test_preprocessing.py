"""Pixels in, the network's numbers out: against literal values, Keras, and a resize written another way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.data.augmentation import augment
from tljax.data.preprocessing import CAFFE, TORCH, preprocess, resize

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


# Every pixel has a number of its own, so that where it came from can be read off it.
SIDE, MARGIN, N = 16, 2, 64
NUMBERED = np.arange(N * SIDE * SIDE * 3, dtype=np.int32).reshape(N, SIDE, SIDE, 3)


def test_none_is_the_identity():
    images = jnp.asarray(NUMBERED)
    assert augment(images, KEY, "none") is images


def test_flip_gives_the_image_or_its_mirror_and_both_occur():
    out = np.asarray(augment(jnp.asarray(NUMBERED), KEY, "flip"))
    same = (out == NUMBERED).all(axis=(1, 2, 3))
    mirrored = (out == NUMBERED[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 20 <= mirrored.sum() <= 44


def shifts(out: np.ndarray) -> list[tuple[bool, int, int]]:
    """Mirrored or not, and the corner of the cut, for each image; fails where an image is no shift of its own."""
    found = []
    for image, result in zip(NUMBERED, out, strict=True):
        matches = []
        for mirror in (False, True):
            padded = np.pad(
                image[:, ::-1] if mirror else image, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), "reflect"
            )
            for i in range(2 * MARGIN + 1):
                for j in range(2 * MARGIN + 1):
                    if np.array_equal(padded[i : i + SIDE, j : j + SIDE], result):
                        matches.append((mirror, i, j))
        assert len(matches) == 1
        found += matches
    return found


def test_flip_crop_shifts_each_image_by_itself_and_reaches_every_shift():
    found = shifts(np.asarray(augment(jnp.asarray(NUMBERED), KEY, "flip_crop")))
    assert {mirror for mirror, _, _ in found} == {False, True}
    assert {i for _, i, _ in found} == {j for _, _, j in found} == set(range(2 * MARGIN + 1))
    assert any(i != j for _, i, j in found)
    # 64 images fall into 25 shifts: were the shift shared, there would be one.
    assert len({(i, j) for _, i, j in found}) > 15


@pytest.mark.parametrize("kind", ["none", "flip", "flip_crop"])
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_augmentation_keeps_shape_and_type(kind, dtype):
    images = jnp.zeros((3, 32, 32, 3), dtype)
    out = augment(images, KEY, kind)
    assert (out.shape, out.dtype) == (images.shape, images.dtype)


@pytest.mark.parametrize("kind", ["flip", "flip_crop"])
def test_augmentation_is_a_function_of_the_key(kind):
    images = jnp.asarray(NUMBERED)
    one, again, other = (augment(images, key, kind) for key in (KEY, jax.random.key(0), jax.random.key(1)))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
