"""Weights by name: every layout of files gives the same leaves, and none may be left over or missing."""

import numpy as np
import pytest

from tljax.networks.architectures import RESNET50, VARIANTS, Architecture
from tljax.networks.resnet import ResNet, abstract_variables
from tljax.trees import flatten
from tljax.weights import convert


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("conv1_conv/kernel", "params/conv1/conv/kernel"),
        ("conv1_bn/gamma:0", "params/conv1/bn/scale"),
        ("conv2_block1_0_bn/moving_variance", "batch_stats/conv2_block1/0_bn/var"),
        ("conv5_block3_3_conv/conv5_block3_3_conv/bias:0", "params/conv5_block3/3_conv/bias"),
        ("predictions/kernel", "params/head/kernel"),
        ("probs/bias:0", "params/head/bias"),
        ("conv2_block1_1_conv/gamma_x", "conv2_block1_1_conv/gamma_x"),
        ("dense_7/kernel", "dense_7/kernel"),
    ],
)
def test_keras_names(name, path):
    assert list(convert.from_keras({name: np.zeros(1)})) == [path]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("layers/conv2d/vars/0", "params/conv1/conv/kernel"),
        ("layers/conv2d_3/vars/1", "params/conv2_block1/0_conv/bias"),
        ("layers/conv2d_4/vars/0", "params/conv2_block1/3_conv/kernel"),
        ("layers/batch_normalization_5/vars/2", "batch_stats/conv2_block2/1_bn/mean"),
        ("layers/dense/vars/1", "params/head/bias"),
        ("layers/conv2d_99/vars/0", "layers/conv2d_99/vars/0"),
    ],
)
def test_keras_counters(name, path):
    assert list(convert.from_keras_counters({name: np.zeros(1)}, RESNET50)) == [path]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("conv1.weight", "params/conv1/conv/kernel"),
        ("bn1.running_mean", "batch_stats/conv1/bn/mean"),
        ("layer1.0.downsample.0.weight", "params/conv2_block1/0_conv/kernel"),
        ("layer1.0.downsample.1.weight", "params/conv2_block1/0_bn/scale"),
        ("layer4.2.bn3.bias", "params/conv5_block3/3_bn/bias"),
        ("fc.bias", "params/head/bias"),
        ("layer1.0.se.fc1.weight", "layer1.0.se.fc1.weight"),
        ("conv2.weight", "conv2.weight"),
    ],
)
def test_torch_names(name, path):
    assert list(convert.from_torch({name: np.zeros((1, 1))})) == [path]


def test_torch_kernels_are_transposed_and_counters_dropped():
    oihw = np.arange(24.0).reshape(2, 3, 2, 2)
    arrays = {"conv1.weight": oihw, "fc.weight": np.ones((2, 5)), "bn1.num_batches_tracked": np.array(3)}
    converted = convert.from_torch(arrays)
    assert converted["params/conv1/conv/kernel"][1, 0, 2, 1] == oihw[1, 2, 1, 0]
    assert converted["params/head/kernel"].shape == (5, 2)
    assert len(converted) == 2


def test_v1_5_has_the_leaves_that_torch_names_give():
    model = ResNet(10, VARIANTS["v1.5"])
    leaves = flatten(abstract_variables(model))
    assert not any(path.endswith("conv/bias") for path in leaves)
    assert leaves["params/conv2_block1/0_conv/kernel"].shape == (1, 1, 64, 256)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "there_and_back", [(convert.to_keras, convert.from_keras), (convert.to_torch, convert.from_torch)]
)
def test_names_lead_back(variant, there_and_back):
    rng, (there, back) = np.random.default_rng(0), there_and_back
    leaves = flatten(abstract_variables(ResNet(10, VARIANTS[variant], Architecture((2, 1, 1, 2), 8))))
    leaves = {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in leaves.items()}
    found = back(there(leaves))
    assert found.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(found[path], leaf)


TARGET = {"params/a/kernel": np.zeros((2, 3), np.float32), "params/head/bias": np.full(4, 7, np.float32)}


def test_merge_takes_every_leaf_and_casts_to_float32():
    source = {"params/a/kernel": np.ones((2, 3), np.float16), "params/head/bias": np.arange(4.0)}
    merged = convert.match_leaves(TARGET, source, name="w")
    assert all(leaf.dtype == np.float32 for leaf in merged.values())
    np.testing.assert_array_equal(merged["params/head/bias"], [0, 1, 2, 3])


def test_merge_with_a_new_head_keeps_the_targets_and_ignores_the_sources():
    source = {"params/a/kernel": np.ones((2, 3)), "params/head/bias": np.zeros(1000)}
    merged = convert.match_leaves(TARGET, source, name="w", new=("params/head/",), ignored=("params/head/",))
    np.testing.assert_array_equal(merged["params/head/bias"], [7, 7, 7, 7])


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ({"params/a/kernel": np.ones((2, 3))}, ["- params/head/bias (4,)"]),
        (
            {"params/a/kernel": np.ones((3, 2)), "params/head/bias": np.ones(4)},
            ["- params/a/kernel (2, 3)", "+ params/a/kernel (3, 2)"],
        ),
        (
            {"params/a/kernel": np.ones((2, 3)), "params/head/bias": np.ones(4), "x": np.ones(1)},
            ["+ x (1,)"],
        ),
        (
            {"params/a/kernel": np.ones((2, 3), int), "params/head/bias": np.ones(4)},
            ["- params/a/kernel floating point", "+ params/a/kernel int64"],
        ),
    ],
)
def test_merge_refuses_what_does_not_fit_with_a_list(source, lines):
    with pytest.raises(ValueError, match=r"^w does not fit the network") as error:
        convert.match_leaves(TARGET, source, name="w")
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == lines
