"""A training step changes exactly the units from the cut on, and padding counts for nothing."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import NARROW, TINY

from tljax import trees
from tljax.config import Data, Optimizer
from tljax.data.augmentation import compose
from tljax.data.preprocessing import CAFFE
from tljax.networks.architectures import VARIANTS, Architecture
from tljax.networks.cut import Cut, verify_frozen
from tljax.networks.resnet import ResNet, fold
from tljax.training import inference, steps
from tljax.training.optimizers import make_optimization
from tljax.training.state import create_state

MODEL = ResNet(3, architecture=TINY)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def variables():
    variables = jax.jit(MODEL.init)(KEY, np.zeros((1, 32, 32, 3), np.float32))
    # Statistics are away from 0 and 1, parameters away from 0, so that nothing is equal by chance. One bias is -0.0.
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: x + rng.uniform(0, 0.1, x.shape).astype(np.float32), variables)
    bias = variables["params"]["conv1"]["bn"]["bias"]
    variables["params"]["conv1"]["bn"]["bias"] = bias.at[0].set(-0.0)
    return variables


def make_batch(n: int = 6, seed: int = 0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
    return {"image": images, "label": np.arange(n, dtype=np.int32) % 3, "mask": np.ones(n, bool)}


def make_procedure(start: str, model=MODEL, augmentation="none", learning_rate=1e-2, **settings) -> steps.Procedure:
    cut = Cut(model.units, start)
    tx, _ = make_optimization(Optimizer(learning_rate=learning_rate), cut, 1, 1)
    embed = partial(steps.embed_images, model=model, cut=cut, preprocessing=CAFFE)
    augment = partial(compose(Data(augment=augmentation).augmentations), classes=model.num_classes)
    defaults = {"augment": augment, "embed": embed, "train_batch_norm": False}
    return steps.Procedure(**{"model": model, "cut": cut, "tx": tx} | defaults | settings)


@cache
def make_step(start: str, **settings):
    """A function from variables to the state before the first step, and the jitted training step."""
    procedure = make_procedure(start, **settings)
    step = jax.jit(partial(steps.train_step, procedure=procedure))
    return partial(create_state, tx=procedure.tx, cut=procedure.cut), step


@pytest.mark.parametrize("train_batch_norm", [False, True])
@pytest.mark.parametrize(
    "start", ["conv1", pytest.param("conv4_block1", marks=pytest.mark.long), "conv5_block1", "head"]
)
def test_exactly_the_units_from_the_cut_on_move(variables, start, train_batch_norm):
    create, step = make_step(start, train_batch_norm=train_batch_norm)
    state, cut = create(variables), Cut(MODEL.units, start)
    before = cut.digest(variables)
    new = state
    for _ in range(2):
        new, _ = step(new, make_batch(), KEY)
    assert int(new.step) == 2
    assert verify_frozen(before, cut.digest(new.variables)) == len(before)
    for unit in MODEL.units:
        moves = not cut.freezes(unit)
        old = trees.flatten(state.variables["params"][unit])
        moved = {
            path for path, leaf in trees.flatten(new.variables["params"][unit]).items() if jnp.any(leaf != old[path])
        }
        still = {path for path in old if train_batch_norm and path.endswith("conv/bias")}
        if train_batch_norm and start in ("conv1", "conv4_block1"):
            # Behind several small BatchNorms, rounding makes two more gradients vanish.
            assert moved.isdisjoint(still) and bool(moved) == moves, unit
        else:
            assert moved == (old.keys() - still if moves else set()), unit
        for a, b in zip(
            *(jax.tree.leaves(s.variables["batch_stats"].get(unit, {})) for s in (state, new)), strict=True
        ):
            assert bool(jnp.any(a != b)) == (moves and train_batch_norm), unit


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_padding_changes_nothing(variables, train_batch_norm):
    create, step = make_step("conv1", train_batch_norm=train_batch_norm)
    state = create(variables)
    batch = make_batch(4)
    padded = {
        "image": np.concatenate([batch["image"], make_batch(2, seed=9)["image"]]),
        "label": np.concatenate([batch["label"], np.zeros(2, np.int32)]),
        "mask": np.array([True] * 4 + [False] * 2),
    }
    (plain, sums), (other, padded_sums) = step(state, batch, KEY), step(state, padded, KEY)
    assert float(padded_sums.examples) == 4
    np.testing.assert_allclose(float(padded_sums.loss), float(sums.loss), rtol=1e-5)
    for a, b in zip(*(jax.tree.leaves(s.variables["batch_stats"]) for s in (plain, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    heads = [s.variables["params"]["head"]["kernel"] for s in (plain, other)]
    np.testing.assert_allclose(*heads, rtol=1e-3, atol=1e-5)


def test_activations_can_take_the_place_of_images(variables):
    """The activations at the cut can be computed once and fed instead of the images."""
    cut, batch = Cut(MODEL.units, "conv5_block1"), make_batch()
    h = steps.embed_images(cut.split(variables)[0], batch["image"], model=MODEL, cut=cut, preprocessing=CAFFE)
    create, from_images = make_step("conv5_block1")
    _, from_activations = make_step("conv5_block1", embed=steps.pass_activations)
    state = create(variables)
    (_, a), (_, b) = from_images(state, batch, KEY), from_activations(state, batch | {"image": h}, KEY)
    np.testing.assert_allclose(float(a.loss), float(b.loss), rtol=1e-6)


def test_evaluation_is_in_inference_mode_and_predicts(variables):
    procedure = make_procedure("head")
    state = create_state(variables, procedure.tx, procedure.cut)
    run = jax.jit(partial(steps.eval_step, procedure=procedure))
    batch = make_batch(6)
    sums, logits = jax.tree.map(np.asarray, run(state, batch))
    one = {name: array[:1] for name, array in batch.items()}
    first, first_logits = jax.tree.map(np.asarray, run(state, one))
    np.testing.assert_allclose(logits[0], first_logits[0], rtol=1e-5)
    assert float(sums.correct) == np.sum(np.argmax(logits, axis=1) == batch["label"])
    assert float(first.loss) < float(sums.loss)


def test_augmentation_follows_the_key_and_the_step(variables):
    create, step = make_step("head", augmentation="flip_crop")
    state = create(variables)
    losses = {
        (seed, number): float(step(state._replace(step=jnp.int32(number)), make_batch(), jax.random.key(seed))[1].loss)
        for seed in (0, 1)
        for number in (0, 1)
    }
    assert len(set(losses.values())) == 4
    assert losses[0, 0] == float(step(state, make_batch(), jax.random.key(0))[1].loss)


@pytest.mark.parametrize(("start", "train_batch_norm"), [("conv1", True), ("head", False)])
def test_soft_targets_that_name_one_class_train_as_hard_ones(variables, start, train_batch_norm):
    create, step = make_step(start, train_batch_norm=train_batch_norm)
    state, batch = create(variables), make_batch()
    soft = batch | {"label": np.eye(3, dtype=np.float32)[batch["label"]]}
    (hard_state, hard), (soft_state, sums) = step(state, batch, KEY), step(state, soft, KEY)
    np.testing.assert_allclose(sums, hard, rtol=1e-6)
    heads = [s.variables["params"]["head"]["kernel"] for s in (hard_state, soft_state)]
    np.testing.assert_allclose(*heads, rtol=1e-4, atol=1e-6)


def test_an_augmentation_may_mix_images_with_their_labels(variables):
    """Images are mixed half and half. The loss of the mixture is the mean of its losses with either label."""

    def mix(batch, key):
        order = jnp.arange(len(batch["image"]))[::-1]
        images = batch["image"].astype(jnp.float32)
        labels = jax.nn.one_hot(batch["label"], 3)
        return batch | {"image": (images + images[order]) / 2, "label": (labels + labels[order]) / 2}

    create, step = make_step("head", augment=mix)
    state, batch = create(variables), make_batch(4)
    _, sums = step(state, batch, KEY)
    _, plain = make_step("head")
    images = batch["image"].astype(np.float32)
    mixed = batch | {"image": (images + images[::-1]) / 2}
    pair = [float(plain(state, mixed | {"label": y}, KEY)[1].loss) for y in (batch["label"], batch["label"][::-1])]
    np.testing.assert_allclose(float(sums.loss), np.mean(pair), rtol=1e-5)


def test_the_stride_of_v1_5_sits_on_the_3x3():
    for variant, kernel in (("v1", "1_conv"), ("v1.5", "2_conv")):
        model = ResNet(3, VARIANTS[variant], Architecture((1, 1), 8))
        run = partial(model.init_with_output, capture_intermediates=True)
        _, seen = jax.eval_shape(run, KEY, jnp.zeros((1, 32, 32, 3)))
        sides = {k: v["__call__"][0].shape[1] for k, v in seen["intermediates"]["conv3_block1"].items() if "conv" in k}
        assert sides == {"0_conv": 4, "1_conv": 4 if kernel == "1_conv" else 8, "2_conv": 4, "3_conv": 4}


@pytest.fixture(scope="module")
def deep():
    """Variables of a network as deep as ResNet50 and an eighth as wide; its vectors are away from 0 and 1."""
    variables = jax.jit(ResNet(10, architecture=NARROW).init)(KEY, np.zeros((1, 32, 32, 3), np.float32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + rng.uniform(0, 0.1, x.shape).astype(x.dtype) if x.ndim == 1 else x, variables)


def test_bfloat16_stays_near_float32(deep):
    """With bfloat16 the features differ by less than 2% in norm, classes are the same, and outputs are float32."""
    images = make_batch(16)["image"]
    found = {}
    for dtype in (None, jnp.bfloat16):
        model = ResNet(10, architecture=NARROW, dtype=dtype)
        folded = jax.jit(partial(fold, model))(deep)
        run = jax.jit(partial(inference.run_prefix, model=model, end="head", preprocessing=CAFFE))
        classify = jax.jit(partial(inference.classify, model=model, preprocessing=CAFFE, size=32))
        features, (probabilities, losses) = run(folded, images), classify(folded, images, np.zeros(16, np.int32))
        assert features.dtype == probabilities.dtype == losses.dtype == jnp.float32
        found[dtype] = np.asarray(features), np.asarray(probabilities)
    (h, p), (other_h, other_p) = found.values()
    assert 1e-4 < np.linalg.norm(other_h - h) / np.linalg.norm(h) < 0.02
    np.testing.assert_array_equal(other_p.argmax(1), p.argmax(1))
    # At a cut between blocks the activations take half the bytes.
    prefix = partial(inference.run_prefix, model=model, end="conv5_block1", preprocessing=CAFFE)
    assert jax.eval_shape(prefix, folded, images).dtype == jnp.bfloat16


def test_evaluation_sees_the_features_that_training_sees(deep):
    """The averages, which the head reads, are float32 where the blocks are bfloat16."""
    model = ResNet(10, architecture=NARROW, dtype=jnp.bfloat16)
    procedure = make_procedure("head", model=model, embed=steps.pass_activations)
    state = create_state(deep, procedure.tx, procedure.cut)
    averages = np.random.default_rng(0).uniform(0, 1, (6, 256)).astype(np.float32)
    batch = make_batch() | {"image": averages}
    _, trained = jax.jit(partial(steps.train_step, procedure=procedure))(state, batch, KEY)
    evaluated, _ = jax.jit(partial(steps.eval_step, procedure=procedure))(state, batch)
    np.testing.assert_allclose(float(evaluated.loss), float(trained.loss), rtol=1e-6)


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_bfloat16_trains_parameters_of_float32(variables, train_batch_norm):
    losses: dict = {}
    for dtype in (None, jnp.bfloat16):
        settings = {"learning_rate": 1e-3, "train_batch_norm": train_batch_norm}
        create, step = make_step("conv4_block1", model=MODEL.clone(dtype=dtype), **settings)
        state = create(variables)
        losses[dtype] = []
        for _ in range(3):
            state, sums = step(state, make_batch(), KEY)
            losses[dtype].append(float(sums.loss))
        assert {leaf.dtype for leaf in jax.tree.leaves(state.variables)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(losses[jnp.bfloat16], losses[None], rtol=0.03)
    assert losses[jnp.bfloat16] != losses[None]
