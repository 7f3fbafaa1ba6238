"""Runs a config: one stage, a lesson of several stages, or only the TPU compiler's report on them."""

import json
import time
from pathlib import Path

from tljax.config import AnyConfig, HowDeep, Lesson, Recipe, as_json
from tljax.devices.processes import check_alike
from tljax.stages.how_deep import run_study
from tljax.stages.lessons import run_lesson, stage_configs
from tljax.stages.plan import choose_study
from tljax.stages.preflight import preflight
from tljax.stages.recipe import choose_recipe, resolve
from tljax.stages.stage import run_one
from tljax.startup import as_on_the_command_line
from tljax.trees import Row


def train(config: AnyConfig | Recipe, workdir: str | Path, *, overwrite: bool = False) -> Row:
    """`run` for Python programs, with JAX as on the command line. `run` says what it takes, returns and raises."""
    with as_on_the_command_line():
        return run(config, workdir, overwrite=overwrite)


def run(config: AnyConfig | Recipe, workdir: str | Path, *, overwrite: bool = False, began: float | None = None) -> Row:
    """Runs one stage in `workdir`, or the stages of a lesson in subfolders with the names of the stages. A recipe or a
    study becomes a lesson first.

    Returns what `summary.json` holds; for a lesson, each stage's by its name. With `config.compile_for` it compiles the
    programs for that TPU slice, prints what they need, writes nothing, and returns an empty dict.

    A time limit counts from when the program `began`, in the seconds of `time.perf_counter`; None: from now.

    A run of the same config in `workdir` goes on from its newest checkpoint, unless it is finished. With `overwrite` it
    is deleted first.

    Raises:
      ValueError, OSError: if the config, the weights or the data cannot be used, if `workdir` holds a run of another
        config, or if another run is at work there. `workdir` is then as it was, unless earlier stages of the lesson
        have run or a damaged image was found during training.
      signals.Stopped: if a signal ends the run.
    """
    workdir = Path(workdir).expanduser()
    began = time.perf_counter() if began is None else began
    check_alike("config", json.dumps(as_json(config), sort_keys=True))
    recipe = None
    if isinstance(config, HowDeep) and config.compile_for is None:
        return run_study(config, workdir, overwrite, began)
    if isinstance(config, HowDeep):
        config, recipe = resolve(config, workdir, overwrite, began, choose_study)
    elif isinstance(config, Recipe):
        config, recipe = resolve(config, workdir, overwrite, began, choose_recipe)
    if config.compile_for is not None:
        preflight(stage_configs(config, workdir), config.compile_for, in_lesson=isinstance(config, Lesson))
        return {}
    if isinstance(config, Lesson):
        return run_lesson(config, workdir, overwrite, recipe)
    return run_one(config, workdir, overwrite)
