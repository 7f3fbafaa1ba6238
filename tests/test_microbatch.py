"""Parts of a batch give what the batch gives, on a CPU; elsewhere nothing is parted."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax import microbatch, partition, steps
from tljax.config import Adam
from tljax.optim import partitioned_adam
from tljax.preprocess import CAFFE
from tljax.resnet import ResNet

MODEL = ResNet(3, stage_sizes=(1, 1, 1, 1), width=8)
KEY = jax.random.key(0)
IMAGE = 32 * 32 * 3


@pytest.fixture
def parts(monkeypatch):
    """Two images of 32 pixels are a part."""
    set_parts(monkeypatch)


def set_parts(monkeypatch):
    monkeypatch.setattr(microbatch, "ELEMENTS", 2 * IMAGE)
    monkeypatch.setattr(microbatch, "LEAST_ROWS", 2)


@pytest.fixture(scope="module")
def variables():
    variables = jax.jit(MODEL.init)(KEY, np.zeros((1, 32, 32, 3), np.float32))
    with jax.enable_x64(True):
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)


def draw(n: int):
    rng = np.random.default_rng(n)
    return rng.uniform(0, 255, (n, 32, 32, 3)), rng.integers(0, 3, n).astype(np.int32)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 7])
def test_rows_come_back_in_their_order(parts, n):
    x = jnp.arange(n, dtype=jnp.float32).reshape(n, 1, 1, 1) * jnp.ones((1, 32, 32, 3))
    seen = []

    def f(x):
        seen.append(len(x))
        return x[:, 0, 0, :1] + 1

    np.testing.assert_array_equal(microbatch.map_rows(f, x), np.arange(1.0, n + 1)[:, None])
    assert min(seen) == {1: 1, 2: 2, 4: 2, 5: 2, 7: 2}[n]


@pytest.mark.parametrize("n", [1, 4, 5, 7])
def test_sums_are_those_of_all_rows(parts, n):
    x, labels = draw(n)
    f = lambda x, labels: {"x": jnp.sum(x, axis=0), "labels": jnp.sum(labels)}  # noqa: E731
    zeros = {"x": jnp.zeros((32, 32, 3)), "labels": jnp.zeros((), jnp.int32)}
    sums = microbatch.add_rows(f, zeros, jnp.asarray(x, jnp.float32), jnp.asarray(labels))
    np.testing.assert_allclose(sums["x"], x.sum(axis=0), rtol=1e-6)
    assert int(sums["labels"]) == labels.sum()


@pytest.mark.parametrize(("n", "side", "rows"), [(256, 32, [64] * 4), (100, 32, [50] * 2), (10, 224, [4] * 3)])
def test_a_part_is_as_large_as_measured_best(n, side, rows):
    def f(x):
        assert x.shape[0] in (n, rows[0])
        return x[:, 0, 0, :1]

    text = str(jax.make_jaxpr(partial(microbatch.map_rows, f))(jnp.ones((n, side, side, 3))))
    assert f"f32[{len(rows)},{rows[0]},{side},{side},3]" in text


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_only_a_cpu_works_in_parts(parts, platform, loops):
    x = jnp.ones((8, 32, 32, 3))
    text = jax.jit(partial(microbatch.map_rows, jnp.sin)).trace(x).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in text) == loops


def step(variables, *, n: int, train_batch_norm: bool):
    """The state after one step with a ragged batch of `n` rows, the sums, and the lowered text of a CPU and a TPU."""
    images, labels = draw(n)
    batch = {"image": jnp.asarray(images), "label": jnp.asarray(labels), "mask": jnp.arange(n) < n - 1}
    tx = partitioned_adam(Adam(), "conv1")
    state = steps.create_state(**variables, tx=tx, cut="conv1")
    embed = partial(steps.embed_images, model=MODEL, cut="conv1", preprocessing=CAFFE)
    settings = {"model": MODEL, "tx": tx, "cut": "conv1", "embed": embed, "train_batch_norm": train_batch_norm}
    run = jax.jit(partial(steps.train_step, **settings))
    new, sums = run(state, batch, KEY)
    traced = run.trace(state, batch, KEY)
    return new, sums, *(traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu"))


def test_gradients_of_folded_micro_batches_are_those_of_the_plain_batch(variables, monkeypatch):
    with jax.enable_x64(True):
        with monkeypatch.context() as nothing_folded:
            nothing_folded.setattr(steps, "WHOLE_FROM", "conv1")
            whole, sums, text, _ = step(variables, n=7, train_batch_norm=False)
        with monkeypatch.context() as all_folded:
            # What other backends run.
            all_folded.setattr(steps, "WHOLE_FROM", "head")
            folded, folded_sums, folded_text, _ = step(variables, n=7, train_batch_norm=False)
        set_parts(monkeypatch)
        parted, parted_sums, parted_text, tpu_text = step(variables, n=7, train_batch_norm=False)
        loops = ["stablehlo.while" in lowered for lowered in (text, folded_text, parted_text, tpu_text)]
        assert loops == [False, False, True, False]
        for other, other_sums in ((folded, folded_sums), (parted, parted_sums)):
            np.testing.assert_allclose(other_sums, sums, rtol=1e-12)
            for a, b in zip(jax.tree.leaves(whole.opt_state), jax.tree.leaves(other.opt_state), strict=True):
                np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12 * np.abs(a).max())


def test_a_batch_whose_statistics_count_stays_whole(variables, parts):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        assert "stablehlo.while" not in step(variables, n=6, train_batch_norm=True)[2]


@pytest.mark.parametrize(("cut", "parted"), [("conv3_block1", True), ("conv4_block1", False), ("head", False)])
def test_small_maps_and_averages_stay_whole(variables, parts, monkeypatch, cut, parted):
    monkeypatch.setattr(microbatch, "ELEMENTS", 1)
    with jax.enable_x64(True):
        tx = partitioned_adam(Adam(), cut)
        state = steps.create_state(**variables, tx=tx, cut=cut)
        h = MODEL.apply(variables, draw(6)[0], cut, method="prefix")
        batch = {"image": h, "label": jnp.zeros(6, jnp.int32), "mask": jnp.ones(6, bool)}
        settings = {"model": MODEL, "tx": tx, "cut": cut, "embed": steps.pass_activations, "train_batch_norm": False}
        text = jax.jit(partial(steps.train_step, **settings)).lower(state, batch, KEY).as_text()
    assert ("stablehlo.while" in text) == parted


@pytest.mark.parametrize("cut", ["conv3_block1", "conv4_block1", "head"])
def test_the_frozen_units_and_evaluation_give_the_same_in_parts(variables, monkeypatch, cut):
    images, labels = draw(5)
    with jax.enable_x64(True):
        batch = {"image": jnp.asarray(images), "label": jnp.asarray(labels), "mask": np.ones(5, bool)}
        state = steps.create_state(**variables, tx=partitioned_adam(Adam(), cut), cut=cut)
        frozen = {name: partition.split(tree, cut)[0] for name, tree in variables.items()}
        embed = partial(steps.embed_images, model=MODEL, cut=cut, preprocessing=CAFFE)

        def run():
            h = jax.jit(embed)(frozen, batch["image"], KEY)
            evaluate = jax.jit(partial(steps.eval_step, model=MODEL, cut=cut, embed=embed))
            return h, *evaluate(state, batch, KEY)

        whole = run()
        set_parts(monkeypatch)
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(run()), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12 * np.abs(a).max())
