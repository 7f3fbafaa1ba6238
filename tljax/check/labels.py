"""Labels that look wrong, by what solved heads say about pictures that they did not see (`held_out`).

A part of all labels is taken to be drawn at random, whatever their pictures show; the others follow the heads'
probabilities. That part and the temperature are fitted together on the given labels. The score of a picture is how
probable it is, then, that its label was drawn at random. Labels have the order of the probability that heads give them.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tljax.check.findings import Finding
from tljax.check.result import Verdict
from tljax.check.twins import Named
from tljax.data.layouts import join_names
from tljax.text import count_words
from tljax.training.calibration import FEWEST, Labels, log_softmax
from tljax.training.ridge import HeldOut, find_temperature

# A label is listed if it is more probable than not that it was drawn at random, and heads name another class.
LISTED = 0.5
# So many of them are told.
TOLD_LABELS = 3
# Where the part of random labels is sought. Beyond the last there is little to judge by; the first keeps an order.
LEAST_RANDOM, MOST_RANDOM = 1e-4, 0.5
# It is fitted on so many scores at most. By this difference of log-likelihoods an interval of 95% ends (chi-squared).
FITTED, LIKELY = 300_000, 1.92


class Suspicion(NamedTuple):
    """How probable it is that labels were drawn at random, and what heads that did not see the pictures say."""

    rows: Int[np.ndarray, " judged"]
    scores: Float[np.ndarray, " judged"]
    """0 to 1; a higher one looks worse."""
    suggested: Int[np.ndarray, " judged"]
    """The class that heads name."""
    random: float
    """The part of all labels that are random at least, as was fitted; nan for too few pictures."""
    accuracy: float
    """The part of the labels that heads name."""


def suspect(held_out: HeldOut, labels: Labels) -> Suspicion:
    """Judges the labels of the pictures that are held out; `labels` are those of all. With fewer than `FEWEST` pictures
    nothing is fitted, and scores have an order only."""
    own = labels[held_out.rows]
    suggested = held_out.scores.argmax(axis=1) if len(own) else own
    temperature, random = fit_random(held_out, labels)
    logs = log_softmax(held_out.scores / temperature)[np.arange(len(own)), own]
    scores = _compare(logs, LEAST_RANDOM if math.isnan(random) else random, held_out.scores.shape[1])
    accuracy = float(np.mean(suggested == own)) if len(own) else math.nan
    return Suspicion(held_out.rows, scores, suggested, random, accuracy)


def _compare(logs: Float[np.ndarray, " n"], random: float, classes: int) -> Float[np.ndarray, " n"]:
    """How probable it is that labels were drawn at random, by the logarithms of their probabilities if they were
    not (Bayes)."""
    chance = random / classes
    compared: np.ndarray = chance / ((1 - random) * np.exp(logs) + chance)
    return compared


def fit_random(held_out: HeldOut, labels: Labels) -> tuple[float, float]:
    """The temperature of held-out scores, and the part of labels that were drawn at random at least: the lower end of
    its interval of 95% by the likelihood of the given labels. nan for the second with fewer pictures than `FEWEST`.

    Where heads know little, their mistakes are explained by random labels as well, and the interval is wide.
    """
    from scipy.optimize import brentq, minimize_scalar

    rough = find_temperature(held_out, labels, held_out.scores.shape[1])
    if len(held_out.rows) < FEWEST:
        return rough, math.nan
    some = slice(None, None, -(-held_out.scores.size // FITTED))
    scores, own = held_out.scores[some], labels[held_out.rows[some]]
    temperatures = (math.log(rough) - 3, math.log(rough) + 3)
    bounds = (math.log(LEAST_RANDOM), math.log(MOST_RANDOM))

    def fit(random: float) -> Any:
        """The best temperature beside a part of random labels, both as logarithms."""
        lose = partial(_lose, scores, own, random=math.exp(random))
        return minimize_scalar(lose, bounds=temperatures, method="bounded", options={"xatol": 1e-3})

    best = minimize_scalar(lambda random: fit(random).fun, bounds=bounds, method="bounded", options={"xatol": 0.02})
    least = best.fun + LIKELY / len(own)
    if fit(bounds[0]).fun <= least:
        return math.exp(fit(bounds[0]).x), LEAST_RANDOM
    lower = brentq(lambda random: fit(random).fun - least, bounds[0], best.x, xtol=0.02)
    return math.exp(fit(lower).x), math.exp(lower)


def _lose(scores: np.ndarray, own: Labels, log_temperature: float, random: float) -> float:
    """The mean cross-entropy of given labels of which a part is random. As in `calibration.fit_temperature`, one more
    picture, the mean of all, has its label drawn at random."""
    mixed = (1 - random) * np.exp(log_softmax(scores / math.exp(log_temperature))) + random / scores.shape[1]
    logs = np.log(mixed)
    return -float(logs[np.arange(len(own)), own].mean() + logs.mean() / len(own))


def find_wrong_labels(suspicion: Suspicion, named: Named, class_names: Sequence[str]) -> list[Finding]:
    """The labels that look wrong, the worst first: those that are more probably random than not, where heads name
    another class."""
    order = np.argsort(-suspicion.scores, kind="stable")
    columns = (suspicion.rows[order].tolist(), suspicion.scores[order].tolist(), suspicion.suggested[order].tolist())
    if math.isnan(suspicion.random):
        return []
    return [
        Finding(named.ids[row], named.splits[row], "label", score, named.labels[row], class_names[other])
        for row, score, other in zip(*columns, strict=True)
        if score > LISTED and class_names[other] != named.labels[row]
    ]


def judge_labels(suspicion: Suspicion, findings: Sequence[Finding]) -> list[Verdict]:
    """The line about labels; nothing where none looks wrong."""
    if not findings:
        return []
    some = join_names([finding.file for finding in findings], ", ", TOLD_LABELS)
    text = (
        "heads that saw neither them nor their twins name another class; they name "
        f"{suspicion.accuracy:.0%} of all labels; look at them ({some})"
    )
    return [Verdict("label", len(findings), text)]


def describe_suspicion(suspicion: Suspicion, findings: Sequence[Finding], labels: Labels) -> str:
    """How far the labels could be judged."""
    if math.isnan(suspicion.random):
        return f"{count_words(len(suspicion.rows), 'picture')} could be judged, too few to say which look wrong"
    otherwise = int((suspicion.suggested != labels[suspicion.rows]).sum())
    if findings or not otherwise:
        return f"heads name {suspicion.accuracy:.1%} of them"
    return f"heads name {suspicion.accuracy:.1%} of them; of the {otherwise:,} others none is surely wrong"
