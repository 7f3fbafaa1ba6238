"""A lesson: its stages one after the other, each in a folder of its own, and one report."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tljax.config import SOURCE, ZERO_SHOT_MAX_IMAGES, AnyConfig, Config, Lesson
from tljax.data import sources
from tljax.data.augmentation import find_kept_side
from tljax.data.datasets import Dataset
from tljax.data.image_source import PHOTOGRAPH_SIZE
from tljax.data.layouts import join_names
from tljax.devices.mesh import make_mesh
from tljax.devices.processes import leads, max_over_processes
from tljax.networks.architectures import DEFAULT_VARIANT, Architecture, find_architecture, name_architecture
from tljax.networks.cut import Cut, ParameterCounts, find_cut, find_head
from tljax.report import figures, printed, run_page
from tljax.report.curves import Course
from tljax.report.sentences import plain_sentence
from tljax.runs.files import read_json, read_rows, write_text
from tljax.runs.learned import find_learned
from tljax.runs.workdir import (
    FILES,
    METRICS,
    REPORT,
    STAGE_NAME,
    SUMMARY,
    as_begun,
    begin_run,
    claim,
    clear,
    find_run,
    mark_running,
)
from tljax.stages.assembly import Others
from tljax.stages.overlap import count_known, is_new, refuse_known
from tljax.stages.programs import make_setup
from tljax.stages.stage import (
    check_classes,
    check_overwrite,
    check_stage,
    draw_samples,
    load_data,
    load_source,
    naming_stage,
    read_finished,
    run_stage,
    settle_images,
)
from tljax.text import printable
from tljax.trees import Row
from tljax.weights.imagenet import check_head
from tljax.weights.pretrained import Weights, load_weights


class Ran(NamedTuple):
    """The stages of a lesson that have run."""

    summaries: dict[str, Row]
    datasets: dict[str, Dataset]
    """Those of the stages that were not finished before."""
    shown: dict[str, printed.Printed]
    """The tables of units that were printed, by network."""


def run_lesson(lesson: Lesson, workdir: Path, overwrite: bool, recipe: Row | None = None) -> dict[str, Row]:
    """Runs every stage of a lesson that is not finished yet, then writes the report. Returns the summaries. `recipe` is
    what the lesson comes from, if it does."""
    with claim_lesson(lesson, workdir, overwrite):
        ran = run_stages(lesson, workdir, overwrite, recipe)
        leave_report(lesson, workdir, ran, recipe["reasons"] if recipe else ())
    return ran.summaries


@contextmanager
def claim_lesson(lesson: Lesson, workdir: Path, overwrite: bool) -> Iterator[None]:
    """A block in which no other run works in the folder of a lesson, whose settings are checked before."""
    for name, config in stage_configs(lesson, workdir).items():
        check_stage(config, name=name)
        check_overwrite(lesson.pretrained, workdir / name, overwrite)
    sources.check_place(lesson.data, workdir)
    check_overwrite(lesson.pretrained, workdir, overwrite)
    with claim(workdir):
        yield


def run_stages(lesson: Lesson, workdir: Path, overwrite: bool, recipe: Row | None, before: Ran | None = None) -> Ran:
    """Runs every stage of a lesson that is not finished yet. `before` are stages that this start has run or read."""
    before = before or Ran({}, {}, {})
    lesson = lesson if overwrite else as_begun(workdir, lesson)
    configs = stage_configs(lesson, workdir)
    finished: set[str] = set()
    if overwrite or find_run(workdir, lesson) == "none":
        lesson = settle_lesson(lesson)
        configs = stage_configs(lesson, workdir)
    if not overwrite:
        finished = {name for name, config in configs.items() if find_run(workdir / name, config) == "finished"}
    # Weights and data are read before anything is trained, so that a mistake shows at once.
    left = {name: config for name, config in configs.items() if name not in finished}
    cuts = find_shared_cuts(lesson) if left else {}
    datasets = load_datasets(lesson, left)
    known = {name: read_json(workdir / name / SUMMARY).get("data") or {} for name in finished}
    check_same_data(configs, known | {name: dataset.description for name, dataset in datasets.items()}, workdir)
    refuse_known_pictures({n: left[n] for n in left if is_kept(lesson, n, finished)}, datasets, workdir, overwrite)

    begin_run(workdir, lesson, overwrite=overwrite, recipe=recipe)
    mark_running(workdir, lesson)
    if overwrite:
        for name in configs:
            with claim(workdir / name):
                clear(workdir / name)
    draw_target({name: left[name] for name in left if name != SOURCE}, workdir, datasets)
    summaries: dict[str, Row] = {}
    shown = dict(before.shown)
    for name, config in configs.items():
        if name in before.summaries:
            summaries[name] = before.summaries[name]
            continue
        if name in finished:
            summaries[name] = read_finished(workdir / name)
            continue
        with claim(workdir / name):
            # A run of this stage alone may have finished here in the meantime.
            if max_over_processes(leads() and find_run(workdir / name, config) == "finished"):
                summaries[name] = read_finished(workdir / name)
                continue
            source, dataset = load_source(config), datasets[name]
            network = make_setup(config, source, len(dataset.class_names), make_mesh()).network
            others = Others(cuts.get(name, ()), shown.get(network), drawn=True)
            summaries[name] = run_stage(config, workdir / name, dataset, source, others=others)
            shown.setdefault(network, printed.Printed(name, ParameterCounts(**summaries[name]["params"])))
    return Ran(summaries, before.datasets | datasets, shown)


def leave_report(lesson: Lesson, workdir: Path, ran: Ran, reasons: Sequence[str], first: Sequence[str] = ()) -> None:
    """Writes the report of a lesson and, if a stage has run or there is none, its page. `first` are sections of the
    report before all others."""
    if leads():
        write_report(lesson, workdir, ran.summaries, reasons, first)
        if ran.datasets or not (workdir / REPORT).exists():
            run_page.leave_page(workdir, ran.datasets.values())


def settle_lesson(lesson: Lesson) -> Lesson:
    """`lesson` with the side and the fit of pictures that its source weights had, where it does not give them."""
    settled = None not in (lesson.data.image_size, lesson.data.fit)
    known = lesson.may_start_from_run and not settled
    source = load_weights(str(lesson.pretrained), lesson.network, lesson.variant) if known else None
    return replace(lesson, data=settle_images(lesson.data, source))


def stage_configs(config: AnyConfig, workdir: Path) -> dict[str, Config]:
    """The configs of the stages that run, by stage name and in order. A config of one stage gives itself.

    Raises:
      ValueError: if the stages' names or the lesson's source weights do not go together.
    """
    if isinstance(config, Config):
        return {config.stage: config}
    check_names(config)
    if config.source_classes and config.pretrained is not None:
        raise ValueError(
            f"config.source_classes makes source weights, so config.pretrained={config.pretrained!r} must be None"
        )
    check_own(config)
    first = next(iter(config.stages))
    if config.source_classes and (first != SOURCE or config.stages[first].stage != "from_scratch"):
        raise ValueError(
            f"config.source_classes: the first of config.stages must be {SOURCE!r}, a from_scratch stage that makes "
            "the weights"
        )
    found = {}
    for name, origin in config.origins().items():
        weights = config.pretrained if origin is None else str(workdir / origin)
        is_new = config.stages[name].stage == "from_scratch"
        found[name] = config.config(name, None if is_new else weights)
    return found


def check_names(lesson: Lesson) -> None:
    """Raises ValueError for a stage whose name cannot be a folder of its own in the workdir."""
    if not lesson.stages:
        raise ValueError("config.stages is empty; a lesson has at least one stage")
    for name in lesson.stages:
        if not (isinstance(name, str) and re.fullmatch(STAGE_NAME, name)) or name in FILES:
            taken = ", ".join(file for file in FILES if "." not in file)
            raise ValueError(
                f"config.stages: {name!r} is no name of a stage, which is a folder in the workdir; use up to 64 "
                f"letters, digits, '_' and '-', and none of {taken}"
            )


def check_own(lesson: Lesson) -> None:
    """Raises ValueError for what a stage has of its own if there is no such stage, or it cannot start from the one that
    is named."""
    names = list(lesson.active)
    for name, own in lesson.own.items():
        if name not in lesson.stages:
            raise ValueError(f"config.own: {name!r} is none of config.stages, {', '.join(lesson.stages)}")
        before = {n: lesson.stages[n].stage for n in names[: names.index(name)]} if name in names else {}
        heads = [n for n, stage in before.items() if stage in ("feature_extraction", "fine_tune")]
        if own.start is not None and (lesson.stages[name].stage != "fine_tune" or own.start not in heads):
            raise ValueError(
                f"config.own.{name}.start={own.start!r}: a fine_tune starts from a feature_extraction or fine_tune "
                f"before it{f', {join_names(heads)}' if heads else ''}"
            )


def find_shared_cuts(lesson: Lesson) -> dict[str, tuple[Cut, ...]]:
    """For each stage the cuts of later stages that read the same frozen activations, in the network's order.

    Later stages go on from its weights, or from the same as it does. If the units before their cuts are still as in the
    source, one pass computes the activations at all these cuts.
    """
    architecture = find_architecture(lesson.network)
    if lesson.pretrained is not None:
        weights = load_weights(lesson.pretrained, lesson.network, lesson.variant)
        warn_of_other_networks(lesson, weights)
        architecture = weights.architecture
    origins = lesson.origins()
    networks: dict[str, Architecture] = {}
    cuts = {}
    for name, stage in lesson.active.items():
        transfers = stage.stage in ("feature_extraction", "fine_tune")
        with naming_stage(name):
            if transfers or name == SOURCE:
                networks[name] = find_head(stage.head.at, networks.get(origins[name] or "", architecture))
            if transfers:
                cuts[name] = find_cut(stage.cut, networks[name])
    places = {name: cut.units.index(cut.position) for name, cut in cuts.items()}
    shared: dict[str, dict[int, Cut]] = {name: {} for name in cuts}
    for name, cut in cuts.items():
        if cut.position == cut.units[0]:
            continue
        before = origins[name]
        for other in (other for other in cuts if before in cuts and origins[other] == before):
            if other == name:
                break
            if places[other] > places[name]:
                shared[other][places[name]] = cut
        while before in cuts and places[before] > places[name]:
            shared[before][places[name]] = cut
            before = origins[before]
    return {name: tuple(found[place] for place in sorted(found)) for name, found in shared.items()}


def warn_of_other_networks(lesson: Lesson, weights: Weights) -> None:
    """Prints a line if a from_scratch stage trains another network than that of `weights`."""
    architecture, variant = find_architecture(lesson.network), lesson.variant or DEFAULT_VARIANT
    others = [name for name, stage in lesson.active.items() if stage.stage == "from_scratch"]
    if others and not (weights.architecture.begins_as(architecture) and variant == weights.variant):
        theirs = name_architecture(weights.architecture)
        print(
            f"{', '.join(others)} trains {name_architecture(architecture)} ({variant}), {weights.name} is {theirs} "
            f"({weights.variant}): --config.network={theirs} --config.variant={weights.variant} makes them alike"
        )


def load_datasets(lesson: Lesson, configs: Mapping[str, Config]) -> dict[str, Dataset]:
    """The data set of each stage, which is printed; stages with the same data share one.

    Raises:
      ValueError: if the head of the source weights, or a stage's class weights, do not fit the classes.
    """
    alike: dict[Any, list[str]] = {}
    for name, config in configs.items():
        # With several processes, the batch size decides which images each of them reads.
        share = config.batch_size if jax.process_count() > 1 else None
        # Training images from which others are cut out are kept larger.
        kept = find_kept_side(config.data, PHOTOGRAPH_SIZE)
        few = config.data.labels_per_class
        alike.setdefault((config.stage == "zero_shot", config.data.classes, few, kept, share), []).append(name)
    datasets: dict[str, Dataset] = {}
    for names in alike.values():
        dataset = load_data(configs[names[0]])
        datasets |= dict.fromkeys(names, dataset)
        about = printed.data_summary(dataset.description).removeprefix("data: ")
        print(f"data of {', '.join(names)}: {about}")
    for name, config in configs.items():
        if config.stage == "zero_shot" and lesson.source_classes:
            check_head(len(lesson.source_classes), datasets[name].class_names, "config.source_classes")
        with naming_stage(name):
            check_classes(config, datasets[name])
    return datasets


def is_kept(lesson: Lesson, name: str, finished: set[str]) -> bool:
    """Whether the weights that a stage starts from are there before the lesson begins, and stay as they are."""
    origin = lesson.origins()[name]
    return origin is None or origin in finished


def refuse_known_pictures(
    configs: Mapping[str, Config], datasets: Mapping[str, Dataset], workdir: Path, overwrite: bool
) -> None:
    """Refuses a new stage that would be measured only on what its source has learned from, before anything is deleted
    or trained. The sources of `configs` are there already.

    Raises:
      ValueError: with the source.
    """
    for name, config in configs.items():
        if config.pretrained is not None and Path(config.pretrained).expanduser().is_dir():
            learned, _ = find_learned(Path(config.pretrained).expanduser())
            known = count_known(datasets[name], learned)
            if overwrite or is_new(workdir / name):
                refuse_known(known, datasets[name], config.pretrained)


def check_same_data(configs: Mapping[str, Config], data: Mapping[str, Row], workdir: Path) -> None:
    """Checks that stages with the same settings of the data read the same pictures: one table compares them. `data` is
    what their summaries say about the data, or will say.

    Raises:
      ValueError: if two of them do not, with what differs.
    """
    first: dict[Any, tuple[str, Row]] = {}
    for name in configs:
        for part, split in data[name].get("splits", {}).items():
            settings = configs[name].data
            most = settings.max_images
            if configs[name].stage == "zero_shot" and split.get("images", 0) >= ZERO_SHOT_MAX_IMAGES:
                # It is a sample of what the other stages read, unless they have so few too.
                most = most or ZERO_SHOT_MAX_IMAGES
            key = part, settings.classes, most, settings.labels_per_class if part == "train" else None
            before, known = first.setdefault(key, (name, split))
            if difference := find_other_pictures(known, split):
                raise ValueError(
                    f"{workdir}: the data has changed since {before} was run: {name} would have other {part} pictures "
                    f"({difference}), and one table would compare both; bring the data back, give another --workdir, "
                    "or --overwrite"
                )


def find_other_pictures(before: Row, now: Row) -> str:
    """How two splits differ, in words; empty if they do not. Earlier versions did not record names and content."""
    if before.get("images") != now.get("images"):
        return f"{before.get('images'):,} then, {now.get('images'):,} now"
    if before.get("classes") != now.get("classes"):
        return "as many, but not of each class"
    if before.get("read_anew", 0) != now.get("read_anew", 0):
        return f"as many, but {now.get('read_anew', 0):,} of them are TIFFs that were turned twice or not inverted then"
    both = [what for what in ("names", "content") if what in before and what in now]
    others = [what for what in both if before[what] != now[what]]
    return f"as many, but with other {' and '.join(others)}" if others else ""


def draw_target(configs: Mapping[str, Config], workdir: Path, datasets: Mapping[str, Dataset]) -> None:
    """Draws some of the pictures that the stages of `configs` are measured on, unless that was done before."""
    if configs and not (workdir / "figures" / figures.DRAWN).exists():
        # zero_shot may have fewer of them than the others.
        name = max(configs, key=lambda name: configs[name].stage != "zero_shot")
        draw_samples(configs[name], workdir, datasets[name])


def write_report(
    lesson: Lesson, workdir: Path, summaries: Mapping[str, Row], reasons: Sequence[str], first: Sequence[str] = ()
) -> None:
    """Writes `report.md`: the sections `first`, a sentence a stage, a table of the stages, their curves, samples of the
    pictures, and the `reasons` of a recipe."""
    shown = {name: summary for name, summary in summaries.items() if name != SOURCE}
    table = printed.stages_table(shown)
    figures.draw_curves(workdir / "figures" / figures.CURVES, read_curves(lesson, workdir, summaries))
    monitors = {name: stage.monitor for name, stage in lesson.active.items()}
    found = printed.stages_notes(shown, summaries.get(SOURCE), lesson.origins(), monitors)
    notes = "\n".join(f"- {note}" for note in found)
    text = f"{table}\n\n{notes}" if notes else table
    sentences = "\n".join(f"- {plain_sentence(name, summary)}" for name, summary in shown.items())
    pictures = [f"figures/{name}" for name in (figures.CURVES, figures.DRAWN) if (workdir / "figures" / name).is_file()]
    sections = [f"# Stages of {printable(workdir.resolve().name)}", *first, sentences, text]
    sections += [f"![{Path(picture).stem}]({picture})" for picture in pictures]
    if reasons:
        sections += ["## Why these stages", "\n".join(f"- {reason}" for reason in reasons)]
    write_text(workdir / "report.md", "\n\n".join(sections) + "\n")
    written = ", ".join(["report.md", *pictures])
    print(f"\n{text}\n\nwritten to {workdir}: {written} and a folder a stage")


def read_curves(lesson: Lesson, workdir: Path, summaries: Mapping[str, Row]) -> dict[str, Course]:
    """A curve for each training stage from which no other goes on: its epochs, after those of the stages that it goes
    on from."""
    origins = lesson.origins()
    curves: dict[str, Course] = {}
    for name, stage in lesson.active.items():
        if stage.stage == "zero_shot" or name == SOURCE or name in origins.values():
            continue
        chain, before = [name], origins[name]
        while before not in (None, SOURCE):
            chain, before = [str(before), *chain], origins[str(before)]
        label = "transfer" if len(chain) > 1 and "transfer" not in curves else name
        rows = [row for one in chain for row in read_rows(workdir / one / METRICS)]
        curves[label] = Course(rows, summaries[name].get("best_epoch"))
    return curves
