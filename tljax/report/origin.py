"""What stages were made of: what trained and what stayed, the data, settings, versions, time, commands."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tljax.report import printed
from tljax.report.blocks import Block, Code, Details, Facts, PictureGrid, Sheet, Text
from tljax.report.shown import Shown
from tljax.runs.records import RunRecord
from tljax.text import count_words
from tljax.trees import Row


def describe_proofs(stages: Sequence[Shown]) -> list[Block]:
    """What each stage trained, and the proof that everything before that stayed as it was."""
    finished = [shown for shown in stages if shown.record.summary is not None]
    if not finished:
        return [Text(["No stage is finished."])]
    columns = ["stage", "starts from", "trains from", "trainable parameters", "frozen parameters", "proved unchanged"]
    caption = "Proved: the digest of each array before the cut is the same after training as before it, to the bit."
    return [Sheet(columns, [_describe_proof(shown) for shown in finished], caption)]


def _describe_proof(shown: Shown) -> tuple[str | int, ...]:
    summary = shown.record.summary or {}
    config, params = shown.record.config, summary.get("params", {})
    origin = shown.run.origins.get(shown.record.name) or (config.pretrained if config else None)
    trains = summary["stage"] != "zero_shot"
    proved = summary.get("frozen_leaves_unchanged")
    return (
        shown.label,
        str(origin or "random weights"),
        (config.cut if config else "-") if trains else "nothing",
        params.get("trainable", "-"),
        # Of running statistics, which count as not trainable, some may belong to units that train.
        params.get("non_trainable", "-"),
        count_words(proved, "array") if proved else "nothing is frozen" if trains else "nothing trains",
    )


def describe_data(stages: Sequence[Shown]) -> list[Block]:
    """The data as it was read, once for stages that had the same, and what was left out."""
    groups: dict[str, list[str]] = {}
    warnings: dict[str, None] = {}
    for shown in stages:
        data = (shown.record.summary or {}).get("data")
        if data and _is_described(data):
            text = printed.data_summary(data | {"warnings": []})
            groups.setdefault(text, []).append(shown.label)
            warnings |= dict.fromkeys(data.get("warnings", ()))
    facts: list[Block] = [Details(", ".join(labels), [Code(text.split("\n"))]) for text, labels in groups.items()]
    return [
        *([Text(list(warnings), "warning")] if warnings else []),
        *(facts or [Text(["Nothing is known of the data."])]),
    ]


def _is_described(data: Row) -> bool:
    """Whether the data is described in full: somebody may have edited that."""
    splits = data.get("splits", {}).values()
    keys = {"name", "image_size", "left_out", "notes", "warnings"}
    are_whole = all({"of", "images"} <= split.keys() and split.get("classes") for split in splits)
    return bool(splits) and keys <= data.keys() and are_whole


def describe_settings(runs: Sequence[RunRecord]) -> list[Block]:
    """The settings that differ from the defaults, and the reasons of a recipe."""
    return [block for run in runs for block in _describe_run_settings(run, named=len(runs) > 1)]


def _describe_run_settings(run: RunRecord, *, named: bool) -> Iterable[Block]:
    of = f" of {run.name}" * named
    if run.reasons:
        yield Text([f"Why these stages{of}:", *run.reasons])
    if run.changed:
        rows = [(f"config.{path}", _write(value)) for path, value in run.changed.items()]
        yield Sheet([f"setting{of}", "value"], rows, "All other settings have their defaults.")
    else:
        yield Text([f"All settings{of} have their defaults."])


def _write(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def describe_machines(stages: Sequence[Shown], runs: Sequence[RunRecord]) -> list[Block]:
    """Seconds and speed of each stage; for each run the versions, the machine, and the command that made it."""
    rows = [row for shown in stages if (row := _describe_speed(shown))]
    blocks: list[Block] = [Sheet(["stage", "seconds", "epochs", "images/s in training"], rows)] if rows else []
    for run in runs:
        environment = run.environment or next((s.environment for s in run.stages if s.environment), {})
        blocks += _describe_environment(environment, f" of {run.name}" * (len(runs) > 1))
    return blocks


def _describe_speed(shown: Shown) -> tuple[str | float, ...] | None:
    summary = shown.record.summary
    if summary is None:
        return None
    speeds = sorted(row["images_per_second"] for row in shown.record.history if row.get("images_per_second"))
    median = f"{speeds[len(speeds) // 2]:,.0f}" if speeds else "-"
    return shown.label, f"{summary['seconds']:.1f}", summary.get("epochs", 0), median


def _describe_environment(row: Row, of: str) -> list[Block]:
    if not row:
        return []
    known = {"devices": row.get("devices"), "machine": row.get("machine"), "last start": row.get("started")}
    versions: Mapping[str, str] = row.get("versions") or {}
    pairs = [(name, str(value)) for name, value in {**known, **versions}.items() if value]
    command = shlex.join(map(str, row.get("command") or ()))
    return [*([Code([command], f"the command{of}")] if command else []), Facts(pairs)]


def show_views(shown: Shown, keys: Sequence[Sequence[str]]) -> list[Block]:
    """Training pictures as the network gets them: a row a picture, a column a view or a draw. `keys` are those of the
    page's pictures."""
    evidence = shown.record.evidence
    if evidence is None or not keys:
        return []
    return [PictureGrid(f"Training pictures as {shown.label} gets them", evidence.view_titles, keys)]


def find_program(environment: Row) -> str:
    """How a run was started, as a command: `python main.py`, or `tljax` where it is installed."""
    command = environment.get("command") or ["main.py"]
    return "python main.py" if str(command[0]).endswith("main.py") else "tljax"
