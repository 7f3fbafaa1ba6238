"""What stages came to, in words and in a table, and whether one is better than another."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tljax.report import paired, printed
from tljax.report.belief import has_chosen
from tljax.report.blocks import Block, Code, Details, Sheet, Text
from tljax.report.choice import Right
from tljax.report.mistakes import FEWEST_FOR_TOP, top_five
from tljax.report.sentences import plain_sentence
from tljax.report.shown import Shown, has_groups
from tljax.runs.predictions import Predictions
from tljax.runs.records import RunRecord, StageRecord
from tljax.text import count_words
from tljax.trees import Row


def describe_stages(stages: Sequence[Shown], notes: Sequence[str]) -> list[Block]:
    """One sentence for each stage, the table, which one is better, and `notes`: how far the numbers can be believed."""
    finished = {shown.label: summary for shown in stages if (summary := shown.record.summary) is not None}
    left = [shown for shown in stages if shown.record.summary is None]
    blocks: list[Block] = []
    if finished:
        blocks += [
            Text([plain_sentence(name, row) for name, row in finished.items()]),
            _tabulate(stages, finished),
        ]
    if left:
        blocks.append(Text([_describe_unfinished(shown) for shown in left], "warning"))
    # A study says itself which of its candidates are worse than another.
    blocks += compare_stages([shown for shown in stages if not shown.run.answer])
    return [*blocks, Details("How far these numbers go", [Text(notes)])] if notes else blocks


def _tabulate(stages: Sequence[Shown], finished: Mapping[str, Row]) -> Sheet:
    columns = printed.stages_columns(finished)
    tops = {shown.label: _find_top_five(shown) for shown in stages}
    tests = {name: _read_test(row) for name, row in finished.items()}
    more = [
        (head, cells) for head, cells in (("test accuracy", tests), ("top-5 accuracy", tops)) if any(cells.values())
    ]
    rows = [
        (name, *(_count_labels(row) if head == "labels" else read(row) for head, read in columns),
         *(values[name] for _, values in more))
        for name, row in finished.items()
    ]  # fmt: skip
    caption = "Labels are those of training and, where validation chose the epoch, of validation. Loss is in nats."
    heads = ["validation accuracy" if any(tests.values()) and name == "accuracy" else name for name, _ in columns]
    return Sheet(["stage", *heads, *(name for name, _ in more)], rows, caption, wide=True)


def _count_labels(summary: Row) -> str:
    """How many labels a stage used, and of which split."""
    labels = summary.get("labels") or {}
    used = [f"{number:,}" for number in labels.values() if number]
    total = f"{sum(labels.values()):,}" if labels else "-"
    return f"{total} = {' + '.join(used)}" if len(used) > 1 else total


def _read_test(summary: Row) -> str | None:
    accuracy = (summary.get("test") or {}).get("accuracy")
    return None if accuracy is None else f"{accuracy:.4f}"


def _find_top_five(shown: Shown) -> str | None:
    if shown.predictions is None or len(shown.names) < FEWEST_FOR_TOP:
        return None
    found = top_five(shown.predictions, shown.names)
    return None if found is None else f"{found:.4f}"


def _describe_unfinished(shown: Shown) -> str:
    word = "is in training" if shown.record.at_work else "is not finished"
    epochs = [row["epoch"] for row in shown.record.history]
    far = f"after epoch {epochs[-1]}" if epochs else "before its first epoch ended"
    return f"{shown.label} {word}: this was written {far}."


def compare_stages(stages: Sequence[Shown]) -> list[Block]:
    """Whether one stage is better than another on the same pictures, for those that were tried on the same ones; and
    which were not."""
    groups = group_alike(stages)
    lines = [line for group in groups if len(group) > 1 for line in _compare(group)]
    if len(groups) > 1:
        apart = "; ".join(", ".join(shown.label for shown in group) for group in groups)
        lines.append(f"Not compared with each other, since their classes or pictures differ: {apart}.")
    return [Text(lines)] if lines else []


def group_alike(stages: Sequence[Shown]) -> list[list[Shown]]:
    """Stages that were tried on the same pictures, together; without those whose single answers are not known."""
    groups: list[list[Shown]] = []
    for shown in filter(_is_comparable, stages):
        same = next((group for group in groups if _are_alike(group[0], shown)), None)
        groups.append([shown]) if same is None else same.append(shown)
    return groups


def describe_lesson(runs: Sequence[RunRecord]) -> list[str]:
    """What was learned from, in a line for each run: the classes, the pictures, and those of the source stage."""
    return [line for run in runs if (line := _describe_run(run, named=len(runs) > 1))]


def _describe_run(run: RunRecord, *, named: bool) -> str:
    known = [stage.summary for stage in run.stages if stage.summary is not None]
    splits = [summary.get("data", {}).get("splits", {}) for summary in known]
    found: Row = max(splits, key=len, default={})
    words = {part: f"{'training' if part == 'train' else part} picture" for part in found}
    counts = [count_words(split["images"], words[part]) for part, split in found.items() if split.get("images")]
    if not counts:
        return ""
    data, classes = known[splits.index(found)]["data"], known[splits.index(found)].get("class_names", ())
    line = f"{run.name}: " * named + f"{data.get('name', 'data')}, {len(classes)} classes: {', '.join(counts)}."
    source = run.source.summary if run.source else None
    labels = sum(((source or {}).get("labels") or {}).values())
    return f"{line} The source weights come from {labels:,} labelled pictures of other classes." if labels else line


def say_best(stages: Sequence[Shown]) -> list[str]:
    """Which stage is the most accurate, and whether that may be chance; nothing where there is but one, or where they
    were tried on different pictures."""
    groups = group_alike(stages)
    best = find_best(shown.record for shown in stages)
    group = next((group for group in groups if any(shown.record is best for shown in group)), [])
    if len(groups) != 1 or len(group) < 2:
        return []
    label = next(shown.label for shown in group if shown.record is best)
    pairs = [pair for pair in paired.compare(_find_rights(group)) if label in (pair.better, pair.worse)]
    even = [pair.better if pair.worse == label else pair.worse for pair in pairs if pair.better_only == pair.worse_only]
    sure = [pair.worse for pair in pairs if pair.better == label and pair.adjusted < paired.SIGNIFICANT]
    others = [shown.label for shown in group if shown.label not in (label, *sure, *even)]
    right = _find_rights(group)[label]
    on = f"{right.sum():,} of the {len(right):,} {_judged_on(group[0])} pictures"
    first = f"The most accurate stage is {label}, which is right on {on}."
    if even:
        first = f"{_join([label, *even])} are equally accurate: each is right on {on}."
    by_picture = ", if pictures of a group had nothing to do with each other" * any(map(has_groups, group))
    verdicts = [f"That it is better than {_join(sure)} is not by chance{by_picture}."] if sure else []
    verdicts += [f"That it is better than {_join(others)} may be chance."] if others else []
    return [" ".join([first, *(verdict.replace("it is", "they are") if even else verdict for verdict in verdicts)])]


def _is_comparable(shown: Shown) -> bool:
    found = _find_judged(shown)
    return found is not None and bool((found.predicted >= 0).any())


def _find_judged(shown: Shown) -> Predictions | None:
    """What a stage says of the test split, or of validation where there is none. Only the answer of a study has seen a
    test split: all are compared on validation there."""
    return (None if shown.run.answer else shown.record.test) or shown.record.validation


def _are_alike(a: Shown, b: Shown) -> bool:
    """Whether two stages were tried on the same pictures, with the same classes."""
    first, second = _find_judged(a), _find_judged(b)
    assert first is not None and second is not None, "both are known"
    same = a.names == b.names and _content(a) == _content(b) and first.ids == second.ids
    return same and bool((first.labels == second.labels).all())


def _content(shown: Shown) -> str | None:
    splits = ((shown.record.summary or {}).get("data") or {}).get("splits", {})
    found: str | None = splits.get(_judged_on(shown), {}).get("content")
    return found


def _judged_on(shown: Shown) -> str:
    return "test" if shown.record.test is not None and not shown.run.answer else shown.part


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _find_rights(group: Sequence[Shown]) -> dict[str, Right]:
    return {shown.label: found.right for shown in group if (found := _find_judged(shown)) is not None}


def _compare(group: Sequence[Shown]) -> list[str]:
    rights = _find_rights(group)
    split, count = _judged_on(group[0]), len(next(iter(rights.values())))
    chose = [s.label for s in group if split == "validation" and s.record.summary and has_chosen(s.record.summary)]
    introduced, *verdicts = paired.describe(
        paired.compare(rights), paired.Compared(split, count, chose, grouped=any(map(has_groups, group)))
    )
    return [f"{introduced[:1].upper()}{introduced[1:]}.", *(f"{verdict}." for verdict in verdicts)]


def find_best(records: Iterable[StageRecord]) -> StageRecord | None:
    """The stage that trained and has the highest accuracy, of equal ones that with the lowest loss; None if none has
    one."""
    known = list(records)
    # Where one alone has seen a test split, that says nothing of the others.
    of_test = all("test" in record.summary for record in known if record.summary)
    ranks = [(rank, record) for record in known if (rank := _rank(record, of_test)) is not None]
    return min(ranks, key=lambda pair: pair[0])[1] if ranks else None


def find_chosen(run: RunRecord) -> StageRecord | None:
    """The stage that a study chose; None of another run."""
    return next((stage for stage in run.stages if run.answer and stage.name == run.answer["chosen"]), None)


def _rank(record: StageRecord, of_test: bool) -> tuple[float, float] | None:
    summary = record.summary or {}
    measured = summary.get("test", summary) if of_test else summary
    if summary.get("stage") in (None, "zero_shot") or None in (measured.get("accuracy"), measured.get("loss")):
        return None
    return -measured["accuracy"], measured["loss"]


def list_commands(stages: Sequence[Shown], folders: Sequence[Path], program: str) -> list[Block]:
    """What to type to classify new pictures with the best stage, to export it, and to make the page anew."""
    answers = [chosen for shown in stages if (chosen := find_chosen(shown.run))]
    best = answers[0] if answers else find_best(shown.record for shown in stages)
    out = ["--out", "report.html"] if len(folders) > 1 else []
    again = Code([f"{program} {shlex.join(['report', *map(str, folders), *out])}"], "To make this page anew")
    if best is None:
        return [again]
    label = next(shown.label for shown in stages if shown.record is best)
    folder = shlex.quote(str(best.folder))
    which = (
        "the answer of the study" if answers else "which has the highest accuracy and, of equal ones, the lowest loss"
    )
    about = f"To classify pictures (files or folders) with {label}, {which}"
    return [
        Code([f"{program} predict {folder} PICTURES"], about),
        Code([f"{program} export {folder} model.onnx"], "To use it in other programs"),
        again,
    ]
