"""A trained run as a Python object: the logits of its own evaluation, for pictures of any kind, and tested first."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_runs import DIGITS, TINY, read_summary, train_on_digits

import tljax
from tljax import model as models
from tljax.data import datasets
from tljax.data.preprocessing import preprocess
from tljax.devices.mesh import make_mesh
from tljax.model import load, name_classes
from tljax.networks.architectures import VARIANTS
from tljax.networks.resnet import ResNet, abstract_variables
from tljax.runs import reference
from tljax.runs.reference import Reference, find_difference, read_reference, write_reference
from tljax.training import calibration
from tljax.training.inference import start_inference
from tljax.trees import flatten, unflatten
from tljax.weights import imagenet, pretrained


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train_on_digits(tmp_path_factory.mktemp("model") / "run")


@pytest.fixture(scope="module")
def validation() -> datasets.Split:
    return datasets.load_dataset(DIGITS, seed=0).validation


@pytest.fixture(scope="module")
def model(run) -> models.Model:
    return load(run)


def test_it_gives_the_logits_of_the_runs_own_evaluation(run, model, validation, optimized):
    logits, summary = model(validation.images), read_summary(run)
    assert len(validation.labels) == 54 and 0.4 < summary["accuracy"] < 1
    assert np.mean(logits.argmax(1) == validation.labels) == summary["accuracy"]
    losses = -np.log(calibration.softmax(logits)[np.arange(54), validation.labels])
    np.testing.assert_allclose(losses.mean(), summary["loss"], rtol=1e-6)
    kept = read_reference(run)
    assert kept.images.shape == (8, 32, 32, 3) and model.reference.best == kept.best
    assert np.abs(model(kept.images) - kept.logits).max() <= 1e-6 * np.abs(kept.logits).max()


def test_other_pictures_in_the_batch_change_nothing(model, validation, optimized):
    """To the bit: alone, in any order, and at any place of a batch."""
    logits, order = model(validation.images), np.random.default_rng(0).permutation(54)
    assert model.batch_size > 54
    np.testing.assert_array_equal(model(validation.images[order]), logits[order])
    for i in (0, 7, 53):
        np.testing.assert_array_equal(model(validation.images[i]), logits[i : i + 1])
    many = np.concatenate([validation.images] * 8)
    assert len(many) > model.batch_size
    np.testing.assert_array_equal(model(many), np.concatenate([logits] * 8))


def test_pictures_of_every_kind(model, validation, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    one = model(path)
    assert one.shape == (1, 3) and one.dtype == np.float32
    for other in (str(path), Image.open(path), pixels, [pixels], pixels[None], jax.numpy.asarray(pixels)):
        np.testing.assert_array_equal(model(other), one)
    mixed = model([path, Image.fromarray(pixels).convert("L"), validation.images[0]])
    assert mixed.shape == (3, 3) and np.array_equal(mixed[0], one[0]) and not np.array_equal(mixed[1], one[0])
    assert repr(model) == f"Model({model.name!r}, 3 classes, 32 pixels)"
    assert model([]).shape == (0, 3) and model.predict([]) == []
    with pytest.raises(ValueError, match="top=-1: an answer has one label at least"):
        model.predict(path, top=-1)
    Image.fromarray(pixels).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-40])
    with pytest.raises(ValueError, match="a picture of Pillow is no readable image"):
        model(Image.open(tmp_path / "half.jpg"))
    with pytest.raises(ValueError, match="is no readable image: it is no regular file"):
        model(tmp_path)
    for wrong in (pixels / 255, pixels[:0], pixels[..., :2], pixels.astype(int), 7):
        with pytest.raises(ValueError, match="a picture is a path, a picture of Pillow, or a uint8 array"):
            model(wrong)
    with pytest.raises(ValueError, match=r"nothing\.png is no readable image: there is no such file"):
        model("nothing.png")


def test_answers_are_the_softmax_of_logits_by_the_temperature(run, model, validation):
    logits = model(validation.images[:5])
    probabilities = calibration.softmax(logits, read_summary(run)["calibration"]["temperature"])
    for answer, row in zip(model.predict(validation.images[:5], top=2, coverage=0.9), probabilities, strict=True):
        assert answer.label == model.class_names[row.argmax()] == answer.top[0][0] == answer.set[0]
        assert answer.probability == row.max() and [p for _, p in answer.top] == sorted(row)[:-3:-1]
        assert set(answer.set) >= {name for name, p in zip(model.class_names, row, strict=True) if p > 0.999}
    with pytest.raises(ValueError, match=r"0.99 needs at least 99 pictures .* this run has 27"):
        model.predict(validation.images[:5], coverage=0.99)
    with pytest.raises(ValueError, match=r"coverage 0.8 with mirror images \(--tta\): sets of labels are fitted on"):
        model.predict(validation.images[:5], coverage=0.8, tta=True)


def test_the_mirrored_view_is_averaged(model, validation):
    images = validation.images[:6]
    expected = (model(images) + model(images[:, :, ::-1])) / 2
    np.testing.assert_allclose(model(images, tta=True), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model(images[:, :, ::-1], tta=True), expected, rtol=1e-5, atol=1e-5)


def test_features_are_what_a_unit_reads(model, validation):
    network, folded = model._inference.model, model._inference.folded
    x = preprocess(validation.images[:4], model._inference.preprocessing)
    for at in ("conv2_block1", "conv5_block1"):
        read = network.folded.apply(folded, x, at, method="prefix")
        np.testing.assert_allclose(
            model.features(validation.images[:4], at=at), read.mean((1, 2)), rtol=1e-4, atol=1e-4
        )
    head = jax.tree.map(np.asarray, folded["params"]["head"])
    features = model.features(validation.images[:4])
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], model(validation.images[:4]), rtol=1e-4)
    with pytest.raises(ValueError, match="at='conv1': features are what one of these units reads: conv2_block1, "):
        model.features(validation.images[:4], at="conv1")


def make_model(variant: str, size: int) -> models.Model:
    """A model of the tiny network with random weights for pictures of `size` pixels."""
    network = ResNet(4, VARIANTS[variant], TINY)
    shapes, rng = flatten(abstract_variables(network)), np.random.default_rng(0)
    leaves = {p: rng.uniform(0.5, 1.5, s.shape).astype(np.float32) * (1 if p.endswith(("scale", "var")) else 0.1)
              for p, s in shapes.items()}  # fmt: skip
    runner = start_inference(network, pretrained.OF_VARIANT[variant], unflatten(leaves), make_mesh())
    return models.Model("made up", ("a", "b", "c", "d"), size, "crop", None, runner)


@pytest.mark.parametrize("variant", ["v1", "v1.5"])
def test_the_contributions_of_all_positions_are_the_logit(variant, optimized):
    model = make_model(variant, 96)
    images = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3), np.uint8)
    logits = model(images)
    assert model.positions == (3, 3)
    for label, column in ((None, logits.argmax(1)), ("b", [1, 1, 1])):
        for found, row, k in zip(model.explain(images, label=label), logits, column, strict=True):
            assert found.contributions.shape == (3, 3) and found.label == model.class_names[k]
            assert np.ptp(found.contributions) > 0
            assert abs(found.contributions.sum() + found.bias - row[k]) <= 1e-5 * np.abs(logits).max()
    mean = (logits + model(images[:, :, ::-1])) / 2
    for found, row in zip(model.explain(images, tta=True), mean, strict=True):
        assert found.label == model.class_names[row.argmax()]
        assert abs(found.contributions.sum() + found.bias - row.max()) <= 1e-5 * np.abs(logits).max()
    plain, mirrored = (model.explain(x, label="b")[0].contributions for x in (images, images[:, :, ::-1]))
    both = model.explain(images, label="b", tta=True)[0].contributions
    np.testing.assert_allclose(both, (plain + mirrored[:, ::-1]) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="label='e' is none of a, b, c, d"):
        model.explain(images, label="e")


def test_where_the_last_map_has_one_position_there_is_no_map():
    with pytest.raises(ValueError, match="at 32 pixels the last map has one position: there is no map"):
        make_model("v1", 32).explain(np.zeros((1, 32, 32, 3), np.uint8))


def alter(run: Path, folder: Path, **changes) -> Path:
    """A copy of the run whose reference has other values."""
    (folder / "run").mkdir()
    (folder / "run" / "checkpoints").symlink_to(run / "checkpoints")
    kept = read_reference(run)
    write_reference(folder / "run", kept._replace(**{name: change(kept) for name, change in changes.items()}))
    return folder / "run"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kept: kept.logits + 2e-4 * np.abs(kept.logits).max(), "they differ by .* at most .* is rounding"),
        (lambda kept: kept.logits[::-1].copy(), "they differ by"),
        (lambda kept: kept.logits[:, :2].copy(), "they have 3 classes, then 2"),
    ],
)
def test_a_machine_that_gives_other_answers_is_refused(run, tmp_path, change, said):
    with pytest.raises(ValueError, match=f"(?s)compute other logits .*{said}.*nothing is predicted"):
        load(alter(run, tmp_path, logits=change))


def test_rounding_is_no_other_answer(run, tmp_path):
    assert load(alter(run, tmp_path, logits=lambda kept: kept.logits * np.float32(1 + 5e-5))).reference is not None


@pytest.mark.parametrize("best", [0, 10**6])
def test_the_reference_of_another_epoch_is_not_used(run, tmp_path, best):
    model = load(alter(run, tmp_path, best=lambda kept: best))
    assert model.reference is None and model.temperature == 1.0
    with pytest.raises(
        ValueError, match=f"no coverage can be promised: .* went on after its {reference.REFERENCE} was written"
    ):
        model.find_threshold(0.9)


def test_bfloat16_may_differ_more_but_not_in_a_clear_class():
    logits = np.array([[10.0, 1.0, 0.0], [5.0, 4.99, 0.0]], np.float32)
    kept = Reference(1, "bfloat16", np.zeros((2, 1, 1, 3), np.uint8), logits, 1.0, np.zeros(1))
    assert find_difference(kept, logits + 0.1, "float32") is None
    assert "they differ by" in find_difference(kept, logits + 0.3, "float32")
    assert find_difference(kept, logits[:, [0, 1, 2]] + [[0, 0, 0], [-0.1, 0.1, 0]], "bfloat16") is None
    exact = kept._replace(compute="float32")
    assert "they differ by" in find_difference(exact, logits + 0.1, "float32")
    assert "they differ by" in find_difference(exact, logits * np.float32(np.nan), "float32")


VALUES = {
    "no temperature": lambda kept: {"temperature": np.nan},
    "a temperature of infinity": lambda kept: {"temperature": np.inf},
    "scores in another order": lambda kept: {"scores": kept["scores"][::-1]},
    "scores that are no probabilities": lambda kept: {"scores": kept["scores"] + 1},
    "no pictures": lambda kept: {"images": kept["images"][:0], "logits": kept["logits"][:0]},
    "another precision": lambda kept: {"compute": "float8"},
}


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    kept = dict(np.load(path))
    if how == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif how == "a bit":
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    elif how == "compressed":
        np.savez_compressed(path, **kept)
    elif how == "pickled":
        np.savez(path, **kept | {"scores": np.array([{}], object)})
    elif how == "other types":
        np.savez(path, **kept | {"logits": kept["logits"].astype(int)})
    elif how == "an array less":
        np.savez(path, **{name: array for name, array in kept.items() if name != "scores"})
    elif how in VALUES:
        np.savez(path, **kept | VALUES[how](kept))


@pytest.mark.parametrize("how", ["cut off", "a bit", "compressed", "pickled", "other types", "an array less", *VALUES])
def test_a_damaged_reference_is_named(run, tmp_path, how):
    altered = alter(run, tmp_path)
    damage(altered / reference.REFERENCE, how)
    with pytest.raises(ValueError, match=r"reference\.npz is damaged") as error:
        load(altered)
    assert "\n" not in str(error.value)


def test_classes_of_the_same_name_are_told_apart():
    twice = pretrained.Weights("imagenet", {}, "v1", pretrained.OF_VARIANT["v1"], 224, imagenet.labels(), TINY)
    names = name_classes(twice)
    assert len(set(names)) == 1000 and sum(name.startswith("crane (n") for name in names) == 2


def test_a_file_without_a_head_is_refused(tmp_path, monkeypatch):
    nothing = pretrained.Weights("file.h5", {}, "v1", pretrained.OF_VARIANT["v1"], 224, (), TINY)
    monkeypatch.setattr(models, "load_weights", lambda *a, **k: nothing)
    with pytest.raises(ValueError, match=r"file\.h5 has no head, so it tells no classes"):
        load("file.h5")


def test_importing_tljax_alone_imports_no_jax():
    script = "import sys, tljax; print({'jax', 'matplotlib', 'numpy'} & set(sys.modules), dir(tljax))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set() ['Config', 'load', 'train']\n"
    assert tljax.load is load and tljax.Config().stage == "feature_extraction"
    with pytest.raises(AttributeError, match="has no attribute 'Trainer'; it has Config, load, train"):
        _ = tljax.Trainer


def test_it_computes_in_32_bits_whatever_the_program_does(model):
    bits: list[bool] = []
    with jax.enable_x64(True):
        model._start(lambda *_: bits.append(bool(jax.config.jax_enable_x64)), [])
        assert bits == [False] and jax.config.jax_enable_x64
