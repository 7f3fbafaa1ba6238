"""From a config to a folder: one stage, or the whole lesson of four."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from tljax import data, partition, preflight, pretrained, report
from tljax.config import STAGES, ZERO_SHOT_MAX_IMAGES, Config, FourStages, stage_config, validate
from tljax.data import Dataset
from tljax.imagenet import check_head
from tljax.mesh import check_alike, check_batch_size, largest, leads, make_mesh, own_rows
from tljax.pretrained import Source
from tljax.resnet import UNITS
from tljax.sources import PHOTOGRAPH_SIZE
from tljax.stages import abstract_programs, run_stage
from tljax.workdir import as_json, begin_run, claim, clear, find_run, go_on, read_json, read_rows, write_text

# Side and classes of the data that the configs name, where nothing is to be read.
KNOWN = {"cifar10": (32, 10), "digits": (32, 10)}


def run(
    config: Config | FourStages, workdir: Path, *, overwrite: bool = False, network: Mapping[str, Any] | None = None
) -> None:
    """Runs one stage in `workdir`, or all four in its subfolders named like the stages.

    With `config.compile_for` it compiles what would run there, says what that takes, and touches nothing.

    `network` holds further arguments of `ResNet` for a from_scratch run (tests make a tiny one); the other stages
    have the network of their source weights.

    A run of the same config that is in `workdir` goes on from its newest checkpoint, or is finished; with `overwrite`
    it is deleted.

    Raises:
      ValueError, OSError: if the config, the weights or the data cannot be used, `workdir` holds a run of another
        config, or another one is at work there; `workdir` is then as it was, unless earlier ones of the four stages
        have run, or an image that is decoded in every pass is damaged.
      preemption.Stopped: if a signal ends the run.
    """
    network = network or {}
    check_alike("config", json.dumps(as_json(config), sort_keys=True))
    if config.compile_for is not None:
        _preflight(config, workdir, config.compile_for)
        return
    if isinstance(config, FourStages):
        _run_four_stages(config, workdir, overwrite, network)
        return
    _check(config)
    _check_overwrite(config.pretrained, workdir, overwrite)
    with claim(workdir):
        if not overwrite and find_run(workdir, config) == "finished":
            _read_finished(workdir)
            return
        source = _load_source(config)
        run_stage(config, workdir, source, _load_data(config), network, overwrite=overwrite)


def _preflight(config: Config | FourStages, workdir: Path, topology: str) -> None:
    configs = _stage_configs(config, workdir) if isinstance(config, FourStages) else {config.stage: config}
    mesh, chip = preflight.topology_mesh(topology)
    for name, stage in configs.items():
        _check(stage, mesh.size)
        size, classes = KNOWN.get(stage.data.name, (PHOTOGRAPH_SIZE, 1000))
        size, classes = stage.data.image_size or size, len(stage.data.classes) or classes
        if stage.stage == "zero_shot" and "source" not in configs:
            size, classes = PHOTOGRAPH_SIZE, 1000
        print(f"\n== {name} on {topology}: {mesh.size} chips, {size} pixels, {classes} classes; compiled, not run")
        for what, (program, arguments, images) in abstract_programs(stage, size, classes, mesh).items():
            print(preflight.describe(what, preflight.measure(what, program, arguments, images, chip), chip), flush=True)


def _check(config: Config, devices: int | None = None) -> None:
    validate(config)
    if config.stage != "zero_shot":
        check_batch_size(config.batch_size, devices or len(jax.devices()))
    if partition.find_cut(config.cut) != UNITS[0] and config.stage == "from_scratch":
        raise ValueError(f"config.cut={config.cut!r}: from_scratch has nothing to freeze, its cut is {UNITS[0]!r}")


def _check_overwrite(weights: str | None, workdir: Path, overwrite: bool) -> None:
    if overwrite and weights is not None and Path(weights).resolve() == workdir.resolve():
        raise ValueError(f"--overwrite would delete config.pretrained={weights!r}; give another --workdir")


def _read_finished(workdir: Path) -> dict[str, Any]:
    """The summary of a finished run, once more for the reader."""
    summary = read_json(workdir / "summary.json")
    print(f"\n== finished before in {workdir}\n{report.summary_line(summary)}")
    return summary


def _stage_configs(config: FourStages, workdir: Path) -> dict[str, Config]:
    """Those of the stages in the order in which they run, and before them that of the source weights."""
    weights = config.pretrained
    if config.source_classes:
        if weights is not None:
            raise ValueError(
                f"config.source_classes makes source weights, so config.pretrained={weights!r} must be None"
            )
        weights = str(workdir / "source")
    source = {"source": stage_config(config, "source", None)} if config.source_classes else {}
    return source | {
        "zero_shot": stage_config(config, "zero_shot", weights),
        "feature_extraction": stage_config(config, "feature_extraction", weights),
        "fine_tune": stage_config(config, "fine_tune", str(workdir / "feature_extraction")),
        "from_scratch": stage_config(config, "from_scratch", None),
    }


def _run_four_stages(config: FourStages, workdir: Path, overwrite: bool, network: Mapping[str, Any]) -> None:
    configs = _stage_configs(config, workdir)
    for name, stage in configs.items():
        _check(stage)
        _check_overwrite(config.pretrained, workdir / name, overwrite)
    _check_overwrite(config.pretrained, workdir, overwrite)
    with claim(workdir):
        finished: set[str] = set()
        if not overwrite:
            find_run(workdir, config)
            finished = {name for name, stage in configs.items() if find_run(workdir / name, stage) == "finished"}
        datasets = _load_datasets(config, {name: stage for name, stage in configs.items() if name not in finished})

        tuned = partition.find_cut(config.stages.fine_tune.cut)
        frozen_first = partition.is_frozen(tuned, partition.find_cut(config.stages.feature_extraction.cut))
        through = {"feature_extraction": (tuned,)} if frozen_first else {}

        begin_run(workdir, config, overwrite=overwrite)
        go_on(workdir, config)
        if overwrite:
            for name in configs:
                with claim(workdir / name):
                    clear(workdir / name)
        summaries = {}
        for name, stage in configs.items():
            if name in finished:
                summaries[name] = _read_finished(workdir / name)
                continue
            with claim(workdir / name):
                # A run of this stage alone may have been at work there until now.
                if largest(leads() and find_run(workdir / name, stage) == "finished"):
                    summaries[name] = _read_finished(workdir / name)
                    continue
                summaries[name] = run_stage(
                    stage, workdir / name, _load_source(stage), datasets[name], network, through.get(name, ())
                )
        if leads():
            _write_report(workdir, summaries)


def _load_datasets(config: FourStages, configs: Mapping[str, Config]) -> dict[str, Dataset]:
    """What these stages read, each data set once. Whatever is there already is read before anything is trained: a
    mistake shows at once."""
    if not configs:
        return {}
    if not config.source_classes:
        pretrained.load(str(config.pretrained))
    shared_config = stage_config(config, "feature_extraction", config.pretrained)
    shared = _load_data(shared_config)
    if config.source_classes:
        check_head(len(config.source_classes), shared.class_names, "config.source_classes")
    return {
        name: _load_data(stage)
        # What a process reads of the data follows from the size of a batch.
        if name in ("source", "zero_shot") or (jax.process_count() > 1 and stage.batch_size != shared_config.batch_size)
        else shared
        for name, stage in configs.items()
    }


def _write_report(workdir: Path, summaries: Mapping[str, Any]) -> None:
    table = report.stages_table([summary for name, summary in summaries.items() if name != "source"])
    rows = {name: read_rows(workdir / name / "metrics.jsonl") for name in STAGES[1:]}
    runs = {"transfer": rows["feature_extraction"] + rows["fine_tune"], "from_scratch": rows["from_scratch"]}
    report.draw_curves(workdir / "figures" / "curves.png", runs)
    write_text(workdir / "report.md", f"# The four stages\n\n{table}\n\n![curves](figures/curves.png)\n")
    print(f"\n{table}\n\nwritten to {workdir}: report.md, figures/curves.png and a folder a stage")


def _load_source(config: Config) -> Source | None:
    source = None if config.pretrained is None else pretrained.load(config.pretrained)
    if config.stage == "fine_tune" and source is not None and not source.is_run:
        raise ValueError(
            f"config.pretrained={config.pretrained!r}: fine_tune goes on from a run: "
            "--config.pretrained=RUN/feature_extraction"
        )
    return source


def _load_data(config: Config) -> Dataset:
    bounds: Any = {"disk_bytes": config.cache.disk_bytes, "memory_bytes": config.cache.memory_bytes}
    if config.stage != "zero_shot":
        own = partial(own_rows, make_mesh(), config.batch_size)
        return data.load(config.data, seed=config.seed, **bounds, own=own)
    bounded = replace(config.data, max_images=config.data.max_images or ZERO_SHOT_MAX_IMAGES)
    return data.load(bounded, seed=config.seed, training=False, **bounds)
