"""One stage: its checks, its source weights and data, its run, its summary."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from tljax.config import ZERO_SHOT_MAX_IMAGES, Config, Data, Stage, data_flags
from tljax.data import datasets, sources
from tljax.data.datasets import Dataset
from tljax.data.decoding import USUAL_FIT
from tljax.devices.mesh import check_batch_size, make_mesh, own_rows
from tljax.networks.architectures import find_architecture
from tljax.networks.cut import find_cut, find_head
from tljax.report import figures, printed, run_page
from tljax.runs.files import read_json, write_json
from tljax.runs.workdir import REPORT, SUMMARY, as_begun, claim, find_run, find_stages, refuse_other_folders
from tljax.stages.assembly import ALONE, Others
from tljax.stages.overlap import count_known, is_new, refuse_known, warn_of_known
from tljax.stages.train import train
from tljax.stages.zero_shot import zero_shot
from tljax.text import printable
from tljax.training.regularization import weigh
from tljax.trees import Row
from tljax.weights.pretrained import Weights, load_weights


def check_stage(config: Config, devices: int | None = None, name: str | None = None) -> None:
    """Checks that a stage can run on `devices` devices (None: those of this machine).

    `name` is the stage's name in a lesson, where its settings are called `config.stages.NAME`.

    Raises:
      ValueError: with the setting, its value and what is wanted.
    """
    with naming_stage(name):
        config.check()
    if config.stage != "zero_shot":
        setting = "config.batch_size" if name is None else f"config.stages.{name}.batch_size"
        check_batch_size(config.batch_size, devices or len(jax.devices()), setting)
    architecture = find_architecture(config.network)
    if config.stage == "from_scratch":
        architecture = find_head(config.head.at, architecture)
        first = architecture.units[0]
        if find_cut(config.cut, architecture).start != first:
            raise ValueError(f"config.cut={config.cut!r}: from_scratch has nothing to freeze, its cut is {first!r}")


@contextmanager
def naming_stage(name: str | None) -> Iterator[None]:
    """A block whose errors about a stage's own settings name the stage `name` of a lesson, if there is one."""
    try:
        yield
    except ValueError as error:
        own = re.match(r"config\.(\w+)", str(error))
        if name is None or own is None or own[1] not in {f.name for f in fields(Stage)}:
            raise
        raise ValueError(f"config.stages.{name}{str(error).removeprefix('config')}") from error


def check_overwrite(pretrained: str | None, workdir: Path, overwrite: bool) -> None:
    """Refuses `overwrite` where it would delete something that is no run, or the run that the weights come from.

    Raises:
      FileExistsError, ValueError: with the folder.
    """
    if not overwrite:
        return
    refuse_other_folders(workdir)
    deleted = [path.resolve() for path in (workdir, *find_stages(workdir))]
    if pretrained is not None and Path(pretrained).expanduser().resolve() in deleted:
        raise ValueError(f"--overwrite would delete config.pretrained={pretrained!r}; give another --workdir")


def settle_images(data: Data, source: Weights | None) -> Data:
    """`data` with the side and the fit of the run that the weights `source` come from, where it does not give them; a
    printed line says so. Without such a run the fit is the usual one, and the side that of the data set."""
    fit = data.fit or USUAL_FIT
    if source is None or not source.is_run:
        return replace(data, fit=fit)
    taken = {name: value for name, value in source.pictures.items() if getattr(data, name) is None}
    if taken:
        print(printable(f"{data_flags(taken)}, as {source.name} had them: none were given"))
    return replace(data, **{"fit": fit, **taken})


def load_source(config: Config) -> Weights | None:
    """The weights that `config.pretrained` names. None for a new network.

    Raises:
      ValueError: if the stage cannot start from them, or `config.head.at` or `config.cut` is no unit of their network.
    """
    if config.pretrained is None:
        return None
    weights = load_weights(config.pretrained, config.network, config.variant)
    for note in weights.notes:
        print(printable(f"{weights.name}: {note}"))
    if config.stage == "fine_tune" and not weights.is_run:
        raise ValueError(
            f"config.pretrained={config.pretrained!r}: fine_tune goes on from a run of feature_extraction: "
            "--config.pretrained=FOLDER"
        )
    if config.stage != "zero_shot":
        # A wrong cut shows here, before any data is read.
        cut = find_cut(config.cut, find_head(config.head.at, weights.architecture))
        if config.head.init == "ridge" and cut.position != "head":
            raise ValueError(
                f"config.cut={config.cut!r}: with config.head.init=ridge the cut is 'head'; fine_tune after"
            )
    return weights


