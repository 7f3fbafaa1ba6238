"""Softened and weighted targets, dropout and averaged weights are those of Keras and of the published formulas."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_steps import KEY, MODEL, make_batch, make_procedure
from tiny_runs import DIGITS, read_rows, read_summary, small

import tljax
from tljax.config import Cache, Head, Optimizer
from tljax.data import datasets
from tljax.networks.kernels import microbatch
from tljax.networks.resnet import abstract_variables
from tljax.stages.from_config import run
from tljax.training import metrics, steps
from tljax.training.regularization import balance, draw_noise, move_average, soften
from tljax.training.state import create_state

# Twenty steps of a head with a hidden layer, with label smoothing and class weights, in float64.
COMPARE_WITH_KERAS = """
import os
os.environ["KERAS_BACKEND"] = "jax"
import jax
jax.config.update("jax_enable_x64", True)
import keras
import numpy as np
from functools import partial
from tljax.config import Optimizer
from tljax.networks.cut import Cut
from tljax.networks.architectures import Architecture
from tljax.networks.resnet import ResNet
from tljax.training import steps
from tljax.training.optimizers import make_optimization
from tljax.training.regularization import soften
from tljax.training.state import create_state

keras.config.set_floatx("float64")
WEIGHTS, BATCH = (0.5, 2.0, 1.25), 12
rng = np.random.default_rng(0)
x, labels = rng.normal(size=(BATCH, 64)), np.arange(BATCH) % 3
for smoothing, weights, hidden in ((0.0, None, ()), (0.1, None, (5,)), (0.0, WEIGHTS, (5, 4)), (0.2, WEIGHTS, ())):
    layers = [keras.layers.Dense(size, activation="relu") for size in hidden] + [keras.layers.Dense(3)]
    peer = keras.Sequential([keras.Input((64,)), *layers])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    peer.compile(keras.optimizers.Adam(0.01), loss)
    model = ResNet(3, architecture=Architecture((1, 1), width=8), hidden=hidden)
    dense = [{"kernel": np.array(layer.kernel), "bias": np.array(layer.bias)} for layer in layers]
    head = {f"hidden_{i}": layer for i, layer in enumerate(dense[:-1], start=1)} | dense[-1]
    cut = Cut(model.units, "head")
    tx, _ = make_optimization(Optimizer(learning_rate=0.01), cut, 1, 20)
    state = create_state({"params": {"head": head}, "batch_stats": {}}, tx, cut)
    procedure = steps.Procedure(
        model, cut, tx, lambda batch, key: batch, steps.pass_activations, train_batch_norm=False,
        soften=partial(soften, classes=3, smoothing=smoothing, weights=weights))
    step = jax.jit(partial(steps.train_step, procedure=procedure))
    batch = {"image": x, "label": labels.astype(np.int32), "mask": np.ones(BATCH, bool)}
    for _ in range(20):
        theirs = peer.train_on_batch(x, np.eye(3)[labels], class_weight=weights and dict(enumerate(weights)))
        peer.reset_metrics()
        with jax.numpy_dtype_promotion("strict"):
            state, sums = step(state, batch, jax.random.key(0))
        np.testing.assert_allclose(float(sums.loss) / BATCH, theirs, rtol=1e-7)
    new = state.variables["params"]["head"]
    for mine, layer in zip([*(new[f"hidden_{i + 1}"] for i in range(len(hidden))), new], layers, strict=True):
        np.testing.assert_allclose(mine["kernel"], layer.kernel, rtol=1e-7)
        np.testing.assert_allclose(mine["bias"], layer.bias, rtol=1e-7)
