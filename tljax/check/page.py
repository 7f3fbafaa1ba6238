"""The page of a check: what was found as pictures side by side, on which a person decides about them."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tljax.check.cards import (
    SAVED,
    Case,
    Place,
    choose_files,
    choose_findings,
    has_pictures,
    list_cases,
    list_places,
    make_ledger,
    part_twins,
    read_images,
)
from tljax.check.findings import Finding
from tljax.check.result import Checked, Result, Shortcut
from tljax.check.verdicts import VERDICT_KINDS, list_table
from tljax.report.blocks import (
    Block,
    Chart,
    Code,
    Decisions,
    Details,
    Gallery,
    Item,
    Page,
    Section,
    Series,
    Sheet,
    Text,
)
from tljax.report.page import is_page, render
from tljax.report.pictures import Drawn, make_thumbnails
from tljax.report.twins import TWIN_KINDS
from tljax.runs.files import write_text
from tljax.text import count_words

# What makes such pages.
COMMAND = "check"
CLASS_KINDS = ("class_empty", "class_few", "class_alike", "class_uneven")
# The pictures of a shortcut, and the shortcuts with pictures; the bins of its numbers, and the words that are named.
OF_A_SHORTCUT, SHORTCUTS_WITH_PICTURES, SHORTCUT_BINS, MOST_WORDS = 6, 10, 30, 8


class Sort(NamedTuple):
    """A section on which is decided: its title, what is said of it, and its kinds of findings, the worst first."""

    title: str
    note: str
    kinds: tuple[str, ...]
    score: str
    """What the number on a card is; without it, there is none."""


SORTS = {
    "twins": Sort(
        "Twins, leaks and contradictions",
        "Pictures that are there twice. In two parts of the data they make an accuracy too high (leak); under two "
        "classes one of them is wrong (contradiction). Pictures whose twins have twins are one card.",
        TWIN_KINDS,
        "how alike both are: 1 is equal pixels",
    ),
    "labels": Sort(
        "Labels that look wrong",
        "A head that saw neither these pictures nor their twins gives them another label. The surest are first.",
        ("label",),
        "how probable it is that the label was drawn at random",
    ),
    "shortcuts": Sort("Shortcuts", "The pictures that a shortcut names.", ("shortcut",), ""),
    "broken": Sort(
        "Broken pictures",
        "Broken ones cannot be read, and end a run that does not drop them; half read ones lack their end.",
        ("broken", "half_read"),
        "",
    ),
    "pictures": Sort(
        "Odd pictures",
        "Pictures that are unlike the others.",
        (),
        "how far out the picture is: 0.5 just beyond the bound, 1 far beyond it",
    ),
    "before": Sort("Decided before", "Nothing is found about these pictures any more.", ("",), ""),
}


def make_check_page(
    result: Result, checked: Checked, reasons: Mapping[str, str] | None = None, run: str = "", table: str = SAVED
) -> Page:
    """The page of a check. `reasons` say by id why broken pictures cannot be read; `run` is the command of a run
    that reads what is decided; `table` is the place of the `check.csv` beside the page.

    What findings have decided is on the page already. `MOST_FINDINGS` of them are on it at most.
    """
    found, beside = part_twins(choose_findings(result.findings))
    places = list_places(checked)
    cases = sort_cases(found)
    shortcuts = [file for its in result.shortcuts[:SHORTCUTS_WITH_PICTURES] for file in its.files[:OF_A_SHORTCUT]]
    chosen = choose_files(found, [case for several in cases.values() for case in several], places, shortcuts)
    images = read_images(checked, chosen)
    keys = {file: f"p{i}" for i, file in enumerate(images)}
    described = [block for its in result.shortcuts for block in describe_shortcut(its, places, keys)]
    sections = [
        Section(
            "overview",
            "What was found",
            [*describe_result(result), *_explain(result, run, table, len(found) + len(beside))],
        ),
        *(
            Section(name, sort.title, [*(described if name == "shortcuts" else []), *_show(cases[name], keys, sort)])
            for name, sort in SORTS.items()
        ),
        Section("classes", "Classes", describe_classes(result)),
    ]
    drawn = {key: Drawn(file, images[file], f"{file}, {places[file].label}") for file, key in keys.items()}
    return Page(
        f"Check of {result.data}",
        list_table(result)[:1],
        [section for section in sections if section.blocks],
        make_thumbnails(drawn),
        replace(make_ledger(found, beside, result.class_names, places, keys, reasons or {}), place=table)
        if found
        else None,
        COMMAND,
    )


def write_check_page(place: Path, page: Page) -> None:
    """Writes the page of a check, atomically.

    Raises:
      FileExistsError: if something is there that is no page of a check.
      OSError: if it cannot be written.
    """
    check_free(place)
    write_text(place, render(page))


def check_free(place: Path) -> None:
    """Whether a page may be written to `place`; the errors are those of `write_check_page`."""
    if os.path.lexists(place) and not (place.is_file() and is_page(place, COMMAND)):
        raise FileExistsError(f"{place} is there and is no page of a check; give another --out")


def sort_cases(found: Sequence[Finding]) -> dict[str, list[Case]]:
    """The cards of each section. A kind that has none is about single pictures."""
    known = {kind for sort in SORTS.values() for kind in sort.kinds}
    others = tuple(sorted({finding.kind for finding in found} - known))
    return {name: list_cases(found, sort.kinds or others) for name, sort in SORTS.items()}


def describe_result(result: Result) -> list[Block]:
    """The table of verdicts, and what a reader must know."""
    rows = [(VERDICT_KINDS[verdict.kind].title, verdict.number, verdict.text) for verdict in result.verdicts]
    table = Sheet(["found", "number", "what it means, and what to do"], rows)
    return [table if rows else Text(["Nothing was found."], "good"), *([Text(result.notes)] if result.notes else [])]


def _explain(result: Result, run: str, table: str, carried: int) -> list[Block]:
    """How decisions are made and used."""
    if not carried:
        return []
    left = len(result.findings) - carried
    rows = f"{carried:,} of the {len(result.findings):,} rows" if left else "all rows"
    some = " These are those with a decision and the worst; a next check finds the others again." if left else ""
    lines = [
        "Below, decide about pictures: keep them as they are, drop them, or give them another label. Files are not "
        f"changed: decisions stand in {SAVED}.",
        f"The button at the bottom saves it among the downloads, with {rows} of the table.{some} Put it in place of "
        f"{table}: a next check goes on with its decisions.",
    ]
    return [Text(lines), Code([run], "A run that reads what was decided:")]


def _show(cases: Sequence[Case], keys: Mapping[str, str], sort: Sort) -> list[Block]:
    """Cards to decide on, those with all their pictures first."""
    if not cases:
        return []
    ordered = sorted(cases, key=lambda case: not has_pictures(case, keys))
    shown = sum(has_pictures(case, keys) for case in cases)
    some = f" There is room for the pictures of {shown:,} of {len(cases):,} cards; the others are last, by name."
    return [Decisions("", [case.rows for case in ordered], sort.note + some * (0 < shown < len(cases)), sort.score)]


def describe_shortcut(its: Shortcut, places: Mapping[str, Place], keys: Mapping[str, str]) -> list[Block]:
    """What a property says of a class: in words, by class, and some of the pictures that it names."""
    lines = [
        f"{its.property}: {its.rule}, of {its.label}",
        f"That names {its.share:.0%} of {its.label}, and {its.precision:.0%} of what it names are {its.label}. A "
        "network can learn that instead of what the pictures show.",
    ]
    items = [Item([keys[file]], places[file].label) for file in its.files[:OF_A_SHORTCUT] if file in keys]
    gallery = Gallery("", items, f"Some of the {count_words(len(its.files), 'picture')} that it names")
    has_words = any(isinstance(value, str) for values in its.values.values() for value in values)
    shown = tabulate_words(its) if has_words else chart_numbers(its)
    return [Text(lines, "warning"), *shown, *([gallery] if items else [])]


def chart_numbers(its: Shortcut) -> list[Block]:
    """How many of the class, and of all others, have which number; and the quantiles of each class."""
    values = {name: _list_finite(numbers) for name, numbers in its.values.items()}
    own = values.get(its.label, np.zeros(0))
    others = np.concatenate([np.zeros(0), *(numbers for name, numbers in values.items() if name != its.label)])
    edges = choose_edges(np.concatenate([own, others]))
    series = [
        Series(name, trace_shares(numbers, edges), color, "steps")
        for color, (name, numbers) in enumerate((("all other classes", others), (its.label, own)))
        if len(numbers)
    ]
    note = "What is far beyond the others stands at the ends."
    title = f"{its.property} of {its.label} and of other classes"
    rows = [[name, len(numbers), *np.quantile(numbers, (0.05, 0.5, 0.95)).tolist()]
            for name, numbers in values.items() if len(numbers)]  # fmt: skip
    sheet = Sheet(["class", "pictures", "5% are below", "half are below", "95% are below"], rows)
    chart = Chart(title, its.property, "share of the pictures", series, note=note)
    return [chart, Details(f"{its.property} by class", [sheet])]


def _list_finite(values: Iterable[float | str]) -> np.ndarray:
    numbers = np.array(list(values), float)
    return numbers[np.isfinite(numbers)]


def choose_edges(values: np.ndarray) -> np.ndarray:
    """The edges of bins of equal width: between them lie nearly all values, those beyond count at the ends. A few whole
    numbers have a bin each."""
    low, high = np.quantile(values, (0.005, 0.995)) if len(values) else (0.0, 1.0)
    if (values == np.round(values)).all() and high - low < SHORTCUT_BINS:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    return np.linspace(low, high if high > low else low + 1, SHORTCUT_BINS + 1)


def trace_shares(values: np.ndarray, edges: np.ndarray) -> list[tuple[float, float]]:
    """The share of the values in each bin, as points of steps: each goes on to the next."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    shares = (counts / len(values)).tolist()
    return list(zip(edges.tolist(), [*shares, shares[-1]], strict=True))


def tabulate_words(its: Shortcut) -> list[Block]:
    """Which part of each class has which word."""
    counts = {name: Counter(map(str, values)) for name, values in its.values.items()}
    total: Counter[str] = sum(counts.values(), Counter())
    words = [word for word, _ in total.most_common(MOST_WORDS)]
    rows = [[name, *(f"{count[word] / count.total():.1%}" if count[word] else None for word in words)]
            for name, count in counts.items()]  # fmt: skip
    few = f"; the {len(words)} most frequent of {len(total):,}" if len(total) > len(words) else ""
    return [Sheet(["class", *words], rows, f"{its.property} by class{few}")]


def describe_classes(result: Result) -> list[Block]:
    """What is said of classes, and the pictures of each in each part."""
    lines = [verdict.text for verdict in result.verdicts if verdict.kind in CLASS_KINDS]
    rows: list[list[str | float | None]] = [
        [name, *(counts.get(name, 0) for counts in result.counts.values())] for name in result.class_names
    ]
    return [*([Text(lines, "warning")] if lines else []), Sheet(["class", *result.counts], rows, "Pictures by class")]
