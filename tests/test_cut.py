"""Cuts by name and by Keras's layer index, exactly Keras's parameter counts, and digests that find every change."""

import math

import jax
import numpy as np
import pytest
from tiny_runs import TINY

from tljax.networks.architectures import NETWORKS, RESNET50, find_architecture, name_architecture
from tljax.networks.cut import Cut, ParameterCounts, find_cut, find_head, merge, verify_frozen
from tljax.networks.resnet import ResNet, abstract_variables

UNITS = RESNET50.units
TREE = {"conv1": {"conv": {"kernel": 1, "bias": 2}}, "conv5_block1": {"1_bn": {"scale": 3}}, "head": {"bias": 4}}


@pytest.mark.parametrize(
    ("cut", "frozen"),
    [
        ("conv1", []),
        ("conv2_block1", ["conv1"]),
        ("conv5_block1", ["conv1"]),
        ("conv5_block2", ["conv1", "conv5_block1"]),
        ("head", ["conv1", "conv5_block1"]),
        (None, ["conv1", "conv5_block1", "head"]),
    ],
)
def test_split_freezes_the_units_before_the_cut_and_merge_undoes_it(cut, frozen):
    variables = {"params": TREE, "batch_stats": {"conv5_block1": {"1_bn": {"mean": 5}}}}
    before, after = Cut(UNITS, cut).split(variables)
    assert list(before["params"]) == frozen
    assert list(after["params"]) == [unit for unit in TREE if unit not in frozen]
    assert list(before["batch_stats"]) == [unit for unit in ("conv5_block1",) if unit in frozen]
    assert merge(before, after) == variables


def test_labels_stand_in_place_of_the_leaves():
    assert Cut(UNITS, "conv5_block1").labels(TREE) == {
        "conv1": {"conv": {"kernel": "freeze", "bias": "freeze"}},
        "conv5_block1": {"1_bn": {"scale": "train"}},
        "head": {"bias": "train"},
    }


def test_labels_of_the_trainable_half_are_all_train():
    cut = Cut(UNITS, "conv5_block1")
    half = cut.split({"params": TREE})[1]["params"]
    assert set(jax.tree.leaves(cut.labels(half))) == {"train"}


@pytest.mark.parametrize("architecture", [RESNET50, TINY])
def test_a_cut_works_for_any_network(architecture):
    assert find_cut("conv5_block1", architecture).trained[0] == "conv5_block1"
    assert find_cut("head", architecture).trained == ("head",)
    with pytest.raises(ValueError, match="tuple"):
        find_cut("head", architecture).freezes("conv9_block1")
    assert Cut(("stem", "body", "head"), "body").freezes("stem")
    with pytest.raises(ValueError, match="nothing trains"):
        _ = Cut(architecture.units, None).position


def test_a_unit_of_a_larger_network_is_no_cut_of_a_smaller_one():
    with pytest.raises(ValueError, match=r"config\.cut='conv4_block6' is no unit"):
        find_cut("conv4_block6", TINY)
    # The stem has 7 layers, each of the four blocks 12.
    assert find_cut("55", TINY).start == "head" and find_cut("43", TINY).start == "conv5_block1"


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_its_own_cut(unit):
    assert find_cut(unit, RESNET50) == Cut(UNITS, unit)


