"""What stages were made of: what trained and what stayed, the data, settings, versions, time, commands."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tljax.data.layouts import describe_left_out
from tljax.report import printed
from tljax.report.blocks import Block, Code, Facts, PictureGrid, Sheet, Text
from tljax.report.shown import Shown
from tljax.runs.records import RunRecord
from tljax.text import count_words
from tljax.trees import Row

SECONDS_ALONE = "Seconds are those of a stage alone, without the stages that it goes on from."


def describe_proofs(stages: Sequence[Shown]) -> list[Block]:
    """What each stage trained, and the proof that everything before that stayed as it was."""
    finished = [shown for shown in stages if shown.record.summary is not None]
    if not finished:
        return [Text(["No stage is finished."])]
    columns = ["stage", "starts from", "trains from", "trainable parameters", "other parameters", "proved unchanged"]
    caption = (
        "Every array of the layers before the first one that trains, their BatchNorm's statistics too, has the same "
        "digest after training as before. Other parameters are all that do not train, statistics among them."
    )
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
        params.get("non_trainable", "-"),
        f"all {count_words(proved, 'frozen array')}" if proved else "nothing is frozen" if trains else "nothing trains",
    )


def describe_data(stages: Sequence[Shown]) -> list[Block]:
    """The data as it was read, once for stages that had the same, and what was left out."""
    groups: dict[str, list[str]] = {}
    known: dict[str, Row] = {}
    for shown in stages:
        data = (shown.record.summary or {}).get("data")
        if data and _is_described(data):
            text = printed.data_summary(data)
            groups.setdefault(text, []).append(shown.label)
            known[text] = data
    if not groups:
        return [Text(["Nothing is known of the data."])]
    return [block for text, labels in groups.items() for block in _describe_dataset(", ".join(labels), known[text])]


def _describe_dataset(labels: str, data: Row) -> list[Block]:
    """The splits of a data set in a table, what was left out, notes, and warnings."""
    rows = [
        (part, split.get("of", "-"), split.get("images"), printed.describe_counts(split["classes"]))
        for part, split in data["splits"].items()
        if split.get("classes")
    ]
    caption = f"{labels}: {data.get('name', 'data')}, {data.get('image_size', '?')} pixels"
    left_out = [f"Left out: {describe_left_out(data['left_out'])}."] if data.get("left_out") else []
    blocks: list[Block] = [Sheet(["part", "read from", "pictures", "of each class"], rows, caption)]
    if said := [*left_out, *data.get("notes", ())]:
        blocks.append(Text(said))
    return [*blocks, Text(data["warnings"], "warning")] if data.get("warnings") else blocks


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
    blocks: list[Block] = (
        [Sheet(["stage", "seconds", "epochs", "images/s in training"], rows, SECONDS_ALONE)] if rows else []
    )
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
    command = f"python {command}" if command.startswith("main.py") else command
    return [*([Code([command], f"The command{of}")] if command else []), Facts(pairs)]


def show_training(stages: Sequence[Shown], keys: Mapping[str, Sequence[Sequence[str]]]) -> list[Block]:
    """Training pictures as the network gets them: a row a picture, a column a view or a draw; once for stages that get
    the same. `keys` are those of the page's pictures, by stage."""
    groups: dict[bytes, list[Shown]] = {}
    for shown in stages:
        if shown.record.evidence is not None and keys[shown.label]:
            groups.setdefault(shown.record.evidence.views.tobytes(), []).append(shown)
    return [block for group in groups.values() for block in _show_views(group, keys[group[0].label])]


def _show_views(group: Sequence[Shown], keys: Sequence[Sequence[str]]) -> list[Block]:
    evidence = group[0].record.evidence
    assert evidence is not None, "it has pictures"
    title = f"As {', '.join(shown.label for shown in group)} gets them"
    if len(evidence.view_titles) > 1:
        return [PictureGrid(title, evidence.view_titles, keys)]
    numbers = [str(i + 1) for i in range(len(keys))]
    grid = PictureGrid(title, numbers, [[key for (key,) in keys]], evidence.view_titles)
    return [grid, Text(["There is no augmentation: each picture is the same in every epoch."])]


def find_program(environment: Row) -> str:
    """How a run was started, as a command: `python main.py`, or `tljax` where it is installed."""
    command = environment.get("command") or ["main.py"]
    return "python main.py" if str(command[0]).endswith("main.py") else "tljax"
