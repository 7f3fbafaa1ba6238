"""Trains on larger pictures in a folder, decoded once or in every pass, and prints the losses and speed of both.

python benchmarks/streaming.py
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from tljax.config import Data
from tljax.data import datasets
from tljax.data.prefetch import read_ahead

IMAGES, CLASSES, WIDTH, HEIGHT = 1500, ("a", "b"), 640, 480
SIDE, BATCH = 64, 50
BOUNDS = {"decoded once": [], "decoded in every pass": ["--config.cache.memory_gib=0", "--config.cache.disk_gib=0"]}


def draw(path: Path, seed: int) -> None:
    """Saves a random picture with about as much detail as a photograph."""
    small = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=90)


def make_folder(folder: Path) -> None:
    paths = [folder / CLASSES[i % 2] / f"{i}.jpg" for i in range(IMAGES)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw, paths, range(IMAGES), chunksize=50))


def measure_decoding(folder: Path) -> None:
    """Prints the speed of a pass that only decodes, to 224 pixels, in threads and in processes."""
    images = datasets.load_dataset(Data(name=f"folder:{folder}"), seed=0, memory_bytes=0).train.images  # type: ignore[union-attr]
    places = np.array_split(np.arange(len(images)), len(images) // 256)
    for name, batches in (("threads", (images[p] for p in places)), ("processes", read_ahead(images, places))):
        began = time.perf_counter()
        for _ in batches:
            pass
        print(f"decoding {len(images):,} pictures in {os.cpu_count()} {name}: {measure_speed(len(images), began)}")


def measure_speed(images: int, began: float) -> str:
    return f"{images / (time.perf_counter() - began):,.0f} images/s"


def train(folder: Path, workdir: Path, bounds: list[str]) -> list[dict]:
    """Trains in a process of its own; returns its rows of metrics, one for each epoch."""
    main = Path(__file__).parent.parent / "main.py"
    settings = [f"--config.data.name=folder:{folder}", f"--config.data.image_size={SIDE}"]
    settings += [f"--config.batch_size={BATCH}", "--config.epochs=2", *bounds]
    config = main.parent / "configs" / "from_scratch.py"
    command = [sys.executable, main, "--config", config, "--workdir", workdir, *settings]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        os.environ["TLJAX_CACHE_DIR"] = f"{temporary}/cache"
        make_folder(folder)
        measure_decoding(folder)
        print("| images | loss, val_loss of each epoch | images/s, last epoch |\n| :-- | :-- | --: |")
        for name, bounds in BOUNDS.items():
            rows = train(folder, Path(temporary) / name, bounds)
            losses = ", ".join(f"{row[kind]:.6f}" for row in rows for kind in ("loss", "val_loss"))
            print(f"| {name} | {losses} | {rows[-1]['images_per_second']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
