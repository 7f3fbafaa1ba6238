"""Whose features a check uses: a network that has not learned from the checked pictures, or pixels alone.

A network that has learned from a picture with a wrong label may have memorized the label. Nothing is downloaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax import ShapeDtypeStruct
from jaxtyping import Float32, UInt8

from tljax.check.pixels import describe_pixels
from tljax.check.result import Report
from tljax.data.decoding import Encoded
from tljax.data.image_source import CHUNK
from tljax.model import Model, load
from tljax.runs.files import read_json
from tljax.runs.workdir import CONFIG
from tljax.storage import cache
from tljax.storage.file_index import Digests
from tljax.text import count_words
from tljax.trees import sha256
from tljax.weights.pretrained import IMAGENET, has_imagenet

PicturesOfPart = UInt8[np.ndarray, "n size size 3"] | Encoded
# By the features of so many pictures of each part, kept ones are known again.
PROBED = 8


class FeatureNetwork(NamedTuple):
    """Whose features are used, and the sentence that says why."""

    model: Model | None
    """None for pixels alone."""
    why: str
    memorized: bool = False
    """Whether it may have learned wrong labels of these pictures."""


def choose_network(first: Model | None, digests: Digests, *, of_files: bool) -> FeatureNetwork:
    """The network `first` of a run, or that of its source if the run has learned from pictures with these `digests`.
    None: imagenet if it is on this disk, else pixels alone.

    Raises:
      ValueError, OSError: as `model.load`, if imagenet cannot be used.
    """
    if first is None:
        if has_imagenet():
            return FeatureNetwork(load(IMAGENET), "features of imagenet, which is on this disk (no --run was given)")
        return FeatureNetwork(
            None,
            "judged by edges and colors, without a network, since imagenet is not on this disk; for photographs a "
            "network finds far more: --run RUN",
        )
    run = first.name
    known = _count_known(first, digests, of_files=of_files)
    if not known:
        return FeatureNetwork(first, f"features of {run}{_describe_unknown(first, known)}", memorized=known is None)
    learned = f"{run} has learned from {known:,} of these {count_words(len(digests), 'picture')}"
    source, gone = _find_source(run, digests, of_files=of_files)
    if source is None:
        why = f"features of {run}, though it may have memorized wrong labels: it {learned.split(' ', 1)[1]}, and {gone}"
        return FeatureNetwork(first, why, memorized=True)
    return FeatureNetwork(source, f"features of {source.name}, the source of {run}: {learned}")


def _count_known(model: Model, digests: Digests, *, of_files: bool) -> int | None:
    """How many of these pictures a network has learned from; None if that is not known."""
    learned = model.learned
    if model.name == IMAGENET or (learned is None and not Path(model.name).is_dir()):
        # A file of weights says nothing, and its pictures are seldom these.
        return 0
    if learned is None or not learned.can_tell(of_files=of_files):
        return None
    return int(learned.has(digests, of_files=of_files).sum())


def _describe_unknown(model: Model, known: int | None) -> str:
    if known is None:
        return ", which has not kept what it learned from: it may have memorized wrong labels of these pictures"
    if model.learned is not None and not model.learned.whole:
        return ", which has not kept all that it learned from"
    return ""


def _find_source(run: str, digests: Digests, *, of_files: bool) -> tuple[Model | None, str]:
    """The nearest source of a run that has not learned from these pictures, and why there is none."""
    seen: set[str] = set()
    while run not in seen:
        seen.add(run)
        name = _read_source(run)
        if name is None:
            return None, f"{run} began with random weights" if Path(run).is_dir() else f"the source of {run} is unknown"
        # A name of the hub may not be on this disk.
        if not (has_imagenet() if name == IMAGENET else Path(name).expanduser().exists()):
            return None, f"its source {name} is not on this disk"
        try:
            found = load(name)
        except (ValueError, OSError) as error:
            return None, f"its source cannot be used ({error})"
        if _count_known(found, digests, of_files=of_files) == 0:
            return found, ""
        run = name
    return None, f"{run} names itself as its source"


def _read_source(run: str) -> str | None:
    """The name of the weights that a run began with."""
    try:
        config = read_json(Path(run) / CONFIG)
        name = config.get("pretrained") if isinstance(config, dict) else None
    except (OSError, ValueError):
        return None
    return name if isinstance(name, str) else None


def read_features(
    network: FeatureNetwork,
    parts: Sequence[PicturesOfPart],
    digests: Digests,
    disk_bytes: int = 0,
    report: Report = lambda done: None,
) -> Float32[np.ndarray, "n features"]:
    """Features of the pictures of all `parts`, one part after the other; `digests` are theirs.

    Those of a network are kept in the user's cache folder, which stays within `disk_bytes`, and are memory-mapped when
    they are found there.

    Raises:
      BrokenPictures: if images cannot be read.
    """
    if network.model is None:
        return _fill(None, parts, describe_pixels, report)
    # The network sees pictures at their own size, as in training.
    size = max((part.shape[1] for part in parts), default=network.model.image_size)
    is_run = Path(network.model.name).is_dir()
    model = network.model if is_run else replace(network.model, image_size=size)
    probes = [part[np.linspace(0, len(part) - 1, min(PROBED, len(part))).astype(int)] for part in parts if len(part)]
    probed = model.features(np.concatenate(probes)) if probes else np.zeros((0, 0), np.float32)
    # What the network makes of some pictures depends on its preprocessing, and on how pictures became square, too.
    about = {"what": "features for a check", "weights": model.digest, "pictures": sha256(digests),
             "probes": sha256(probed)}  # fmt: skip
    kept = cache.find(about) if disk_bytes else None
    if kept is not None:
        report(1.0)
        return kept["features"]
    shape = ShapeDtypeStruct((sum(map(len, parts)), probed.shape[1]), np.float32)
    with cache.build(about, {"features": shape}, disk_bytes) as made:
        return _fill(made["features"], parts, model.features, report, model.batch_size)


def _fill(
    made: np.ndarray | None,
    parts: Sequence[PicturesOfPart],
    read: Callable[[np.ndarray], np.ndarray],
    report: Report,
    batch: int = 1,
) -> Float32[np.ndarray, "n features"]:
    """Features of all pictures, computed in whole batches of about `CHUNK`."""
    chunk, n, done = max(1, CHUNK // batch) * batch, sum(map(len, parts)), 0
    for images in parts:
        for start in range(0, len(images), chunk):
            found = read(images[np.arange(start, min(start + chunk, len(images)))])
            made = np.empty((n, found.shape[1]), np.float32) if made is None else made
            made[done : done + len(found)] = found
            done += len(found)
            report(done / n)
    return np.zeros((0, 0), np.float32) if made is None else made
