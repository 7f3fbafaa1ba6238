"""The same numbers as Keras (and torch, where it is installed), on random weights with random BatchNorm statistics."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import jax
import keras
import numpy as np
import pytest
from conftest import AS_USERS, as_users
from keras.src.applications import imagenet_utils
from keras.src.legacy.saving import legacy_h5_format
from keras_networks import randomize

from tljax.data.preprocessing import TORCH, preprocess
from tljax.model import load
from tljax.networks.architectures import NETWORKS, VARIANTS
from tljax.networks.resnet import ResNet, abstract_variables, fold
from tljax.training import inference
from tljax.trees import flatten, unflatten
from tljax.weights import convert, imagenet, pretrained

pytestmark = pytest.mark.usefixtures("optimized")
jit = partial(jax.jit, compiler_options=AS_USERS)


def allow_keras():
    """Turns strict promotion off: Keras's own code promotes ranks and dtypes."""
    jax.config.update("jax_numpy_rank_promotion", "allow")
    jax.config.update("jax_numpy_dtype_promotion", "standard")


@pytest.fixture(autouse=True)
def strict_again():
    yield
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_numpy_dtype_promotion", "strict")


long = partial(pytest.param, marks=pytest.mark.long)


@pytest.fixture(scope="module", params=["ResNet50", long("ResNet101"), long("ResNet152")])
def network(request) -> Callable[..., keras.Model]:
    return getattr(keras.applications, request.param)


@pytest.fixture(scope="module")
def peer(tmp_path_factory, network) -> tuple[keras.Model, Path]:
    allow_keras()
    model = network(weights=None)
    randomize(model, seed=0)
    path = tmp_path_factory.mktemp("weights") / "keras.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return model, path


def with_official_spelling(path: Path, target: Path) -> Path:
    """Writes the same weights as the official file spells them: `:0` after every name, and the head is `probs`."""
    with h5py.File(path) as old, h5py.File(target, "w") as new:
        layers = [name.decode() if isinstance(name, bytes) else name for name in old.attrs["layer_names"]]
        new_name = {"predictions": "probs"}
        new.attrs["layer_names"] = [new_name.get(name, name).encode() for name in layers]
        for layer in layers:
            name = new_name.get(layer, layer)
            group = new.create_group(name)
            weights = [str(w) for w in old[layer].attrs["weight_names"]]
            spelled = [w.replace(layer, name) + ":0" for w in weights]
            group.attrs["weight_names"] = [w.encode() for w in spelled]
            for w, s in zip(weights, spelled, strict=True):
                group[s] = old[layer][w][()]
    return target


def variables_of(path: Path, num_classes: int = 1000):
    source = pretrained.load_weights(str(path))
    model = ResNet(num_classes, VARIANTS[source.variant], source.architecture)
    merged = convert.match_leaves(flatten(abstract_variables(model)), source.leaves, name=source.name)
    return model, unflatten(merged), source


def assert_close(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_logits_at_224_equal_keras_from_both_spellings_and_from_weights_h5(peer, tmp_path):
    keras_model, path = peer
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2, 224, 224, 3), np.uint8)
    allow_keras()
    x = keras.applications.resnet.preprocess_input(images.astype(np.float32))
    headless = keras.Model(keras_model.input, keras_model.layers[-2].output)
    kernel, bias = keras_model.layers[-1].get_weights()
    theirs = np.asarray(headless(x)) @ kernel + bias
    probabilities = np.asarray(keras_model(x))
    keras_model.save_weights(tmp_path / "keras.weights.h5")
    strict = {"jax_numpy_rank_promotion": "raise", "jax_numpy_dtype_promotion": "strict"}
    for name, value in strict.items():
        jax.config.update(name, value)

    model, variables, source = variables_of(path)
    official = variables_of(with_official_spelling(path, tmp_path / "official.h5"))[1]
    counters = variables_of(tmp_path / "keras.weights.h5")[1]
    for other in (official, counters):
        assert all(
            np.array_equal(a, b) for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(other), strict=True)
        )
    ours = jit(model.apply)(variables, preprocess(images, source.preprocessing))
    assert_close(np.asarray(ours), theirs)

    classify = partial(inference.classify, model=model, preprocessing=source.preprocessing, size=224)
    ours = np.asarray(jit(classify)(fold(model, variables), images, np.zeros(2, np.int32))[0])
    imagenet_utils.CLASS_INDEX = {str(i): label for i, label in enumerate(imagenet.labels())}
    for row, expected in zip(imagenet.top_k(ours, source.labels), imagenet_utils.decode_predictions(probabilities),
                             strict=True):  # fmt: skip
        assert [tuple(best[:2]) for best in row] == [best[:2] for best in expected]
        np.testing.assert_allclose([best[2] for best in row], [best[2] for best in expected], rtol=1e-4)