print("equal")
"""


def test_twenty_steps_of_a_head_are_those_of_keras():
    done = subprocess.run([sys.executable, "-c", COMPARE_WITH_KERAS], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "equal", done.stderr


def test_a_mixed_row_has_the_mean_weight_of_its_classes():
    mixed = jnp.float32([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    found = soften(mixed, 3, 0.0, (1.0, 2.0, 4.0))
    np.testing.assert_allclose(found, np.float32([[0.4375, 1.3125, 0], [0, 0, 4]]))
    assert metrics.sum_examples(jnp.zeros((2, 3)), found, jnp.array([True, True])).loss == pytest.approx(
        5.75 * np.log(3), rel=1e-6
    )


def test_softening_does_not_change_what_is_right():
    labels = jnp.arange(4, dtype=jnp.int32)
    found = soften(labels, 4, 0.3, (1.0, 0.1, 2.0, 5.0))
    assert found.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat(["a", "b", "c"], (5, 20, 1))
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=labels)
    np.testing.assert_allclose(balance({"a": 5, "b": 20, "c": 1}), expected)
    # A class without images is none: the mean weight of an image is 1, as it is without that class.
    assert balance({"a": 5, "none": 0, "b": 20, "c": 1}) == (*expected[:1], 0.0, *expected[1:])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_share_of_the_inputs_is_dropped_and_the_mean_stays(rate):
    noise = draw_noise(KEY, rate, 200, (400, 300), jnp.float32)
    assert [factors.shape for factors in noise] == [(200, 400), (200, 300)]
    for factors in noise:
        assert np.mean(factors == 0) == pytest.approx(rate, abs=0.01)
        np.testing.assert_allclose(np.unique(factors), [0, 1 / (1 - rate)], rtol=1e-6)
    assert not np.array_equal(noise[0][:, :300], noise[1])
    # Two rows agree as often as independent ones.
    both = np.mean((noise[0][0] == 0) & (noise[0][1] == 0))
    assert both == pytest.approx(rate * rate, abs=0.1)


def test_ten_hidden_layers_are_in_their_order():
    model = MODEL.clone(hidden=tuple(range(2, 13)))
    head = abstract_variables(model)["params"]["head"]
    layers = [*(head[f"hidden_{i}"] for i in range(1, 12)), head]
    noise = draw_noise(KEY, 0.5, 2, model.head_inputs, jnp.float32)
    widths = [factors.shape[1] for factors in noise]
    assert widths == [layer["kernel"].shape[0] for layer in layers] == [256, *range(2, 13)]


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(KEY, np.zeros((1, 32, 32, 3), np.float32))


def test_dropout_drops_in_training_steps_only(variables):
    procedures = {rate: make_procedure("head", dropout=rate) for rate in (0.0, 0.5)}
    state = create_state(variables, procedures[0.0].tx, procedures[0.0].cut)
    step = {rate: jax.jit(partial(steps.train_step, procedure=p)) for rate, p in procedures.items()}
    batch = make_batch()
    losses = {
        rate: [float(step[rate](state._replace(step=jnp.int32(i)), batch, KEY)[1].loss) for i in range(3)]
        for rate in step
    }
    assert len(set(losses[0.0])) == 1 and len({*losses[0.5], *losses[0.0]}) == 4
    evaluate = [float(steps.eval_step(state, batch, procedures[rate])[0].loss) for rate in step]
    assert evaluate[0] == evaluate[1] == pytest.approx(losses[0.0][0], rel=1e-5)


def test_what_is_dropped_is_no_draw_of_the_augmentation(variables):
    """`augment` splits the key of a step; in JAX, `fold_in` of a small number would give the same keys again."""
    keys = [jax.random.fold_in(KEY, steps.NOISE_KEY), *jax.random.split(KEY), *jax.random.split(KEY, 16)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys[:3]}) == 3
    assert tuple(jax.random.key_data(keys[0]).tolist()) not in {
        tuple(jax.random.key_data(key).tolist()) for key in keys[1:]
    }


def test_micro_batches_drop_the_same(variables, monkeypatch):
    procedure = make_procedure("conv1", dropout=0.5)
    state, batch, found = create_state(variables, procedure.tx, procedure.cut), make_batch(8), []
    for rows in (8, 4):
        monkeypatch.setattr(microbatch, "ELEMENTS", rows * 32 * 32 * 3)
        new, sums = jax.jit(partial(steps.train_step, procedure=procedure))(state, batch, KEY)
        found.append((float(sums.loss), new.variables["params"]["head"]["kernel"]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)


# tf.train.ExponentialMovingAverage: average -= (1 - min(decay, (1 + n) / (10 + n))) * (average - value).
@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_is_that_of_tensorflow(decay):
    rng = np.random.default_rng(0)
    average = expected = rng.normal(size=5)
    for n in range(30):
        value = rng.normal(size=5)
        expected = expected - (1 - min(decay, (1 + n) / (10 + n))) * (expected - value)
        (average,) = jax.tree.leaves(
            move_average({"a": jnp.float32(average)}, {"a": jnp.float32(value)}, jnp.int32(n), decay)
        )
        np.testing.assert_allclose(average, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_averages_follow_the_raw_weights_which_train_as_without(variables, train_batch_norm):
    procedure = make_procedure("conv5_block1", ema_decay=0.9, train_batch_norm=train_batch_norm)
    plain = create_state(variables, procedure.tx, procedure.cut)
    state = create_state(variables, procedure.tx, procedure.cut, averages=True)
    step = jax.jit(partial(steps.train_step, procedure=procedure))
    trained = procedure.cut.split(variables)[1]
    expected = trained
    for n in range(4):
        plain, _ = step(plain, make_batch(seed=n), KEY)
        state, _ = step(state, make_batch(seed=n), KEY)
        raw = procedure.cut.split(plain.variables)[1]
        # Two programs round differently, and Adam makes steps of 0.01 from small gradients.
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-3), state.raw, raw)
        expected = move_average(expected, state.raw, jnp.int32(n), 0.9)
    frozen, averaged = procedure.cut.split(state.variables)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), averaged, expected)
    jax.tree.map(np.testing.assert_array_equal, frozen, procedure.cut.split(variables)[0])
    before, after = (jax.tree.leaves(tree["batch_stats"]) for tree in (trained, averaged))
    moved = [bool(jnp.any(a != b)) for a, b in zip(before, after, strict=True)]
    assert all(moved) if train_batch_norm else not any(moved)


def test_a_state_without_averages_has_the_leaves_of_earlier_versions(variables):
    procedure = make_procedure("head")
    state = create_state(variables, procedure.tx, procedure.cut)
    assert state.raw == {} and len(jax.tree.leaves(state)) == len(jax.tree.leaves(state[:3]))


def test_a_run_with_all_of_it_reports_plain_losses_and_is_read_again(tmp_path, capsys):
    everything = small(
        "from_scratch",
        epochs=3,
        data=replace(DIGITS, classes=("5", "6", "7"), augment="flip"),
        batch_norm="training",
        optimizer=Optimizer(
            name="adamw",
            weight_decay=0.05,
            schedule="cosine",
            warmup_epochs=0.5,
            clip_norm=1.0,
            ema_decay=0.9,
            layer_decay=0.9,
        ),
        head=Head(hidden=(8, 6), dropout=0.2),
        label_smoothing=0.1,
        class_weights={"5": 2.0},
        monitor="val_accuracy",
        patience=None,
    )
    run(everything, tmp_path / "run")
    assert "class weights: 5 2, 6 1, 7 1" in capsys.readouterr().out
    summary, rows = read_summary(tmp_path / "run"), read_rows(tmp_path / "run")
    assert [row["learning_rate"] for row in rows] == sorted((row["learning_rate"] for row in rows), reverse=True)
    assert rows[-1]["learning_rate"] < 1e-4
    model = tljax.load(tmp_path / "run")
    assert model.why_no_maps.startswith("its head has hidden layers")
    # The loss that is reported for validation is the plain cross-entropy of the averages that are kept.
    validation = datasets.load_dataset(everything.data, seed=0).validation
    logits = model(np.asarray(validation.images))
    losses = metrics.cross_entropy(jnp.asarray(logits), jnp.asarray(validation.labels, jnp.int32))
    assert summary["loss"] == pytest.approx(float(losses.mean()), rel=1e-4)
    right = logits.argmax(axis=1) == validation.labels
    expected = {name: right[validation.labels == i].mean() for i, name in enumerate(model.class_names)}
    assert summary["class_accuracy"] == pytest.approx(expected)
    assert summary["balanced_accuracy"] == pytest.approx(np.mean(list(expected.values())))

    # A fine_tune keeps the hidden layers; a feature_extraction leaves them out.
    fine = small("fine_tune", cut="conv5_block1", pretrained=str(tmp_path / "run"))
    run(fine, tmp_path / "fine")
    assert tljax.load(tmp_path / "fine").why_no_maps.startswith("its head has hidden layers")
    # A class may count nothing.
    run(small("feature_extraction", pretrained=str(tmp_path / "run"), class_weights={"5": 0}), tmp_path / "new")
    assert "hidden layers" not in tljax.load(tmp_path / "new").why_no_maps
    # A mistake that the data alone shows is told before an earlier run is deleted.
    for wrong, said in (({"8": 2.0}, "class_weights names '8'; the classes are 5, 6, 7"),
                        (dict.fromkeys("567", 0), "nothing would be learned")):  # fmt: skip
        config = small("feature_extraction", pretrained=str(tmp_path / "run"), class_weights=wrong)
        with pytest.raises(ValueError, match=said):
            run(config, tmp_path / "new", overwrite=True)
    unkept = small("feature_extraction", pretrained=str(tmp_path / "run"), cache=Cache(memory_gib=0, disk_gib=0))
    with pytest.raises(ValueError, match="too large for config"):
        run(replace(unkept, head=Head(init="ridge")), tmp_path / "new", overwrite=True)
    assert read_summary(tmp_path / "new")["class_names"] == ["5", "6", "7"]
