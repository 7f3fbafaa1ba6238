"""The text that a run prints: tables and lines about networks, epochs and stages."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tljax.config import SOURCE, Monitor
from tljax.data.layouts import describe_left_out
from tljax.networks.cut import Cut, ParameterCounts
from tljax.report.belief import expect_on_new, find_imbalance, is_left_out, reservations
from tljax.text import join_lines, printable
from tljax.training.calibration import FEWEST
from tljax.trees import Row, Tree

# The most classes of which each is named, in counts and in confusions.
MOST_CLASSES = 12


def network_summary(variables: Tree, cut: Cut, batch_norm: str) -> str:
    """A table of the network's units (parameters, trainable or frozen, BatchNorm mode), then Keras's three totals.

    As in Keras, running statistics count as non-trainable parameters. The sizes in MB are for float32.
    """
    lines = [f"{'unit':<14} {'parameters':>12}  {'':<9}  BatchNorm"]
    for unit in cut.units:
        frozen = cut.freezes(unit)
        own = {kind: {unit: tree[unit]} for kind, tree in variables.items() if unit in tree}
        mode = "-" if "batch_stats" not in own else ("inference" if frozen else batch_norm)
        total = cut.count(own).total
        lines.append(f"{unit:<14} {total:>12,}  {'frozen' if frozen else 'trainable':<9}  {mode}")
    return "\n".join([*lines, *_totals(cut.count(variables))])


def _totals(counts: ParameterCounts) -> list[str]:
    names = ("Total params", "Trainable params", "Non-trainable params")
    return [f"{name}: {n:,} ({n * 4 / 2**20:.2f} MB)" for name, n in zip(names, counts, strict=True)]


class Printed(NamedTuple):
    """A `network_summary` that was printed: by which stage, and its totals."""

    stage: str
    counts: ParameterCounts


def summary_again(variables: Tree, cut: Cut, batch_norm: str, before: Printed) -> str:
    """What differs from the `network_summary` of a network with the same units: which of them train, and the totals, if
    they are not the same."""
    counts, trained = cut.count(variables), cut.trained
    if not trained:
        about = "nothing"
    else:
        about = f"{trained[0]} to {trained[-1]}" if trained[1:] else trained[0]
        about += f" ({counts.trainable:,} of {counts.total:,} parameters"
        about += f", BatchNorm in {batch_norm} mode)" if set(trained) & set(variables.get("batch_stats", ())) else ")"
        about += "; frozen before that" * (trained != cut.units)
    return "\n".join(
        [f"units as in {before.stage}; trains: {about}", *(_totals(counts) if counts != before.counts else ())]
    )


def data_summary(data: Row) -> str:
    """What was read, for a reader: splits with their classes, what was left out, notes and warnings. `data` is the
    description of a `Dataset`."""
    classes = len(next(iter(data["splits"].values()))["classes"])
    lines = [f"data: {data['name']}, {classes} classes, {data['image_size']} pixels"]
    for part, split in data["splits"].items():
        lines.append(f"  {part:<11} {split['images']:,} images of {split['of']}: {describe_counts(split['classes'])}")
    lines += [f"  left out    {describe_left_out(data['left_out'])}"] * bool(data["left_out"])
    lines += [f"  note        {note}" for note in data["notes"]]
    return join_lines(*lines, *(f"  WARNING     {warning}" for warning in data["warnings"]))


def describe_counts(counts: Mapping[str, int]) -> str:
    """The number of images of each class: of all of them, or of the smallest and the largest."""
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values())):,} of each class"
    return _by_class(counts, ",")


def _by_class(numbers: Mapping[str, float], spec: str) -> str:
    """The number of each class in the format `spec`; for many classes the smallest and the largest."""
    if len(numbers) <= MOST_CLASSES:
        return ", ".join(f"{name} {number:{spec}}" for name, number in numbers.items())
    smallest, largest = min(numbers, key=numbers.__getitem__), max(numbers, key=numbers.__getitem__)
    return f"from {numbers[smallest]:{spec}} of {smallest} to {numbers[largest]:{spec}} of {largest}"


def class_weights_line(weights: Mapping[str, float]) -> str:
    """How much images of each class count; for many classes the least and the most."""
    return printable(f"class weights: {_by_class(weights, '.3g')}")


def epoch_line(row: Row, last: int) -> str:
    """The metrics of an epoch on one line; `last` is the number of the last epoch."""
    numbers = "  ".join(f"{name} {row[name]:.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy"))
    speed = f"{row['seconds']:.1f} s  {row['images_per_second']:.0f} images/s"
    return f"epoch {row['epoch']}/{last}  {numbers}  {speed}"


def solved_line(row: Row) -> str:
    """What came out of solving a head; `row` is its row of metrics."""
    solved = row["solved"]
    line = (
        f"head solved in {row['seconds']:.1f} s from {solved['pictures']:,} pictures (penalty {solved['penalty']:.3g})"
    )
    if row["val_loss"] is not None:
        line += f": val_loss {row['val_loss']:.4f}, val_accuracy {row['val_accuracy']:.4f}"
    return line


def _accuracy(summary: Row, split: str) -> str:
    """Loss and accuracy on a split in words, and what else there is to say about the accuracy."""
    measured = summary["test"] if split == "test" else summary
    text = f"loss {_loss(measured)}, accuracy {write_number(measured['accuracy'])}"
    found = find_imbalance(summary, split)
    if found is None or measured["accuracy"] is None:
        return text
    return f"{text}, balanced {write_number(found.balanced)} (always saying {found.largest} has {found.share:.4f})"


def summary_line(summary: Row) -> str:
    """The results of a stage, on some lines. `summary` is the content of `summary.json`."""
    lines = [f"{summary['stage']}: {_accuracy(summary, 'validation')}, {summary['seconds']:.1f} s"]
    if is_left_out(summary) and summary["accuracy"] is not None:
        lines[0] += " (on training pictures, each left out)"
    elif summary.get("best_epoch") == 0 and not summary["epochs"]:
        lines[0] += " (the solved head)"
    elif "best_epoch" in summary:
        epochs = f"{summary['epochs']} epoch{'s' * (summary['epochs'] != 1)}"
        lines[0] += f" (best epoch {summary['best_epoch']}, {epochs} run)"
    lines += reservations(summary)
    if "test" in summary:
        lines.append(f"test split: {_accuracy(summary, 'test')}")
    if "unmapped_mass" in summary and summary["accuracy"] is not None:
        lines.append(f"mean probability on the source's classes that no class maps to: {summary['unmapped_mass']:.4f}")
    return join_lines(*lines)


def results(summary: Row) -> str:
    """All that a run prints at its end: `summary_line`, the accuracy of each class if they are few, the calibration."""
    lines = [summary_line(summary)]
    measured = summary.get("test", summary)
    by_class = {name: right for name, right in measured.get("class_accuracy", {}).items() if right is not None}
    if by_class and len(by_class) <= MOST_CLASSES:
        where = " on test" * ("test" in summary)
        lines.append(printable(f"accuracy by class{where}: {_by_class(by_class, '.2f')}"))
    if "calibration" in summary:
        lines.append(calibration_line(summary["calibration"]))
    return "\n".join(lines)


def stages_notes(
    summaries: Mapping[str, Row],
    source: Row | None,
    origins: Mapping[str, str | None],
    monitors: Mapping[str, Monitor],
) -> list[str]:
    """Lines below the table of a lesson: how far its accuracies can be believed, and which stages did not help.

    `source` is the summary of the stage that made the source weights, if there is one. `origins` has the stage from
    which each takes its weights, `monitors` what makes an epoch of it the best; both lack what is not known.
    """
    notes = [printable(f"{name}: {line}") for name, summary in summaries.items() for line in reservations(summary)]
    if source is not None and SOURCE in origins:
        number = f", {_labels(source)} of other classes" * ("labels" in source)
        notes.append(f"labels: those of {SOURCE} are not counted{number}")
    for name, summary in summaries.items():
        known = summary["stage"] == "fine_tune" and name in monitors
        before = summaries.get(origins.get(name) or "") if known else None
        if before is not None and (why := _why_not_better(summary, before, monitors[name])):
            notes.append(f"{name} is not better than {origins[name]}: its {why}")
    return notes


def _why_not_better(summary: Row, before: Row, monitor: Monitor) -> str:
    """What on the validation pictures did not get better, by what chooses the stage's best epoch; empty if it did, or
    if a number is not there."""
    name, gain, sign = ("loss", "lower", -1) if monitor == "val_loss" else ("accuracy", "higher", 1)
    if None in (summary[name], before[name]) or sign * summary[name] > sign * before[name]:
        return ""
    return f"{name} on the validation pictures is not {gain}"


def _loss(measured: Row) -> str:
    """The loss, unless no class has a counterpart in the source: labels are then no numbers of its outputs."""
    return write_number(None if measured.get("unmapped_classes") and measured["accuracy"] is None else measured["loss"])


def write_number(value: float | None, spec: str = ".4f") -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else format(value, spec)


def _on_new(summary: Row) -> str:
    expected = expect_on_new(summary)
    return "-" if expected is None else expected.write()


def _labels(summary: Row) -> str:
    """How many labels a stage used; summaries of earlier versions do not say."""
    return f"{sum(summary['labels'].values()):,}" if "labels" in summary else "-"


def stages_columns(summaries: Mapping[str, Row]) -> list[tuple[str, Callable[[Row], str]]]:
    """The columns of a table of stages, each with what reads its cell from a summary: loss, accuracy, labels used,
    trainable parameters, seconds. Where a stage has it, also the accuracy to expect on new pictures; and where its
    classes are of different sizes, the balanced accuracies and the largest class's share."""
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("loss", _loss),
        ("accuracy", lambda s: write_number(s["accuracy"])),
    ]
    if any(map(expect_on_new, summaries.values())):
        columns.append(("on new pictures (95%)", _on_new))
    if any(find_imbalance(summary, "validation") for summary in summaries.values()):
        columns += [("balanced", lambda s: write_number(s.get("balanced_accuracy"))), ("largest class", _largest_share)]
    return [
        *columns,
        ("labels", _labels),
        ("trainable parameters", lambda s: f"{s['params']['trainable']:,}"),
        ("seconds", lambda s: f"{s['seconds']:.1f}"),
    ]


