"""Everything that a check looks at, one after the other, and what it comes to."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int

from tljax.check import twins
from tljax.check.classes import judge_classes
from tljax.check.held_out import judge_all, scale_all
from tljax.check.labels import describe_suspicion, find_wrong_labels, judge_labels, suspect
from tljax.check.network import FeatureNetwork, read_features
from tljax.check.odd import list_odd
from tljax.check.properties import FileFacts, PixelFacts, hide_borders, measure_files, measure_pixels
from tljax.check.reading import ReadData
from tljax.check.result import Checked, Report, Result
from tljax.check.shortcuts import Labeled, find_shortcuts, list_properties
from tljax.check.twins import Named, Pairs, Sketches, SmallPictures
from tljax.check.verdicts import (
    judge_findings,
    judge_groups,
    judge_shortcuts,
    list_named,
    rank_findings,
    rank_verdicts,
)
from tljax.data.batches import progress_bar
from tljax.data.datasets import count_classes
from tljax.data.image_source import CHUNK
from tljax.training.grouped import join_groups
from tljax.training.ridge import HeldOut

_T = TypeVar("_T")


class Measured(NamedTuple):
    """What was measured of all pictures."""

    sketches: Sketches
    pixels: PixelFacts
    files: FileFacts


def examine(data: str, read: ReadData, network: FeatureNetwork, notes: Sequence[str], disk_bytes: int) -> Result:
    """What a check of the pictures that were read comes to. `data` is their name, `network` whose features are used,
    `notes` what is known already."""
    checked = read.checked
    labels, names = checked.labels, checked.class_names
    named = Named(checked.ids, checked.splits, [names[label] for label in labels])
    facts = measure_facts(checked)
    if read.padded:
        facts = facts._replace(pixels=hide_borders(facts.pixels))
        notes = [*notes, "borders are not looked at: fit=pad makes some"]
    with bar("comparing pictures") as report:
        pairs = twins.find_twins(facts.sketches, report)
    groups = find_groups(checked, pairs, facts.sketches.pictures)
    with bar("looking for shortcuts") as report:
        labeled = Labeled(checked.ids, labels, names, groups)
        shortcuts = find_shortcuts(list_properties(facts.files, facts.pixels), labeled, report)
    held_out = judge_pictures(checked, network, groups, disk_bytes)
    suspicion = suspect(held_out, labels)
    wrong = find_wrong_labels(suspicion, named, names)
    others = [
        *read.broken,
        *read.half_read,
        *twins.list_twins(pairs, named),
        *list_odd(facts.files, facts.pixels, named),
    ]
    counts = {part: count_classes(its.labels, names) for part, its in checked.parts.items()}
    verdicts = [
        *judge_findings(others),
        *judge_groups(
            checked.group_names,
            {part: its.groups for part, its in checked.parts.items() if its.groups is not None},
        ),
        *judge_shortcuts(shortcuts),
        *judge_labels(suspicion, wrong),
        *judge_classes(counts, held_out, labels, names),
    ]
    findings = rank_findings([*others, *wrong, *list_named(shortcuts, named)])
    about_labels = f"labels: {network.why}; {describe_suspicion(suspicion, wrong, labels)}"
    return Result(data, names, counts, rank_verdicts(verdicts), findings, shortcuts, [about_labels, *notes])


def judge_pictures(
    checked: Checked, network: FeatureNetwork, groups: Int[np.ndarray, " n"], disk_bytes: int
) -> HeldOut:
    """Scores of the pictures by heads that saw neither them nor what says the same."""
    parts = [part.images for part in checked.parts.values()]
    with bar("features") as report:
        features = read_features(network, parts, checked.digests, disk_bytes, report)
    with bar("judging labels") as report:
        return judge_all(scale_all(features), checked.labels, len(checked.class_names), groups, report=report)


def measure_facts(checked: Checked) -> Measured:
    """Sketches and properties of all pictures, each of which is read once."""
    sketches, pixels = [], []
    for part, its in checked.parts.items():
        with bar(f"looking at {part}") as report:
            for start in range(0, len(its.ids), CHUNK):
                images = its.images[np.arange(start, min(start + CHUNK, len(its.ids)))]
                sketches.append(twins.sketch(images))
                pixels.append(measure_pixels(images))
                report((start + len(images)) / len(its.ids))
    with bar("reading files") as report:
        files = measure_files(watch(checked.files(), len(checked.ids), report))
    return Measured(_join(Sketches, sketches), _join(PixelFacts, pixels), files)


def _join(kind: Callable[..., _T], parts: Sequence[tuple[np.ndarray, ...]]) -> _T:
    return kind(*map(np.concatenate, zip(*parts, strict=True)))


def find_groups(checked: Checked, pairs: Pairs, pictures: SmallPictures) -> Int[np.ndarray, " n"]:
    """The same number for pictures that say the same: twins, and those that `data.group` puts together."""
    groups = twins.group_twins(len(checked.ids), pairs, partial(_measure, pictures))
    return groups if checked.groups is None else join_groups(groups, checked.groups)


def _measure(pictures: SmallPictures, pairs: Pairs) -> np.ndarray:
    return twins.measure(pictures, pairs).distance


def watch(values: Iterable[_T], number: int, report: Report) -> Iterator[_T]:
    """The values; every hundredth moves a bar."""
    for done, value in enumerate(values):
        yield value
        if done % 100 == 0:
            report(done / number)


@contextmanager
def bar(name: str) -> Iterator[Report]:
    """A progress bar, and what moves it to a part that is done, from 0 to 1."""
    with progress_bar(100, name, unit="%") as shown:

        def move(done: float) -> None:
            shown.update(100 * done - shown.n)

        yield move
