"""Whole networks go from weights in the official layout through a run to Keras, timm and torchvision, which answer the
same and train on; what they save starts a run again.

`pytest tests/test_round_trips.py -m long` takes Keras's ResNet50 and ResNet101. The tests with timm and torchvision run
where these are installed.
"""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from docs_examples import read_example
from PIL import Image, ImageOps
from tiny_runs import DIGITS, read_digits, read_summary, small

import tljax
from tljax.cli import main
from tljax.data.preprocessing import OF_VARIANT
from tljax.export import torch_files
from tljax.export.squares import join_squares
from tljax.stages.from_config import run
from tljax.training.calibration import softmax

CLASSES = len(DIGITS.classes)


def train_head(official: Path, workdir: Path, network: str, variant: str) -> Path:
    settings = {"pretrained": str(official), "network": network, "variant": variant}
    run(small("feature_extraction", **settings), workdir)
    return workdir


def answer(run: Path, pictures: np.ndarray) -> np.ndarray:
    return softmax(replace(tljax.load(run), image_size=32)(pictures), 1.0)


@pytest.mark.long
@pytest.mark.parametrize("name", ["ResNet50", "ResNet101"])
def test_from_official_weights_to_keras_and_back(tmp_path, name):
    import keras
    from keras.src.legacy.saving import legacy_h5_format
    from keras_networks import find_network, randomize

    build, pictures = find_network(name)[0], read_digits(tmp_path / "digits")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        published = build(weights=None)
        randomize(published, seed=0)
        with h5py.File(tmp_path / "official.h5", "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, published)
    trained = train_head(tmp_path / "official.h5", tmp_path / "trained", name.lower(), "v1")
    main(["export", str(trained), str(tmp_path / "model.weights.h5")])
    inputs = keras.applications.resnet.preprocess_input(pictures.astype(np.float32))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        theirs = build(weights=None, classes=CLASSES, input_shape=(32, 32, 3))
        theirs.load_weights(tmp_path / "model.weights.h5")
        before = theirs.predict(inputs, verbose=0)
        theirs.compile(keras.optimizers.SGD(1e-4), "sparse_categorical_crossentropy")
        theirs.fit(inputs, np.arange(len(inputs)) % CLASSES, batch_size=len(inputs), verbose=0)
        theirs.save_weights(tmp_path / "on.weights.h5")
        after = theirs.predict(inputs, verbose=0)
    np.testing.assert_allclose(answer(trained, pictures), before, atol=1e-5)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(answer(tmp_path / "on.weights.h5", pictures), after, atol=1e-5)
    again = train_head(tmp_path / "on.weights.h5", tmp_path / "again", name.lower(), "v1")
    assert read_summary(again)["params"]["total"] == theirs.count_params()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, Path]:
    """A run with timm's ResNet50 of random weights, and the folder that it is exported to."""
    timm = pytest.importorskip("timm")
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    published = timm.create_model("resnet50")
    for layer in published.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for values, low, high in (
                (layer.weight, 0.2, 0.6),
                (layer.bias, -0.2, 0.2),
                (layer.running_mean, -0.5, 0.5),
                (layer.running_var, 0.5, 1.5),
            ):
                torch.nn.init.uniform_(values, low, high)
    save_file(published.state_dict(), folder / "official.safetensors")
    trained = train_head(folder / "official.safetensors", folder / "trained", "resnet50", "v1.5")
    (folder / "exported").mkdir()
    main(["export", str(trained), str(folder / "exported" / "model.safetensors")])
    return trained, folder / "exported"


def as_torch(pictures: np.ndarray):
    import torch

    mean, std = (np.array(value).reshape(1, 3, 1, 1) for value in OF_VARIANT["v1.5"][2:])
    return torch.tensor((pictures.transpose(0, 3, 1, 2) / 255 - mean) / std, dtype=torch.float32)


def test_torchvision_loads_it_strictly(exported, tmp_path):
    torchvision, torch = pytest.importorskip("torchvision"), pytest.importorskip("torch")
    from safetensors.torch import load_file

    (trained, folder), pictures = exported, read_digits(tmp_path)
    theirs = torchvision.models.resnet50(num_classes=CLASSES)
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        found = torch.softmax(theirs.eval()(as_torch(pictures)), 1).numpy()
    np.testing.assert_allclose(answer(trained, pictures), found, atol=1e-5)


def test_from_official_weights_to_timm_and_back(exported, tmp_path):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from safetensors.torch import save_file

    (trained, folder), pictures = exported, read_digits(tmp_path / "digits")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    settings = timm.data.resolve_model_data_config(theirs)
    assert tuple(settings["input_size"]) == (3, 32, 32)
    np.testing.assert_allclose([settings["mean"], settings["std"]], OF_VARIANT["v1.5"][2:], rtol=1e-6)
    inputs = as_torch(pictures)
    with torch.no_grad():
        before = torch.softmax(theirs(inputs), 1).numpy()
    np.testing.assert_allclose(answer(trained, pictures), before, atol=1e-5)
    theirs.train()
    optimizer = torch.optim.SGD(theirs.parameters(), 1e-4)
    for batch in inputs.chunk(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(batch), torch.arange(len(batch)) % CLASSES).backward()
        optimizer.step()
    save_file(theirs.eval().state_dict(), tmp_path / "on.safetensors")
    with torch.no_grad():
        after = torch.softmax(theirs(inputs), 1).numpy()
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(answer(tmp_path / "on.safetensors", pictures), after, atol=1e-5)
    again = train_head(tmp_path / "on.safetensors", tmp_path / "again", "resnet50", "v1.5")
    assert read_summary(again)["params"]["total"] == sum(value.numel() for value in theirs.state_dict().values()) - 53


def test_the_example_of_the_docs(exported, tmp_path, monkeypatch, capsys):
    trained, folder = exported
    monkeypatch.chdir(folder.parent)
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 60, 3), np.uint8)).save("photo.png")
    exec(read_example("timm"), {})
    label, probability = capsys.readouterr().out.split()
    (expected,) = softmax(tljax.load(trained)("photo.png"), 1.0)
    assert label == DIGITS.classes[expected.argmax()] and float(probability) == pytest.approx(expected.max(), abs=1e-5)


def test_timm_s_own_transform_differs_as_the_metadata_says(exported):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    trained, folder = exported
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
    model = tljax.load(trained)
    pictures = join_squares(model.reference.images)
    turned = [ImageOps.exif_transpose(picture) for picture in pictures]
    with torch.no_grad():
        found = torch.softmax(theirs(torch.stack([transform(picture) for picture in turned])), 1).numpy()
    said = json.loads((folder / "config.json").read_text())["tljax"]["difference_with_timm"]
    assert said > 1e-5 and np.abs(found - softmax(model(pictures), 1.0)).max() == pytest.approx(said, rel=0.05)


@pytest.mark.parametrize("fit", torch_files.CROP_MODES)
def test_timm_s_squares_are_those_that_the_check_takes(fit):
    """They have any proportions, and are larger and smaller."""
    timm = pytest.importorskip("timm")
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
    given = {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": torch_files.CROP_MODES[fit], "normalize": False}
    transform = timm.data.create_transform((3, 37, 37), **given)
    for size in rng.integers(20, 100, (100, 2)).tolist():
        picture = photo.resize(size)
        found = torch_files.prepare(picture, fit, 37)
        np.testing.assert_array_equal(np.asarray(found), transform(picture).numpy().transpose(1, 2, 0))
