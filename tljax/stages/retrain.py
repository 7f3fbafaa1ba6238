"""The command that trains an answer of a study on other pictures."""

import shlex
from dataclasses import replace
from typing import Any

from tljax.config import Config, Data, Head, Lesson, Optimizer, Stage, as_json
from tljax.runs.records import find_differences

# The shipped configs that are begun with, without their weights; a test holds them alike.
BASES: dict[str, Config | Lesson] = {
    "feature_extraction": Config(stage="feature_extraction", cut="head", epochs=10),
    "from_scratch": Config(stage="from_scratch", cut="conv1", epochs=30),
    "few_labels": Lesson(
        stages={
            "feature_extraction": Stage("feature_extraction", head=Head(init="ridge"), epochs=0),
            "fine_tune": Stage(
                "fine_tune", cut="conv5_block1", epochs=20, batch_size=32, optimizer=Optimizer(learning_rate=1e-5)
            ),
        }
    ),
}
# What of the data says how pictures are shown to a network, and not which they are.
KEPT_SETTINGS = ("image_size", "fit", "augment", "views")


def rebuild(lesson: Lesson, name: str) -> tuple[str, Config | Lesson]:
    """The shipped config to begin with, and the config that trains the candidate `name` of a study's `lesson` without
    the others, on pictures in the folder PICTURES."""
    config = lesson.config(name, lesson.pretrained)
    data = Data(**{"name": "folder:PICTURES"} | {setting: getattr(config.data, setting) for setting in KEPT_SETTINGS})
    if config.stage == "from_scratch":
        return config.stage, _strip(replace(config, pretrained=None), data)
    # The network of the others is that of the weights.
    if config.stage == "feature_extraction":
        return config.stage, _strip(replace(config, network=None, variant=None), data)
    start = lesson.origins()[name]
    assert start is not None, "a study makes the head that a fine-tuning starts from"
    stages = {"feature_extraction": lesson.stages[start], "fine_tune": lesson.stages[name]}
    return "few_labels", _strip(replace(lesson, stages=stages, own={}, network=None, variant=None), data)


def _strip(config: Any, data: Data) -> Any:
    """`config` with these `data`, and with the limits of this machine's cache left out."""
    return replace(config, data=data, cache=type(config)().cache, compile_for=None)


def spell(lesson: Lesson, name: str) -> str:
    """What to type behind the program to train the candidate `name` of a study's `lesson` on other pictures."""
    base, config = rebuild(lesson, name)
    flags = [f"--config.{path}={value}" for path, value in find_differences(as_json(config), as_json(BASES[base]))]
    return shlex.join(["--config", base, "--workdir", "runs/new", *flags])
