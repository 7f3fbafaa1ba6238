"""How well wrong labels are found: planted ones, in CIFAR-10 and in digits.

    python benchmarks/labels.py --data-dir DIR [--seed 0] [--run RUN]

DIR is TFDS's data_dir with CIFAR-10. Labels are exchanged for another class that is drawn: 5% of them (500 of 10,000),
and none. With `--run` its features are used for the pictures of its own data.validation_split, which it has not learned
from, else pixels alone for CIFAR-10's test pictures. 90 of the 1,797 labels of digits are exchanged.

It prints how many labels held-out heads name, the AUROC of the ranking, which part of the wrong labels is among the
first ones, how many are listed and right to be, and what it costs beside the features: seconds of processors. The last
lines are 100,000 pictures with 2,048 features that are drawn, as rectified mixtures of 256, and the most memory.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from tljax.check.held_out import judge_all, scale_all
from tljax.check.labels import find_wrong_labels, suspect
from tljax.check.network import choose_network, read_features
from tljax.check.twins import Named
from tljax.config import Data
from tljax.data import datasets
from tljax.model import load


def measure(name: str, features: np.ndarray, labels: np.ndarray, part: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, classes, wrong = len(labels), int(labels.max()) + 1, np.zeros(len(labels), bool)
    wrong[rng.choice(n, round(part * n), replace=False)] = True
    given = np.where(wrong, (labels + rng.integers(1, classes, n)) % classes, labels)
    began = time.process_time()
    suspicion = suspect(judge_all(scale_all(features), given, classes), given)
    seconds = time.process_time() - began
    names = [str(label) for label in range(classes)]
    named = Named([str(row) for row in range(n)], [""] * n, [names[label] for label in given])
    listed = np.array([int(finding.file) for finding in find_wrong_labels(suspicion, named, names)], int)
    order = suspicion.rows[np.argsort(-suspicion.scores, kind="stable")]
    accuracy = np.mean(suspicion.suggested == labels[suspicion.rows])
    text = f"{name}: {n:,} pictures, {wrong.sum()} wrong; heads name {accuracy:.3f} of the true labels"
    if wrong.any():
        text += f"; AUROC {roc_auc_score(wrong[suspicion.rows], suspicion.scores):.4f}; found among the first "
        text += ", ".join(
            f"{first:,}: {wrong[order[:first]].sum() / wrong.sum():.0%}" for first in (wrong.sum(), 4 * wrong.sum())
        )
    print(f"{text}; listed {len(listed)}, of which wrong {wrong[listed].sum()}; {seconds:.1f} s", flush=True)


def read(data: Data, run: str | None) -> tuple[np.ndarray, np.ndarray]:
    split = datasets.load_dataset(data, seed=0, training=False).validation
    assert split is not None
    network = choose_network(load(run), split.digests, of_files=split.of_files)
    print(network.why)
    return read_features(network, [split.images], split.digests, 2**32), split.labels


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run")
    flags = parser.parse_args()
    cifar = Data(name="cifar10", dir=flags.data_dir, validation_split="test", image_size=32)
    if flags.run:
        own = json.loads((Path(flags.run) / "config.json").read_text())["data"]
        cifar = Data(name="cifar10", dir=flags.data_dir, validation_split=own["validation_split"], image_size=32,
                     classes=tuple(own["classes"]))  # fmt: skip
    features, labels = read(cifar, flags.run)
    for part in (0.05, 0):
        measure("CIFAR-10", features, labels, part, flags.seed)
    digits = datasets.load_dataset(Data(name="digits", validation_split="val"), seed=0)
    splits = list(digits.splits.values())
    labels = np.concatenate([split.labels for split in splits])
    network = choose_network(None, splits[0].digests, of_files=False)
    features = read_features(network, [split.images for split in splits], splits[0].digests)
    for part in (0.05, 0):
        measure("digits", features, labels, part, flags.seed)
    rng = np.random.default_rng(flags.seed)
    labels = np.arange(100_000) % 10
    hidden = (
        rng.normal(size=(100_000, 256)).astype(np.float32) + rng.normal(size=(10, 256)).astype(np.float32)[labels] / 8
    )
    features, mixed = np.empty((100_000, 2_048), np.float32), rng.normal(size=(256, 2_048)).astype(np.float32)
    for start in range(0, 100_000, 1_000):
        features[start : start + 1_000] = np.maximum(hidden[start : start + 1_000] @ mixed, 0)
    measure("drawn", features, labels, 0.05, flags.seed)
    print(f"the most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
