"""What a study came to, from its `how_deep.json`: sentences, a table and figures of the probe, and blocks of a page."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tljax.data.layouts import join_names
from tljax.report import figures
from tljax.report.blocks import Block, Code, Sheet, Text
from tljax.report.cheapest import Candidate, measure_difference, vary_seeds
from tljax.report.depth import UnitResult, chart_places
from tljax.report.more_labels import chart_growth, read_tuned
from tljax.report.printed import align, write_number
from tljax.text import printable
from tljax.training.calibration import accuracy_interval
from tljax.training.grouped import GroupNumbers
from tljax.training.learning_curve import read_curve
from tljax.trees import Row

HEAD_KEYS = ("unit", "accuracy", "seconds")
BY_UNIT = ("unit", "expected", "validation accuracy", "seconds")
OF_UNITS = (
    "A solved head that reads what each unit would read: its accuracy as the training labels alone let expect it, that "
    "on validation, and the seconds of the pass up to the unit and of solving."
)
TO_TRAIN = "To train it on other pictures, in a folder PICTURES with a folder for each class"


def describe_steps(candidates: Sequence[Candidate], groups: GroupNumbers | None) -> list[str]:
    """What each candidate gained and cost after the one before it, in the order in which more is trained."""
    seeds = vary_seeds(candidates)
    said = []
    for before, after in pairwise(candidates):
        found = measure_difference(after, before, seeds, groups)
        said.append(
            f"{after.name} instead of {before.name}: {found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f}) for "
            f"{after.seconds:,.0f} s instead of {before.seconds:,.0f} s"
        )
    return list(map(printable, said))


def describe_chosen(trained: Sequence[str]) -> list[str]:
    """That the accuracies of the candidates that were `trained` in epochs are too high, if there are any."""
    if not trained:
        return []
    why = "the epochs were chosen on the same validation pictures, so the accuracy there is a little too high"
    return [printable(f"{join_names(trained)}: {why}")]


def list_places(found: Row) -> list[UnitResult]:
    """The places that the probe measured on validation, of how many pictures `found` says."""
    return [
        UnitResult(unit, accuracy, *accuracy_interval(accuracy, found["pictures"]), seconds or 0.0)
        for unit, accuracy, seconds in (tuple(row[name] for name in HEAD_KEYS) for row in found["heads"])
        if accuracy is not None
    ]


def list_rows(found: Row) -> list[tuple[str, ...]]:
    """The rows of the probe's table, as text."""
    return [
        (
            row["unit"] + " (read)" * (row["unit"] == found["place"]),
            *(write_number(row[name], ".3f") for name in ("expected", "accuracy")),
            write_number(row["seconds"], ".1f"),
        )
        for row in found["heads"]
    ]


def describe_tested(found: Row, test: Row | None) -> list[str]:
    """The accuracy of what was chosen on the test split, if there was one."""
    if not test or test.get("accuracy") is None:
        return []
    alone = f"on the test split, which chose nothing and was evaluated for {found['chosen']} alone"
    return [f"{alone}: accuracy {test['accuracy']:.3f}"]


def draw_study(found: Row, folder: Path) -> list[str]:
    """Draws the figures of a study into `folder` and returns their names."""
    if places := list_places(found):
        figures.draw_places(folder / figures.PLACED, places)
    if found["growth"]:
        tuned = read_tuned(found.get("tuned_by_labels"))
        figures.draw_growth(folder / figures.GROWN, read_curve(found["growth"]), tuned)
    return [name for name in (figures.PLACED, figures.GROWN) if (folder / name).is_file()]


def write_sections(found: Row, test: Row | None, drawn: Sequence[str]) -> list[str]:
    """The sections of `report.md`."""
    said = [*found["said"], *describe_tested(found, test)]
    sections = ["## How deep", "\n".join(f"- {printable(line)}" for line in said)]
    sections += [f"{TO_TRAIN}:\n\n```\n{printable(found['command'])}\n```"]
    if found["heads"]:
        sections += [align([BY_UNIT, *list_rows(found)]), OF_UNITS]
    return [*sections, *(f"![{Path(name).stem}](figures/{name})" for name in drawn), "## Stages"]


def show_study(found: Row, test: Row | None) -> list[Block]:
    """The section of a page."""
    blocks: list[Block] = [Text([*found["said"], *describe_tested(found, test)]), Code([found["command"]], TO_TRAIN)]
    if found["heads"]:
        blocks += [Sheet(BY_UNIT, list_rows(found), OF_UNITS), *chart_places(list_places(found))]
    if found["growth"]:
        blocks += chart_growth(read_curve(found["growth"]), read_tuned(found.get("tuned_by_labels")))
    return blocks
