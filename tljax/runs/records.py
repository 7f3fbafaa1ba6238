"""What a run or a lesson has left in its folder, for a reader: finished or not, of this version or an earlier one.

A file that is missing or damaged is a line in `troubles`, and everything else is still there.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tljax.config import SOURCE, Config, Lesson, Stage, as_json
from tljax.runs.evidence import Evidence, read_evidence
from tljax.runs.files import read_file, read_json, read_rows
from tljax.runs.predictions import PREDICTIONS, Predictions, read_predictions
from tljax.runs.reference import read_reference
from tljax.runs.saved_configs import build_settings, fill_in
from tljax.runs.saved_values import are_epochs, check_summary
from tljax.runs.workdir import CONFIG, ENVIRONMENT, METRICS, RECIPE, SUMMARY, is_at_work
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
    environment: Row
    troubles: tuple[str, ...]


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
    troubles: list[str] = []
    try:
        kind: type = Lesson if "stages" in saved else Config
        settings: Any = build_settings(kind, fill_in(saved, kind))
        origins = settings.origins() if kind is Lesson else {settings.stage: None}
        changed = find_changed(saved, settings)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{folder / CONFIG} is damaged ({type(error).__name__}: {error}); bring it back") from error
    places = {name: folder / name if kind is Lesson else folder for name in origins}
    stages = {name: read_stage(name, place) for name, place in places.items() if (place / CONFIG).exists()}
    return RunRecord(
        name=folder.resolve().name,
        folder=folder,
        is_lesson=kind is Lesson,
        stages=tuple(stage for name, stage in stages.items() if name != SOURCE),
        source=stages.get(SOURCE),
        origins=origins,
        changed=changed,
        reasons=tuple(_try(lambda: _read_reasons(folder), (), troubles)),
        environment=_try(lambda: _read_newest(folder / ENVIRONMENT), {}, troubles),
        troubles=tuple(troubles),
    )


def read_stage(name: str, folder: Path) -> StageRecord:
    """What the run of one stage in `folder` has left, which has a config."""
    troubles: list[str] = []
    saved: Row = _try(lambda: read_json(folder / CONFIG), {}, troubles)
    settings = _try(lambda: build_settings(Config, fill_in(saved, Config)), None, troubles)
    summary = _try(lambda: _read_summary(folder / SUMMARY), None, troubles)
    names = summary.get("class_names") if summary else None

    def predictions(part: str) -> Predictions | None:
        return read_predictions(folder / PREDICTIONS[part], len(names)) if names else None

    return StageRecord(
        name=name,
        folder=folder,
        config=settings,
        changed=_try(lambda: find_changed(saved, settings) if settings else {}, {}, troubles),
        summary=summary,
        history=tuple(_try(lambda: _read_epochs(folder / METRICS), [], troubles)),
        validation=_try(lambda: predictions("validation"), None, troubles),
        test=_try(lambda: predictions("test"), None, troubles),
        evidence=_try(lambda: _read_evidence(folder), None, troubles),
        environment=_try(lambda: _read_newest(folder / ENVIRONMENT), {}, troubles),
        at_work=bool(is_at_work(folder) or is_at_work(folder.parent)),
        troubles=tuple(troubles),
    )


def _try(read: Callable[[], _T], default: _T, troubles: list[str]) -> _T:
    """What is read; `default` where the file is not there, or damaged, which is added to the `troubles`."""
    try:
        return read()
    except FileNotFoundError:
        return default
    except (OSError, ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        troubles.append(f"left out: {' '.join(str(error).split()) or type(error).__name__}")
        return default


def _read_summary(path: Path) -> Row:
    row: Row = json.loads(read_file(path).decode("utf-8"))
    check_summary(row, in_lesson=True)
    return row


def _read_evidence(folder: Path) -> Evidence | None:
    """The evidence of the checkpoint that is the best one; None if a run that went on left that of an earlier one."""
    found, reference = read_evidence(folder), read_reference(folder)
    return None if found and reference and found.best != reference.best else found


def _read_reasons(folder: Path) -> list[str]:
    return [str(reason) for reason in read_json(folder / RECIPE)["reasons"]]


def _read_newest(path: Path) -> Row:
    rows = read_rows(path)
    return rows[-1] if rows else {}


def _read_epochs(path: Path) -> list[Row]:
    rows = read_rows(path)
    if not are_epochs(rows):
        raise ValueError(f"{path} is damaged: a row is no epoch")
    return rows


def find_changed(saved: Row, settings: Any) -> dict[str, Any]:
    """The settings of a saved config that differ from the defaults, by path; those of a lesson's stage from the stage
    of this name in `four_stages` or, without one, from a stage's own."""
    default = as_json(type(settings)())
    if isinstance(settings, Lesson):
        own = {name: as_json(Stage(stage.stage)) for name, stage in settings.stages.items()}
        default["stages"] = own | default["stages"]
    return dict(_differ(saved, default, ""))


def _differ(now: Any, default: Any, path: str) -> list[tuple[str, Any]]:
    if not isinstance(now, Mapping) or not (isinstance(default, Mapping) or not path):
        return [] if now == default else [(path, now)]
    known = default if isinstance(default, Mapping) else {}
    nested = (_differ(value, known.get(name), f"{path}.{name}".lstrip(".")) for name, value in now.items())
    return [pair for pairs in nested for pair in pairs]
