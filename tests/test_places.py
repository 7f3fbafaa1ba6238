"""Where a solved head reads: the places of a network, paired differences of losses, and the choice."""

import numpy as np
import pytest
from tiny_runs import TINY

from tljax.networks.architectures import NETWORKS, RESNET50, VARIANTS, count_multiplications
from tljax.training.places import (
    LossDifference,
    choose_latest,
    compare_losses,
    list_places,
    measure_losses,
    paired_error,
)
from tljax.training.ridge import HeldOut


@pytest.mark.parametrize(
    ("architecture", "places"),
    [
        (RESNET50, "conv3_block1 conv4_block1 conv4_block4 conv5_block1 head"),
        (NETWORKS["resnet101"].architecture, "conv3_block1 conv4_block1 conv4_block12 conv5_block1 head"),
        (RESNET50._replace(stage_sizes=(2, 2, 2, 2)), "conv3_block1 conv4_block1 conv4_block2 conv5_block1 head"),
        (TINY, "conv3_block1 conv4_block1 conv5_block1 head"),
        (RESNET50.end_before("conv4_block1"), "conv2_block2 conv3_block1 head"),
        (RESNET50.end_before("conv2_block3"), "head"),
        (RESNET50.end_before("conv2_block1"), "head"),
    ],
)
def test_places_follow_from_the_stages(architecture, places):
    assert " ".join(list_places(architecture)) == places


def test_the_error_is_that_of_paired_differences():
    rng = np.random.default_rng(0)
    differences = rng.normal(size=200)
    error = paired_error(differences)
    assert error == pytest.approx(differences.std(ddof=1) / 200**0.5)
    # Each picture is its own group; and four copies of each say no more than one.
    assert paired_error(differences, np.arange(200)) == pytest.approx(error)
    assert paired_error(np.repeat(differences, 4), np.repeat(np.arange(200), 4) + 7) == pytest.approx(error)
    assert paired_error(differences[:1]) == paired_error(differences, np.zeros(200, int)) == np.inf


def test_losses_are_compared_with_the_least_on_the_same_pictures():
    noise = np.random.default_rng(0).normal(size=100)
    losses = {"a": 2 + noise, "b": 1 + noise, "c": 1.1 + noise}
    found = compare_losses(losses)
    assert found["b"] == (0, 0)
    # The noise, which all share, does not count.
    np.testing.assert_allclose([found["a"], found["c"]], [(1, 0), (0.1, 0)], atol=1e-12)


def test_left_out_pictures_are_judged_by_their_own_labels():
    held_out = HeldOut(np.array([2, 0]), np.log([[0.25, 0.75], [0.5, 0.5]]))
    np.testing.assert_allclose(measure_losses(held_out, np.array([1, 0, 0])), -np.log([0.25, 0.5]))


def test_the_latest_place_within_one_standard_error_is_chosen():
    near = {"early": LossDifference(0.0, 0.0), "middle": LossDifference(0.1, 0.1), "late": LossDifference(0.3, 0.2)}
    assert choose_latest(near) == "middle"
    assert choose_latest(near | {"late": LossDifference(0.1, 0.2)}) == "late"
    assert choose_latest(near | {"middle": LossDifference(0.1, 0.05)}) == "early"


def test_multiplications_are_those_of_the_published_networks():
    """torchvision's documentation has 4.09 billion for ResNet50, with the stride on the 3x3 convolution, and 7.8 for
    ResNet101; He et al. (2015) 3.8 and 7.6 with it on the first."""
    for name, expected in (("resnet50", (3.86e9, 4.09e9)), ("resnet101", (7.57e9, 7.80e9))):
        for variant, total in zip(("v1", "v1.5"), expected, strict=True):
            counts = count_multiplications(NETWORKS[name].architecture, VARIANTS[variant], 224)
            assert counts["head"] == pytest.approx(total, rel=0.005)
    assert tuple(counts) == NETWORKS["resnet101"].architecture.units[1:]
    assert counts["conv2_block1"] == 7 * 7 * 3 * 64 * 112**2
    short = RESNET50.end_before("conv4_block1")
    whole = count_multiplications(RESNET50, VARIANTS["v1.5"], 97)
    assert count_multiplications(short, VARIANTS["v1.5"], 97)["head"] == whole["conv4_block1"]