def stages_table(summaries: Mapping[str, Row]) -> str:
    """A Markdown table with a row for each stage, and with the `stages_columns`."""
    columns = stages_columns(summaries)
    head = ("stage", *(name for name, _ in columns))
    rows = [
        (printable(name).replace("|", r"\|"), *(read(summary) for _, read in columns))
        for name, summary in summaries.items()
    ]
    return align([head, *rows])


def align(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of these rows, the first of which is its head; all columns but the first hold numbers."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = [":" + "-" * (w - 1) if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(line(row) for row in [rows[0], rule, *rows[1:]])


def _largest_share(summary: Row) -> str:
    """The share of the largest class, where classes are of different sizes."""
    found = find_imbalance(summary, "validation")
    return write_number(found.share if found else None)


def confusion_table(confusions: Int[np.ndarray, "classes classes"], names: Sequence[str]) -> str:
    """How many pictures of each class were given each label; for many classes, the most frequent confusions."""
    names = [printable(name) for name in names]
    if len(names) > MOST_CLASSES:
        wrong = confusions * (1 - np.eye(len(names), dtype=int))
        most = [divmod(int(place), len(names)) for place in np.argsort(-wrong, axis=None, kind="stable")[:10]]
        lines = [f"  {names[i]} taken for {names[j]}: {wrong[i, j]}" for i, j in most if wrong[i, j]]
        return "\n".join(["the most frequent confusions:", *lines]) if lines else "no confusions"
    left = max(map(len, (*names, "is / taken for")))
    width = max(6, *(len(name) for name in names))
    rows = [("is / taken for", names), *zip(names, confusions, strict=True)]
    return "\n".join(f"  {name:<{left}}" + "".join(f"  {cell!s:>{width}}" for cell in cells) for name, cells in rows)


def temperature_line(temperature: float, images: int) -> str:
    """Whether probabilities are calibrated: on how many pictures, and with what temperature."""
    if images < FEWEST:
        return f"probabilities are not calibrated: that takes {FEWEST} pictures, there were {images}"
    if temperature == 1:
        return f"probabilities need no temperature: cross-validated on {images:,} pictures, it makes none better"
    return f"probabilities are calibrated on {images:,} pictures (temperature {temperature:.2f})"


def calibration_line(calibration: Row) -> str:
    """The calibration of a run, after training; `calibration` is that of `summary.json`."""
    fitted_on = calibration["fitted_on"]
    line = temperature_line(calibration["temperature"], fitted_on["images"])
    if fitted_on["images"] < FEWEST:
        return f"{line} ({fitted_on['split']})"
    error = calibration.get("calibration_error")
    if error is None:
        return line
    before, after = error["without_temperature"], error["with_temperature"]
    compared = "" if calibration["temperature"] == 1 else f", without {before:.3f}"
    worse = ": here it is no better" if after > before else ""
    return f"{line}; on {calibration['measured_on']['split']} the calibration error is {after:.3f}{compared}{worse}"
