"""Folders of runs that nobody trained: their files as a run leaves them, with predictions that are drawn."""

from pathlib import Path

import numpy as np

from tljax.config import Config, Lesson, as_json
from tljax.data.datasets import Dataset, load_dataset
from tljax.runs.evidence import Evidence, write_evidence
from tljax.runs.files import write_json, write_rows
from tljax.runs.predictions import PREDICTIONS, describe_logits
from tljax.stages.conclusion import judge
from tljax.stages.overlap import find_copies
from tljax.training.calibration import cross_entropies
from tljax.training.epochs import Evaluation
from tljax.trees import Row


def draw_evaluation(dataset: Dataset, part: str, skill: float, seed: int) -> Evaluation:
    """Logits with which about a share `skill` of the pictures is right, and some more."""
    draws = np.random.default_rng(seed)
    labels = dataset.splits[part].labels
    logits = draws.normal(size=(len(labels), len(dataset.class_names))).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 4 * (draws.random(len(labels)) < skill)
    losses = cross_entropies(logits, labels)
    means = {"loss": float(losses.mean()), "accuracy": float((logits.argmax(axis=1) == labels).mean())}
    return Evaluation(means=means, logits=logits, seconds=0.1)


def leave_run(folder: Path, config: Config, skill: float = 0.7, seed: int = 0) -> Path:
    """Makes the folder of a finished run of two epochs, without checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(config.data, seed=config.seed)
    found = {part: draw_evaluation(dataset, part, skill, seed) for part in dataset.splits if part != "train"}
    judged = {part: judge(dataset, part, evaluation, find_copies(dataset, part)) for part, evaluation in found.items()}
    write_json(folder / "config.json", as_json(config))
    write_rows(
        folder / "environment.jsonl", [{"command": ["main.py", "--config", "x y"], "versions": {"jax": "1.2.3"}}]
    )
    write_rows(folder / "metrics.jsonl", [_make_epoch(config, epoch, judged["validation"]) for epoch in (1, 2)])
    for part, evaluation in found.items():
        split = dataset.splits[part]
        write_rows(
            folder / PREDICTIONS[part],
            describe_logits(split.ids, split.labels, evaluation.logits, dataset.class_names),
        )
    assert dataset.train is not None
    write_evidence(folder, _make_evidence(dataset, found["validation"]))
    write_json(folder / "summary.json", _summarize(config, dataset, judged))
    return folder


def _make_epoch(config: Config, epoch: int, judged: Row) -> Row:
    loss = judged["loss"] * (3 - epoch)
    return {
        "stage": config.stage, "cut": config.cut, "epoch": epoch, "loss": loss, "accuracy": 0.5, "val_loss": loss,
        "val_accuracy": judged["accuracy"], "seconds": 1.0, "images_per_second": 50.0, "learning_rate": 0.1 / epoch,
    }  # fmt: skip


def _make_evidence(dataset: Dataset, evaluation: Evaluation) -> Evidence:
    assert dataset.train is not None and dataset.validation is not None
    rows = np.flatnonzero(evaluation.logits.argmax(axis=1) != dataset.validation.labels)[:12]
    maps = np.linspace(-1, 1, 4 * len(rows)).reshape(len(rows), 2, 2).astype(np.float16)
    views = np.stack([dataset.train.images[:2], dataset.train.images[:2, :, ::-1]], axis=1)
    return Evidence(1, rows, maps, views, np.arange(2), ("as read", "draw 1"))


def _summarize(config: Config, dataset: Dataset, judged: dict[str, Row]) -> Row:
    count = judged["validation"]
    bins = [[5, 0.3, 0.4], [9, 0.8, 0.6]]
    return {
        "stage": config.stage, **count, "seconds": 3.0, "best_epoch": 2, "epochs": 2,
        "params": {"total": 10, "trainable": 7, "non_trainable": 3}, "frozen_leaves_unchanged": 5,
        "labels": {"train": 9, "validation": 9}, "class_names": list(dataset.class_names), "data": dataset.description,
        "calibration": {
            "temperature": 1.5, "fitted_on": {"split": "one half of validation", "images": 60},
            "measured_on": {"split": "the other half of validation", "images": 60},
            "calibration_error": {"without_temperature": 0.1, "with_temperature": 0.05},
            "bins": {"without_temperature": bins, "with_temperature": bins},
            "coverage": {"0.9": {"covered": 0.91, "labels": 1.2, "sizes": [50, 10]}},
        },
        **({"test": judged["test"]} if "test" in judged else {}),
    }  # fmt: skip


def leave_lesson(folder: Path, lesson: Lesson) -> Path:
    """Makes the folder of a lesson whose stages trained."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", as_json(lesson))
    for i, name in enumerate(lesson.active):
        leave_run(folder / name, lesson.config(name, None), skill=0.5 + 0.1 * i, seed=i)
    return folder
