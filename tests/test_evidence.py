"""What a run keeps for its page: maps of validation pictures, training pictures as the network gets them."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import DIGITS, make_source, small

from tljax.data.augmentation import compose, make_view, show_draws, show_views
from tljax.data.datasets import Split, load_dataset
from tljax.devices.mesh import make_mesh
from tljax.networks.architectures import VARIANTS, Architecture
from tljax.networks.resnet import ResNet, abstract_variables
from tljax.runs.evidence import EVIDENCE, Evidence, digest_predictions, read_evidence, to_maps, write_evidence
from tljax.runs.files import write_arrays
from tljax.stages import evidence as stage
from tljax.stages.train import prepare
from tljax.training import epochs
from tljax.training.inference import contributions, start_inference
from tljax.weights.pretrained import load_weights

KEPT = Evidence(
    7, np.array([4, 0]), np.ones((2, 3, 3), np.float16), np.zeros((3, 2, 8, 8, 3), np.uint8), np.array([0, 2, 9]),
    ("as it is", "draw 1"),
)  # fmt: skip


def test_evidence_is_read_as_it_was_written(tmp_path):
    assert read_evidence(tmp_path) is None
    write_evidence(tmp_path, KEPT)
    found = read_evidence(tmp_path)
    assert (found.best, found.view_titles) == (7, ("as it is", "draw 1"))
    for name in ("rows", "maps", "views", "view_rows"):
        np.testing.assert_array_equal(getattr(found, name), getattr(KEPT, name), strict=True)


def test_evidence_of_another_run_is_not_taken_for_its_own(tmp_path):
    (tmp_path / "predictions.jsonl").write_text("{}\n")
    own = KEPT._replace(predictions=digest_predictions(tmp_path))
    write_evidence(tmp_path, own)
    assert len(own.predictions) == 64 and read_evidence(tmp_path).predictions == own.predictions
    (tmp_path / "predictions.jsonl").write_text("{ }\n")
    with pytest.raises(ValueError, match=r"evidence\.npz belongs to other predictions than those beside it"):
        read_evidence(tmp_path)
    # Earlier versions did not write to which it belongs.
    write_arrays(tmp_path / EVIDENCE, {name: value for name, value in KEPT._asdict().items() if name != "predictions"})
    assert read_evidence(tmp_path).best == 7


@pytest.mark.parametrize(
    "change",
    [
        {"rows": np.array([0, -1])}, {"rows": np.array([0.0, 1.0])}, {"rows": np.arange(25), "maps": KEPT.maps[:0]},
        {"maps": KEPT.maps[:1]}, {"maps": KEPT.maps.astype(np.float32)}, {"maps": KEPT.maps * np.float16("nan")},
        {"views": KEPT.views[:2]}, {"views": KEPT.views[..., :2]}, {"views": np.zeros((3, 2, 97, 97, 3), np.uint8)},
        {"maps": KEPT.maps[:, :0]}, {"views": KEPT.views[:, :, :0, :0]}, {"view_titles": ("as it is",)},
        {"view_rows": np.array(["a", "b", "c"])}, {"best": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_evidence_of_another_kind_is_refused(tmp_path, change):
    write_arrays(tmp_path / EVIDENCE, KEPT._asdict() | change)
    with pytest.raises(ValueError, match=r"evidence\.npz is damaged \(.*\): delete it, or run that stage again"):
        read_evidence(tmp_path)


def test_a_damaged_archive_is_one_line(tmp_path):
    write_evidence(tmp_path, KEPT)
    content = (tmp_path / EVIDENCE).read_bytes()
    for broken in (b"", content[:-9], content[:300] + bytes(99) + content[399:]):
        (tmp_path / EVIDENCE).write_bytes(broken)
        with pytest.raises(ValueError, match=r"evidence\.npz is damaged") as error:
            read_evidence(tmp_path)
        assert "\n" not in str(error.value)


def test_maps_that_are_no_numbers_are_left_out_and_large_ones_fit():
    maps = np.array([[[1.5, -1e6]], [[0.0, 2.0]]])
    assert to_maps(maps).tolist() == [[[1.5, -65504.0]], [[0.0, 2.0]]]
    assert to_maps(np.where(maps, maps, np.nan)).shape == (0, 1, 2)


@pytest.mark.parametrize("sizes", [(), (1,), (2, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("variant", ["v1", "v1.5"])
def test_the_side_of_the_last_map(variant, sizes):
    model = ResNet(3, VARIANTS[variant], Architecture(sizes, 4))
    variables = abstract_variables(model)
    for side in (32, 33, 50, 224):
        image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        run = partial(model.apply, start=model.units[-2], method="last_map")
        before = partial(model.apply, end=model.units[-2], method="prefix")
        shape = jax.eval_shape(lambda v, x, run=run, before=before: run(v, before(v, x)), variables, image).shape
        assert shape[1:3] == (model.architecture.map_side(side),) * 2


def test_draws_are_those_of_the_steps_of_a_run():
    named, key = (("flip", 0.5), ("shift", 0.1), ("mixup", 0.0)), jax.random.key(3)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    shown = np.asarray(jax.jit(show_draws(named, 3, key, 5))(images, np.arange(4)))
    assert shown.shape == (4, 4, 16, 16, 3) and np.array_equal(shown[:, 0], images)
    batch = {"image": jnp.asarray(images), "label": jnp.zeros(4, int), "mask": jnp.ones(4, bool)}
    for step in range(3):
        expected = jax.jit(partial(compose(named), classes=5))(batch, jax.random.fold_in(key, step))["image"]
        np.testing.assert_array_equal(shown[:, 1 + step], np.round(expected).astype(np.uint8))
    assert len(np.unique(shown[0], axis=0)) == 4


@pytest.mark.parametrize("named", [(("flip", 0.5), ("shift", 0.1)), (("crop", 0.3), ("flip", 0.5))])
def test_views_are_those_that_activations_are_computed_of(named):
    images, rows = np.random.default_rng(0).integers(0, 256, (3, 23, 23, 3), np.uint8), jnp.array([5, 0, 7])
    shown = np.asarray(jax.jit(show_views(named, 3, 9))(images, rows))
    for number in range(3):
        expected = np.asarray(jax.jit(make_view(named, number, 9))(jnp.asarray(images), rows), np.float32)
        np.testing.assert_array_equal(shown[:, number], np.round(expected).astype(np.uint8))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"))


def make(source, **settings):
    """What a stage trains with on images of 40 pixels, of which the last map has 2 x 2 positions, and its data."""
    data = replace(DIGITS, image_size=40, max_images=30, **settings)
    config = small("fine_tune", pretrained=str(source), cut="conv5_block1", data=data)
    dataset = load_dataset(data, seed=0)
    return prepare(config, dataset, load_weights(str(source)), ()), dataset


def test_maps_are_what_the_logits_of_the_predicted_labels_consist_of(source):
    made, dataset = make(source)
    state = made.programs.create_beside(made.variables)
    # A network with random weights predicts one label, until its mean logits are taken off.
    logits = epochs.evaluate(state, made.validation, made.programs.evaluate).logits
    head = made.variables["params"]["head"] | {"bias": -jnp.asarray(logits.mean(axis=0))}
    made = made._replace(variables=made.variables | {"params": made.variables["params"] | {"head": head}})
    state = state._replace(variables=made.variables)
    found = {"validation": epochs.evaluate(state, made.validation, made.programs.evaluate)}
    kept = stage.make_evidence(made, dataset, found, made.variables, 3)
    split, logits = dataset.validation, found["validation"].logits
    assert kept.best == 3 and kept.maps.shape == (len(kept.rows), 2, 2) and 12 < len(kept.rows) <= 24
    right = logits.argmax(axis=1)[kept.rows] == split.labels[kept.rows]
    mistakes = int((~right).sum())
    assert right.tolist() == [False] * mistakes + [True] * (len(right) - mistakes) and mistakes <= 12
    bias = np.asarray(made.variables["params"]["head"]["bias"])
    predicted = logits.argmax(axis=1)[kept.rows]
    assert len(set(predicted)) == 3
    sums = kept.maps.astype(float).sum(axis=(1, 2)) + bias[predicted]
    np.testing.assert_allclose(sums, logits.max(axis=1)[kept.rows], rtol=5e-3)
    # The same from images, without activations, in two batches; and as `explain` has it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "PIXELS_AT_ONCE", 40**2 * 13)
        from_images = stage.make_maps(made._replace(activations=None), split, kept.rows, predicted, made.variables)
    np.testing.assert_allclose(from_images, kept.maps.astype(float), rtol=5e-3, atol=1e-3)
    inference = start_inference(made.setup.model, made.setup.preprocessing, made.variables, make_mesh())
    run = inference.program(partial(contributions, mirror=False))
    whole = np.asarray(run(inference.folded, split.images[kept.rows]))
    np.testing.assert_allclose(from_images, whole[np.arange(len(whole)), :, :, predicted], rtol=1e-4, atol=1e-5)


def test_training_pictures_are_shown_in_the_views_that_were_trained_on(source):
    made, dataset = make(source, augment="flip,shift", views=3)
    views, rows, titles = stage.show_training(made, dataset.train)
    assert views.shape == (6, 3, 40, 40, 3) and titles == ("as it is", "view 2", "view 3")
    assert dataset.train.labels[rows].tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(views[:, 0], dataset.train.images[rows])
    drawn, _, titles = stage.show_training(made._replace(activations=None), dataset.train)
    assert drawn.shape == (6, 6, 40, 40, 3) and titles == ("as it is", *(f"draw {i}" for i in range(1, 6)))


def test_without_augmentation_pictures_are_shown_as_they_are():
    config = small("from_scratch")
    images = np.random.default_rng(0).integers(0, 256, (7, 200, 200, 3), np.uint8)
    split = Split(images, np.arange(7) % 2, tuple("abcdefg"), np.arange(7) * 3, 21, np.zeros((7, 4), np.uint32))
    made = SimpleNamespace(setup=SimpleNamespace(config=config), activations=None)
    views, rows, titles = stage.show_training(made, split)
    assert views.shape == (6, 1, 96, 96, 3) and titles == ("as it is",) and (rows % 3 == 0).all()
    np.testing.assert_allclose(views.mean(), images.mean(), atol=1)


def test_pictures_without_a_row_of_predictions_get_no_map(monkeypatch):
    from tljax.runs import predictions

    split = SimpleNamespace(rows=np.array([1, 3, 4, 5]), labels=np.array([1, 1, 0, 1]), count=6)
    logits = np.array([[0, 9], [0, 1], [9, 0], [0, 2], [0, 7], [5, 0]], np.float32)
    assert stage.choose_shown(split, logits).tolist() == [2, 3, 0, 1]
    monkeypatch.setattr(predictions, "MOST_ROWS", 3)
    # Rows 0, 2 and 5 have one; this process reads the last of them.
    assert stage.choose_shown(split, logits).tolist() == [3]


def test_evidence_that_cannot_be_made_or_written_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stage, "make_evidence", lambda *_: KEPT)
    (tmp_path / EVIDENCE).mkdir()
    stage.keep_evidence(None, tmp_path, None, {}, {}, 1)
    monkeypatch.setattr(stage, "make_evidence", lambda *_: 1 / 0)
    stage.keep_evidence(None, tmp_path, None, {}, {}, 1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(f"{tmp_path / EVIDENCE} is not written (" in line for line in lines)
    assert "cannot be written (Is a directory)" in lines[0] and "ZeroDivisionError: division by zero" in lines[1]
