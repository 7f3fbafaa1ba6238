"""A training step moves exactly what stands from the cut on, and padding counts for nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax import partition, steps
from tljax.config import Adam
from tljax.optim import partitioned_adam
from tljax.preprocess import CAFFE
from tljax.resnet import VARIANTS, ResNet, fold

MODEL = ResNet(3, stage_sizes=(1, 1, 1, 1), width=8)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def variables():
    variables = jax.jit(MODEL.init)(KEY, np.zeros((1, 32, 32, 3), np.float32))
    # Statistics away from 0 and 1 and parameters away from 0, -0.0 among them: nothing is equal by chance.
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: x + rng.uniform(0, 0.1, x.shape).astype(np.float32), variables)
    bias = variables["params"]["conv1"]["bn"]["bias"]
    variables["params"]["conv1"]["bn"]["bias"] = bias.at[0].set(-0.0)
    return variables


def make_batch(n: int = 6, seed: int = 0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
    return {"image": images, "label": np.arange(n, dtype=np.int32) % 3, "mask": np.ones(n, bool)}


def make_step(cut: str, *, train_batch_norm: bool = False, embed=None):
    tx = partitioned_adam(Adam(learning_rate=1e-2), cut)
    embed = embed or partial(steps.embed_images, model=MODEL, cut=cut, preprocessing=CAFFE)
    step = partial(steps.train_step, model=MODEL, tx=tx, cut=cut, embed=embed, train_batch_norm=train_batch_norm)
    return tx, jax.jit(step)


@pytest.mark.parametrize("train_batch_norm", [False, True])
@pytest.mark.parametrize("cut", ["conv1", "conv4_block1", "conv5_block1", "head"])
def test_exactly_the_units_from_the_cut_on_move(variables, cut, train_batch_norm):
    tx, step = make_step(cut, train_batch_norm=train_batch_norm)
    state = steps.create_state(**variables, tx=tx, cut=cut)
    before = partition.digest(**variables, cut=cut)
    new = state
    for _ in range(2):
        new, _ = step(new, make_batch(), KEY)
    assert int(new.step) == 2
    assert partition.verify_frozen(before, partition.digest(new.params, new.batch_stats, cut)) == len(before)
    for unit in MODEL.units:
        moves = not partition.is_frozen(unit, cut)
        old = partition.flatten(state.params[unit])
        moved = {path for path, leaf in partition.flatten(new.params[unit]).items() if jnp.any(leaf != old[path])}
        still = {path for path in old if train_batch_norm and path.endswith("conv/bias")}
        if train_batch_norm and cut in ("conv1", "conv4_block1"):
            # Behind several small BatchNorms two more gradients are lost in rounding.
            assert moved.isdisjoint(still) and bool(moved) == moves, unit
        else:
            assert moved == (old.keys() - still if moves else set()), unit
        for a, b in zip(*(jax.tree.leaves(s.batch_stats.get(unit, {})) for s in (state, new)), strict=True):
            assert bool(jnp.any(a != b)) == (moves and train_batch_norm), unit


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_padding_changes_nothing(variables, train_batch_norm):
    tx, step = make_step("conv1", train_batch_norm=train_batch_norm)
    state = steps.create_state(**variables, tx=tx, cut="conv1")
    batch = make_batch(4)
    padded = {
        "image": np.concatenate([batch["image"], make_batch(2, seed=9)["image"]]),
        "label": np.concatenate([batch["label"], np.zeros(2, np.int32)]),
        "mask": np.array([True] * 4 + [False] * 2),
    }
    (plain, sums), (other, padded_sums) = step(state, batch, KEY), step(state, padded, KEY)
    assert float(padded_sums.examples) == 4
    np.testing.assert_allclose(float(padded_sums.loss), float(sums.loss), rtol=1e-5)
    for a, b in zip(jax.tree.leaves(plain.batch_stats), jax.tree.leaves(other.batch_stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    heads = [s.params["head"]["kernel"] for s in (plain, other)]
    np.testing.assert_allclose(*heads, rtol=1e-3, atol=1e-5)


def test_activations_can_take_the_place_of_images(variables):
    """What a frozen prefix gives can be computed once and fed instead of the images."""
    cut, batch = "conv5_block1", make_batch()
    frozen = {k: partition.split(tree, cut)[0] for k, tree in variables.items()}
    h = steps.embed_images(frozen, batch["image"], KEY, model=MODEL, cut=cut, preprocessing=CAFFE)
    tx, from_images = make_step(cut)
    _, from_activations = make_step(cut, embed=lambda frozen, h, key: h)
    state = steps.create_state(**variables, tx=tx, cut=cut)
    (_, a), (_, b) = from_images(state, batch, KEY), from_activations(state, batch | {"image": h}, KEY)
    np.testing.assert_allclose(float(a.loss), float(b.loss), rtol=1e-6)


def test_evaluation_is_in_inference_mode_and_predicts(variables):
    tx = partitioned_adam(Adam(), "head")
    state = steps.create_state(**variables, tx=tx, cut="head")
    embed = partial(steps.embed_images, model=MODEL, cut="head", preprocessing=CAFFE)
    run = jax.jit(partial(steps.eval_step, model=MODEL, cut="head", embed=embed))
    batch = make_batch(6)
    sums, predicted = run(state, batch, KEY)
    one = {name: array[:1] for name, array in batch.items()}
    first, first_predicted = run(state, one, KEY)
    assert int(predicted[0]) == int(first_predicted[0])
    assert float(sums.correct) == np.sum(np.asarray(predicted) == batch["label"])
    assert float(first.loss) < float(sums.loss)


def test_augmentation_follows_the_key_and_the_step(variables):
    cut = "head"
    tx, step = make_step(
        cut, embed=partial(steps.embed_images, model=MODEL, cut=cut, preprocessing=CAFFE, augmentation="flip_crop")
    )
    state = steps.create_state(**variables, tx=tx, cut=cut)
    losses = {
        (seed, number): float(step(state._replace(step=jnp.int32(number)), make_batch(), jax.random.key(seed))[1].loss)
        for seed in (0, 1)
        for number in (0, 1)
    }
    assert len(set(losses.values())) == 4
    assert losses[0, 0] == float(step(state, make_batch(), jax.random.key(0))[1].loss)


def test_the_stride_of_v1_5_sits_on_the_3x3():
    for variant, kernel in (("v1", "1_conv"), ("v1.5", "2_conv")):
        model = ResNet(3, VARIANTS[variant], stage_sizes=(1, 1), width=8)
        run = partial(model.init_with_output, capture_intermediates=True)
        _, seen = jax.eval_shape(run, KEY, jnp.zeros((1, 32, 32, 3)))
        sides = {k: v["__call__"][0].shape[1] for k, v in seen["intermediates"]["conv3_block1"].items() if "conv" in k}
        assert sides == {"0_conv": 4, "1_conv": 4 if kernel == "1_conv" else 8, "2_conv": 4, "3_conv": 4}


@pytest.fixture(scope="module")
def deep():
    """As deep as ResNet50, an eighth as wide, its vectors away from 0 and 1."""
    variables = jax.jit(ResNet(10, width=8).init)(KEY, np.zeros((1, 32, 32, 3), np.float32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + rng.uniform(0, 0.1, x.shape).astype(x.dtype) if x.ndim == 1 else x, variables)


def test_bfloat16_stays_near_float32(deep):
    """Features within 2% (the norm of the difference), the same classes, both in float32."""
    images = make_batch(16)["image"]
    found = {}
    for dtype in (None, jnp.bfloat16):
        model = ResNet(10, width=8, dtype=dtype)
        folded = jax.jit(partial(fold, model))(deep)
        run = jax.jit(partial(steps.run_prefix, model=model, cut="head", preprocessing=CAFFE))
        classify = jax.jit(partial(steps.classify, model=model, preprocessing=CAFFE, size=32))
        features, (probabilities, losses) = run(folded, images), classify(folded, images, np.zeros(16, np.int32))
        assert features.dtype == probabilities.dtype == losses.dtype == jnp.float32
        found[dtype] = np.asarray(features), np.asarray(probabilities)
    (h, p), (other_h, other_p) = found.values()
    assert 1e-4 < np.linalg.norm(other_h - h) / np.linalg.norm(h) < 0.02
    np.testing.assert_array_equal(other_p.argmax(1), p.argmax(1))
    # At a cut between blocks the activations take half the bytes.
    prefix = partial(steps.run_prefix, model=model, cut="conv5_block1", preprocessing=CAFFE)
    assert jax.eval_shape(prefix, folded, images).dtype == jnp.bfloat16


def test_evaluation_sees_the_features_that_training_sees(deep):
    """The averages are float32 where the blocks are not."""
    model, tx = ResNet(10, width=8, dtype=jnp.bfloat16), partitioned_adam(Adam(), "head")
    settings = {"model": model, "cut": "head", "embed": steps.pass_activations}
    state = steps.create_state(**deep, tx=tx, cut="head")
    averages = np.random.default_rng(0).uniform(0, 1, (6, 256)).astype(np.float32)
    batch = make_batch() | {"image": averages}
    _, trained = jax.jit(partial(steps.train_step, tx=tx, train_batch_norm=False, **settings))(state, batch, KEY)
    evaluated, _ = jax.jit(partial(steps.eval_step, **settings))(state, batch, KEY)
    np.testing.assert_allclose(float(evaluated.loss), float(trained.loss), rtol=1e-6)


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_bfloat16_trains_parameters_of_float32(variables, train_batch_norm):
    losses, cut = {}, "conv4_block1"
    for dtype in (None, jnp.bfloat16):
        model, tx = MODEL.clone(dtype=dtype), partitioned_adam(Adam(), cut)
        embed = partial(steps.embed_images, model=model, cut=cut, preprocessing=CAFFE)
        settings = {"model": model, "tx": tx, "cut": cut, "embed": embed, "train_batch_norm": train_batch_norm}
        step, state = (
            jax.jit(partial(steps.train_step, **settings)),
            steps.create_state(**variables, tx=tx, cut=cut),
        )
        losses[dtype] = []
        for _ in range(3):
            state, sums = step(state, make_batch(), KEY)
            losses[dtype].append(float(sums.loss))
        assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.batch_stats))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(losses[jnp.bfloat16], losses[None], rtol=0.03)
    assert losses[jnp.bfloat16] != losses[None]
