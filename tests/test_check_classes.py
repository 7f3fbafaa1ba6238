"""Classes: what is said about their numbers, and about two that heads take for one."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tljax.check.classes import FEW_OF_CLASS, _compare, find_alike, judge_classes
from tljax.check.held_out import judge_all, scale_all
from tljax.training.ridge import HeldOut

NAMES = ("ant", "bee", "cat")
NOBODY = HeldOut(np.zeros(0, int), np.zeros((0, 3)))


def judge(**counts) -> dict[str, tuple[int, str]]:
    parts = {part: dict(zip(NAMES, numbers, strict=True)) for part, numbers in counts.items()}
    found = judge_classes(parts, NOBODY, np.zeros(0, int), NAMES)
    assert all(verdict.number for verdict in found)
    return {f"{verdict.kind} {i}": (verdict.number, verdict.text) for i, verdict in enumerate(found)}


def test_good_classes_have_no_line():
    assert judge(train=(50, 60, 90), validation=(5, 6, 9)) == {}
    assert judge(train=(50, 60, 90), validation=(0, 0, 0), unread=(0, 1, 900)) == {}
    assert judge() == {}


@pytest.mark.parametrize(
    ("counts", "kind", "number", "text"),
    [
        ({"train": (50, 0, 90), "test": (9, 9, 9)}, "class_empty", 1, "no pictures in train, and some elsewhere: bee;"),
        ({"train": (50, 60, 90), "validation": (0, 9, 0)}, "class_empty", 2, "none in validation: ant, cat: what"),
        ({"train": (50, 60, 0), "test": (9, 9, 0)}, "class_empty", 1, "no pictures at all: cat: what"),
        ({"train": (FEW_OF_CLASS["train"] - 1, 20, 20)}, "class_few", 1, "fewer than 20 in train: ant 19: add"),
        ({"train": (50, 60, 90), "test": (5, 4, 1)}, "class_few", 2, "fewer than 5 in test: bee 4, cat 1: add"),
        ({"train": (50, 60, 101)}, "class_uneven", 3, "cat has 101 pictures in train, ant 50: an accuracy"),
    ],
)
def test_what_is_said_about_numbers(counts, kind, number, text):
    ((name, found),) = judge(**counts).items()
    assert name == f"{kind} 0" and found[0] == number and found[1].startswith(text)


def draw(each: int, apart: float, seed: int, groups: int = 1):
    """Scores of two classes that are told apart with an AUROC of about `apart`; pictures of a group are alike."""
    from scipy.special import ndtri

    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], each)
    shared = np.repeat(rng.normal(size=2 * each // groups), groups)
    noise = shared if groups > 1 else rng.normal(size=2 * each)
    first = noise + np.where(labels == 0, 1, 0) * np.sqrt(2) * ndtri(apart)
    groups = np.repeat(np.arange(2 * each // groups), groups)
    return HeldOut(np.arange(2 * each), np.stack([first, -first], axis=1), groups), labels


@pytest.mark.parametrize(("each", "groups"), [(30, 1), (200, 1), (200, 10)])
def test_classes_that_are_told_apart_a_little_are_seldom_called_alike(each, groups):
    """At the bound itself, where it would be false in 5 of 100 cases."""
    alarms = [bool(find_alike(*draw(each, 0.6, seed, groups))) for seed in range(400)]
    assert np.mean(alarms) <= 0.075


@pytest.mark.parametrize(("each", "least"), [(200, 0.9), (1000, 1.0)])
def test_classes_that_are_one_are_named(each, least):
    named = [bool(find_alike(*draw(each, 0.5, seed))) for seed in range(100)]
    assert np.mean(named) >= least
    (pair,) = find_alike(*draw(1000, 0.5, 0))
    assert (pair.one, pair.other) == (0, 1) and 0.45 < pair.told_apart < pair.at_most < 0.6


def test_the_share_is_scikit_learn_s_auroc():
    held_out, labels = draw(50, 0.7, 0)
    rounded = held_out.scores.round(1)
    share, at_most = _compare(rounded, np.arange(50), np.arange(50, 100), (0, 1), np.arange(100), 0.05)
    assert share == pytest.approx(roc_auc_score(labels == 0, rounded[:, 0])) and share < at_most < share + 0.2


def test_a_class_in_two_folders_is_named_from_its_features():
    """Heads that are solved: of four classes two are one, and nothing is said of four that differ."""
    rng = np.random.default_rng(0)
    labels = np.arange(1600) % 4
    centres = rng.normal(size=(4, 10))
    noise = rng.normal(size=(1600, 10))
    for same, expected in ((True, [(2, 3)]), (False, [])):
        features = centres[np.minimum(labels, 2) if same else labels] + noise
        found = find_alike(judge_all(scale_all(features), labels, 4), labels)
        assert [(pair.one, pair.other) for pair in found] == expected
    features = centres[np.minimum(labels, 2)] + noise
    held_out = judge_all(scale_all(features), labels, 4)
    (verdict,) = judge_classes({}, held_out, labels, ("ant", "bee", "cat", "kitten"))
    assert verdict.kind == "class_alike" and verdict.number == 1 and "cat and kitten apart" in verdict.text
