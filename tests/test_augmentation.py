"""Augmentation is a function of the key, changes each image by itself, and leaves labels and mask unless it mixes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tljax.config import AUGMENTATIONS
from tljax.data import augmentation
from tljax.data.augmentation import CHANGES, MIXES, compose, draw_partners, kept_side, resize_crops

KEY = jax.random.key(0)


# Every pixel has a number of its own, which tells where it came from.
SIDE, MARGIN, N = 16, 2, 64
NUMBERED = np.arange(N * SIDE * SIDE * 3, dtype=np.int32).reshape(N, SIDE, SIDE, 3)
STRONGEST = {"flip": 1.0, "shift": 0.125, "crop": 0.9, "color": 0.9, "trivial": 1.0, "erase": 1.0}
MIXED = {"mixup": 0.4, "cutmix": 1.0}


def make_batch(images, classes=N, mask=None):
    mask = jnp.ones(len(images), bool) if mask is None else jnp.asarray(mask)
    return {"image": jnp.asarray(images), "label": jnp.arange(len(images)) % classes, "mask": mask}


def augment(images, key, *named):
    """The augmented images of a batch; checks that labels and mask stay as they are."""
    batch = make_batch(images)
    augmented = compose(named)(batch, key, len(images))
    assert augmented["label"] is batch["label"] and augmented["mask"] is batch["mask"]
    return augmented["image"]


def draw_pictures(n=N, side=SIDE):
    return np.random.default_rng(1).integers(0, 256, (n, side, side, 3), np.uint8)


def test_none_is_the_identity():
    images = jnp.asarray(NUMBERED)
    assert augment(images, KEY) is images


def test_every_name_of_the_config_is_a_function():
    assert set(AUGMENTATIONS) == {*CHANGES, *MIXES}


def test_flip_gives_the_image_or_its_mirror_and_both_occur():
    out = np.asarray(augment(NUMBERED, KEY, ("flip", 0.5)))
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


def test_flip_and_shift_move_each_image_by_itself_and_reach_every_shift():
    found = shifts(np.asarray(augment(NUMBERED, KEY, ("flip", 0.5), ("shift", 0.125))))
    assert {mirror for mirror, _, _ in found} == {False, True}
    assert {i for _, i, _ in found} == {j for _, _, j in found} == set(range(2 * MARGIN + 1))
    assert any(i != j for _, i, j in found)
    # 64 images draw from 25 shifts. If a batch shared its shift, there would be only one.
    assert len({(i, j) for _, i, j in found}) > 15


def test_flip_and_shift_draw_what_runs_of_version_0_1_0_drew():
    """Theirs was one function, which split the key of the step."""
    flip_key, shift_key = jax.random.split(KEY)
    flipped = jax.random.bernoulli(flip_key, shape=(N, 1, 1, 1))
    corners = np.asarray(jax.random.randint(shift_key, (N, 2), 0, 2 * MARGIN + 1))
    found = shifts(np.asarray(augment(NUMBERED, KEY, ("flip", 0.5), ("shift", 0.125))))
    assert [mirror for mirror, _, _ in found] == np.asarray(flipped).ravel().tolist()
    assert [[i, j] for _, i, j in found] == corners.tolist()


@pytest.mark.parametrize("name", [name for name in STRONGEST if name not in ("flip", "shift")])
def test_strength_0_changes_nothing(name):
    pictures = draw_pictures(side=kept_side(SIDE))
    out = np.asarray(augment(pictures, KEY, (name, 0.0)))
    if name == "crop":
        whole = [Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for x in pictures]
        np.testing.assert_allclose(out, np.stack([np.asarray(x) for x in whole]), atol=1.01)
    else:
        np.testing.assert_allclose(out, pictures, atol=1e-4)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_of_strength_0_changes_nothing(name):
    batch = {"image": draw_pictures(), "label": jnp.arange(N) % 3, "mask": jnp.ones(N, bool)}
    mixed = compose(((name, 0.0),))(batch, KEY, 3)
    np.testing.assert_array_equal(mixed["image"], batch["image"])
    np.testing.assert_array_equal(mixed["label"], jax.nn.one_hot(batch["label"], 3))


@pytest.mark.parametrize("name", STRONGEST)
def test_each_image_is_changed_by_itself_and_stays_in_range(name):
    side = kept_side(SIDE) if name == "crop" else SIDE
    copies = np.repeat(draw_pictures(1, side), N, axis=0)
    out = np.asarray(augment(copies, KEY, (name, 0.5 if name in ("flip", "erase") else STRONGEST[name])))
    assert out.shape == (N, SIDE, SIDE, 3) and out.min() >= 0 and out.max() <= 255
    assert len({x.tobytes() for x in out}) >= (2 if name == "flip" else 20)
    # A row's result does not depend on what is in the other rows.
    others = copies.copy()
    others[1:] = draw_pictures(N - 1, side)
    again = augment(others, KEY, (name, 0.5 if name in ("flip", "erase") else STRONGEST[name]))
    np.testing.assert_array_equal(np.asarray(again)[0], out[0])


@pytest.mark.parametrize("name", [*STRONGEST, *MIXED])
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_augmentation_is_a_function_of_the_key_for_both_types(name, dtype):
    images = jnp.asarray(draw_pictures(side=kept_side(SIDE)), dtype)
    function = compose(((name, (STRONGEST | MIXED | {"flip": 0.5})[name]),))
    one, again, other = (
        function(make_batch(images), key, N)["image"] for key in (KEY, jax.random.key(0), jax.random.key(1))
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.dtype == (dtype if name in ("flip", "shift", "erase", "cutmix") else jnp.float32)


def test_crops_are_resized_as_pillow_does():
    pictures = draw_pictures(4, 24)
    boxes = np.array([[0, 0, 24, 24], [3, 5, 10, 19], [10, 0, 14, 3], [7, 7, 4, 4]], np.float32)
    ours = resize_crops(jnp.asarray(pictures), *jnp.asarray(boxes.T), SIDE)
    theirs = [
        np.asarray(
            Image.fromarray(x)
            .crop((left, top, left + width, top + height))
            .resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        )
        for x, (top, left, height, width) in zip(pictures, boxes, strict=True)
    ]
    np.testing.assert_allclose(ours, np.stack(theirs), atol=1.01)


def test_crops_have_all_sizes_and_shapes_and_lie_inside():
    """Each pixel holds its row and column, so that an image shows the rectangle that it comes from."""
    kept = kept_side(64)
    grid = np.stack([*np.meshgrid(np.arange(kept), np.arange(kept), indexing="ij"), np.zeros((kept, kept))], axis=-1)
    out = np.asarray(augment(np.repeat(grid[None].astype(np.float32), 500, axis=0), KEY, ("crop", 0.75)))
    height, width = (out[:, -1, -1, i] - out[:, 0, 0, i] for i in (0, 1))
    area, ratio = height * width / kept**2, height / width
    assert 0.2 < area.min() < 0.3 and 0.9 < area.max() <= 1
    assert 0.7 < ratio.min() < 0.85 and 1.2 < ratio.max() < 1.45
    assert abs(np.log(ratio).mean()) < 0.03 and 0.55 < area.mean() < 0.65
    assert out[..., :2].min() >= 0 and out[..., :2].max() <= kept - 1 + 1e-3


def test_erased_rectangles_have_the_paper_s_size_and_the_mean_colour():
    pictures = np.random.default_rng(0).uniform(0, 255, (400, 32, 32, 3)).astype(np.float32)
    out = np.asarray(augment(pictures, KEY, ("erase", 0.25)))
    erased = (out != pictures).all(axis=-1)
    share = erased.mean(axis=(1, 2))
    assert 0.18 < (share > 0).mean() < 0.32
    assert share[share > 0].min() > 0.01 and share.max() < 0.37
    for i in np.flatnonzero(share)[:20]:
        rows, columns = np.flatnonzero(erased[i].any(axis=1)), np.flatnonzero(erased[i].any(axis=0))
        assert erased[i].sum() == len(rows) * len(columns), "it is a rectangle"
        np.testing.assert_allclose(
            out[i][erased[i]], pictures[i].mean(axis=(0, 1))[None].repeat(erased[i].sum(), 0), 1e-5
        )


def test_factors_of_colour_are_those_of_torchvision():
    """Brightness, contrast and saturation by its formulas, in NumPy."""
    picture = draw_pictures(1, 8).astype(np.float32)
    factors = np.asarray(jax.random.uniform(jax.random.fold_in(KEY, 0), (3, 1, 1, 1, 1), minval=0.2, maxval=1.8))
    gray = lambda x: (x @ np.array([0.2989, 0.587, 0.114], np.float32))[..., None]  # noqa: E731
    blend = lambda x, other, f: np.clip(f * x + (1 - f) * other, 0, 255)  # noqa: E731
    expected = np.clip(factors[0] * picture, 0, 255)
    expected = blend(expected, gray(expected).mean(), factors[1])
    expected = blend(expected, gray(expected), factors[2])
    np.testing.assert_allclose(augment(picture, KEY, ("color", 0.8)), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("valid", [0, 1, 2, 7, N])
def test_partners_are_other_rows_that_the_mask_counts(valid):
    mask = np.random.default_rng(0).permutation(N) < valid
    partner = np.asarray(draw_partners(jnp.asarray(mask), KEY))
    assert sorted(partner) == list(range(N))
    np.testing.assert_array_equal(partner[~mask], np.flatnonzero(~mask))
    assert mask[partner[mask]].all()
    assert valid < 2 or (partner[mask] != np.flatnonzero(mask)).all()
    assert valid < 7 or not np.array_equal(partner, draw_partners(jnp.asarray(mask), jax.random.key(1)))


@pytest.mark.parametrize("named", [("mixup",), ("cutmix",), ("mixup", "cutmix")])
def test_targets_say_how_much_of_each_image_there_is(named):
    """Each image has a colour of its own, its number: what is in a mixed image can be counted."""
    images = np.broadcast_to(np.arange(N, dtype=np.float32).reshape(N, 1, 1, 1), (N, 32, 32, 3))
    mask = np.arange(N) < N - 5
    out = compose(tuple((name, MIXED[name]) for name in named))(make_batch(images, mask=mask), KEY, N)
    image, label = np.asarray(out["image"]), np.asarray(out["label"])
    np.testing.assert_allclose(label.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(label[~mask], np.eye(N)[~mask])
    np.testing.assert_allclose(label @ np.arange(N), image.mean(axis=(1, 2, 3)), rtol=1e-4)
    assert ((label > 0).sum(axis=1) <= 2).all() and (np.diag(label)[mask] < 0.99).mean() > 0.5
    assert label[:, ~mask][mask].sum() == 0
    pasted = np.array([len(np.unique(x)) > 1 for x in image])
    assert pasted.any() == ("cutmix" in named) and (len(named) == 1 or 10 < pasted.sum() < 50)


@pytest.mark.parametrize("name", list(MIXED))
def test_mixing_is_keras_s(name):
    """With the same partners and the same share or mask, which are read off the pictures of colour numbers."""
    from keras.layers import CutMix, MixUp

    numbers = np.broadcast_to(np.arange(N, dtype=np.float32).reshape(N, 1, 1, 1), (N, SIDE, SIDE, 3))
    mix = compose(((name, MIXED[name]),))
    told = np.asarray(mix(make_batch(numbers), KEY, N)["label"])
    own, others = np.diag(told), told - np.diag(np.diag(told))
    partner = np.where(others.any(axis=1), others.argmax(axis=1), np.arange(N))
    drawn = {"permutation_order": partner, "mix_weight": own}
    if name == "cutmix":
        drawn["batch_masks"] = np.asarray(mix(make_batch(numbers), KEY, N)["image"]) != numbers
    layer = {"mixup": MixUp, "cutmix": CutMix}[name]()
    ours, pictures = mix(make_batch(draw_pictures()), KEY, N), draw_pictures().astype(np.float32)
    np.testing.assert_allclose(ours["image"], layer.transform_images(pictures, drawn), rtol=1e-4, atol=1e-3)
    targets = layer.transform_labels(np.eye(N, dtype=np.float32), drawn)
    np.testing.assert_allclose(ours["label"], targets, atol=1e-6)
    assert (partner != np.arange(N)).mean() > 0.9


def test_mixup_of_0_2_leaves_most_images_nearly_whole():
    """Beta(0.2, 0.2) has half of its weight within 0.03 of 0 and 1: SciPy gives 0.455."""
    out = compose((("mixup", 0.2),))(make_batch(np.zeros((4096, 1, 1, 3), np.float32), 2), KEY, 2)
    share = np.asarray(out["label"])[np.arange(4096), np.arange(4096) % 2]
    mixed = share[(share > 0)]
    assert 0.2 < ((mixed > 0.03) & (mixed < 0.97)).mean() < 0.6


def test_a_list_is_applied_in_its_order():
    pictures = draw_pictures()
    both = augment(pictures, KEY, ("flip", 0.5), ("erase", 0.5))
    flipped = augmentation.flip(jnp.asarray(pictures), jax.random.fold_in(KEY, 0), 0.5)
    np.testing.assert_array_equal(both, augmentation.erase(flipped, jax.random.fold_in(KEY, 1), 0.5))
