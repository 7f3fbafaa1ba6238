"""Saved configs of runs: adds the settings that an older version lacked, and compares two configs."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from tljax.config import (
    SOURCE,
    AnyConfig,
    Config,
    Data,
    HowDeep,
    Lesson,
    Recipe,
    Stage,
    as_json,
    check_choices,
    data_flags,
)
from tljax.data.decoding import USUAL_FIT

ConfigT = TypeVar("ConfigT", Config, Lesson, Recipe, HowDeep)


# What older versions did, for settings whose default now does something else.
SETTINGS_BEFORE: dict[type, dict[str, Any]] = {Data: {"holdout": "test", "fit": "crop"}}
# Settings of the data that are those of the source run where they are not given.
OF_SOURCE = ("image_size", "fit")


def go_on_as_begun(config: ConfigT, saved: Any) -> ConfigT:
    """`config` for a run that goes on with the pictures that it began with. It has the values of `SETTINGS_BEFORE` for
    the data settings that the `saved` config lacks. Where it may start from a run, it has the saved values of those in
    `OF_SOURCE` that it does not give, which a printed line says; else the usual fit.

    Raises:
      ValueError: if a saved value is none that the setting may have.
    """
    known = saved.get("data") if isinstance(saved, dict) else None
    known = known if isinstance(known, dict) else {}
    before = {name: value for name, value in SETTINGS_BEFORE[Data].items() if name not in known}
    kept: dict[str, Any] = {}
    if config.may_start_from_run:
        missing = [name for name in OF_SOURCE if getattr(config.data, name) is None]
        kept = {name: known[name] for name in missing if known.get(name) is not None}
        if kept:
            print(f"as when this run began: {data_flags(kept)}")
    elif config.data.fit is None:
        kept = {"fit": USUAL_FIT}
    data = dataclasses.replace(config.data, **before | kept)
    # Somebody may have edited what was saved.
    data.check()
    return dataclasses.replace(config, data=data)


def fill_in(saved: Any, kind: type) -> Any:
    """A saved config (JSON) of the class `kind`, with the settings added that its older version did not have.

    Each added setting gets its value in `SETTINGS_BEFORE`, or else its default: either behaves as that older version
    did. A value that is no dict is returned as it is.
    """
    if not isinstance(saved, dict):
        return saved
    if kind is Lesson and isinstance(saved.get("stages"), dict):
        # Version 0.1.0 had only the four stages and the source, and a stage's name said which of the four it is.
        stages = {
            name: fill_in({"stage": "from_scratch" if name == SOURCE else name} | stage, Stage)
            for name, stage in saved["stages"].items()
            if isinstance(stage, dict)
        }
        saved = saved | {"stages": stages}
    nested = {name: hint for name, hint in get_type_hints(kind).items() if isinstance(hint, type)}
    nested = {name: hint for name, hint in nested.items() if dataclasses.is_dataclass(hint)}
    filled = {name: fill_in(value, nested[name]) if name in nested else value for name, value in saved.items()}
    return as_json(kind()) | SETTINGS_BEFORE.get(kind, {}) | filled


def build_settings(kind: Any, saved: Any) -> Any:
    """The settings of the type `kind` from `saved`, JSON that `as_json` has made of such settings.

    Raises:
      TypeError, AttributeError, ValueError: if it is damaged.
    """
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        built = kind(**{name: build_settings(hints[name], value) for name, value in saved.items()})  # type: ignore[operator]
        check_choices(built, "")
        return built
    if get_origin(kind) is dict:
        return {name: build_settings(get_args(kind)[1], value) for name, value in saved.items()}
    # JSON has no infinity: `jsonable` wrote None.
    if kind is float and saved is None:
        return math.inf
    if kind in (float, int, str) and not isinstance(saved, (int, float) if kind is float else kind):
        raise TypeError(f"{saved!r} is no {kind.__name__}")
    return tuple(saved) if isinstance(saved, list) else saved


# Settings that may change when a run resumes, because they do not change its results.
NO_CHANGE = ("cache.memory_gib", "cache.disk_gib", "data.dir")


def growing(config: AnyConfig) -> tuple[str, ...]:
    """Paths of the settings that may increase when a run resumes: the epochs, except those of a stage whose weights
    other stages start from, or whose learning rate falls."""
    fixed = set(_falling(config))
    if isinstance(config, Lesson):
        without = {name for name, stage in config.stages.items() if stage.stage == "zero_shot"}
        fixed |= {f"stages.{name}.epochs" for name in {SOURCE, *config.origins().values(), *without}}
    return tuple(path for path in _epochs(config) if path not in fixed)


def _epochs(config: AnyConfig) -> dict[str, Stage]:
    """Each stage, by the path of its epochs."""
    if isinstance(config, Config):
        return {"epochs": config}
    return {f"stages.{name}.epochs": stage for name, stage in config.stages.items()}


def _falling(config: AnyConfig) -> tuple[str, ...]:
    """Paths of the epochs at whose end the learning rate has fallen to 0."""
    return tuple(path for path, stage in _epochs(config).items() if stage.optimizer.schedule != "constant")


def explain_changes(changes: list[str], config: AnyConfig) -> str:
    """`changes` in one line, with the reason where the epochs of a falling learning rate have increased."""
    asked = any(change.startswith(f"{path}:") for change in changes for path in _falling(config))
    reason = ": the learning rate falls to 0 at the last epoch, so their number stays" if asked else ""
    return "; ".join(changes) + reason


def _is_same_place(before: Data, now: Data) -> bool:
    """Whether two names mean the same folder or file: by another path, or moved. What is there is compared later. A
    name without a kind is a path by itself, as in `pretrained`."""
    moved = before.path.is_absolute() and not before.path.exists() and now.path.exists()
    return before.kind == now.kind and (moved or before.path.resolve() == now.path.resolve())


def find_changes(before: Any, now: Any, may_grow: tuple[str, ...] = (), path: str = "") -> list[str]:
    """The settings in which two configs (JSON) differ, as a short text each.

    Two paths of `pretrained`, or of `data.name`, to the same place are equal. So are the values of a setting in
    `NO_CHANGE`, two files of corrections, and the values of a setting in `may_grow` that has increased. `path` is the
    path of the two configs inside larger ones.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if not path and ("stages" in before) != ("stages" in now):
            kinds = ("a lesson", "one stage") if "stages" in before else ("one stage", "a lesson")
            return ["{} before, {} now".format(*kinds)]
        names = before.keys() | now.keys()
        return [
            change
            for name in sorted(names)
            for change in find_changes(before.get(name), now.get(name), may_grow, f"{path}.{name}" if path else name)
        ]
    same = before == now or path in NO_CHANGE
    # What two files say is compared later, by the pictures and labels of the run.
    same = same or (path == "data.corrections" and isinstance(before, str) and isinstance(now, str))
    if path in ("pretrained", "data.name") and isinstance(before, str) and isinstance(now, str):
        same = same or _is_same_place(Data(before), Data(now))
    more = path in may_grow and isinstance(before, int) and isinstance(now, int) and before < now
    if same or more:
        return []
    if isinstance(before, Mapping) or isinstance(now, Mapping):
        return [f"{path}: there before, not now" if now is None else f"{path}: there now, not before"]
    return [f"{path}: {before!r} before, {now!r} now"]
