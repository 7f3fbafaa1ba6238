"""The page of runs: what they came to, what they get wrong, how far their numbers go, what they were made of."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from tljax.data.datasets import Dataset
from tljax.devices.processes import leads
from tljax.report import printed
from tljax.report.answers import open_output
from tljax.report.blocks import Block, Page, Section, Tabs, Text, Thumbnail
from tljax.report.curve_charts import chart_courses, find_chains
from tljax.report.curves import Course
from tljax.report.maps import paint
from tljax.report.mistakes import describe_mistakes, find_turned, say, show_pictures, show_turned
from tljax.report.origin import (
    describe_data,
    describe_machines,
    describe_proofs,
    describe_settings,
    find_program,
    show_views,
)
from tljax.report.overview import describe_stages, find_best, list_commands, say_best
from tljax.report.page import render
from tljax.report.pictures import MOST_PICTURES, Album, Albums, make_picture, make_thumbnails, read_images
from tljax.report.shown import IN_GALLERY, Shown, choose_predictions, choose_shown, rank_rows, take_turns
from tljax.report.trust import describe_trust
from tljax.runs.files import open_file, write_text
from tljax.runs.predictions import choose_rows
from tljax.runs.records import RunRecord, StageRecord, read_records
from tljax.runs.workdir import REPORT
from tljax.text import count_words, printable

# What makes a file a report, and in how many of its first bytes that stands.
MARK, MARKED_WITHIN = b'<meta name="generator" content="tljax report">', 4096
FindAlbum = Callable[[StageRecord, str], Album]


class Pool(NamedTuple):
    """The pictures of a page by their keys, and by stage the keys of its contribution maps (by row) and of its
    training pictures."""

    pictures: Mapping[str, Thumbnail]
    maps: Mapping[str, Mapping[int, str]]
    views: Mapping[str, Sequence[Sequence[str]]]


def make_page(runs: Sequence[RunRecord], find_album: FindAlbum) -> Page:
    """The page of runs and lessons side by side. `find_album` gives the pictures of a stage's split."""
    stages = list_stages(runs, find_album)
    pool = collect_pictures(stages)
    on_page = set(pool.pictures)
    notes = list_notes(runs, stages)
    sections = [
        Section("stages", "What they came to", [*describe_stages(stages, notes), *_use(runs, stages)]),
        Section("curves", "Curves", chart_courses(list_courses(runs, stages))),
        Section("confusions", "Which classes it takes for which",
                by_stage(stages, lambda s: describe_mistakes(s, on_page))),
        Section("pictures", "Pictures", [
            *by_stage(stages, lambda s: show_pictures(s, on_page, pool.maps[s.label])),
            *(block for pair in list_steps(stages) for block in show_turned(*pair, on_page)),
            Text([f"This page has {count_words(len(on_page), 'picture')}, at most {MOST_PICTURES:,}."]),
        ]),
        Section("probabilities", "How far its probabilities go", by_stage(stages, describe_trust)),
        Section("training-pictures", "What it learned from, as the network gets it",
                by_stage(stages, lambda s: show_views(s, pool.views[s.label]))),
        Section("frozen", "What trained, and what stayed", describe_proofs(stages)),
        Section("data", "The data, as it was read", describe_data(stages)),
        Section("settings", "Settings", describe_settings(runs)),
        Section("machine", "Time, versions, machine", describe_machines(stages, runs)),
    ]  # fmt: skip
    return Page(
        name_page(runs), _lead(runs, stages), [section for section in sections if section.blocks], pool.pictures
    )


def write_page(folders: Sequence[Path], out: Path | None, albums: Albums) -> Path:
    """Writes the page of the runs and lessons in `folders` to `out`, or into the folder of a single run. Returns where
    it is.

    Raises:
      ValueError: if `out` is missing for several runs, or is no name of a page.
      FileExistsError: if a file is there that is no report.
      OSError: if a folder is no run, or the page cannot be written.
    """
    place = check_place(folders, out)
    page = render(make_page(read_runs(folders), albums.find))
    with open_output(str(place), sys.stdout) as file:
        file.write(page)
    return place


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """The runs and lessons in `folders`, each once: a stage of a lesson among them is there with it."""
    runs = [read_records(folder) for folder in {folder.resolve(): folder for folder in folders}.values()]
    inside = {stage.folder.resolve() for run in runs if run.is_lesson for stage in run.stages}
    return [run for run in runs if run.folder.resolve() not in inside]


