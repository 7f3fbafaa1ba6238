"""Measures a run's time by images, input size and trainable depth: three points each, with cold and warm cache.

python benchmarks/growth.py
"""

import os
import sys
import tempfile
import time

import numpy as np
from protocol import CLASSES
from tljax_worker import make_dataset, make_weights, run, use_cache

from tljax.storage import compilation

IMAGES, SIDE, EPOCHS = 3000, 32, 5
STAGES = {"head": "feature_extraction", "conv5_block1": "fine_tune", "conv1": "from_scratch"}


def measure(images: int, side: int, cut: str) -> tuple[float, float]:
    """Seconds of a run with an empty cache, and of the same run again with what the first has left there."""
    rng = np.random.default_rng(0)
    sizes = images - images // 6, images // 6
    arrays = [f(n) for n in sizes for f in (lambda n: rng.integers(0, 256, (n, side, side, 3), np.uint8),
                                            lambda n: rng.integers(0, CLASSES, n))]  # fmt: skip
    dataset = make_dataset(*arrays)
    source = None if cut == "conv1" else make_weights(dataset)
    seconds = []
    for state in ("cold", "warm"):
        use_cache(state)
        started = time.perf_counter()
        run(STAGES[cut], cut, EPOCHS, dataset, source)
        seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1]


def main() -> None:
    points = [(n, SIDE, "head") for n in (IMAGES, 4 * IMAGES, 16 * IMAGES)]
    points += [(IMAGES, side, "head") for side in (64, 128)]
    points += [(IMAGES, SIDE, cut) for cut in ("conv5_block1", "conv1")]
    output, sys.stdout = sys.stdout, sys.stderr
    print("| images | side | cut | seconds, cold | seconds, warm |\n| --: | --: | :-- | --: | --: |", file=output)
    for images, side, cut in points:
        cold, warm = measure(images, side, cut)
        print(f"| {images:,} | {side} | `{cut}` | {cold:.1f} | {warm:.1f} |", file=output, flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLJAX_CACHE_DIR"] = folder
        compilation.set_up()
        main()