# The training steps compare 32 pixels, too.
@pytest.mark.parametrize("size", [long(32), 75])
def test_features_at_small_and_odd_sizes_equal_keras(network, peer, size):
    keras_model, path = peer
    x = np.random.default_rng(size).normal(0, 60, (3, size, size, 3)).astype(np.float32)
    allow_keras()
    headless = network(weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg")
    headless.set_weights(keras_model.get_weights()[:-2])
    theirs = np.asarray(headless(x))
    jax.config.update("jax_numpy_rank_promotion", "raise")
    model, variables, _ = variables_of(path)
    ours = jit(partial(model.apply, method="prefix"), static_argnums=2)(variables, x, "head")
    assert ours.shape == theirs.shape
    assert_close(np.asarray(ours), theirs)


@pytest.mark.parametrize(
    ("name", "stage", "precision"),
    [
        # Every kind of block, a third of the depth: nearly all of the time is compiling.
        ("1-2-1-1", "from_scratch", "float64"),
        long("ResNet50", "fine_tune", "float64"),
        long("ResNet50", "from_scratch", "float64"),
        # These are for the long form: float32 adds nothing but rounding, and fine_tune trains the head too.
        long("ResNet50", "fine_tune", "float32"),
        long("ResNet50", "from_scratch", "float32"),
        long("ResNet50", "feature_extraction", "float64"),
        long("ResNet50", "feature_extraction", "float32"),
        long("ResNet101", "fine_tune", "float64"),
    ],
)
def test_training_equals_keras(name, stage, precision):
    """Losses agree to 1e-7 for 20 steps in float64, and to 1e-4 for 3 in float32, where rounding soon dominates."""
    script = Path(__file__).parent / "peer_training.py"
    count, tolerance = {"float64": (20, 1e-7), "float32": (3, 1e-4)}[precision]
    peers = [sys.executable, script, name, stage, precision, str(count)]
    trained = subprocess.run(peers, capture_output=True, text=True, env=as_users())
    assert trained.returncode == 0, trained.stderr
    losses = json.loads(trained.stdout.splitlines()[-1])
    assert len(losses["keras"]) == len(set(losses["keras"])) == count
    np.testing.assert_allclose(losses["tljax"], losses["keras"], rtol=tolerance)


@pytest.mark.parametrize("name", ["resnet50", long("resnet101"), long("resnet152")])
def test_v1_5_equals_torch(tmp_path, name):
    torch = pytest.importorskip("torch", reason="torch is the independent implementation of v1.5")
    import safetensors.numpy

    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs, width, stride, project):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
            if project:
                shortcut = nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False)
                self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

        def forward(self, x):
            y = functional.relu(self.bn1(self.conv1(x)))
            y = functional.relu(self.bn2(self.conv2(y)))
            return functional.relu(self.bn3(self.conv3(y)) + (self.downsample(x) if hasattr(self, "downsample") else x))

    class TorchResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64)
            inputs = 64
            for i, size in enumerate(NETWORKS[name].architecture.stage_sizes):
                blocks = []
                for j in range(size):
                    blocks.append(Block(inputs, 64 * 2**i, 2 if i and not j else 1, j == 0))
                    inputs = 256 * 2**i
                setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            self.fc = nn.Linear(2048, 1000)

        def forward(self, x):
            x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            for i in range(4):
                x = getattr(self, f"layer{i + 1}")(x)
            return self.fc(x.mean((2, 3)))

    torch.manual_seed(0)
    peer = TorchResNet().eval()
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            for parameter, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.2, 0.2),
                                         (module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 1.5)):  # fmt: skip
                nn.init.uniform_(parameter, low, high)
    arrays = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
    safetensors.numpy.save_file(arrays, tmp_path / "torch.safetensors")

    images = np.random.default_rng(3).integers(0, 256, (2, 75, 75, 3), np.uint8)
    mean, std = (np.asarray(v, np.float32) for v in (TORCH.mean, TORCH.std))
    x = (images.astype(np.float32) / 255 - mean) / std
    with torch.no_grad():
        theirs = peer(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    model, variables, source = variables_of(tmp_path / "torch.safetensors")
    assert source.architecture == NETWORKS[name].architecture and source.variant == "v1.5"
    assert source.preprocessing == TORCH
    ours = jit(model.apply)(variables, preprocess(images, source.preprocessing))
    assert_close(np.asarray(ours), theirs)
    loaded = load(tmp_path / "torch.safetensors")
    assert_close(replace(loaded, image_size=75)(images), theirs)