def leave_page(workdir: Path, datasets: Iterable[Dataset]) -> None:
    """Writes the page of a run or a lesson that has ended, whose `datasets` were read, and says where it is and how to
    go on. If that fails, it says so in one line: a page is not worth a run."""
    place = workdir / REPORT
    if not leads():
        return
    try:
        run = read_records(workdir)
        # Other processes would have to read with this one.
        albums = Albums(datasets, may_read=jax.process_count() == 1)
        page = make_page([run], albums.find)
        write_text(place, render(page))
        print(printable(f"to look at it, open {place}"))
        if best := find_best(run.stages):
            print(printable(f"to classify pictures: {find_program(run.environment)} predict {best.folder} PICTURES"))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(printable(f"{place} is not written ({reason}); the run is as it was"))


def check_place(folders: Sequence[Path], out: Path | None) -> Path:
    """Where a page is to be written; the errors are those of `write_page`."""
    if out is None and len(folders) > 1:
        raise ValueError("--out FILE is needed for several runs: the file that the page is written to")
    place = folders[0] / REPORT if out is None else out
    if place.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {place}: a page is a file ending in .html")
    # Without `out`, the reader of the run says what is wrong with its folder.
    if out is not None and not place.absolute().parent.is_dir():
        raise FileNotFoundError(f"{place}: there is no folder {place.parent}; make it first")
    if os.path.lexists(place) and not (place.is_file() and is_report(place)):
        raise FileExistsError(f"{place} is there and is no report; give another --out")
    return place


def is_report(path: Path) -> bool:
    """Whether a file is a page of runs."""
    with open_file(path) as file:
        return MARK in file.read(MARKED_WITHIN)


def list_stages(runs: Sequence[RunRecord], find_album: FindAlbum) -> list[Shown]:
    """All stages in their order, with names that tell them apart."""
    names = name_runs(runs)
    return [_show(record, run, names[i], find_album) for i, run in enumerate(runs) for record in run.stages]


def _show(record: StageRecord, run: RunRecord, prefix: str, find_album: FindAlbum) -> Shown:
    label = "/".join(filter(None, [prefix, record.name if run.is_lesson or not prefix else ""]))
    found = choose_predictions(record)
    shown = Shown(label, record, run, Album(None), choose_shown(found))
    return shown if found is None else shown._replace(album=find_album(record, shown.part))


def name_runs(runs: Sequence[RunRecord]) -> list[str]:
    """A name for each run: its folder's or, where two folders have one name, their whole paths, which no stage of
    another has. A run alone needs none."""
    if len(runs) == 1:
        return [""]
    counts = Counter(run.name for run in runs)
    return [run.name if counts[run.name] == 1 else str(run.folder.resolve()) for run in runs]


def name_page(runs: Sequence[RunRecord]) -> str:
    return ", ".join(run.name for run in runs)


def _lead(runs: Sequence[RunRecord], stages: Sequence[Shown]) -> list[str]:
    troubles = [trouble for run in runs for trouble in (*run.troubles, *(t for s in run.stages for t in s.troubles))]
    return [*say_best(stages), *troubles]


def list_notes(runs: Sequence[RunRecord], stages: Sequence[Shown]) -> list[str]:
    """How far the numbers of the stages can be believed, as below the table of a lesson."""
    notes = []
    for run, prefix in zip(runs, name_runs(runs), strict=True):
        finished = {s.record.name: s.record.summary for s in stages if s.run is run and s.record.summary is not None}
        source = run.source.summary if run.source else None
        monitors = {s.record.name: s.record.config.monitor for s in stages if s.run is run and s.record.config}
        found = printed.stages_notes(finished, source, run.origins, monitors)
        notes += [f"{prefix}: {note}" if prefix else note for note in found]
    return notes


def list_courses(runs: Sequence[RunRecord], stages: Sequence[Shown]) -> dict[str, Course]:
    """The epochs of each stage that no other goes on from, after those of the stages that it goes on from."""
    courses = {}
    for run in runs:
        there = {shown.record.name: shown for shown in stages if shown.run is run and shown.record.history}
        for chain in find_chains(run.origins, there):
            rows = [row for name in chain for row in there[name].record.history]
            last = there[chain[-1]]
            courses[last.label] = Course(rows, (last.record.summary or {}).get("best_epoch"))
    return courses


def list_steps(stages: Sequence[Shown]) -> list[tuple[Shown, Shown]]:
    """Each stage with the one that it goes on from."""
    return [
        (before, after)
        for after in stages
        for before in stages
        if before.run is after.run and after.run.origins.get(after.record.name) == before.record.name
    ]


def by_stage(stages: Sequence[Shown], describe: Callable[[Shown], Sequence[Block]]) -> list[Block]:
    """What there is to say of each stage, behind a tab for each where they are several."""
    found = [(shown.label, blocks) for shown in stages if (blocks := describe(shown))]
    if len(found) < 2:
        return [block for _, blocks in found for block in blocks]
    best = find_best(shown.record for shown in stages)
    label = next((shown.label for shown in stages if shown.record is best), "")
    return [Tabs("stage", found, max((i for i, (name, _) in enumerate(found) if name == label), default=0))]


