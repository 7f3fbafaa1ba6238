"""What is wrong with classes: too few pictures, very uneven ones, none in a part, and two that are one."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tljax.check.result import Verdict
from tljax.data.layouts import join_names
from tljax.text import count_words
from tljax.training.calibration import Labels, is_uneven
from tljax.training.grouped import count_worth
from tljax.training.ridge import HeldOut

# With fewer pictures a class is hardly learned, and nothing can be said about how well.
FEW = 20
# Two classes are alike if this share of their pictures (the mean over both) is told apart at most, where guessing has a
# half, with this probability of being wrong about any of the pairs.
ALIKE, WRONG = 0.6, 0.05

Counts = Mapping[str, Mapping[str, int]]
"""The pictures of each class by part."""


class Pair(NamedTuple):
    """Two classes, and the share of their pictures that is told apart: the mean over both, and what it is at most."""

    one: int
    other: int
    share: float
    at_most: float
