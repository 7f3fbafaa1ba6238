"""Pictures that are odd in their data set: in size, shape, brightness, sharpness, by a border, or without content.

Each kind has a bound of its own, beyond which a picture looks wrong, and one of the data set, beyond which it is odd
there: a set that is dark, small or blurred by nature has no dark, small or blurred pictures. Only one color is odd
everywhere. Bounds were chosen by eye on CIFAR-10 and 1,000 photographs of ImageNet.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float64

from tljax.check.findings import Finding
from tljax.check.properties import FileFacts, PixelFacts
from tljax.check.twins import Named

# A value is odd in a data set if it is so many times as far from the median as the quartile: a quarter of the pictures
# may be odd. For a normal distribution that is 2.7 standard deviations.
QUARTILES = 4
# How many times as small or as large as the median a side is (as powers of two), and how long a shape.
SMALLER, LARGER, LONGER = 2.0, 3.0, 1.1
# Pictures below this contrast (gray levels) are of one color. JPEG and the noise of a camera make some.
ONE_COLOR = 3.0
# 99% of the pixels of a dark picture are below this, and 95% of a bright one's above (gray levels). cleanvision has 82
# or 94 and 242; CIFAR-10 and photographs of leaves have good pictures below 82.
DARK, BRIGHT = 55.0, 240.0
# The sharpness of blurred pictures, and how much sharper others are at least (as a power of two).
BLURRED, SHARPER = 0.6, 1.6
# A border takes this part of a picture, and not more than this part of the pictures have edges of one color.
BORDER, USUAL_EDGES = 0.2, 0.25

OddScores = Float64[np.ndarray, " n"]


def list_odd(files: FileFacts, pixels: PixelFacts, named: Named) -> list[Finding]:
    """A row for a picture and kind, each kind's worst first. What is too dark or too bright is nothing else of its
    pixels, nor is what is of one color."""
    scores = {kind: score(files, pixels) for kind, score in ODD_KINDS.items()}
    for kind, hidden in HIDES.items():
        for other in hidden:
            scores[other] = np.where(scores[kind] > 0, 0, scores[other])
    return [
        Finding(named.ids[place], named.splits[place], kind, float(found[place]), named.labels[place])
        for kind, found in scores.items()
        for place in np.argsort(-found, kind="stable")[: np.count_nonzero(found)]
    ]


def _score_size(files: FileFacts, pixels: PixelFacts) -> OddScores:
    side = np.log2(files.width * files.height) / 2
    small, large = (
        _score_low(values, _find_low(values, least), 4) for values, least in ((side, SMALLER), (-side, LARGER))
    )
    return np.maximum(small, large)


def _score_shape(files: FileFacts, pixels: PixelFacts) -> OddScores:
    shape = np.log2(files.aspect)
    usual = _find_quantile(shape, 0.5)
    # A set of photographs has upright ones too.
    away = np.minimum(abs(shape - usual), abs(shape + usual))
    return _score_low(-away, -max(LONGER, QUARTILES * _find_quantile(away, 0.75)), 2)


def _score_constant(files: FileFacts, pixels: PixelFacts) -> OddScores:
    return _score_low(np.log2(pixels.spread + 1), np.log2(ONE_COLOR + 1), 2)


def _score_dark(files: FileFacts, pixels: PixelFacts) -> OddScores:
    return _score_low(pixels.high, min(DARK, _find_low(pixels.high, 0)), DARK)


def _score_bright(files: FileFacts, pixels: PixelFacts) -> OddScores:
    return _score_low(-pixels.low, min(-BRIGHT, _find_low(-pixels.low, 0)), 255 - BRIGHT)


def _score_blurred(files: FileFacts, pixels: PixelFacts) -> OddScores:
    sharp = np.log2(pixels.sharpness + 1e-3)
    return _score_low(sharp, min(np.log2(BLURRED), _find_low(sharp, SHARPER)), 3)


def _score_border(files: FileFacts, pixels: PixelFacts) -> OddScores:
    usual = np.count_nonzero(pixels.edges) > USUAL_EDGES * len(pixels.edges)
    return _score_low(-pixels.border, -1.0 if usual else -BORDER, 1 - BORDER)


ODD_KINDS: dict[str, Callable[[FileFacts, PixelFacts], OddScores]] = {
    "constant": _score_constant,
    "dark": _score_dark,
    "bright": _score_bright,
    "blurred": _score_blurred,
    "border": _score_border,
    "odd_size": _score_size,
    "odd_shape": _score_shape,
}
HIDES = {
    "dark": ("constant", "blurred", "border"),
    "bright": ("constant", "blurred", "border"),
    "constant": ("blurred", "border"),
}


def _find_low(values: np.ndarray, least: float) -> float:
    """The bound below which values are odd among the others: `least` below the median, or further."""
    middle = _find_quantile(values, 0.5)
    return middle - max(least, QUARTILES * (middle - _find_quantile(values, 0.25)))


def _find_quantile(values: np.ndarray, part: float) -> float:
    """The quantile of the values that are known; NaN without any, below which nothing is."""
    known = values[np.isfinite(values)]
    # The odd one itself would be in between, where there are few pictures.
    method: Literal["linear", "higher", "lower"] = "linear" if part == 0.5 else "higher" if part < 0.5 else "lower"
    return float(np.quantile(known, part, method=method)) if len(known) else np.nan


def _score_low(values: np.ndarray, bound: float, most: float) -> OddScores:
    """0 for what is not below the bound, and for the others 0.5 to 1, which is `most` below it."""
    beyond = np.nan_to_num(bound - values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return np.where(beyond > 0, 0.5 + 0.5 * np.clip(beyond / most, 0, 1), 0.0)
