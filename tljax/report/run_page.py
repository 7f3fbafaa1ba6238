"""The page of runs: what they came to, what they get wrong, how far their numbers go, what they were made of."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax

from tljax.data.datasets import Dataset
from tljax.devices.processes import leads
from tljax.report import printed
from tljax.report.answers import open_output
from tljax.report.blocks import Block, Page, Section, Tabs, Text
from tljax.report.curve_charts import chart_courses, find_chains
from tljax.report.curves import Course
from tljax.report.mistakes import describe_mistakes, show_pictures, show_turned
from tljax.report.origin import (
    describe_data,
    describe_machines,
    describe_proofs,
    describe_settings,
    find_program,
    show_training,
)
from tljax.report.overview import describe_lesson, describe_stages, find_best, find_chosen, list_commands, say_best
from tljax.report.page import is_page, render
from tljax.report.pictures import MOST_PICTURES, Album, Albums
from tljax.report.pool import Pool, collect_pictures, list_steps
from tljax.report.shown import FindAlbum, Shown, choose_predictions, choose_shown
from tljax.report.study import show_study
from tljax.report.trust import describe_trust
from tljax.report.twins import CheckedTwins, describe_twins, read_twins
from tljax.runs.files import write_text
from tljax.runs.records import RunRecord, StageRecord, read_records
from tljax.runs.workdir import REPORT
from tljax.text import count_words, printable


def make_page(runs: Sequence[RunRecord], find_album: FindAlbum, check: CheckedTwins | None = None) -> Page:
    """The page of runs and lessons side by side. `find_album` gives the pictures of a stage's split; `check` is what a
    check of their data has found."""
    stages = list_stages(runs, find_album)
    pool = collect_pictures(stages)
    on_page = set(pool.pictures)
    notes = list_notes(runs, stages)
    twins = describe_twins(stages, find_album, check)
    sections = [
        Section("how-deep", "How deep", [block for run in runs for block in _show_answer(run)]),
        Section("stages", "Results", [*describe_stages(stages, notes), *twins, *_use(runs, stages)]),
        Section("curves", "Curves", chart_courses(list_courses(runs, stages))),
        Section("confusions", "Confusions",
                by_stage(stages, lambda s: describe_mistakes(s, on_page))),
        Section("pictures", "Pictures", [
            *by_stage(stages, lambda s: _show_stage(s, stages, pool)),
            Text(_count_pictures(pool)),
        ]),
        Section("probabilities", "Probabilities", by_stage(stages, describe_trust)),
        Section("training-pictures", "Training pictures",
                show_training(stages, pool.views)),
        Section("frozen", "Frozen weights", describe_proofs(stages)),
        Section("data", "Data", describe_data(stages)),
        Section("settings", "Settings", describe_settings(runs)),
        Section("machine", "Time and machine", describe_machines(stages, runs)),
    ]  # fmt: skip
    return Page(
        name_page(runs), _lead(runs, stages), [section for section in sections if section.blocks], pool.pictures
    )


def _show_answer(run: RunRecord) -> list[Block]:
    """What a study came to; nothing of another run."""
    if run.answer is None:
        return []
    chosen = find_chosen(run)
    return show_study(run.answer, chosen.summary.get("test") if chosen and chosen.summary else None)


def write_page(folders: Sequence[Path], out: Path | None, albums: Albums, check: Path | None = None) -> Path:
    """Writes the page of the runs and lessons in `folders` to `out`, or into the folder of a single run. Returns where
    it is. `check` is the `check.csv` of their data.

    Raises:
      ValueError: if `out` is missing for several runs, or is no name of a page, or `check` is no table of a check.
      FileExistsError: if a file is there that is no report.
      OSError: if a folder is no run, the page cannot be written, or `check` is not there.
    """
    place = check_place(folders, out)
    twins = None if check is None else read_twins(check)
    page = render(make_page(read_runs(folders), albums.find, twins))
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
        check_place([workdir], None)
        run = read_records(workdir)
        # Other processes would have to read with this one.
        albums = Albums(datasets, may_read=jax.process_count() == 1)
        page = make_page([run], albums.find)
        write_text(place, render(page))
        print(printable(f"to look at it, open {place}"))
        if best := find_chosen(run) or find_best(run.stages):
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
    if os.path.lexists(place) and not (place.is_file() and is_page(place, "report")):
        raise FileExistsError(f"{place} is there and is no report; give another --out")
    return place


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


def _show_stage(shown: Shown, stages: Sequence[Shown], pool: Pool) -> list[Block]:
    """Pictures of a stage: mistakes, right ones, and what it changed of the one before."""
    on_page = set(pool.pictures)
    turned = [show_turned(before, shown, on_page) for before, later in list_steps(stages) if later is shown]
    return [*show_pictures(shown, on_page, pool.maps[shown.label]), *(block for blocks in turned for block in blocks)]


def _count_pictures(pool: Pool) -> list[str]:
    is_full = len(pool.pictures) == MOST_PICTURES
    lines = [f"This page has {count_words(len(pool.pictures), 'picture')}{'; there is no room for more' * is_full}."]
    if not pool.left_out:
        return lines
    few = f"There is no room for the maps and training pictures of {', '.join(pool.left_out)}: give report fewer runs."
    return [*lines, few]


def _lead(runs: Sequence[RunRecord], stages: Sequence[Shown]) -> list[str]:
    troubles = [trouble for run in runs for trouble in (*run.troubles, *(t for s in run.stages for t in s.troubles))]
    # A study says itself which of its candidates is the best; its other stages are none.
    best = [] if any(run.answer for run in runs) else say_best(stages)
    return [*describe_lesson(runs), *best, *troubles]


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
            name = ", then ".join(there[name].label for name in chain)
            courses[name] = Course(rows, (last.record.summary or {}).get("best_epoch"))
    return courses


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