@pytest.mark.parametrize(
    ("index", "unit"),
    [
        ("0", "conv1"),
        ("7", "conv2_block1"),
        ("19", "conv2_block2"),
        ("39", "conv3_block1"),
        ("81", "conv4_block1"),
        ("143", "conv5_block1"),
        ("155", "conv5_block2"),
        ("165", "conv5_block3"),
        ("175", "head"),
    ],
)
def test_an_index_of_a_keras_layer_is_a_cut_where_a_unit_starts(index, unit):
    assert find_cut(index, RESNET50).start == unit


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ("1", "config.cut=1 lies inside the unit conv1, which starts at layer 0; cut there or at 7, the next unit"),
        ("142", "config.cut=142 lies inside the unit conv4_block6, which starts at layer 133; cut there or at 143"),
        ("174", "config.cut=174 lies inside the unit conv5_block3, which starts at layer 165; cut there or at 175"),
        ("176", "config.cut=176: the headless model has 175 layers"),
        ("-1", "config.cut='-1' is no unit"),
        ("conv5_blok1", "config.cut='conv5_blok1' is no unit; the nearest is 'conv5_block1'"),
        ("Head", "config.cut='Head' is no unit; the nearest is 'head'"),
        ("", "config.cut='' is no unit"),
    ],
)
def test_another_cut_is_refused(cut, message):
    with pytest.raises(ValueError) as error:
        find_cut(cut, RESNET50)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("ResNet50", 175),
        *(pytest.param(*row, marks=pytest.mark.long) for row in (("ResNet101", 345), ("ResNet152", 515))),
    ],
)
def test_units_and_counts_are_those_of_keras_s_network(name, layers):
    import keras

    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        base = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(32, 32, 3))
    architecture = NETWORKS[name.lower()].architecture
    names = [layer.name for layer in base.layers]
    assert len(names) == layers
    assert names[2:7] == ["conv1_conv", "conv1_bn", "conv1_relu", "pool1_pad", "pool1_pool"]
    units = ["conv1"] * 7 + ["_".join(name.split("_")[:2]) for name in names[7:]]
    starts = {i: unit for i, unit in enumerate(units) if i == 0 or unit != units[i - 1]}
    assert starts | {layers: "head"} == architecture.keras_layer_starts

    variables = abstract_variables(ResNet(1, architecture=architecture))
    headless = variables | {"params": {unit: v for unit, v in variables["params"].items() if unit != "head"}}
    total = base.count_params()
    for cut in ("conv1", "conv4_block6", "conv5_block1"):
        # The layers that an earlier cut froze stay frozen, because every later cut freezes them too.
        for layer in base.layers[: next(start for start, unit in starts.items() if unit == cut)]:
            layer.trainable = False
        trainable = sum(math.prod(weight.shape) for weight in base.trainable_weights)
        expected = ParameterCounts(total, trainable, total - trainable)
        assert Cut(architecture.units, cut).count(headless) == expected, cut


@pytest.fixture(scope="module", params=[10, 1000])
def variables(request):
    return request.param, abstract_variables(ResNet(request.param))


COUNTS = {
    (1000, "conv1"): ParameterCounts(25_636_712, 25_583_592, 53_120),
    (1000, None): ParameterCounts(25_636_712, 0, 25_636_712),
    (10, "head"): ParameterCounts(23_608_202, 20_490, 23_587_712),
    (10, "conv5_block1"): ParameterCounts(23_608_202, 14_996_490, 8_611_712),
    (10, "conv1"): ParameterCounts(23_608_202, 23_555_082, 53_120),
    (10, None): ParameterCounts(23_608_202, 0, 23_608_202),
}


def test_counts_are_those_of_keras(variables):
    classes, trees = variables
    for (n, cut), expected in COUNTS.items():
        if n == classes:
            assert Cut(UNITS, cut).count(trees) == expected, cut


def test_counts_without_the_head_are_those_of_the_headless_model(variables):
    _, trees = variables
    params = {unit: leaves for unit, leaves in trees["params"].items() if unit != "head"}
    assert Cut(UNITS, "conv1").count(trees | {"params": params}) == ParameterCounts(23_587_712, 23_534_592, 53_120)


PARAMS = {"conv1": {"kernel": np.array([0.0, 1.0, 2.0], np.float32)}, "head": {"bias": np.ones(3, np.float32)}}
STATS = {"conv1": {"mean": np.array([0.5], np.float32)}}
VARIABLES = {"params": PARAMS, "batch_stats": STATS}
HEAD = Cut(UNITS, "head")
KERNEL, MEAN = "params/conv1/kernel", "batch_stats/conv1/mean"


def with_one_bit_more(array: np.ndarray) -> np.ndarray:
    return (array.view(np.uint32) ^ np.array([0, 1, 0], np.uint32)).view(np.float32)


def test_a_digest_has_the_frozen_leaves_by_path():
    assert HEAD.digest(VARIABLES).keys() == {KERNEL, MEAN}
    assert Cut(UNITS, None).digest(VARIABLES).keys() == {KERNEL, MEAN, "params/head/bias"}
    assert Cut(UNITS, "conv1").digest(VARIABLES) == {}


