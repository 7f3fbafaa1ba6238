"""What a config asks for: one stage, a lesson of several, or only what a TPU's compiler says of them."""

import json
from pathlib import Path

from tljax.commands.lessons import run_lesson, stage_configs
from tljax.commands.preflight import preflight
from tljax.commands.stages import run_one
from tljax.config import AnyConfig, Lesson, as_json
from tljax.devices.processes import check_alike


def run(config: AnyConfig, workdir: Path, *, overwrite: bool = False) -> None:
    """Runs one stage in `workdir`, or those of a lesson in its subfolders named like the stages.

    With `config.compile_for` it compiles what would run there, says what that takes, and touches nothing.

    A run of the same config that is in `workdir` goes on from its newest checkpoint, or is finished; with `overwrite`
    it is deleted.

    Raises:
      ValueError, OSError: if the config, the weights or the data cannot be used, `workdir` holds a run of another
        config, or another one is at work there; `workdir` is then as it was, unless earlier stages of a lesson have
        run, or an image that is decoded in every pass is damaged.
      signals.Stopped: if a signal ends the run.
    """
    check_alike("config", json.dumps(as_json(config), sort_keys=True))
    if config.compile_for is not None:
        preflight(stage_configs(config, workdir), config.compile_for, in_lesson=isinstance(config, Lesson))
    elif isinstance(config, Lesson):
        run_lesson(config, workdir, overwrite)
    else:
        run_one(config, workdir, overwrite)
