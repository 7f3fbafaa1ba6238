"""After training: how far the probabilities can be believed, and what a run keeps for those who predict with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from tljax.data.datasets import Dataset, Split
from tljax.devices.processes import leads
from tljax.networks.resnet import compute_type
from tljax.runs.reference import KEPT_IMAGES, Reference, write_reference
from tljax.stages.programs import Setup
from tljax.stages.solve import Solution
from tljax.storage.file_index import Digests
from tljax.text import count_words
from tljax.training import calibration
from tljax.training.epochs import Evaluation
from tljax.training.grouped import GroupNumbers, join_groups
from tljax.trees import Row

# The coverages that `summary.json` reports, if there are enough pictures.
REPORTED_COVERAGES = (0.9, 0.95)


class Graded(NamedTuple):
    """Pictures with their logits and their labels; `what` names them in `summary.json`. Pictures of equal content, as
    copies of one are, have the same of the `contents`, and so have those that belong together."""

    what: str
    logits: Float[np.ndarray, "n classes"]
    labels: Int[np.ndarray, " n"]
    contents: Int[np.ndarray, " n"]

    def take(self, rows: np.ndarray, what: str) -> "Graded":
        """Some of the pictures."""
        return Graded(what, self.logits[rows], self.labels[rows], self.contents[rows])


def calibrate(
    setup: Setup,
    workdir: Path,
    dataset: Dataset,
    found: dict[str, Evaluation],
    best: int,
    solution: Solution | None,
) -> Row:
    """Fits the calibration on validation pictures, measures it on others, writes `reference.npz`, and returns the part
    of `summary.json`.

    `found` are the evaluations of the splits by name, `best` is the number of the checkpoint that they were computed
    with. Without validation, the calibration is fitted on the pictures that the `solution` held out of training.

    Raises:
      OSError: if the reference cannot be written.
    """
    fitting, measuring = map(leave_out_broken, divide(dataset, found, solution))
    temperature, tried = calibration.choose_temperature(fitting.logits, fitting.labels, fitting.contents)
    scores = calibration.true_probabilities(calibration.softmax(fitting.logits, temperature), fitting.labels)
    if leads():
        shown = found["train" if dataset.validation is None else "validation"]
        images, kept = choose_kept_images(dataset.shown, shown.logits)
        if len(images):
            write_reference(workdir, Reference(best, compute_type(setup.model), images, kept, temperature, scores))
    seen = dataset.validation is not None and setup.config.epochs > 0
    return {
        "temperature": temperature,
        "cross_validated_loss": tried and tried._asdict(),
        "fitted_on": {"split": fitting.what, "images": len(fitting.labels), "seen_by_early_stopping": seen},
        "measured_on": {"split": measuring.what, "images": len(measuring.labels)},
        **measure(measuring, temperature, scores),
    }


def choose_kept_images(
    split: Split, logits: Float[np.ndarray, "n classes"]
) -> tuple[UInt8[np.ndarray, "k size size 3"], Float[np.ndarray, "k classes"]]:
    """At most `KEPT_IMAGES` images that this process reads, and their logits; `logits` are those of the whole split.
    Those that are not finite are not kept."""
    whole = np.flatnonzero(np.isfinite(logits[split.rows]).all(axis=1))
    places = whole[np.unique(np.linspace(0, len(whole) - 1, min(KEPT_IMAGES, len(whole))).astype(int))]
    return np.asarray(split.images[places]), logits[split.rows[places]].astype(np.float32)


def divide(dataset: Dataset, found: dict[str, Evaluation], solution: Solution | None) -> tuple[Graded, Graded]:
    """The pictures that the calibration is fitted on, and those that it is measured on: validation and test or, without
    a test split, one half of validation and the other, drawn by a fixed seed. Without validation, it is fitted on the
    training pictures that were held out. Copies of what it is fitted on measure nothing, nor does what belongs to it.
    """
    digests = {name: dataset.splits[name].all_digests() for name in found}
    contents = number_contents(digests, {name: dataset.splits[name].all_groups() for name in found})

    def grade(name: str) -> Graded:
        return Graded(name, found[name].logits, dataset.splits[name].all_labels(), contents[name])

    if dataset.validation is None:
        assert solution is not None, "only a solved head does without validation"
        held_out = solution.head.held_out
        own = solution.labels[held_out.rows], contents["train"][held_out.rows]
        fitting = Graded("train, each left out", held_out.scores, *own)
    else:
        fitting = grade("validation")
    if "test" in found:
        test = grade("test")
        return fitting, test.take(~np.isin(test.contents, fitting.contents), "test")
    if dataset.validation is None:
        return fitting, fitting.take(np.arange(0), "none")
    one = draw_half(fitting.contents)
    return fitting.take(one, "one half of validation"), fitting.take(~one, "the other half of validation")


def leave_out_broken(pictures: Graded) -> Graded:
    """The pictures whose logits are finite; a line says how many are not. Nothing can be made of the others."""
    whole = np.isfinite(pictures.logits).all(axis=1)
    if whole.all():
        return pictures
    broken, those = int((~whole).sum()), count_words(len(whole), "picture")
    print(
        f"WARNING the outputs for {broken:,} of {those} ({pictures.what}) are no finite numbers: probabilities are "
        "judged without them"
    )
    return pictures.take(whole, pictures.what)


def number_contents(
    digests: Mapping[str, Digests], groups: Mapping[str, GroupNumbers | None]
) -> dict[str, Int[np.ndarray, " n"]]:
    """A number for each picture of each split, the same for pictures of the same content, or of the same of the
    `groups`, which all splits have or none."""
    _, numbers = np.unique(np.concatenate(list(digests.values())), axis=0, return_inverse=True)
    if known := [own for own in groups.values() if own is not None]:
        numbers = join_groups(numbers.ravel(), np.concatenate(known))
    ends = np.cumsum([len(rows) for rows in digests.values()])
    return dict(zip(digests, np.split(numbers.ravel(), ends[:-1]), strict=True))


def draw_half(contents: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which pictures are in one half of them, drawn by a fixed seed. All copies of a picture are on one side,
    and all that belongs together."""
    drawn = np.random.default_rng(0).permutation(len(contents))
    names, first, counts = np.unique(contents[drawn], return_index=True, return_counts=True)
    order = np.argsort(first)
    before = np.cumsum(counts[order]) - counts[order]
    return np.isin(contents, names[order][before < -(-len(drawn) // 2)])


def measure(pictures: Graded, temperature: float, scores: Float[np.ndarray, " n"]) -> Row:
    """The calibration error before and after, with its bins; and, for each of `REPORTED_COVERAGES` that can be
    promised, how many sets have the right label, how many labels they have on average, and how many sets have one
    label, two and so on. Empty without pictures."""
    labels = pictures.labels
    if not len(labels):
        return {}
    before, after = (calibration.softmax(pictures.logits, t) for t in (1.0, temperature))
    named = {"without_temperature": before, "with_temperature": after}
    sets: Row = {}
    for coverage in REPORTED_COVERAGES:
        if len(scores) + 1 >= round(1 / (1 - coverage), 9):
            chosen = calibration.choose_sets(after, calibration.find_threshold(scores, coverage))
            covered = chosen[np.arange(len(labels)), labels].mean()
            sets[str(coverage)] = {
                "covered": float(covered),
                "labels": float(chosen.sum(axis=1).mean()),
                "sizes": calibration.count_sizes(chosen),
            }
    return {
        "calibration_error": {name: calibration.calibration_error(p, labels) for name, p in named.items()},
        "bins": {name: calibration.describe_bins(p, labels) for name, p in named.items()},
        "coverage": sets,
    }
