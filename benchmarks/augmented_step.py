"""What changing the pictures costs in a training step of everything, at 32 pixels in batches of 128.

    python benchmarks/augmented_step.py

In each round every way makes the same number of steps in turn; what is printed is the time of a step in relation to one
without changes, as the median of the rounds with their range.
"""

import time

import jax
import numpy as np
from tljax_worker import prepare_steps

from tljax.__main__ import use_huge_pages
from tljax.config import Config, Data
from tljax.data.augmentation import find_kept_side

AUGMENTED = (
    "none",
    "flip,shift",
    "flip,crop",
    "flip,shift,color",
    "flip,shift,erase",
    "flip,shift,trivial",
    "flip,shift,trivial,mixup",
    "flip,shift,trivial,erase,mixup,cutmix",
)
ROUNDS, STEPS, BATCH, SIDE, CLASSES = 7, 8, 128, 32, 10


class Way:
    """Training steps with one way to change the pictures."""

    def __init__(self, augment: str) -> None:
        config = Config(cut="conv1", batch_norm="training", batch_size=BATCH, data=Data(augment=augment))
        rng, side = np.random.default_rng(0), find_kept_side(config.data, SIDE)
        images = rng.integers(0, 256, (STEPS * BATCH, side, side, 3), np.uint8)
        labels = rng.integers(0, CLASSES, STEPS * BATCH).astype(np.int32)
        self.train, self.state, self.arguments = prepare_steps(config, CLASSES, images, labels, STEPS)
        self.measure()

    def measure(self) -> float:
        """Seconds of a step."""
        began = time.perf_counter()
        self.state, _ = jax.block_until_ready(self.train(self.state, *self.arguments, key=jax.random.key(0)))
        return (time.perf_counter() - began) / STEPS


def main() -> None:
    use_huge_pages()
    ways = {augment: Way(augment) for augment in AUGMENTED}
    seconds = np.array([[way.measure() for way in ways.values()] for _ in range(ROUNDS)])
    print(f"a step without changes: {1000 * np.median(seconds[:, 0]):.0f} ms\n")
    print("| data.augment | time of a step | rounds |\n| :-- | --: | :-: |")
    for augment, ratios in zip(AUGMENTED, (seconds / seconds[:, :1]).T, strict=True):
        print(f"| `{augment}` | {np.median(ratios):.3f} | {ratios.min():.3f} - {ratios.max():.3f} |")


if __name__ == "__main__":
    main()
