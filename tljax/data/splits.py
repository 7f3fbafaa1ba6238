"""Which images each split of a run has: the source's split, its rows, and a sample of them by class and number."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tljax.config import NOT_READ, Data
from tljax.data.decoding import Encoded, decode_all
from tljax.data.image_source import VALIDATION_NAMES, ImageSource, Rows


def stratify(labels: np.ndarray) -> dict[str, Rows]:
    """The rows of train and val: 90% and 10% of each class, at least one row of val for a class with two rows or more.

    The random seed is fixed, whatever the seed of the run: a run that starts from the weights of another run must not
    validate on images that the other one was trained on.
    """
    rng = np.random.default_rng(0)
    held_out: list[int] = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held_out.extend(rows[: max(1, round(len(rows) / 10)) if len(rows) > 1 else 0])
    return {"train": np.setdiff1d(np.arange(len(labels)), held_out), "val": np.sort(np.array(held_out, int))}


class Reading(NamedTuple):
    """The arguments of `load_dataset` that apply to every split; `size` is the side of the decoded images in pixels."""

    config: Data
    size: int
    seed: int
    disk_bytes: int
    memory_bytes: float
    own: Callable[[int], Rows]


def choose_parts(config: Data, source: ImageSource, training: bool) -> dict[str, tuple[str, Rows]]:
    """For validation, train and test, as far as the run needs them: the source's split, and its rows.

    Raises:
      ValueError: if a setting or a split is wrong.
    """
    has = f"the data has {', '.join(source.sizes)}"
    parts = {}
    if config.validation_split != NOT_READ:
        parts["validation"] = _find_validation(config, source, has)
    held_out, held_out_rows = parts.get("validation", ("", np.arange(0)))
    if training:
        if "train" not in source.sizes:
            raise ValueError(f"config.data.name={config.name!r}: no split train to learn from; {has}")
        rows = np.arange(source.sizes["train"])
        parts["train"] = "train", np.setdiff1d(rows, held_out_rows) if held_out == "train" else rows
        if not len(parts["train"][1]):
            spec = config.validation_split
            raise ValueError(f"config.data.validation_split={spec!r} leaves nothing to train on; take train[90%:]")
    test_split = config.test_split or ("test" if "test" in source.sizes else None)
    from_train = held_out in ("train", "") or (source.test_at_end and held_out == "val")
    if training and from_train and test_split and test_split != NOT_READ:
        parts["test"] = _find_rows(test_split, source.sizes, "test_split")
        if parts["test"][0] == "train":
            raise ValueError(f"config.data.test_split={config.test_split!r}: must not be train; {has}")
    return parts


def _find_validation(config: Data, source: ImageSource, has: str) -> tuple[str, Rows]:
    if source.sizes.get("train") and source.sizes.get("val") == 0:
        raise ValueError(
            f"config.data.name={config.name!r}: every class has one picture, which leaves none to validate on; add a "
            "second picture of a class, or a folder val/ with classes"
        )
    default = next((name for name in (*VALIDATION_NAMES, "test") if name in source.sizes), None)
    spec = config.validation_split or default
    if spec is None:
        raise ValueError(f"config.data.validation_split=None: {has}; set a split or a slice such as train[90%:]")
    return _find_rows(spec, source.sizes, "validation_split")


def _find_rows(spec: str, sizes: dict[str, int], setting: str) -> tuple[str, Rows]:
    name, bracket, bounds = spec.partition("[")
    if name not in sizes:
        name = next((other for other in VALIDATION_NAMES if other in sizes), name) if name in VALIDATION_NAMES else name
    if name not in sizes:
        raise ValueError(f"config.data.{setting}={spec!r}: no such split; the data has {', '.join(sizes)}")
    n = sizes[name]
    rows = np.arange(n)
    if bracket:
        import tensorflow_datasets as tfds

        try:
            if "shard" in bounds:
                raise ValueError("only TFDS data sets have shards")
            infos = {name: tfds.core.SplitInfo(name=name, shard_lengths=[n], num_bytes=0)}
            (part,) = tfds.core.ReadInstruction.from_spec(f"{name}[{bounds}").to_absolute(infos)
        except ValueError as error:
            raise ValueError(
                f"config.data.{setting}={spec!r}: no slice of the {n} images of {name}; write {name}[90%:]"
            ) from error
        rows = rows[part.from_ : part.to]
    if not len(rows):
        raise ValueError(f"config.data.{setting}={spec!r}: no images; {name} has {n}")
    return name, rows


def choose_rows(source: ImageSource, reading: Reading, part: str, split: str, rows: Rows) -> dict[str, np.ndarray]:
    """Chooses the images of a split: `rows` within it, `labels` (int32) and `ids` of those that this process reads,
    their positions among all chosen images (`own`), the number of all chosen images (`count`), and the images that are
    `skipped`.

    Raises:
      ValueError: if a class of `config.classes` has no image, or an image has no label.
    """
    config, own = reading.config, reading.own
    few = config.labels_per_class if part == "train" else None

    def sample(rows: Rows) -> Rows:
        if config.max_images is None or len(rows) <= config.max_images:
            return rows
        return np.sort(np.random.default_rng(reading.seed).choice(rows, config.max_images, replace=False))

    def check(rows: Rows) -> tuple[Rows, list[str]]:
        if config.broken == "refuse":
            return np.arange(len(rows)), []
        return _check_images(source, split, rows, reading.size)

    described = None
    if not config.classes:
        rows = sample(rows)
    if config.classes or few:
        labels, ids = _describe_rows(source, config, split, rows)
        absent = [name for i, name in enumerate(config.classes) if i not in labels]
        if absent and part != "test":
            raise ValueError(f"config.data.classes: no image of {absent[0]!r} in the rows of {split} for {part}")
        kept = np.flatnonzero(labels >= 0)
        kept = sample(kept) if config.classes else kept
        rows, described = rows[kept], (labels[kept], ids[kept])
    good, skipped = check(rows)
    if few:
        assert described is not None
        good = good[draw_few(described[0][good], few, reading.seed)]
    mine = own(len(good))
    chosen = good[mine]
    # If nothing was chosen by labels, they are read only for the images that this process reads.
    if described is None:
        labels, ids = _describe_rows(source, config, split, rows[chosen])
    else:
        labels, ids = (each[chosen] for each in described)
    return {
        "rows": rows[chosen],
        "labels": labels.astype(np.int32),
        "ids": ids,
        "own": mine,
        "count": np.array(len(good)),
        "skipped": np.array(skipped, str),
    }


def _describe_rows(
    source: ImageSource, config: Data, split: str, rows: Rows
) -> tuple[Int[np.ndarray, " n"], np.ndarray]:
    """Labels and ids of some rows. Labels are indices into `config.classes` if there are any, -1 for other classes."""
    labels, ids = source.describe(split, rows)
    if np.any(labels < 0) or np.any(labels >= len(source.class_names)):
        raise ValueError(f"config.data.name={config.name!r}: split {split} has images without a label; use another")
    if config.classes:
        renumbered = np.full(len(source.class_names), -1)
        renumbered[[source.class_names.index(name) for name in config.classes]] = np.arange(len(config.classes))
        labels = renumbered[labels]
    return np.asarray(labels), np.array(ids, str)


def draw_few(labels: Int[np.ndarray, " n"], each: int, seed: int) -> Int[np.ndarray, " drawn"]:
    """The places, in rising order, of at most `each` images of each class. A smaller `each` draws some of those that a
    larger one draws."""
    drawn = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        drawn.append(np.random.default_rng((seed, int(label))).permutation(places)[:each])
    return np.sort(np.concatenate(drawn)) if drawn else np.arange(0)


def _check_images(source: ImageSource, split: str, rows: Rows, size: int) -> tuple[Rows, list[str]]:
    """Decodes all `rows` of a split once: the positions of those that can be read, and the names of the others."""
    encoded = Encoded(partial(source.fetch, split), rows, tuple(map(str, range(len(rows)))), size, "")
    reasons = decode_all(encoded, f"checking {split}").broken
    broken = np.array(sorted(map(int, reasons)), int)
    names = source.describe(split, rows[broken])[1] if len(broken) else []
    said = [f"{name} ({reasons[str(place)]})" for name, place in zip(names, broken, strict=True)]
    return np.setdiff1d(np.arange(len(rows)), broken), said
