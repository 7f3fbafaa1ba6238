"""Stride hoisting leaves out positions that no unit reads.

Outputs, gradients and statistics are still those of the plain network.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import AS_USERS

from tljax.networks.architectures import VARIANTS, Architecture
from tljax.networks.resnet import BatchNorm, ResNet, abstract_variables, fold, start_as_shortcuts

long = partial(pytest.param, marks=pytest.mark.long)
CUTS = ("conv1", "conv2_block2", "conv3_block1", "conv4_block2", "conv5_block1", "head")


def run_plain(model, x, train=False, mask=None, units=None):
    """Runs the units one after the other, each at all positions: without stride hoisting."""
    for name in units or model.units:
        unit = getattr(model, name)
        if name == "head":
            x = unit(x)
        elif name == "conv1":
            x = unit(x, train, mask)
        else:
            stride = 2 if name.endswith("_block1") and not name.startswith("conv2") else 1
            x = unit(x, train, mask, stride, 1)
        if name == model.units[-2]:
            x = jnp.mean(x, axis=(1, 2))
    return x


def run_cut(model, x, cut):
    return model.suffix(model.prefix(x, cut), cut)


def draw(model, side: int, dtype=np.float64):
    """Random variables, away from their initial 0 and 1, and four random images."""
    rng = np.random.default_rng(side)
    with jax.enable_x64(False):
        variables = abstract_variables(model)
    scale = {"kernel": 0.2, "bias": 0.1, "mean": 0.1}

    def leaf(path, shape):
        name = path[-1].key
        middle = 0 if name in scale else 1
        return jnp.asarray(middle + scale.get(name, 0.1) * rng.uniform(-1, 1, shape.shape), dtype)

    return jax.tree_util.tree_map_with_path(leaf, variables), jnp.asarray(rng.normal(size=(4, side, side, 3)), dtype)


def test_a_block_may_start_as_its_shortcut():
    model = ResNet(3, VARIANTS["v1"], Architecture((1, 2, 1, 1), 4))
    variables, images = draw(model, 32, np.float32)
    started = start_as_shortcuts(variables)
    changed = {unit for unit in variables["params"] if started["params"][unit] is not variables["params"][unit]}
    assert changed == {unit for unit in model.units if "block" in unit}
    # The second block of a stage has no projection: with its last bias at 0, nothing is added to its input.
    started["params"]["conv3_block2"]["3_bn"]["bias"] = jnp.zeros(32)
    features = {end: model.apply(started, images, end, method="prefix") for end in ("conv3_block2", "conv4_block1")}
    np.testing.assert_array_equal(features["conv3_block2"][:, ::2, ::2], features["conv4_block1"])


def largest_difference(a, b) -> float:
    """The largest difference in any leaf, relative to the largest absolute value of that leaf in `b`."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.abs(x - y).max() / (jnp.abs(y).max() + 1e-300)) for x, y in pairs)


@pytest.mark.parametrize(
    ("variant", "side"), [("v1", 32), long("v1", 33), long("v1", 64), long("v1", 75), ("v1", 224), ("v1.5", 33)]
)
def test_outputs_and_gradients_are_those_of_the_plain_network(variant, side):
    # The small images shrink to a pixel or two; the larger ones need fewer stages to show the same.
    model = ResNet(3, VARIANTS[variant], Architecture((1, 2, 1, 1) if side < 40 else (2, 1, 1), 4))
    with jax.enable_x64(True):
        variables, x = draw(model, side)
        stats = {"batch_stats": variables["batch_stats"]}

        @jax.jit
        def evaluate(params, x):
            def loss(method):
                def f(params):
                    logits = model.apply({"params": params, **stats}, x, method=method)
                    return jnp.sum(jax.nn.log_softmax(logits)[:, 0]), logits

                return jax.value_and_grad(f, has_aux=True)(params)

            return loss(None), loss(run_plain)

        hoisted, plain = evaluate(variables["params"], x)
        assert largest_difference(hoisted, plain) < 1e-12


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_anywhere_gives_the_plain_network(cut):
    model = ResNet(3, architecture=Architecture((2, 2, 2, 2), 4))
    with jax.enable_x64(True):
        variables, x = draw(model, 40)
        cut_in_two = jax.jit(lambda v, x: model.apply(v, x, cut, method=run_cut))(variables, x)
        whole = jax.jit(lambda v, x: model.apply(v, x, method=run_plain))(variables, x)
        assert largest_difference(cut_in_two, whole) < 1e-12


