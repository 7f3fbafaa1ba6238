"""A network is a row of `NETWORKS`: its name in a config, official file, cuts and parameter counts follow from it."""

from dataclasses import replace
from pathlib import Path

import h5py
import jax
import numpy as np
import pooch
import pytest
from tiny_runs import DIGITS, TINY, read_summary, small

from tljax.config import Lesson
from tljax.data.preprocessing import CAFFE, TORCH, preprocess
from tljax.model import load
from tljax.networks.architectures import NETWORKS, VARIANTS, Network
from tljax.networks.cut import find_cut
from tljax.networks.resnet import ResNet, abstract_variables
from tljax.stages.from_config import run
from tljax.trees import flatten, unflatten
from tljax.weights import convert
from tljax.weights.pretrained import load_weights


def test_a_depth_is_one_row(tmp_path, monkeypatch, capsys):
    from keras.src.legacy.saving import legacy_h5_format
    from keras_networks import find_network

    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        build, architecture = find_network("1-2-2-1")
        keras_network = build(weights=None, input_shape=(33, 33, 3), classifier_activation=None)
        file = tmp_path / "downloads" / "resnet20_weights_tf_dim_ordering_tf_kernels.h5"
        file.parent.mkdir()
        with h5py.File(file, "w") as official:
            legacy_h5_format.save_weights_to_hdf5_group(official, keras_network)
        keras_network.save_weights(tmp_path / "counters.weights.h5")
        images = np.random.default_rng(0).integers(0, 256, (2, 33, 33, 3), np.uint8)
        theirs = np.asarray(keras_network(np.asarray(preprocess(images, CAFFE))))
    row = Network(architecture, keras_md5=pooch.file_hash(file, "md5"))
    monkeypatch.setitem(NETWORKS, "resnet20", row)
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path))

    # `imagenet` needs the name of the network; the depth of any other file follows from the names of its arrays.
    weights = load_weights("imagenet", "resnet20")
    counters = load_weights(str(tmp_path / "counters.weights.h5"))
    assert weights.architecture == counters.architecture == row.architecture
    model = ResNet(1000, VARIANTS[weights.variant], weights.architecture)
    target = flatten(abstract_variables(model))
    variables, same = (unflatten(convert.match_leaves(target, w.leaves, name=w.name)) for w in (weights, counters))
    jax.tree.map(np.testing.assert_array_equal, variables, same)
    ours = jax.jit(model.apply)(variables, preprocess(images, weights.preprocessing))
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()

    # `load` reads the same file, and gets the pictures as they are.
    loaded = replace(load(tmp_path / "counters.weights.h5"), image_size=33)(images)
    assert np.abs(loaded - theirs).max() <= 1e-5 * np.abs(theirs).max()

    # A cut by the index of Keras's layer: a stem of 7 layers, then blocks of 12, 12, 10, 12, 10 and 12.
    index = {layer.name: i for i, layer in enumerate(keras_network.layers)}["conv5_block1_1_conv"]
    assert index == 7 + 12 + 22 + 22 and find_cut(str(index), row.architecture).start == "conv5_block1"
    config = small("feature_extraction", pretrained="imagenet", network="resnet20", cut=str(index + 12))
    run(config, tmp_path / "run")
    assert "resnet20 v1 on 1 x cpu (" in capsys.readouterr().out
    assert read_summary(tmp_path / "run")["params"]["total"] == keras_network.count_params() - 2049 * 997
    tuned = load_weights(str(tmp_path / "run"), "resnet20")
    assert tuned.is_run and tuned.architecture == row.architecture


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A from_scratch run of torchvision's variant."""
    folder = tmp_path_factory.mktemp("runs") / "source"
    run(small("from_scratch", variant="v1.5"), folder)
    return folder


def test_from_scratch_has_the_variant_that_is_asked_for(source):
    weights = load_weights(str(source))
    assert (weights.architecture, weights.variant, weights.preprocessing) == (TINY, "v1.5", TORCH)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"network": "resnet101"}, "config.network='resnet101', but {} is tiny; leave it out, or take other weights"),
        ({"variant": "v1"}, "config.variant='v1', but {} is v1.5; leave it out, or take other weights"),
        ({"network": "resnet34"}, "config.network='resnet34' is none of resnet50, resnet101, resnet152, tiny"),
        ({"variant": "v2"}, "config.variant='v2': must be one of v1, v1.5, None"),
        (
            {"variant": "v1.5", "pretrained": "imagenet"},
            "config.variant='v1.5': the weights of imagenet are Keras's, v1; v1.5 is read from torchvision's "
            ".safetensors",
        ),
    ],
)
def test_a_network_that_the_weights_do_not_have_is_refused(source, tmp_path, asked, message):
    with pytest.raises(ValueError) as error:
        run(small("feature_extraction", **({"pretrained": str(source)} | asked)), tmp_path / "run")
    assert str(error.value) == message.format(source)
    assert not (tmp_path / "run").exists()


def test_a_lesson_says_where_its_networks_differ(source, tmp_path, capsys):
    lesson = Lesson(pretrained=str(source), data=DIGITS)
    lesson.stages = {name: lesson.stages[name] for name in ("feature_extraction", "from_scratch")}
    lesson.data.dir = str(tmp_path / "nowhere")
    lesson.stages["feature_extraction"].cut = "nowhere"
    with pytest.raises(ValueError, match="nowhere"):
        run(lesson, tmp_path / "run")
    alike = "--config.network=tiny --config.variant=v1.5 makes them alike"
    said = f"from_scratch trains resnet50 (v1), {source} is tiny (v1.5): {alike}"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_a_file_of_torch_says_how_deep_it_is(name):
    sizes = NETWORKS[name].architecture.stage_sizes
    blocks = [f"layer{i + 1}.{j}.conv1.weight" for i, size in enumerate(sizes) for j in range(size)]
    kernel = np.zeros((1, 1, 1, 1), np.float32)
    arrays = dict.fromkeys(["conv1.weight", *blocks], kernel) | {"fc.bias": np.zeros(3, np.float32)}
    _, architecture = convert.recognize_network(arrays, convert.KINDS["torch"])
    assert architecture == NETWORKS[name].architecture
    # For a file that lacks a unit, this is still the nearest architecture, so that an error can list what is missing.
    del arrays[blocks[-1]]
    assert convert.recognize_network(arrays, convert.KINDS["torch"])[1] == architecture
