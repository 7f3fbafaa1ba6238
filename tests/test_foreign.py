"""Weight files of other people's models are read as far as they are ours, and named for what they are otherwise."""

import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tljax.networks.architectures import RESNET50, Architecture
from tljax.weights import convert, foreign, pretrained, untrusted

KERNEL = np.ones((64, 3, 7, 7), np.float32)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("names", "prefix", "stripped"),
    [
        (
            ["conv1.weight", "layer1.0.conv1.weight", "fc.bias"],
            "",
            ["conv1.weight", "layer1.0.conv1.weight", "fc.bias"],
        ),
        (["module.conv1.weight", "module.layer1.0.conv1.weight"], "module.", ["conv1.weight", "layer1.0.conv1.weight"]),
        (["model.backbone.conv1.weight", "head.1.weight"], "model.backbone.", ["conv1.weight", "head.1.weight"]),
        (["my_conv1.weight"], "", ["my_conv1.weight"]),
        (["features.weight"], "", ["features.weight"]),
    ],
)
def test_a_common_prefix_is_removed(names, prefix, stripped):
    arrays, found = foreign.strip_prefix(dict.fromkeys(names, KERNEL), convert.KINDS["torch"].first)
    assert (list(arrays), found) == (stripped, prefix)


def test_a_nested_keras_network_is_found_and_the_head_beside_it():
    names = [
        "layers/functional/layers/conv2d/vars/0",
        "layers/functional/layers/conv2d_1/vars/1",
        "layers/dense/vars/0",
    ]
    kind = convert.KINDS["keras_counters"]
    arrays, prefix = foreign.strip_prefix(dict.fromkeys(names, KERNEL), kind.first)
    assert prefix == "layers/functional/"
    expected = ["params/conv1/conv/kernel", "params/conv2_block1/1_conv/bias", "params/head/kernel"]
    assert list(kind.convert(arrays, RESNET50)) == expected


RESNET = {
    "conv1.weight": KERNEL,
    "bn1.running_mean": zeros(64),
    "layer1.0.conv1.weight": zeros(64, 64, 1, 1),
    "layer1.0.conv2.weight": zeros(64, 64, 3, 3),
    "layer1.0.conv3.weight": zeros(256, 64, 1, 1),
}


def without(*names: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in RESNET.items() if name not in names}


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        (RESNET, None),
        ({"conv1_conv/kernel": KERNEL, "conv1_bn/moving_mean": zeros(64)}, None),
        ({"patch_embed.proj.weight": KERNEL, "cls_token": zeros(1, 1, 768)}, "a vision transformer"),
        ({"conv2_block1_preact_bn/gamma": zeros(64)}, "a ResNet V2"),
        ({"conv1.0.weight": KERNEL, "conv1.1.running_mean": zeros(64)}, "a stem of several convolutions"),
        (RESNET | {"layer1.0.se.fc1.weight": zeros(8, 256, 1, 1)}, "squeeze-and-excitation"),
        (without("layer1.0.conv3.weight"), "basic blocks"),
        (without("bn1.running_mean"), "GroupNorm"),
        (RESNET | {"layer1.0.conv1.weight": zeros(128, 64, 1, 1)}, "another width"),
        (RESNET | {"layer1.0.conv2.weight": zeros(128, 4, 3, 3)}, "a ResNeXt"),
    ],
)
def test_another_model_is_named_for_what_it_is(arrays, what, tmp_path):
    found = foreign.name_model(arrays)
    assert found is None if what is None else what in found
    if what is not None and "conv1.weight" in arrays:
        save_file(arrays, tmp_path / "w.safetensors")
        with pytest.raises(ValueError, match="which tljax does not have; it has resnet50") as error:
            pretrained.load_weights(str(tmp_path / "w.safetensors"))
        assert what in str(error.value) and "\n" not in str(error.value)


TARGET = {"params": {"conv1": {"conv": {"kernel": zeros(2, 3)}}, "head": {"bias": zeros(4)}}}


def weights(**arrays: np.ndarray) -> pretrained.Weights:
    leaves = {name.replace("__", "/"): array for name, array in arrays.items()}
    return pretrained.Weights("w", leaves, "v1", None, 224, (), Architecture(()))


def test_with_a_new_head_the_layers_of_the_old_one_are_left_out_and_said(capsys):
    old = {"fc.1.weight": zeros(10, 4), "fc.1.bias": zeros(10)}
    found = pretrained.load_into(
        TARGET, weights(params__conv1__conv__kernel=zeros(2, 3) + 1, **old), (), keep_head=False
    )
    assert found["params"]["conv1"]["conv"]["kernel"].min() == 1
    assert capsys.readouterr().out == "w: left out, since the head is new: fc.1.bias, fc.1.weight\n"
    # A convolution that has no place is no part of a head.
    stray = weights(params__conv1__conv__kernel=zeros(2, 3), stray=zeros(1, 1, 3, 3))
    with pytest.raises(ValueError, match=r"\+ stray"):
        pretrained.load_into(TARGET, stray, (), keep_head=False)


def test_weights_that_are_not_finite_are_named():
    kernel = np.array([[1, np.nan, 1], [1, 1, 1]], np.float32)
    with pytest.raises(ValueError, match="w: params/conv1/conv/kernel holds values that are not finite"):
        pretrained.load_into(TARGET, weights(params__conv1__conv__kernel=kernel), (), keep_head=False)


def test_a_long_list_of_differences_is_cut():
    target = {f"params/unit_{i:02d}/kernel": zeros(1) for i in range(30)}
    with pytest.raises(ValueError, match="does not fit") as error:
        convert.match_leaves(target, {}, name="w")
    lines = str(error.value).splitlines()
    assert len(lines) == 12 and lines[-1] == "  and 20 more lines"


def write_counters(path) -> None:
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((7, 7, 3, 64), np.float32)
        file["layers/dense/vars/1"] = zeros(7)


@pytest.mark.parametrize("name", ["w.weights.h5", "W.H5", "best.hdf5", "model.keras"])
def test_every_ending_of_keras_is_read(tmp_path, name):
    write_counters(tmp_path / "model.weights.h5")
    if name.endswith(".keras"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("config.json", "not read")
            archive.write(tmp_path / "model.weights.h5", "model.weights.h5")
    else:
        (tmp_path / "model.weights.h5").rename(tmp_path / name)
    assert set(pretrained.load_weights(str(tmp_path / name)).leaves) == {"params/conv1/conv/kernel", "params/head/bias"}


def test_a_keras_file_without_weights_is_a_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match=r"no readable \.keras file: there is no model\.weights\.h5 in it"):
        pretrained.load_weights(str(tmp_path / "w.keras"))


def test_bfloat16_of_keras_is_read(tmp_path):
    values = np.array([1.5, -2, 0.25], ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["layers/dense/vars/1"] = values.view("V2")
    arrays, kind = untrusted.read(tmp_path / "w.h5")
    assert kind == "keras_counters"
    np.testing.assert_array_equal(arrays["layers/dense/vars/1"], [1.5, -2, 0.25])
