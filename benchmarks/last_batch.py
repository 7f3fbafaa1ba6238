"""What it changes that the empty places of the last batch are spread over all batches of an epoch.

    python benchmarks/last_batch.py --data-dir DIR --out FOLDER

Five classes of CIFAR-10, from a network of the other five. "lesson": the lesson's stages with 80 pictures in the last
batch of 256, as the lesson has with 50,000. "one left": 1,025 pictures in batches of 64, so that one is left for the
last, and from_scratch with BatchNorm in training mode. Each with the padding in the last batch, as Keras and version
0.1.0 have it, and spread; five seeds. zero_shot trains nothing.

What is measured stands in `last_batch.json` beside this file, and is not measured again. At the end it prints a table:
mean and standard deviation of the best epoch's losses and accuracies on 5,000 validation pictures, and of the
difference within a seed.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from protocol import SOURCE, TARGET, study_flags

import tljax
from tljax.__main__ import use_huge_pages
from tljax.config import Config, Data, Optimizer
from tljax.training.progress import Progress

SEEDS = range(5)
RESULTS = Path(__file__).with_suffix(".json")

LESSON = {"batch_size": 256}
ONE_LEFT = {"batch_size": 64}
TUNED = {"cut": "conv5_block1", "optimizer": Optimizer(learning_rate=1e-4)}
ONE_LEFT_DATA = {"labels_per_class": 205}
# Stage, its settings, and those of its data.
ROWS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "lesson, feature_extraction": ("feature_extraction", {**LESSON, "epochs": 10}, {"max_images": 24_656}),
    "lesson, fine_tune": ("fine_tune", {**LESSON, **TUNED, "epochs": 8}, {"max_images": 8_272}),
    "lesson, from_scratch": ("from_scratch", {**LESSON, "cut": "conv1", "epochs": 4}, {"max_images": 6_224}),
    "one left, feature_extraction": ("feature_extraction", {**ONE_LEFT, "epochs": 10}, ONE_LEFT_DATA),
    "one left, fine_tune": ("fine_tune", {**ONE_LEFT, **TUNED, "epochs": 8}, ONE_LEFT_DATA),
    "one left, from_scratch": (
        "from_scratch",
        {**ONE_LEFT, "cut": "conv1", "epochs": 8, "batch_norm": "training", "monitor": "val_accuracy"},
        ONE_LEFT_DATA,
    ),
}


def measure(config: Config, folder: Path, *, spread: bool) -> tuple[float, float]:
    """Loss and accuracy of the best epoch of a run whose padding is `spread` or all in the last batch."""
    begin = lambda earlier: Progress(earlier, spread=spread)  # noqa: E731
    with mock.patch("tljax.runs.journal.Progress", begin):
        summary = tljax.train(config, folder)
    return round(float(summary["loss"]), 4), round(float(summary["accuracy"]), 4)


def find_source(name: str, spread: str, seed: int, out: Path) -> str | None:
    """What the stage of a row starts from: the source, or the feature_extraction of the same case, order and seed."""
    if name.endswith("from_scratch"):
        return None
    if name.endswith("feature_extraction"):
        return str(out / "source")
    return str(name_folder(name.replace("fine_tune", "feature_extraction"), spread, seed, out))


def name_folder(name: str, spread: str, seed: int, out: Path) -> Path:
    return out / f"{name}_{spread}_{seed}".replace(", ", "_").replace(" ", "-")


def describe(found: dict[str, list[float]]) -> str:
    """The table of all rows that were measured with all seeds."""
    lines = [
        "| | loss, last batch | loss, spread | difference | accuracy, last batch | accuracy, spread | difference |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for name in ROWS:
        both = [[found.get(f"{name}/{spread}/{seed}") for seed in SEEDS] for spread in ("last", "spread")]
        if None in both[0] + both[1]:
            continue
        last, spread = np.asarray(both)
        cells = [show(part[:, i]) for i in (0, 1) for part in (last, spread, spread - last)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def show(values: np.ndarray) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def main() -> None:
    flags = study_flags(__doc__, RESULTS)
    use_huge_pages()
    data = Data(dir=flags.data_dir, classes=TARGET)
    source = Config(
        stage="from_scratch", cut="conv1", batch_norm="training", epochs=6, patience=None,
        data=replace(data, classes=SOURCE, augment="flip"),
    )  # fmt: skip
    tljax.train(source, flags.out / "source")
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name, (stage, settings, chosen) in ROWS.items():
        for seed in SEEDS:
            for spread in ("last", "spread"):
                if (key := f"{name}/{spread}/{seed}") in found:
                    continue
                pretrained = find_source(name, spread, seed, flags.out)
                config = Config(
                    stage=stage, pretrained=pretrained, seed=seed, data=replace(data, **chosen), **settings
                )  # fmt: skip
                folder = name_folder(name, spread, seed, flags.out)
                found[key] = measure(config, folder, spread=spread == "spread")
                if stage != "feature_extraction":
                    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
                print(f"MEASURED {key}: {found[key]}", flush=True)
    print(describe(found))


if __name__ == "__main__":
    main()