@pytest.mark.parametrize(
    ("variant", "at"),
    [("v1", "conv2_block1"), ("v1", "conv3_block1"), ("v1.5", "conv3_block2"), ("v1.5", "conv4_block1")],
)
def test_a_head_that_reads_earlier_reads_the_average_of_all_positions(variant, at):
    """All that the unit would be given counts; where it halves the resolution, v1 itself reads a quarter of that."""
    whole = ResNet(3, VARIANTS[variant], Architecture((1, 2, 1), 4))
    shorter = whole.clone(architecture=whole.architecture.end_before(at))
    with jax.enable_x64(True):
        variables, x = draw(whole, 40)
        own = {
            kind: {unit: tree[unit] for unit in shorter.units[:-1] if unit in tree} for kind, tree in variables.items()
        }
        averages = jax.jit(lambda v, x: shorter.apply(v, x, "head", method="prefix"))(own, x)
        before = whole.units[: whole.units.index(at)]
        map_ = jax.jit(lambda v, x: whole.apply(v, x, units=before, method=run_plain))(variables, x)
        assert largest_difference(averages, jnp.mean(map_, axis=(1, 2))) < 1e-12
        assert averages.shape[1] == shorter.architecture.features and isinstance(shorter.architecture.features, int)


# A cut within a stage, and one whose stage halves the resolution.
@pytest.mark.parametrize("cut", [*CUTS[:3], *map(long, CUTS[3:-1])])
def test_batch_statistics_are_taken_over_all_positions(cut):
    model = ResNet(3, architecture=Architecture((2, 2, 2, 2), 4))
    index = model.units.index(cut)

    def run_plainly(model, x):
        h = run_plain(model, x, units=model.units[:index]) if index else x
        return run_plain(model, h, True, units=model.units[index:])

    # Flax's BatchNorm promotes float32 with float64.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        variables, x = draw(model, 64)
        train = lambda m, x: m.suffix(m.prefix(x, cut), cut, True)  # noqa: E731
        results = [
            jax.jit(lambda v, x, f=f: model.apply(v, x, method=f, mutable=["batch_stats"]))(variables, x)
            for f in (train, run_plainly)
        ]
        assert largest_difference(*results) < 1e-11


@pytest.mark.usefixtures("optimized")
def test_float32_differs_by_rounding_alone():
    model = ResNet(3, architecture=Architecture((1, 2, 1, 1), 8))
    variables, x = draw(model, 64, np.float32)
    hoisted, plain = (
        jax.jit(partial(model.apply, method=method), compiler_options=AS_USERS)(variables, x)
        for method in (None, run_plain)
    )
    assert largest_difference(hoisted, plain) < 2e-6


@pytest.mark.parametrize(
    ("variant", "cut", "side"),
    [("v1", "conv5_block1", 1), ("v1", "conv3_block1", 4), ("v1.5", "conv5_block1", 2)],
)
def test_activations_at_a_cut_are_those_that_its_unit_reads(variant, cut, side):
    model = ResNet(3, VARIANTS[variant])
    variables = abstract_variables(model)
    x = jnp.zeros((1, 32, 32, 3))
    h = jax.eval_shape(lambda v, x: model.apply(v, x, cut, method="prefix"), variables, x)
    assert h.shape[1:3] == (side, side)
    pooled = jax.eval_shape(lambda v, x: model.apply(v, x, "head", method="prefix"), variables, x)
    assert pooled.shape == (1, 2048)


