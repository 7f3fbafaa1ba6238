"""Augmentation is a function of the key, changes each image by itself, and keeps labels, shape and dtype."""

from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.config import Data
from tljax.data.augmentation import AUGMENTATIONS

KEY = jax.random.key(0)


# Every pixel has a number of its own, which tells where it came from.
SIDE, MARGIN, N = 16, 2, 64
NUMBERED = np.arange(N * SIDE * SIDE * 3, dtype=np.int32).reshape(N, SIDE, SIDE, 3)


def augment(images, key, kind):
    """The augmented images of a batch; checks that labels and mask stay as they are."""
    batch = {"image": images, "label": jnp.arange(len(images)), "mask": jnp.ones(len(images), bool)}
    augmented = AUGMENTATIONS[kind](batch, key, len(images))
    assert augmented["label"] is batch["label"] and augmented["mask"] is batch["mask"]
    return augmented["image"]


def test_none_is_the_identity():
    images = jnp.asarray(NUMBERED)
    assert augment(images, KEY, "none") is images


def test_every_choice_of_the_config_is_a_row():
    assert set(AUGMENTATIONS) == set(get_args(get_type_hints(Data)["augment"]))


def test_flip_gives_the_image_or_its_mirror_and_both_occur():
    out = np.asarray(augment(jnp.asarray(NUMBERED), KEY, "flip"))
    same = (out == NUMBERED).all(axis=(1, 2, 3))
    mirrored = (out == NUMBERED[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 20 <= mirrored.sum() <= 44


def shifts(out: np.ndarray) -> list[tuple[bool, int, int]]:
    """For each image of `out`: whether it is mirrored, and its top left corner in the padded original.

    Fails if an image is not a shift of its own original.
    """
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
    # 64 images draw from 25 shifts. If a batch shared its shift, there would be only one.
    assert len({(i, j) for _, i, j in found}) > 15


@pytest.mark.parametrize("kind", list(AUGMENTATIONS))
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_augmentation_keeps_shape_and_type(kind, dtype):
    images = jnp.zeros((3, 32, 32, 3), dtype)
    out = augment(images, KEY, kind)
    assert (out.shape, out.dtype) == (images.shape, images.dtype)


@pytest.mark.parametrize("kind", [kind for kind in AUGMENTATIONS if kind != "none"])
def test_augmentation_is_a_function_of_the_key(kind):
    images = jnp.asarray(NUMBERED)
    one, again, other = (augment(images, key, kind) for key in (KEY, jax.random.key(0), jax.random.key(1)))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
