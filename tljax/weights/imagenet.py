"""The 1000 ImageNet classes, and how predictions over the source's classes become predictions over other classes."""

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tljax.training.calibration import find_best

# The class of one output of a head: (WordNet id or None, name).
Label = tuple[str | None, str]


@cache
def labels() -> tuple[Label, ...]:
    """WordNet id and name of each output of an ImageNet head, in the order of Keras and torchvision.

    The ids are sorted. A name is the first lemma of its WordNet 3.0 synset, spaces as underscores: this gives the list
    that Keras's decode_predictions uses.
    """
    lines = resources.files("tljax.weights").joinpath("imagenet_classes.txt").read_text("utf-8").splitlines()
    return tuple((wordnet_id, name) for wordnet_id, name in (line.split() for line in lines))


def _outputs(*parts: int | range) -> tuple[int, ...]:
    return tuple(i for part in parts for i in ([part] if isinstance(part, int) else part))


# Everyday classes and the ImageNet outputs that WordNet puts below them: `airplane` is heavier-than-air craft,
# `automobile` is car, `truck` includes vans for goods, `ship` is every vessel that carries people or goods on water.
# Wild cats, wolves and foxes are not below `cat` and `dog`. ImageNet's 1000 classes have no deer.
EVERYDAY_GROUPS: dict[str, tuple[int, ...]] = {
    "airplane": _outputs(404, 895),
    "automobile": _outputs(407, 436, 468, 511, 609, 627, 656, 661, 751, 817),
    "bird": _outputs(range(7, 25), range(80, 101), range(127, 147)),
    "cat": _outputs(range(281, 286)),
    "dog": _outputs(range(151, 269)),
    "frog": _outputs(range(30, 33)),
    "horse": _outputs(339),
    "ship": _outputs(403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 833, 871, 913, 914),
    "truck": _outputs(555, 569, 675, 717, 734, 864, 867),
}
SYNONYMS = {"aeroplane": "airplane", "plane": "airplane", "car": "automobile", "boat": "ship"}


def _normalize(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def map_classes(class_names: Sequence[str], source: Sequence[Label]) -> dict[str, tuple[int, ...]]:
    """For each target class, the indices of the outputs of the source's head that belong to it; empty if none does.

    If the source is ImageNet, a class in `EVERYDAY_GROUPS` or `SYNONYMS` gets its group. Any other class is found by
    its WordNet id or its name; upper and lower case are equal, and so are spaces, `-` and `_`. Outputs found this way
    are removed from the groups: with `dog` and `beagle` as target classes, `dog` gets all other breeds.
    """
    groups = EVERYDAY_GROUPS if tuple(source) == labels() else {}

    def find_by_name(class_name: str) -> tuple[int, ...]:
        name = _normalize(class_name)
        return tuple(i for i, (wordnet_id, other) in enumerate(source) if name in (wordnet_id, _normalize(other)))

    # Groups before names: ImageNet's `plane` is a carpenter's tool.
    everyday = {name: groups.get(SYNONYMS.get(_normalize(name), _normalize(name)), ()) for name in class_names}
    named = {name: find_by_name(name) for name in class_names if not everyday[name]}
    taken = {i for outputs in named.values() for i in outputs}
    return {name: named.get(name, tuple(i for i in everyday[name] if i not in taken)) for name in class_names}


class MappedPredictions(NamedTuple):
    """`predicted`: the target class of each image; -1 for all images if no target class has any outputs.
    `unmapped_mass`: for each image, the sum of the probabilities of all outputs that belong to no target class."""

    predicted: Int[np.ndarray, " n"]
    unmapped_mass: Float[np.ndarray, " n"]


def predict_mapped(
    probabilities: Float[np.ndarray, "n outputs"], groups: dict[str, tuple[int, ...]]
) -> MappedPredictions:
    """Sums the source's probabilities over the outputs of each target class; predicts the class with the largest sum.

    `groups` is the result of `map_classes`: one entry per target class, in the order of the labels. A class without
    outputs is never predicted.
    """
    n = len(probabilities)
    mass = np.full((n, len(groups)), -1.0)
    for column, outputs in enumerate(groups.values()):
        if outputs:
            mass[:, column] = probabilities[:, list(outputs)].sum(axis=1)
    mapped = sorted({i for outputs in groups.values() for i in outputs})
    if not mapped:
        return MappedPredictions(np.full(n, -1), np.ones(n))
    return MappedPredictions(mass.argmax(axis=1), 1 - probabilities[:, mapped].sum(axis=1))


def top_k(probabilities: Float[np.ndarray, "n outputs"], source: Sequence[Label], k: int = 5) -> list[list[list]]:
    """`[wordnet_id, name, probability]` of the k most probable outputs of each image, the most probable first; fewer
    than k if the head has fewer outputs."""
    best = find_best(probabilities, k)
    return [[[*source[i], float(row[i])] for i in order] for row, order in zip(probabilities, best, strict=True)]


def check_head(outputs: int, class_names: tuple[str, ...], name: str) -> None:
    """Checks that the head of the source `name` can give a zero-shot loss, which uses each label as an output's index.

    Raises:
      ValueError: if the source has no head (`outputs` is 0), or if there are more classes than outputs.
    """
    if outputs == 0:
        raise ValueError(f"{name} has no head, which zero_shot needs; choose weights with one")
    if len(class_names) > outputs:
        raise ValueError(
            f"label {outputs} ({class_names[outputs]!r}) lies beyond the {outputs} outputs of the head of {name}: it "
            "has no zero-shot loss; choose weights with a larger head, or fewer classes with --config.data.classes"
        )