@pytest.mark.parametrize(
    ("variant", "side"),
    [
        *(("v1", side) for side in (32, 33, 224)),
        *(("v1.5", side) for side in (33, 64)),
        *(long("v1", side) for side in (64, 75)),
        *(long("v1.5", side) for side in (32, 75, 224)),
    ],
)
def test_a_folded_network_gives_what_the_plain_one_does(variant, side):
    model = ResNet(3, VARIANTS[variant], Architecture((1, 1) if side > 33 else (1, 1, 1, 1), 4))
    with jax.enable_x64(True):
        variables, x = draw(model, side)
        folded, folded_variables = model.folded, fold(model, variables)
        names = {name for unit in folded_variables["params"].values() for name in unit}
        assert not any(name.endswith("bn") for name in names) and not folded_variables["batch_stats"]
        outputs = [
            jax.jit(lambda v, x, m=m, f=f: m.apply(v, x, method=f))(v, x)
            for m, v, f in ((folded, folded_variables, None), (model, variables, run_plain))
        ]
        assert largest_difference(*outputs) < 1e-12


def test_batch_norm_in_inference_mode_is_flax_s():
    rng = np.random.default_rng(0)
    draw = lambda low, *shape: jnp.asarray(rng.uniform(low, 2, shape or 3))  # noqa: E731
    # Flax's BatchNorm promotes float32 with float64.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params, stats, x = (
            {"scale": draw(-2), "bias": draw(-2)},
            {"mean": draw(-2), "var": draw(0)},
            draw(-2, 4, 5, 5, 3),
        )

        def evaluate(batch_norm, params, x):
            y = batch_norm.apply({"params": params, "batch_stats": stats}, x, use_running_average=True)
            return jnp.sum(y**3), y

        ours, theirs = (
            jax.value_and_grad(partial(evaluate, kind(epsilon=1e-3)), argnums=(0, 1), has_aux=True)(params, x)
            for kind in (BatchNorm, nn.BatchNorm)
        )
        assert largest_difference(ours, theirs) < 1e-12


def test_a_part_of_the_network_is_folded_alone():
    model = ResNet(3, architecture=Architecture((1, 1, 1, 1), 4))
    variables, x = draw(model, 32, np.float32)
    part = {name: {unit: tree[unit] for unit in ("conv1", "conv2_block1")} for name, tree in variables.items()}
    folded, folded_variables = model.folded, fold(model, part)
    assert set(folded_variables["params"]) == {"conv1", "conv2_block1"}
    h = folded.apply(folded_variables, x, "conv3_block1", method="prefix")
    assert largest_difference(h, model.apply(part, x, "conv3_block1", method="prefix")) < 1e-5


def test_chosen_units_are_folded_alone():
    model, units = ResNet(3, architecture=Architecture((1, 1, 1, 1), 4)), ("conv1", "conv3_block1")
    with jax.enable_x64(True):
        variables, x = draw(model, 32)
        folded = fold(model, variables, units)
        assert set(variables["batch_stats"]) - set(folded["batch_stats"]) == set(units)
        assert folded["params"]["conv2_block1"] == variables["params"]["conv2_block1"]
        assert largest_difference(model.clone(folded_units=units).apply(folded, x), model.apply(variables, x)) < 1e-12


@pytest.mark.parametrize("start", ["conv2_block1", "conv4_block1", "conv5_block1"])
def test_a_prefix_can_go_on_from_an_earlier_cut(start):
    model = ResNet(3, architecture=Architecture((1, 1, 1, 1), 4))
    variables, x = draw(model, 32, np.float32)
    h = model.apply(variables, model.apply(variables, x, start, method="prefix"), "head", start, method="prefix")
    np.testing.assert_array_equal(h, model.apply(variables, x, "head", method="prefix"))


def test_batch_statistics_of_bfloat16_are_those_of_float32():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(3, 2, (6, 5, 5, 4)), jnp.bfloat16)
    mask = jnp.array([True, True, False, True, False, True])
    bn = BatchNorm(momentum=0.9, epsilon=1e-3, use_fast_variance=False)
    variables = bn.init(jax.random.key(0), x.astype(jnp.float32), False)
    (narrow, new), (wide, expected) = (
        bn.apply(variables, x.astype(dtype), False, mask=mask, mutable=["batch_stats"])
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, atol=0.02)
    for name in ("mean", "var"):
        np.testing.assert_allclose(new["batch_stats"][name], expected["batch_stats"][name], rtol=1e-4)