def _use(runs: Sequence[RunRecord], stages: Sequence[Shown]) -> list[Block]:
    environment = runs[0].environment or next((s.record.environment for s in stages if s.record.environment), {})
    return list_commands(stages, [run.folder for run in runs], find_program(environment))


def collect_pictures(stages: Sequence[Shown]) -> Pool:
    """At most `MOST_PICTURES` pictures: those of galleries with their maps, training pictures, then those of the
    confusion matrices, in turns."""
    maps: dict[str, dict[int, str]] = {}
    views: dict[str, list[list[str]]] = {}
    pictures: dict[str, Thumbnail] = {}
    for shown in stages:
        drawn, maps[shown.label] = _draw_maps(shown)
        grid, views[shown.label] = _draw_views(shown)
        pictures |= drawn | grid
    for shown, rows in _share(stages, MOST_PICTURES - len(pictures)):
        pictures |= _draw_rows(shown, rows)
    return Pool(pictures, maps, views)


def _share(stages: Sequence[Shown], room: int) -> list[tuple[Shown, list[int]]]:
    """The rows of each stage that are shown. A picture that two stages show counts once."""
    with_rows = [(shown, rank_rows(shown.chosen)) for shown in stages if shown.chosen is not None]
    turned = {shown.label: _list_turned(shown, stages) for shown, _ in with_rows}
    queue = [(s, row) for s, (first, _, _) in with_rows for row in (*first, *turned[s.label])]
    for kind in (1, 2):
        queue += take_turns([[(s, row) for row in ranked[kind]] for s, ranked in with_rows])
    keys: set[str] = set()
    taken: dict[str, list[int]] = {shown.label: [] for shown, _ in with_rows}
    for shown, row in queue:
        key = shown.key(row)
        if key is not None and (key in keys or len(keys) < room):
            keys.add(key)
            taken[shown.label].append(row)
    return [(shown, taken[shown.label]) for shown, _ in with_rows]


def _list_turned(after: Shown, stages: Sequence[Shown]) -> list[int]:
    pairs = [find_turned(before, later) for before, later in list_steps(stages) if later is after]
    return [int(row) for pair in pairs if pair for rows in pair for row in rows[:IN_GALLERY]]


def _draw_rows(shown: Shown, rows: Sequence[int]) -> dict[str, Thumbnail]:
    found = shown.predictions
    assert found is not None, "it has rows"
    names = [found.ids[row] for row in rows]
    alts = {found.ids[row]: f"{found.ids[row]}, {shown.names[found.labels[row]]}" for row in rows}
    return make_thumbnails(shown.album, names, alts)


def _draw_maps(shown: Shown) -> tuple[dict[str, Thumbnail], dict[int, str]]:
    """Contribution maps of a stage's pictures, by their keys, and the keys by row of the predictions."""
    evidence, found = shown.record.evidence, shown.predictions
    if evidence is None or found is None or shown.part != "validation" or shown.album.split is None:
        return {}, {}
    places = np.searchsorted(choose_rows(shown.images), evidence.rows)
    rows = [int(row) for row in places if row < len(found.ids)]
    there = [(i, row) for i, row in enumerate(rows) if found.ids[row] in shown.album.places and i < len(evidence.maps)]
    if not there:
        return {}, {}
    images = read_images(shown.album.split, [shown.album.places[found.ids[row]] for _, row in there])
    pictures: dict[str, Thumbnail] = {}
    keys: dict[int, str] = {}
    for image, (i, row) in zip(images, there, strict=True):
        keys[row] = f"map-{shown.label}-{row}"
        alt = f"what speaks for {say(shown, row)} in {found.ids[row]}"
        pictures[keys[row]] = make_picture(found.ids[row], paint(image, evidence.maps[i].astype(np.float32)), alt)
    return pictures, keys


def _draw_views(shown: Shown) -> tuple[dict[str, Thumbnail], list[list[str]]]:
    """Training pictures of a stage by their keys, and the keys in rows and columns."""
    evidence = shown.record.evidence
    if evidence is None:
        return {}, []
    pictures: dict[str, Thumbnail] = {}
    keys: list[list[str]] = []
    for r, images in enumerate(evidence.views):
        keys.append([f"view-{shown.label}-{r}-{c}" for c in range(len(images))])
        names = [f"training picture {r + 1}, {title}" for title in evidence.view_titles]
        pictures |= {k: make_picture(name, image) for k, name, image in zip(keys[-1], names, images, strict=True)}
    return pictures, keys
