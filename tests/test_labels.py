"""Labels that look wrong: planted ones are found, and where all are right hardly any is named."""

import math
import re

import numpy as np
import pytest

from tljax.check.held_out import judge_all, scale_all
from tljax.check.labels import find_wrong_labels, fit_random, judge_labels, suspect
from tljax.check.twins import Named
from tljax.training.ridge import HeldOut

NAMES = ("ant", "bee", "cat")


def draw(n: int, flipped: int, seed: int, spread: float = 0.45):
    """Gaussian classes, of which some pictures have another label: features, labels, and which are wrong."""
    rng = np.random.default_rng(seed)
    true, wrong = np.arange(n) % 3, np.zeros(n, bool)
    features = np.random.default_rng(9).normal(size=(3, 20))[true] * spread + rng.normal(size=(n, 20))
    wrong[rng.choice(n, flipped, replace=False)] = True
    return features, np.where(wrong, (true + rng.integers(1, 3, n)) % 3, true), wrong


def look(features, labels, groups=None):
    suspicion = suspect(judge_all(scale_all(features), labels, 3, groups), labels)
    ids = [f"{i}.png" for i in range(len(labels))]
    named = Named(ids, ["train"] * len(labels), [NAMES[label] for label in labels])
    return suspicion, find_wrong_labels(suspicion, named, NAMES)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("flipped", [15, 60])
def test_planted_wrong_labels_are_found(flipped, seed):
    features, labels, wrong = draw(600, flipped, seed, 0.7)
    suspicion, findings = look(features, labels)
    scores = np.zeros(600)
    scores[suspicion.rows] = suspicion.scores
    above = np.mean(scores[wrong][:, None] > scores[~wrong])
    assert above > 0.95, "AUROC"
    # A label that is drawn at random is the right one once in three times.
    assert 0.3 * 1.5 * flipped < 600 * suspicion.random < 1.5 * flipped * 1.1
    named = np.array([int(finding.file.split(".")[0]) for finding in findings])
    assert wrong[named].mean() > 0.7 and len(named) > 0.4 * flipped
    assert [finding.score for finding in findings] == sorted((finding.score for finding in findings), reverse=True)
    for finding, row in zip(findings, named, strict=True):
        assert finding.kind == "label" and finding.label == NAMES[labels[row]] != finding.suggested
    right = np.mean([finding.suggested == NAMES[row % 3] for finding, row in zip(findings, named, strict=True)])
    assert right > 0.7


@pytest.mark.parametrize("spread", [0.1, 0.25, 0.45, 1.0])
def test_where_all_labels_are_right_hardly_any_is_named(spread):
    """Classes that are hard to tell apart make heads wrong, not labels."""
    numbers = [len(look(*draw(600, 0, seed, spread)[:2])[1]) for seed in range(5)]
    assert sum(number > 0 for number in numbers) <= 1, "in 3 of 100 sets, drawn once"


def test_a_twin_does_not_hide_a_wrong_label():
    """A picture and its copy have the same wrong label: whoever saw one would name it for the other one."""
    features, labels, _ = draw(120, 0, 0, spread=0.6)
    features = np.concatenate([features, np.random.default_rng(3).normal(size=(120, 300)) * 3], axis=1)
    features = np.concatenate([features, features[:2]])
    labels = np.concatenate([labels, labels[:2]])
    labels[[0, 120]], labels[[1, 121]] = 1, 2
    groups = np.append(np.arange(120), [0, 1])
    with_twins, without = (look(features, labels, some)[0] for some in (None, groups))
    twins = [0, 1, 120, 121]
    seen = judge_all(scale_all(features), labels, 3)
    unseen = judge_all(scale_all(features), labels, 3, groups)
    own = [held.scores[np.argsort(held.rows)][twins, labels[twins]] for held in (seen, unseen)]
    assert own[0].min() > 0 > own[1].max()
    assert with_twins.scores[np.argsort(with_twins.rows)][twins].max() < np.median(without.scores)


def test_few_pictures_are_not_named():
    features, labels, _ = draw(45, 3, 0, 1.0)
    suspicion, findings = look(features, labels)
    assert math.isnan(suspicion.random) and not findings and judge_labels(suspicion, findings) == []
    assert len(np.unique(suspicion.scores)) == 45
    nothing, findings = look(features[:1], labels[:1])
    assert len(nothing.rows) == 0 and math.isnan(nothing.accuracy) and not findings


def test_the_fit_is_that_of_the_model():
    """Scores whose probabilities are known, at a known temperature; a known part of the labels is random."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4)) * 2
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    labels = np.where(rng.random(20_000) < 0.1, rng.integers(0, 4, 20_000), labels)
    held_out = HeldOut(np.arange(20_000), logits * 0.3)
    temperature, random = fit_random(held_out, labels)
    assert temperature == pytest.approx(0.3, rel=0.07) and 0.07 < random < 0.1, "the lower end of its interval"


def test_the_line_says_how_many():
    features, labels, _ = draw(600, 60, 0)
    suspicion, findings = look(features, labels)
    (verdict,) = judge_labels(suspicion, findings)
    assert verdict.kind == "label" and verdict.number == len(findings)
    assert re.search(r"they name [0-9]+% of all labels; look at them \(.*[0-9] others\)", verdict.text)
    assert judge_labels(suspicion, []) == []
