"""What each way to train is worth: the lesson with one change at a time, and with all that help together.

    python benchmarks/ablation.py --data-dir DIR --out FOLDER

From scratch: 12,500 pictures of CIFAR-10, five epochs, less than five minutes a run on two cores. The head: on the
features of a network that was trained on the other five classes, with 50 labels a class and with all. A twentieth of
train is validated on and chooses the epoch; accuracies are those on the test split, which each run evaluates once.

What is measured stands in `ablation.json` beside this file, a line a run, and is not measured again: the same command
goes on after an interruption. At the end it prints two tables.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from protocol import SOURCE, TARGET, study_flags

import tljax
from tljax.__main__ import use_huge_pages
from tljax.config import Config, Data, Head

VALIDATION = "train[95%:]"
SEEDS = (0, 1)
RESULTS = Path(__file__).with_suffix(".json")

# What each row changes: settings of `Config`, settings of its optimizer, and settings of its data.
Change = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
FALLING = {"schedule": "cosine", "warmup_epochs": 0.5}
DECAYING = {"name": "adamw", "weight_decay": 0.05}
COMBINED = {"batch_norm": "training", "zero_init_residual": True, "batch_size": 128}
AUGMENTED = {
    "flips and shifts": "flip,shift",
    "flips and crops": "flip,crop",
    "flips, shifts and TrivialAugment": "flip,shift,trivial",
    "flips, shifts and erasing": "flip,shift,erase",
    "flips, shifts and mixup": "flip,shift,mixup",
    "flips, shifts and CutMix": "flip,shift,cutmix",
}
FROM_SCRATCH: dict[str, Change] = {
    "the lesson": ({}, {}, {}),
    "BatchNorm in training mode": ({"batch_norm": "training"}, {}, {}),
    "blocks that start as their shortcuts": ({"zero_init_residual": True}, {}, {}),
    "both": ({"batch_norm": "training", "zero_init_residual": True}, {}, {}),
    "cosine, half an epoch of warm-up": ({}, FALLING, {}),
    "adamw, weight decay 0.05": ({}, DECAYING, {}),
    "sgd, rate 0.01": ({}, {"name": "sgd", "learning_rate": 0.01}, {}),
    "gradients clipped at 1": ({}, {"clip_norm": 1.0}, {}),
    "label smoothing 0.1": ({"label_smoothing": 0.1}, {}, {}),
    "averaged weights, 0.99": ({}, {"ema_decay": 0.99}, {}),
    "batches of 128": ({"batch_size": 128}, {}, {}),
    "dropout 0.3 before the head": ({"head": Head(dropout=0.3)}, {}, {}),
    "flips and shifts": ({}, {}, {"augment": "flip_crop"}),
    "combined: both, adamw, cosine, 128": (COMBINED, FALLING | DECAYING, {}),
    "combined, with sgd, rate 0.1": (
        COMBINED,
        FALLING | {"name": "sgd", "learning_rate": 0.1, "weight_decay": 0.0005},
        {},
    ),
    "combined, with averaged weights": (COMBINED, FALLING | DECAYING | {"ema_decay": 0.99}, {}),
    "combined, with label smoothing": (COMBINED | {"label_smoothing": 0.1}, FALLING | DECAYING, {}),
    "combined, strides as in v1.5": (COMBINED | {"variant": "v1.5"}, FALLING | DECAYING, {}),
    **{
        f"combined, with {names}": (COMBINED, FALLING | DECAYING, {"augment": value})
        for names, value in AUGMENTED.items()
    },
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
    """The accuracy of a run on the test split, and its seconds; 0 and 0 if it diverged. The weights are deleted
    afterwards."""
    try:
        summary = tljax.train(config, folder)
    except ValueError as error:
        if "the loss of step" not in str(error):
            raise
        print(error)
        return 0.0, 0.0
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return float(summary["test"]["accuracy"]), float(summary["seconds"])


def train_source(folder: Path, data_dir: str) -> None:
    """The network whose features the heads read, unless it is there."""
    settings: dict[str, Any] = {"stage": "from_scratch", "cut": "conv1", "batch_norm": "training", "epochs": 12}
    data = Data(dir=data_dir, classes=SOURCE, augment="flip")
    tljax.train(Config(**settings, patience=12, data=data), folder)


def from_scratch(data: Data) -> Config:
    data = replace(data, max_images=12_500)
    return Config(stage="from_scratch", cut="conv1", epochs=5, patience=None, monitor="val_accuracy", data=data)


def head(data: Data, source: Path, labels: int | None) -> Config:
    data = replace(data, classes=TARGET, labels_per_class=labels)
    batch, epochs = (256, 10) if labels is None else (32, 50)
    settings: dict[str, Any] = {"epochs": epochs, "batch_size": batch, "patience": None, "monitor": "val_accuracy"}
    return Config(pretrained=str(source), data=data, **settings)


def describe(found: dict[str, dict[str, tuple[float, float]]], columns: tuple[str, ...]) -> str:
    """A Markdown table: mean and range of the accuracies of the seeds, and the mean of their seconds."""
    lines = ["| | " + " | ".join(f"{column} | seconds" for column in columns) + " |"]
    lines.append("| :-- |" + " --: | --: |" * len(columns))
    for name in dict.fromkeys(key.rsplit("/", 2)[0] for key in found):
        cells = []
        for column in columns:
            runs = [found[key] for seed in SEEDS if (key := f"{name}/{column}/{seed}") in found]
            accuracies, seconds = zip(*runs, strict=True) if runs else ((), ())
            if not runs:
                cells += ["-", "-"]
            elif not min(accuracies):
                cells += [f"diverged ({accuracies.count(0)} of {len(runs)})", "-"]
            else:
                spread = f"{min(accuracies):.3f} - {max(accuracies):.3f}"
                cells += [f"{np.mean(accuracies):.3f} ({spread})", f"{np.mean(seconds):.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    flags = study_flags(__doc__, RESULTS)
    use_huge_pages()
    data, source = Data(dir=flags.data_dir, validation_split=VALIDATION), flags.out / "source"
    scratch = {f"{name}/accuracy": change(from_scratch(data), by) for name, by in FROM_SCRATCH.items()}
    heads = {
        f"{name}/{column}": change(head(data, source, labels), by)
        for column, labels in LABELS.items()
        for name, by in HEADS.items()
    }
    tables = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"from_scratch": {}, "heads": {}}
    for seed in SEEDS:
        for table, configs in {"from_scratch": scratch, "heads": heads}.items():
            for key, config in configs.items():
                if (name := f"{key}/{seed}") in tables[table]:
                    continue
                if table == "heads":
                    train_source(source, flags.data_dir)
                folder = flags.out / f"{table}_{name}".replace("/", "_").replace(" ", "-")
                accuracy, seconds = measure(replace(config, seed=seed), folder)
                tables[table][name] = round(accuracy, 4), round(seconds, 1)
                RESULTS.write_text(json.dumps(tables, indent=1) + "\n")
                print(f"MEASURED {table}, {name}: {accuracy:.4f}, {seconds:.0f} s", flush=True)
    print(describe(tables["from_scratch"], ("accuracy",)))
    print(describe(tables["heads"], tuple(LABELS)))


if __name__ == "__main__":
    main()
