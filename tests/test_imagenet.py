"""ImageNet's classes in Keras's order, and target classes mapped to them."""

import sys

import numpy as np
import pytest

from tljax.weights.imagenet import EVERYDAY_GROUPS, SYNONYMS, labels, map_classes, predict_mapped, top_k

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OTHER = ((None, "0"), (None, "cat"), (None, "Sea lion"), (None, "cat"))


def test_a_thousand_classes_are_sorted_by_their_ids():
    ids = [wordnet_id for wordnet_id, _ in labels()]
    assert len(ids) == len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert all(len(i) == 9 and i[0] == "n" and i[1:].isdecimal() for i in ids)


@pytest.mark.parametrize(
    ("output", "label"),
    [
        (0, ("n01440764", "tench")),
        (207, ("n02099601", "golden_retriever")),
        (281, ("n02123045", "tabby")),
        (388, ("n02510455", "giant_panda")),
        (404, ("n02690373", "airliner")),
        (517, ("n03126707", "crane")),
        (817, ("n04285008", "sports_car")),
        (980, ("n09472597", "volcano")),
        (999, ("n15075141", "toilet_tissue")),
    ],
)
def test_an_output_has_the_id_and_name_that_keras_gives_it(output, label):
    assert labels()[output] == label


@pytest.mark.parametrize(
    ("group", "size", "some", "none"),
    [
        ("airplane", 2, ["airliner", "warplane"], ["airship", "balloon", "space_shuttle"]),
        ("automobile", 10, ["sports_car", "cab", "jeep", "Model_T"], ["trailer_truck", "minibus", "school_bus"]),
        ("bird", 59, ["cock", "ostrich", "toucan", "king_penguin", "drake"], ["triceratops", "tusker"]),
        ("cat", 5, ["tabby", "Egyptian_cat"], ["cougar", "lynx", "lion"]),
        ("dog", 118, ["Chihuahua", "Mexican_hairless", "toy_poodle"], ["timber_wolf", "dingo", "red_fox"]),
        ("frog", 3, ["bullfrog", "tree_frog", "tailed_frog"], ["axolotl", "loggerhead"]),
        ("horse", 1, ["sorrel"], ["zebra", "hippopotamus"]),
        ("ship", 15, ["container_ship", "canoe", "gondola", "aircraft_carrier"], ["airship", "space_shuttle"]),
        ("truck", 7, ["fire_engine", "trailer_truck", "pickup", "garbage_truck"], ["jeep", "tank"]),
    ],
)
def test_an_everyday_class_gathers_the_outputs_below_it(group, size, some, none):
    names = {labels()[i][1] for i in EVERYDAY_GROUPS[group]}
    assert len(EVERYDAY_GROUPS[group]) == size
    assert names.issuperset(some)
    assert names.isdisjoint(none)


def test_everyday_groups_are_disjoint():
    outputs = [i for group in EVERYDAY_GROUPS.values() for i in group]
    assert len(outputs) == len(set(outputs))


def test_of_cifar10_deer_alone_has_no_counterpart():
    groups = map_classes(CIFAR10, labels())
    assert tuple(groups) == CIFAR10
    assert [name for name, outputs in groups.items() if not outputs] == ["deer"]


@pytest.mark.parametrize(("name", "same"), SYNONYMS.items())
def test_a_synonym_has_the_outputs_of_its_group(name, same):
    assert map_classes([name], labels()) == {name: EVERYDAY_GROUPS[same]}


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("n02123045", (281,)),
        ("N02123045", (281,)),
        ("Golden Retriever", (207,)),
        ("golden-retriever", (207,)),
        (" great  white_shark ", (2,)),
        ("Car", EVERYDAY_GROUPS["automobile"]),
        ("crane", (134, 517)),
        ("n03126707", (517,)),
        ("unicorn", ()),
        ("golden", ()),
        ("", ()),
    ],
)
def test_a_class_is_found_by_id_or_name(name, outputs):
    assert map_classes([name], labels()) == {name: outputs}


@pytest.mark.parametrize(
    ("name", "outputs"), [("cat", (1, 3)), ("Sea-Lion", (2,)), ("0", (0,)), ("dog", ()), ("car", ()), ("None", ())]
)
def test_in_another_source_a_class_is_found_by_its_name_only(name, outputs):
    assert map_classes([name], OTHER) == {name: outputs}


PROBABILITIES = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("groups", "predicted", "unmapped"),
    [
        ({"a": (0, 2), "b": (1,), "c": (3,)}, [0, 0, 2], [0, 0, 0]),
        ({"a": (0, 1), "b": (2,)}, [0, 0, 0], [0.4, 0.1, 1.0]),
        ({"a": (), "b": (2,), "c": (0,)}, [1, 2, 1], [0.6, 0.2, 1.0]),
        ({"a": (0, 3), "b": (3,)}, [0, 0, 0], [0.5, 0.2, 0.0]),
        ({"a": (), "b": ()}, [-1, -1, -1], [1, 1, 1]),
    ],
)
def test_a_class_has_the_sum_of_its_outputs_and_without_outputs_is_never_predicted(groups, predicted, unmapped):
    mapped = predict_mapped(PROBABILITIES, groups)
    np.testing.assert_array_equal(mapped.predicted, predicted)
    np.testing.assert_allclose(mapped.unmapped_mass, unmapped, atol=1e-12)


def test_top_k_is_what_keras_decodes(monkeypatch):
    from keras.applications.imagenet_utils import decode_predictions

    class_index = {str(i): list(label) for i, label in enumerate(labels())}
    monkeypatch.setattr(sys.modules[decode_predictions.__module__], "CLASS_INDEX", class_index)
    probabilities = np.random.default_rng(0).dirichlet(np.full(1000, 0.1), size=20).astype(np.float32)
    for k in (1, 5, 1000):
        decoded = [[list(best) for best in image] for image in decode_predictions(probabilities, top=k)]
        assert top_k(probabilities, labels(), k) == decoded


def test_top_k_of_a_smaller_head_has_all_its_outputs():
    assert top_k(np.array([[0.25, 0.75]]), ((None, "no"), (None, "yes"))) == [[[None, "yes", 0.75], [None, "no", 0.25]]]


def test_a_named_class_is_taken_out_of_its_group():
    groups = map_classes(["dog", "beagle"], labels())
    assert groups["beagle"] == (162,)
    assert len(groups["dog"]) == 117 and 162 not in groups["dog"]
