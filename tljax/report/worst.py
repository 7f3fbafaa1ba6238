"""Which pictures a run shows, and the texts above them. There is no drawing here."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from tljax.text import count_words

# As many as the Keras lesson shows.
SAMPLES = 25

Fits = Callable[[str], bool]


class Guesses(NamedTuple):
    """What a network says of each picture of a split: the label, -1 where none of the classes has a counterpart, its
    name, and the probability."""

    predicted: Int[np.ndarray, " n"]
    names: Sequence[str]
    probabilities: Float[np.ndarray, " n"]


class Seen(NamedTuple):
    """The pictures of which the worst are shown: those that this process reads of all `of` them, which are
    `kind`, such as validation."""

    of: int
    kind: str


class Caption(NamedTuple):
    """What stands above a picture."""

    guess: str
    probability: float
    label: str


def choose_worst(right: Bool[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    """The positions of up to `SAMPLES` pictures: mistakes, the most certain first, then right ones, the least certain
    first. `probabilities` are those of what was predicted."""
    return np.lexsort((np.where(right, probabilities, -probabilities), right))[:SAMPLES]


def choose_color(predicted: int, label: int) -> str:
    """Green where the prediction is right, red where it is wrong, black where it can be neither."""
    if predicted < 0:
        return "black"
    return "tab:green" if predicted == label else "tab:red"


def explain(predicted: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], seen: Seen) -> list[str]:
    """The lines above the worst pictures of `labels`: which they are, and what their captions and colors mean."""
    of = f"the {count_words(seen.of, f'{seen.kind} picture')}"
    if len(labels) < seen.of:
        of = f"{len(labels):,} of {of}, those that the first process reads"
    caption = "Above each: what the network says, its probability, and what the picture is"
    if (predicted < 0).all():
        none = "no class has a counterpart in the source, so nothing is right or wrong"
        return [f"Out of {of}, those of which the network is most certain: {none}.", f"{caption}."]
    wrong = int((predicted != labels).sum())
    right = min(len(labels), SAMPLES) - wrong
    order = [f"{count_words(wrong, 'mistake')} on {of}" if wrong else f"No mistake on {of}"]
    order += ["the most certain first"] if 1 < wrong <= SAMPLES else []
    order += [f"here are the {SAMPLES} most certain"] if right < 0 else []
    order += [f"then the right ones of which the network is least certain ({right})"] if wrong and right > 0 else []
    order += ["here are those of which the network is least certain"] if not wrong else []
    return [f"{', '.join(order)}.", f"{caption}; red is wrong, green is right."]


def write_captions(captions: Sequence[Caption], fits: Fits) -> list[str]:
    """The captions as texts: on a line each if all of them fit, else on two lines with names shortened."""
    shares = [f" {c.probability:.0%}" if math.isfinite(c.probability) else "" for c in captions]
    whole = [f"{c.guess}{share} (is {c.label})" for c, share in zip(captions, shares, strict=True)]
    if all(map(fits, whole)):
        return whole
    return [
        f"{shorten(c.guess, fits, '', share)}\n{shorten(c.label, fits, '(is ', ')')}"
        for c, share in zip(captions, shares, strict=True)
    ]


def shorten(text: str, fits: Fits, before: str = "", after: str = "") -> str:
    """`text` between `before` and `after`, without as much of its middle as makes it fit."""
    if fits(f"{before}{text}{after}"):
        return f"{before}{text}{after}"
    # Between the longest that fits and the shortest that does not.
    kept, over = 0, len(text)
    while over - kept > 1:
        middle = (kept + over) // 2
        kept, over = (middle, over) if fits(f"{before}{_keep(text, middle)}{after}") else (kept, middle)
    return f"{before}{_keep(text, kept)}{after}"


def _keep(text: str, count: int) -> str:
    return f"{text[: count - count // 2]}…{text[len(text) - count // 2 :]}"
