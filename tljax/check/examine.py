"""Everything that a check looks at, one after the other, and what it comes to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from tljax.check import twins
from tljax.check.reading import ReadData
from tljax.check.result import Checked, Result
from tljax.check.twins import Named, Sketches
from tljax.check.verdicts import count_classes, judge_findings, rank_verdicts
from tljax.data.batches import progress_bar

Report = Callable[[float], None]


def examine(data: str, read: ReadData, notes: list[str]) -> Result:
    """What a check of the pictures that were read comes to. `data` is their name, `notes` what is known already."""
    checked = read.checked
    named = Named(checked.ids, checked.splits, [checked.class_names[label] for label in checked.labels])
    sketches = _sketch(checked)
    with _bar("comparing pictures") as report:
        pairs = twins.find_twins(sketches, report)
    findings = [*read.broken, *read.half_read, *twins.list_twins(pairs, named)]
    counts = count_classes(checked.class_names, {part: its.labels.tolist() for part, its in checked.parts.items()})
    return Result(data, checked.class_names, counts, rank_verdicts(judge_findings(findings)), findings, (), notes)


def _sketch(checked: Checked) -> Sketches:
    """Sketches of all pictures."""
    found = []
    for part, its in checked.parts.items():
        with _bar(f"looking at {part}") as report:
            found.append(twins.sketch(its.images, report))
    return Sketches(*map(np.concatenate, zip(*found, strict=True)))


@contextmanager
def _bar(name: str) -> Iterator[Report]:
    """A progress bar, and what moves it to a part that is done, from 0 to 1."""
    with progress_bar(100, name, unit="%") as bar:
        yield lambda done: bar.update(100 * done - bar.n) and None
