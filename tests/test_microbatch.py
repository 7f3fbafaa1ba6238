"""On a CPU, micro-batches give the same as the whole batch; other backends do not split the batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import TINY

from tljax.config import Optimizer
from tljax.data.augmentation import compose
from tljax.data.preprocessing import CAFFE
from tljax.networks.cut import Cut
from tljax.networks.kernels import microbatch
from tljax.networks.resnet import ResNet
from tljax.training import gradients, steps
from tljax.training.optimizers import make_optimization
from tljax.training.state import create_state

MODEL = ResNet(3, architecture=TINY)
KEY = jax.random.key(0)
IMAGE = 32 * 32 * 3


@pytest.fixture
def parts(monkeypatch):
    """Makes a micro-batch of two images of 32x32 pixels."""
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
    f = lambda rows: {"x": jnp.sum(rows[0], axis=0), "labels": jnp.sum(rows[1])}  # noqa: E731
    zeros = {"x": jnp.zeros((32, 32, 3)), "labels": jnp.zeros((), jnp.int32)}
    sums = microbatch.add_rows(f, zeros, (jnp.asarray(x, jnp.float32), jnp.asarray(labels)))
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


def make_procedure(start: str, embed=None, train_batch_norm: bool = False) -> steps.Procedure:
    cut = Cut(MODEL.units, start)
    tx, _ = make_optimization(Optimizer(), cut, 1, 1)
    embed = embed or partial(steps.embed_images, model=MODEL, cut=cut, preprocessing=CAFFE)
    return steps.Procedure(MODEL, cut, tx, partial(compose(()), classes=3), embed, train_batch_norm)


def step(variables, *, n: int, train_batch_norm: bool):
    """One step with a batch of `n` rows, the last of which is padding.

    Returns the new state, the sums, and the text of the program lowered for a CPU and for a TPU.
    """
    images, labels = draw(n)
    batch = {"image": jnp.asarray(images), "label": jnp.asarray(labels), "mask": jnp.arange(n) < n - 1}
    procedure = make_procedure("conv1", train_batch_norm=train_batch_norm)
    state = create_state(variables, procedure.tx, procedure.cut)
    run = jax.jit(partial(steps.train_step, procedure=procedure))
    new, sums = run(state, batch, KEY)
    traced = run.trace(state, batch, KEY)
    return new, sums, *(traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu"))


def test_gradients_of_folded_micro_batches_are_those_of_the_plain_batch(variables, monkeypatch):
    with jax.enable_x64(True):
        with monkeypatch.context() as nothing_folded:
            nothing_folded.setattr(gradients, "WHOLE_FROM", "conv1")
            whole, sums, text, _ = step(variables, n=7, train_batch_norm=False)
        with monkeypatch.context() as all_folded:
            # As on the other backends.
            all_folded.setattr(gradients, "WHOLE_FROM", "head")
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


@pytest.mark.parametrize(("start", "parted"), [("conv3_block1", True), ("conv4_block1", False), ("head", False)])
def test_small_maps_and_averages_stay_whole(variables, parts, monkeypatch, start, parted):
    monkeypatch.setattr(microbatch, "ELEMENTS", 1)
    with jax.enable_x64(True):
        procedure = make_procedure(start, embed=steps.pass_activations)
        state = create_state(variables, procedure.tx, procedure.cut)
        h = MODEL.apply(variables, draw(6)[0], start, method="prefix")
        batch = {"image": h, "label": jnp.zeros(6, jnp.int32), "mask": jnp.ones(6, bool)}
        text = jax.jit(partial(steps.train_step, procedure=procedure)).lower(state, batch, KEY).as_text()
    assert ("stablehlo.while" in text) == parted


@pytest.mark.parametrize("start", ["conv3_block1", "conv4_block1", "head"])
def test_the_frozen_units_and_evaluation_give_the_same_in_parts(variables, monkeypatch, start):
    images, labels = draw(5)
    with jax.enable_x64(True):
        batch = {"image": jnp.asarray(images), "label": jnp.asarray(labels), "mask": np.ones(5, bool)}
        procedure = make_procedure(start)
        state = create_state(variables, procedure.tx, procedure.cut)
        frozen = procedure.cut.split(variables)[0]

        def run():
            h = jax.jit(lambda *arguments: procedure.embed(*arguments))(frozen, batch["image"])
            evaluate = jax.jit(partial(steps.eval_step, procedure=procedure))
            return h, *evaluate(state, batch)

        whole = run()
        set_parts(monkeypatch)
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(run()), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12 * np.abs(a).max())
