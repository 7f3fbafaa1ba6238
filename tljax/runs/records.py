"""What a run or a lesson has left in its folder, for a reader: finished or not, of this version or an earlier one.

A file that is missing or damaged is a line in `troubles`, and everything else is still there.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tljax.config import SOURCE, Config, Lesson, Stage, as_json
from tljax.runs.evidence import EVIDENCE, Evidence, read_evidence
from tljax.runs.files import read_file, read_json, read_rows
from tljax.runs.predictions import PREDICTIONS, Predictions, read_predictions
from tljax.runs.reference import read_reference
from tljax.runs.saved_configs import build_settings, fill_in
from tljax.runs.saved_values import (
    ANSWER_RULES,
    ENVIRONMENT_RULES,
    LATER_ANSWER_RULES,
    RECIPE_RULES,
    are_epochs,
    check_summary,
    check_values,
)
from tljax.runs.workdir import ANSWER, CONFIG, ENVIRONMENT, METRICS, RECIPE, SUMMARY, is_at_work
from tljax.trees import Row

_T = TypeVar("_T")


class StageRecord(NamedTuple):
    """A run of one stage."""

    name: str
    folder: Path
    config: Config | None
    """Its settings; None if they cannot be read."""
    changed: Mapping[str, Any]
    """The settings that differ from the defaults, by path."""
    summary: Row | None
    """None if it is not finished."""
    history: tuple[Row, ...]
    """Its own epochs."""
    validation: Predictions | None
    test: Predictions | None
    evidence: Evidence | None
    environment: Row
    """The newest row of `environment.jsonl`; empty if there is none."""
    at_work: bool
    troubles: tuple[str, ...]


class RunRecord(NamedTuple):
    """A run, or a lesson with its stages in their order."""

    name: str
    folder: Path
    is_lesson: bool
    stages: tuple[StageRecord, ...]
    source: StageRecord | None
    """The stage of a lesson that made the source weights, which is not among `stages`."""
    origins: Mapping[str, str | None]
    """The stage from which each takes its weights."""
    changed: Mapping[str, Any]
    reasons: tuple[str, ...]
    """Why a recipe chose these stages."""
    answer: Row | None
    """What a study came to; None of all else."""
    environment: Row
    troubles: tuple[str, ...]


class Settings(NamedTuple):
    """What `config.json` says."""

    settings: Any
    changed: Mapping[str, Any]
    """The settings that differ from the defaults, by path."""
    origins: Mapping[str, str | None]
    """The stage from which each takes its weights."""


def read_records(folder: Path) -> RunRecord:
    """What the run or lesson in `folder` has left.

    Raises:
      FileNotFoundError: if no run or lesson has begun there.
      ValueError: if its config is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give the workdir of a run or of a lesson")
    if not (folder / CONFIG).exists():
        raise FileNotFoundError(
            f"{folder} holds no {CONFIG}, so it is no run; give the workdir of a run or of a lesson"
        )
    saved = read_json(folder / CONFIG)
    is_lesson = isinstance(saved, dict) and "stages" in saved
    _, changed, origins = _read_settings(folder / CONFIG, Lesson if is_lesson else Config)
    places = {name: folder / name if is_lesson else folder for name in origins}
    stages = {name: read_stage(name, place) for name, place in places.items() if (place / CONFIG).exists()}
    troubles = [f"{name} is not here: {place} holds no run" for name, place in places.items() if name not in stages]
    return RunRecord(
        name=folder.resolve().name,
        folder=folder,
        is_lesson=is_lesson,
        stages=tuple(stage for name, stage in stages.items() if name != SOURCE),
        source=stages.get(SOURCE),
        origins=origins,
        changed=changed,
        reasons=tuple(_try(folder / RECIPE, _read_reasons, [], troubles)),
        answer=_try(folder / ANSWER, read_answer, None, troubles),
        environment=_try(folder / ENVIRONMENT, _read_newest, {}, troubles),
        troubles=tuple(troubles),
    )


