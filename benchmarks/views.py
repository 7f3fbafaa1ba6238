"""What views of each picture are worth in transfer: accuracy, time and disk space for K = 1, 2 and 8.

    python benchmarks/views.py --data-dir DIR --out FOLDER

The source network is trained on five classes of CIFAR-10; the target are the other five. The recipe solves a head and
fine-tunes the last blocks, each on the same views. With few labels a class there are several draws. A twentieth of
train chooses the epoch; accuracies are those on the 5,000 pictures of the test split, which each run evaluates once.

What is measured stands in `views.json` beside this file, a row a run, and is not measured again. Each run computes all
of its activations, and bytes are those of all splits. At the end it prints a table.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ablation import VALIDATION, train_source
from protocol import TARGET, study_flags

import tljax
from tljax.__main__ import use_huge_pages
from tljax.config import Data, Recipe

VIEWS: dict[str, dict[str, Any]] = {
    "K = 1": {},
    "K = 2, flip": {"augment": "flip", "views": 2},
    "K = 8, flip,shift": {"augment": "flip,shift", "views": 8},
    "K = 8, flip,crop": {"augment": "flip,crop", "views": 8},
    "K = 8, flip,shift,trivial": {"augment": "flip,shift,trivial", "views": 8},
}
# How often the labelled pictures of a class are drawn. None: all of them.
DRAWS = {20: 3, 50: 3, None: 1}
RESULTS = Path(__file__).with_suffix(".json")


def measure(config: Recipe, folder: Path, activations: Path) -> dict[str, float]:
    """Accuracies on the test split, seconds of both stages, and bytes of the activations that they computed."""
    shutil.rmtree(activations, ignore_errors=True)
    solved, tuned = tljax.train(config, folder).values()
    shutil.rmtree(folder)
    entries = [entry.parent for entry in activations.glob("*/about.json") if "activations" in entry.read_text()]
    return {
        "solved": solved["test"]["accuracy"],
        "tuned": tuned["test"]["accuracy"],
        "seconds": solved["seconds"] + tuned["seconds"],
        "bytes": sum(file.stat().st_size for entry in entries for file in entry.iterdir()),
    }


def describe(found: dict[str, dict[str, float]]) -> str:
    """A Markdown table of means, with the range of the accuracies."""
    lines = [
        "| labels a class | views | solved head | fine-tuned | seconds | MB |",
        "| :-- | :-- | --: | --: | --: | --: |",
    ]
    for labels, draws in DRAWS.items():
        for name in VIEWS:
            runs = [found[key] for draw in range(draws) if (key := f"{labels}/{name}/{draw}") in found]
            if not runs:
                continue
            by = {key: np.array([run[key] for run in runs]) for key in runs[0]}
            ranges = [
                f"{a.mean():.3f}" + (f" ({a.min():.3f} - {a.max():.3f})" if draws > 1 else "")
                for a in (by["solved"], by["tuned"])
            ]
            size = f"{by['bytes'].mean() / 1e6:,.0f}"
            lines.append(f"| {labels or 'all'} | {name} | {' | '.join(ranges)} | {by['seconds'].mean():.0f} | {size} |")
    return "\n".join(lines)


def main() -> None:
    flags = study_flags(__doc__, RESULTS)
    use_huge_pages()
    os.environ["TLJAX_CACHE_DIR"] = str(flags.out / "cache")
    source = flags.out / "source"
    train_source(source, flags.data_dir)
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for labels, draws in DRAWS.items():
        for draw in range(draws):
            for name, views in VIEWS.items():
                if (key := f"{labels}/{name}/{draw}") in found:
                    continue
                data = Data(dir=flags.data_dir, validation_split=VALIDATION, classes=TARGET, labels_per_class=labels)
                config = Recipe(pretrained=str(source), seed=draw, data=Data(**vars(data) | views))
                found[key] = measure(config, flags.out / "run", flags.out / "cache" / "arrays")
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
                print(f"MEASURED {key}: {found[key]}", flush=True)
    print(describe(found))


if __name__ == "__main__":
    main()