def test_equal_leaves_have_equal_digests_wherever_they_are_held():
    copies = jax.tree.map(jax.numpy.array, VARIABLES)
    assert verify_frozen(HEAD.digest(VARIABLES), HEAD.digest(copies)) == 2


@pytest.mark.parametrize(
    "change",
    [
        with_one_bit_more,
        lambda x: np.array([-0.0, 1.0, 2.0], np.float32),
        lambda x: x.astype(np.float64),
        lambda x: x.view(np.int32),
        lambda x: x.reshape(3, 1),
        lambda x: x[::-1],
    ],
    ids=["one bit", "-0.0 for 0.0", "dtype", "dtype of the same bytes", "shape", "order"],
)
def test_a_changed_frozen_leaf_is_named(change):
    after = {"conv1": {"kernel": change(PARAMS["conv1"]["kernel"])}, "head": PARAMS["head"]}
    with pytest.raises(RuntimeError, match=f"1 frozen leaves moved, first {KERNEL}:"):
        verify_frozen(HEAD.digest(VARIABLES), HEAD.digest(VARIABLES | {"params": after}))


def test_a_changed_statistic_is_named():
    with pytest.raises(RuntimeError, match=f"1 frozen leaves moved, first {MEAN}:"):
        after = {"conv1": {"mean": np.array([0.25], np.float32)}}
        verify_frozen(HEAD.digest(VARIABLES), HEAD.digest(VARIABLES | {"batch_stats": after}))


def test_a_leaf_that_came_or_went_is_named():
    one, two = HEAD.digest(VARIABLES), HEAD.digest(VARIABLES | {"batch_stats": {}})
    for before, after in ((one, two), (two, one)):
        with pytest.raises(RuntimeError, match=MEAN):
            verify_frozen(before, after)


def test_a_leaf_that_trains_may_change():
    after = {"conv1": PARAMS["conv1"], "head": {"bias": np.zeros(3, np.float32)}}
    assert verify_frozen(HEAD.digest(VARIABLES), HEAD.digest(VARIABLES | {"params": after})) == 2


def test_digests_of_an_earlier_cut_are_some_of_a_later_ones():
    rng = np.random.default_rng(0)
    params = {unit: {"bn": {"scale": rng.normal(size=3)}} for unit in UNITS}
    stats = {unit: {"bn": {"mean": rng.normal(size=3)}} for unit in UNITS[:-1]}
    variables = {"params": params, "batch_stats": stats}
    digests = {unit: Cut(UNITS, unit).digest(variables) for unit in UNITS}
    for unit in UNITS:
        assert Cut(UNITS, unit).select(digests["head"]) == digests[unit]
    assert not digests["conv1"] and len(digests["head"]) == 2 * (len(UNITS) - 1)


@pytest.mark.parametrize(
    ("at", "blocks"),
    [("conv2_block1", ()), ("conv2_block3", (2,)), ("conv4_block1", (3, 4)), ("conv4_block4", (3, 4, 3)),
     ("conv5_block1", (3, 4, 6)), ("conv5_block3", (3, 4, 6, 2)), ("head", (3, 4, 6, 3))],
)  # fmt: skip
def test_a_head_that_reads_earlier_makes_a_shorter_network(at, blocks):
    shorter = find_head(at, RESNET50)
    assert shorter.stage_sizes == blocks
    assert shorter.units == (*RESNET50.units[: RESNET50.units.index(at)], "head")
    assert shorter.begins_as(RESNET50) and RESNET50.begins_as(shorter) == (at == "head")
    assert find_cut(str(max(shorter.keras_layer_starts)), shorter).start == "head"


def test_shorter_networks_have_names():
    assert name_architecture(find_head("conv4_block4", RESNET50)) == "resnet50 up to conv4_block3"
    assert (
        name_architecture(find_head("conv4_block20", find_architecture("resnet101"))) == "resnet101 up to conv4_block19"
    )
    assert name_architecture(find_head("conv3_block2", RESNET50._replace(width=5))) == (
        "a ResNet with 3-1 blocks and 5 features"
    )
    assert not RESNET50._replace(width=8).begins_as(RESNET50)