def read_stage(name: str, folder: Path) -> StageRecord:
    """What the run of one stage in `folder` has left, which has a config."""
    troubles: list[str] = []
    unread = Settings(None, {}, {})
    settings = _try(folder / CONFIG, lambda path: _read_settings(path, Config), unread, troubles)
    summary = _try(folder / SUMMARY, _read_summary, None, troubles)
    names = summary.get("class_names") if summary else None
    splits = summary.get("data", {}).get("splits", {}) if summary else {}

    def predictions(part: str) -> Predictions | None:
        read = partial(read_predictions, classes=len(names or ()), pictures=splits.get(part, {}).get("images"))
        return _try(folder / PREDICTIONS[part], read, None, troubles) if names else None

    return StageRecord(
        name=name,
        folder=folder,
        config=settings.settings,
        changed=settings.changed,
        summary=summary,
        history=tuple(_try(folder / METRICS, _read_epochs, [], troubles)),
        validation=predictions("validation"),
        test=predictions("test"),
        evidence=_try(folder / EVIDENCE, lambda path: _read_evidence(path.parent), None, troubles),
        environment=_try(folder / ENVIRONMENT, _read_newest, {}, troubles),
        at_work=bool(is_at_work(folder) or is_at_work(folder.parent)),
        troubles=tuple(troubles),
    )


def _try(path: Path, read: Callable[[Path], _T], default: _T, troubles: list[str]) -> _T:
    """What is read from a file; `default` where it is not there, or damaged, which is added to the `troubles`."""
    try:
        return read(path)
    except FileNotFoundError:
        return default
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        troubles.append(
            f"left out: {reason if str(path) in reason else f'{path} is damaged ({reason}); bring it back'}"
        )
        return default


def _read_settings(path: Path, kind: type) -> Settings:
    """The settings in `config.json`, of the class `kind`. Raises ValueError if they are none."""
    saved = read_json(path)
    try:
        settings: Any = build_settings(kind, fill_in(saved, kind))
        origins = settings.origins() if kind is Lesson else {settings.stage: None}
        return Settings(settings, find_changed(saved, settings), origins)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); bring it back") from error


def _read_summary(path: Path) -> Row:
    row: Row = json.loads(read_file(path).decode("utf-8"))
    check_summary(row, in_lesson=True)
    return row


def _read_evidence(folder: Path) -> Evidence | None:
    """The evidence of the checkpoint that is the best one; None if a run that went on left that of an earlier one."""
    found, reference = read_evidence(folder), read_reference(folder)
    return None if found and reference and found.best != reference.best else found


def _read_reasons(path: Path) -> list[str]:
    row = read_json(path)
    check_values(row, RECIPE_RULES, RECIPE_RULES)
    reasons: list[str] = row["reasons"]
    return reasons


def read_answer(path: Path) -> Row:
    """What `how_deep.json` holds.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is damaged.
    """
    row: Row = read_json(path)
    try:
        check_values(row, ANSWER_RULES | LATER_ANSWER_RULES, ANSWER_RULES)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); bring it back, give another --workdir, or --overwrite"
        ) from error
    return row


def _read_newest(path: Path) -> Row:
    newest: Row = next(reversed(read_rows(path)), {})
    check_values(newest, ENVIRONMENT_RULES, ())
    return newest


def _read_epochs(path: Path) -> list[Row]:
    rows = read_rows(path)
    if not are_epochs(rows):
        raise ValueError("a row is no epoch")
    return rows


def find_changed(saved: Row, settings: Any) -> dict[str, Any]:
    """The settings of a saved config that differ from the defaults, by path; those of a lesson's stage from the stage
    of this name in `four_stages` or, without one, from a stage's own."""
    default = as_json(type(settings)())
    if isinstance(settings, Lesson):
        own = {name: as_json(Stage(stage.stage)) for name, stage in settings.stages.items()}
        default["stages"] = own | default["stages"]
    return dict(find_differences(saved, default))


def find_differences(now: Any, default: Any, path: str = "") -> list[tuple[str, Any]]:
    """The settings (JSON) that differ, by path, with their values now. What `default` has not at all is one of them."""
    if not isinstance(now, Mapping) or not (isinstance(default, Mapping) or not path):
        return [] if now == default else [(path, now)]
    known = default if isinstance(default, Mapping) else {}
    nested = (find_differences(value, known.get(name), f"{path}.{name}".lstrip(".")) for name, value in now.items())
    return [pair for pairs in nested for pair in pairs]