def load_data(config: Config) -> Dataset:
    """The data of a stage: every split, or for zero_shot some images of the validation split."""
    bounds: Any = {"disk_bytes": config.cache.disk_bytes, "memory_bytes": config.cache.memory_bytes}
    if config.stage != "zero_shot":
        own = partial(own_rows, make_mesh(), config.batch_size)
        dataset = datasets.load_dataset(config.data, seed=config.seed, **bounds, own=own)
    else:
        bounded = replace(config.data, max_images=config.data.max_images or ZERO_SHOT_MAX_IMAGES)
        dataset = datasets.load_dataset(bounded, seed=config.seed, training=False, **bounds)
    return dataset


def check_classes(config: Config, dataset: Dataset) -> None:
    """Raises ValueError if `config.class_weights` does not fit the classes of the data, or a head is to be solved and
    all pictures that count are of one class."""
    if dataset.train is None:
        return
    counts = dataset.train_counts
    weights = weigh(config.class_weights, counts) or (1.0,) * len(counts)
    counted = {name: count for (name, count), weight in zip(counts.items(), weights, strict=True) if count and weight}
    if config.head.init == "ridge" and len(counted) < 2:
        raise ValueError(
            f"config.head.init=ridge: all {sum(counted.values()):,} training pictures that count are of the class "
            f"{next(iter(counted), '')!r}; there is nothing to tell apart"
        )


def run_one(config: Config, workdir: Path, overwrite: bool) -> Row:
    """Runs one stage in `workdir`, unless it is finished there, and returns its summary."""
    check_stage(config)
    sources.check_place(config.data, workdir)
    check_overwrite(config.pretrained, workdir, overwrite)
    with claim(workdir):
        config = config if overwrite else as_begun(workdir, config)
        known = "none" if overwrite else find_run(workdir, config)
        if known == "finished":
            summary = read_finished(workdir)
            if not (workdir / REPORT).exists():
                run_page.leave_page(workdir, ())
            return summary
        source = load_source(config)
        if known == "none":
            config = replace(config, data=settle_images(config.data, source))
        dataset = load_data(config)
        print(printed.data_summary(dataset.description))
        check_classes(config, dataset)
        summary = run_stage(config, workdir, dataset, source, overwrite=overwrite)
        run_page.leave_page(workdir, [dataset])
        return summary


def run_stage(
    config: Config,
    workdir: Path,
    dataset: Dataset,
    source: Weights | None,
    *,
    others: Others = ALONE,
    overwrite: bool = False,
) -> Row:
    """Runs one stage and returns what `summary.json` holds. The arguments are those of `train`."""
    started = time.perf_counter()
    print(f"\n== {config.stage} in {workdir}")
    known = None
    if source is not None and source.is_run:
        known = count_known(dataset, source.learned, of_train=config.head.init == "ridge")
        if overwrite or is_new(workdir):
            refuse_known(known, dataset, source.name)
        warn_of_known(known, dataset, source.name, source.learned)
    if config.stage == "zero_shot":
        assert isinstance(source, Weights), "zero_shot has weights"
        found = zero_shot(config, workdir, dataset, source, before=others.table, overwrite=overwrite)
    else:
        found = train(config, workdir, dataset, source, others=others, overwrite=overwrite)
    seconds = round(time.perf_counter() - started, 2)
    if not others.drawn:
        draw_samples(config, workdir, dataset)
    summary = {"stage": config.stage, **found, "data": dataset.description, "seconds": seconds}
    if source is not None and source.is_run:
        summary["known_to_source"] = known
    write_json(workdir / SUMMARY, summary)
    print(printed.results(summary))
    return summary


def draw_samples(config: Config, workdir: Path, dataset: Dataset) -> None:
    """Draws some validation images with their labels; for zero_shot, which learns from none, training images if there
    are no others."""
    split = dataset.shown if config.stage == "zero_shot" else dataset.validation
    if split is not None:
        figures.draw_samples(workdir / "figures", config.seed, split, dataset.class_names)


def read_finished(workdir: Path) -> Row:
    """The summary of a finished run, which is printed again."""
    summary: Row = read_json(workdir / SUMMARY)
    print(
        f"\n== finished before in {workdir}, its pictures are not read; --overwrite begins anew\n"
        f"{printed.results(summary)}"
    )
    return summary
