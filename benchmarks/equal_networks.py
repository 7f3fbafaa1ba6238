"""How often one of two equal networks comes out better on the pictures that chose an epoch.

    python benchmarks/equal_networks.py

Two networks, or four, answer the same pictures, and all their epochs are equally good. The margin of a picture in an
epoch is normal: a part of its variance is the picture's own in all networks, a part the network's in all its epochs,
and the rest the epoch's. What is positive is right. The best of some epochs is chosen as a run does it, by the mean
loss or by the accuracy on these pictures; a network that chose nothing has one epoch. Then all pairs are compared as a
report compares them (`tljax/report/paired.py`), and what is counted are draws in which some network is called better.

It prints a table of the least and the most over accuracies, shares and what chose, 4,000 draws each. The seeds are 0,
1, 2 and so on. A few minutes on one core.
"""

from itertools import product

import numpy as np
from scipy.special import ndtri

from tljax.report.paired import SIGNIFICANT, compare

DRAWS = 4000
ACCURACIES = (0.8, 0.95)
# (the picture's share of the variance, the network's)
SHARES = ((0.5, 0.0), (0.5, 0.25), (0.25, 0.25))
MONITORS = ("val_loss", "val_accuracy")
# Who is compared: the epochs from which each network's one was chosen; MANY is what the table varies.
MANY = 0
CASES = {
    "one of two": (MANY, 1),
    "both of two": (MANY, MANY),
    "both, one of 2 epochs": (MANY, 2),
    "two of four": (MANY, MANY, 1, 1),
    "none of two": (1, 1),
    "none of four": (1, 1, 1, 1),
}


def draw(
    rng: np.random.Generator, picture: np.ndarray, epochs: int, accuracy: float, shares: tuple[float, float]
) -> np.ndarray:
    """The margins of a network, [epochs, pictures]."""
    shared, network = shares
    own = np.sqrt(network) * rng.normal(size=picture.shape)
    noise = np.sqrt(1 - shared - network) * rng.normal(size=(epochs, len(picture)))
    return ndtri(accuracy) + np.sqrt(shared) * picture + own + noise


def choose(margins: np.ndarray, monitor: str) -> np.ndarray:
    """Which pictures are right in the best epoch."""
    scores = np.logaddexp(0, -3 * margins) if monitor == "val_loss" else -(margins > 0).astype(float)
    return margins[scores.mean(axis=1).argmin()] > 0


def is_called_better(
    seed: int, case: str, pictures: int, many: int, accuracy: float, shares: tuple[float, float], monitor: str
) -> bool:
    """Whether some network of a draw is called better than another."""
    rng = np.random.default_rng(seed)
    picture = rng.normal(size=pictures)
    rights = {
        str(i): choose(draw(rng, picture, epochs or many, accuracy, shares), monitor)
        for i, epochs in enumerate(CASES[case])
    }
    return any(pair.adjusted < SIGNIFICANT for pair in compare(rights))


def measure(case: str, pictures: int, many: int) -> list[float]:
    """The share of draws in which a network is called better, for each accuracy, shares and monitor."""
    cells = product(ACCURACIES, SHARES, MONITORS)
    return [np.mean([is_called_better(seed, case, pictures, many, *cell) for seed in range(DRAWS)]) for cell in cells]


if __name__ == "__main__":
    print("| chose | pictures | of 5 epochs | of 20 epochs |\n| :-- | --: | --: | --: |")
    for case, pictures in product(CASES, (100, 500)):
        found = [measure(case, pictures, many) for many in ((5, 20) if MANY in CASES[case] else (1,))]
        cells = [f"{min(shares):.3f} to {max(shares):.3f}" for shares in found]
        print(f"| {case} | {pictures} | {' | '.join(cells if cells[1:] else [*cells, ''])} |", flush=True)
