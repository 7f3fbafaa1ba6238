"""The 1000 classes, and what predictions over them say about other classes."""

import numpy as np
import pytest

from tljax import imagenet

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_the_list_is_keras_order():
    labels = imagenet.labels()
    ids = [wordnet_id for wordnet_id, _ in labels]
    assert len(labels) == 1000 and ids == sorted(set(ids))
    expected = {0: ("n01440764", "tench"), 281: ("n02123045", "tabby"), 717: ("n03930630", "pickup"),
                999: ("n15075141", "toilet_tissue")}  # fmt: skip
    assert {i: labels[i] for i in expected} == expected


def test_cifar10_has_a_counterpart_for_all_but_deer():
    groups = imagenet.map_classes(CIFAR10, imagenet.labels())
    assert tuple(groups) == CIFAR10
    assert [name for name, outputs in groups.items() if not outputs] == ["deer"]
    outputs = [i for found in groups.values() for i in found]
    assert len(outputs) == len(set(outputs)), "no output means two classes"
    assert len(groups["dog"]) == 118 and len(groups["bird"]) == 59


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("n02123045", (281,)),
        ("Golden Retriever", (207,)),
        ("great-white shark", (2,)),
        ("crane", (134, 517)),
        ("car", imagenet.EVERYDAY_GROUPS["automobile"]),
        ("unicorn", ()),
    ],
)
def test_a_class_is_found_by_id_name_or_group(name, outputs):
    assert imagenet.map_classes([name], imagenet.labels())[name] == outputs


def test_other_sources_are_matched_by_name_only():
    source = ((None, "tabby"), (None, "dog"))
    assert imagenet.map_classes(["dog", "cat"], source) == {"dog": (1,), "cat": ()}


PROBABILITIES = np.array([[0.1, 0.3, 0.25, 0.35], [0.7, 0.1, 0.1, 0.1]])


def test_probabilities_are_summed_over_a_classs_outputs():
    mapped = imagenet.predict_mapped(PROBABILITIES, {"a": (0,), "none": (), "b": (1, 2)})
    np.testing.assert_array_equal(mapped.predicted, [2, 0])
    np.testing.assert_allclose(mapped.unmapped_mass, [0.35, 0.1])


def test_without_any_counterpart_nothing_is_predicted():
    mapped = imagenet.predict_mapped(PROBABILITIES, {"a": (), "b": ()})
    np.testing.assert_array_equal(mapped.predicted, [-1, -1])
    np.testing.assert_array_equal(mapped.unmapped_mass, [1, 1])


def test_top_k_is_likeliest_first():
    source = (("n1", "a"), ("n2", "b"), ("n3", "c"), (None, "d"))
    assert imagenet.top_k(PROBABILITIES, source, 2)[0] == [[None, "d", 0.35], ["n2", "b", 0.3]]
    assert len(imagenet.top_k(PROBABILITIES, source, 5)[0]) == 4
