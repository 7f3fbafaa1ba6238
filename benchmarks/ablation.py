"""What each way to train is worth: the lesson with one change at a time, and with all that help together.

    python benchmarks/ablation.py --data-dir DIR --out FOLDER

From scratch: 12,500 pictures of CIFAR-10, five epochs, less than five minutes a run on two cores. The head: on the
features of a network that was trained on the other five classes, with 50 labels a class and with all. A twentieth of
train is validated on and chooses the epoch; accuracies are those on the test split, which each run evaluates once.

Runs that are finished are found again, so the same command goes on after an interruption. It prints two tables as they
grow, and writes `ablation.json` into the folder.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import tljax
from tljax.config import Config, Data, Head

SOURCE = ("airplane", "automobile", "bird", "cat", "deer")
TARGET = ("dog", "frog", "horse", "ship", "truck")
VALIDATION = "train[95%:]"
SEEDS = (0, 1)

# What each row changes: settings of `Config`, settings of its optimizer, and settings of its data.
Change = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
FALLING = {"schedule": "cosine", "warmup_epochs": 0.5}
DECAYING = {"name": "adamw", "weight_decay": 0.05}
FROM_SCRATCH: dict[str, Change] = {
    "the lesson": ({}, {}, {}),
    "BatchNorm in training mode": ({"batch_norm": "training"}, {}, {}),
    "cosine, half an epoch of warm-up": ({}, FALLING, {}),
    "adamw, weight decay 0.05": ({}, DECAYING, {}),
    "sgd, rate 0.01": ({}, {"name": "sgd", "learning_rate": 0.01}, {}),
    "gradients clipped at 1": ({}, {"clip_norm": 1.0}, {}),
    "label smoothing 0.1": ({"label_smoothing": 0.1}, {}, {}),
    "averaged weights, 0.99": ({}, {"ema_decay": 0.99}, {}),
    "batches of 128": ({"batch_size": 128}, {}, {}),
    "flips and shifts": ({}, {}, {"augment": "flip_crop"}),
    "training mode, adamw, cosine, 128": ({"batch_norm": "training", "batch_size": 128}, FALLING | DECAYING, {}),
    "the same, sgd, rate 0.01": (
        {"batch_norm": "training", "batch_size": 128},
        FALLING | {"name": "sgd", "learning_rate": 0.01, "weight_decay": 0.005},
        {},
    ),
    "the same, adamw, averaged weights": (
        {"batch_norm": "training", "batch_size": 128},
        FALLING | DECAYING | {"ema_decay": 0.99},
        {},
    ),
    "the same, adamw, label smoothing": (
        {"batch_norm": "training", "batch_size": 128, "label_smoothing": 0.1},
        FALLING | DECAYING,
        {},
    ),
    "the same, adamw, flips and shifts": (
        {"batch_norm": "training", "batch_size": 128},
        FALLING | DECAYING,
        {"augment": "flip_crop"},
    ),
}
HEADS: dict[str, Change] = {
    "the lesson's head": ({}, {}, {}),
    "dropout 0.3": ({"head": Head(dropout=0.3)}, {}, {}),
    "a hidden layer of 256": ({"head": Head(hidden=(256,))}, {}, {}),
    "a hidden layer of 256, dropout 0.3": ({"head": Head(hidden=(256,), dropout=0.3)}, {}, {}),
    "label smoothing 0.1": ({"label_smoothing": 0.1}, {}, {}),
    "adamw, weight decay 0.05": ({}, DECAYING, {}),
    "cosine, half an epoch of warm-up": ({}, FALLING, {}),
    "averaged weights, 0.99": ({}, {"ema_decay": 0.99}, {}),
    "solved (ridge)": ({"head": Head(init="ridge"), "epochs": 0}, {}, {}),
}
LABELS = {"50 a class": 50, "all labels": None}


def change(config: Config, by: Change) -> Config:
    settings, optimizer, data = by
    changed = replace(config, **settings)
    return replace(changed, optimizer=replace(config.optimizer, **optimizer), data=replace(config.data, **data))


def measure(config: Config, folder: Path) -> tuple[float, float]:
    """The accuracy of a run on the test split, and its seconds. The weights are deleted afterwards."""
    summary = tljax.train(config, folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return float(summary["test"]["accuracy"]), float(summary["seconds"])


def from_scratch(data: Data) -> Config:
    data = replace(data, max_images=12_500)
    return Config(stage="from_scratch", cut="conv1", epochs=5, patience=None, monitor="val_accuracy", data=data)


def head(data: Data, source: Path, labels: int | None) -> Config:
    data = replace(data, classes=TARGET, labels_per_class=labels)
    batch, epochs = (256, 10) if labels is None else (32, 50)
    settings: dict[str, Any] = {"epochs": epochs, "batch_size": batch, "patience": None, "monitor": "val_accuracy"}
    return Config(pretrained=str(source), data=data, **settings)


def describe(found: dict[str, list[tuple[float, float]]], columns: tuple[str, ...]) -> str:
    """A Markdown table: mean and the range of the seeds, and the mean of the seconds."""
    lines = ["| | " + " | ".join(f"{column} | seconds" for column in columns) + " |"]
    lines.append("| :-- |" + " --: | --: |" * len(columns))
    for name in dict.fromkeys(key.split("/")[0] for key in found):
        cells = []
        for column in columns:
            runs = found.get(f"{name}/{column}", [])
            accuracies, seconds = zip(*runs, strict=True) if runs else ((), ())
            spread = f" ({min(accuracies):.3f} - {max(accuracies):.3f})" if accuracies else ""
            cells += [f"{np.mean(accuracies):.3f}{spread}", f"{np.mean(seconds):.0f}"] if runs else ["-", "-"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="TFDS's data_dir with CIFAR-10")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs")
    flags = parser.parse_args()
    data, plain = Data(dir=flags.data_dir, validation_split=VALIDATION), Data(dir=flags.data_dir)
    source = flags.out / "source"
    settings: dict[str, Any] = {"stage": "from_scratch", "cut": "conv1", "batch_norm": "training", "epochs": 12}
    tljax.train(Config(**settings, patience=12, data=replace(plain, classes=SOURCE, augment="flip")), source)

    jobs = [
        (f"{name}/{column}", change(head(data, source, labels), by), "heads")
        for column, labels in LABELS.items()
        for name, by in HEADS.items()
    ] + [(f"{name}/accuracy", change(from_scratch(data), by), "from_scratch") for name, by in FROM_SCRATCH.items()]
    tables: dict[str, dict[str, list[tuple[float, float]]]] = {"heads": {}, "from_scratch": {}}
    for seed in SEEDS:
        for key, config, table in jobs:
            folder = flags.out / f"{table}_{key}_{seed}".replace("/", "_").replace(" ", "-")
            result = measure(replace(config, seed=seed), folder)
            tables[table].setdefault(key, []).append(result)
            print(f"MEASURED {table}, {key}, seed {seed}: {result[0]:.4f}, {result[1]:.0f} s", flush=True)
    (flags.out / "ablation.json").write_text(json.dumps(tables, indent=1))
    print(describe(tables["from_scratch"], ("accuracy",)))
    print(describe(tables["heads"], tuple(LABELS)))


if __name__ == "__main__":
    main()
