"""Configs that runs have saved: what an older version's lacks, and how one differs from another."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from tljax.config import SOURCE, AnyConfig, Config, Lesson, Stage, as_json


def fill_in(saved: Any, kind: type) -> Any:
    """A saved config as JSON with the settings that it lacks: those of a newer version, each with its default, which
    behaves as the version that did not have it."""
    if not isinstance(saved, dict):
        return saved
    if kind is Lesson and isinstance(saved.get("stages"), dict):
        # Version 0.1.0 had the four stages alone, and each was what its name says.
        stages = {
            name: fill_in({"stage": "from_scratch" if name == SOURCE else name} | stage, Stage)
            for name, stage in saved["stages"].items()
            if isinstance(stage, dict)
        }
        saved = saved | {"stages": stages}
    nested = {name: hint for name, hint in get_type_hints(kind).items() if isinstance(hint, type)}
    nested = {name: hint for name, hint in nested.items() if dataclasses.is_dataclass(hint)}
    filled = {name: fill_in(value, nested[name]) if name in nested else value for name, value in saved.items()}
    return as_json(kind()) | filled


# Settings of a run that exists which do not change its results.
NO_CHANGE = ("cache.memory_gib", "cache.disk_gib", "data.dir")


def growing(config: AnyConfig) -> tuple[str, ...]:
    """Settings of a run that exists which may be more now: epochs, but not those of a stage that others go on from."""
    if isinstance(config, Config):
        return ("epochs",)
    used = {SOURCE, *config.origins().values()}
    last = [name for name, stage in config.stages.items() if stage.stage != "zero_shot" and name not in used]
    return tuple(f"stages.{name}.epochs" for name in last)


def find_changes(before: Any, now: Any, may_grow: tuple[str, ...] = (), path: str = "") -> list[str]:
    """In which settings two configs differ, both as JSON, a few words each; another way to the same place, and more of
    what `may_grow`, are no difference."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = before.keys() | now.keys()
        return [
            change
            for name in sorted(names)
            for change in find_changes(before.get(name), now.get(name), may_grow, f"{path}.{name}" if path else name)
        ]
    same = before == now or path in NO_CHANGE
    if path == "pretrained" and isinstance(before, str) and isinstance(now, str):
        same = Path(before).resolve() == Path(now).resolve()
    more = path in may_grow and isinstance(before, int) and isinstance(now, int) and before < now
    return [] if same or more else [f"{path}: {before!r} before, {now!r} now"]
