"""What a network gets wrong: its confusions, each class, and pictures."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tljax.report.blocks import Block, Chart, Code, Gallery, Item, Matrix, Series, Sheet, Text
from tljax.report.choice import changed
from tljax.report.classes import (
    CHOSEN_THRESHOLD,
    ClassScore,
    Share,
    choose_threshold,
    most_confused,
    precision_recall_curve,
    score_classes,
    top_k_accuracy,
)
from tljax.report.shown import GROUPED_INTERVAL, IN_GALLERY, Shown, has_groups
from tljax.runs.predictions import Predictions
from tljax.text import count_words
from tljax.training.calibration import count_confusions

# A matrix has so many classes at most; from so many on, the accuracy among the five most probable labels is given.
MOST_IN_MATRIX, FEWEST_FOR_TOP = 40, 10
# How many confusions are listed, how many points a curve has, and how many of the most confused pairs are named.
MOST_PAIRS, MOST_POINTS, MOST_NAMED = 10, 400, 3
MAPS = "Beside a picture: red speaks for what was predicted, blue against it. The strongest place has the full color."
NO_MAPS = "There are no maps of what speaks for a prediction: the network ends in one position, or none were kept."


def describe_mistakes(shown: Shown, on_page: set[str]) -> list[Block]:
    """The confusion matrix of a stage or, with many classes, its most confused pairs; and what it makes of each class.
    `on_page` are the keys of the pictures that the page has."""
    found, names = shown.predictions, shown.names
    if found is None:
        return [Text([shown.lacking])]
    if shown.unpredicted:
        return [Text([shown.unpredicted])]
    blocks: list[Block] = [Text(_introduce(shown, found))]
    if len(names) <= MOST_IN_MATRIX:
        blocks.append(_make_matrix(shown, found, on_page))
    blocks += [*_list_pairs(found, names), *_chart_two_classes(found, names)]
    blocks.append(_list_classes(found, names, grouped=has_groups(shown)))
    return blocks


def _introduce(shown: Shown, found: Predictions) -> list[str]:
    right, count = int(found.right.sum()), len(found.ids)
    lines = [f"On {count_words(count, f'{shown.part} picture')}: {right:,} right, {count - right:,} wrong."]
    if count < shown.images:
        lines[0] += f" They are spread evenly over all {shown.images:,}; a file keeps no more."
    if none := int((found.predicted < 0).sum()):
        lines.append(f"{count_words(none, 'picture')} of these got no class, and are not in the matrix.")
    if len(shown.names) > MOST_IN_MATRIX:
        lines.append(f"With {len(shown.names):,} classes there is no matrix; these are the most frequent confusions.")
    if len(shown.names) >= FEWEST_FOR_TOP and (top := top_five(found, shown.names)) is not None:
        lines.append(f"The label is among the five most probable of {top:.2%} of the pictures (top-5 accuracy).")
    return lines


def top_five(found: Predictions, names: Sequence[str]) -> float | None:
    """The share of the pictures whose label is among the five most probable; None where other outputs are."""
    if not _names_classes(found, names):
        return None
    places = {name: i for i, name in enumerate(names)}
    ranked = [[places[name] for name, _ in best] + [-1] * (5 - len(best)) for best in found.top]
    return top_k_accuracy(found.labels, np.array(ranked), 5)


def _names_classes(found: Predictions, names: Sequence[str]) -> bool:
    """Whether the most probable outputs are classes: those of zero_shot are its source's."""
    known = set(names)
    return bool((found.predicted >= 0).all()) and all(name in known for best in found.top for name, _ in best)


def _make_matrix(shown: Shown, found: Predictions, on_page: set[str]) -> Matrix:
    known = found.predicted >= 0
    counts = count_confusions(found.labels[known], found.predicted[known], len(shown.names))
    pictures: dict[str, list[str]] = {}
    for (label, predicted), rows in (shown.chosen.cells if shown.chosen else {}).items():
        keys = [key for row in rows if (key := shown.key(int(row))) in on_page and key is not None]
        if keys and predicted >= 0:
            pictures[f"{label},{predicted}"] = keys
    return Matrix(shown.names, counts.tolist(), pictures, f"Confusion matrix of {shown.label}")


def _list_pairs(found: Predictions, names: Sequence[str]) -> list[Block]:
    pairs = most_confused(found.labels, found.predicted, len(names), MOST_PAIRS)
    if not pairs:
        return [Text(["No picture is taken for another class."], "good")]
    rows = [
        (f"{names[pair.true]} taken for {names[pair.taken_for]}", pair.pictures, f"{pair.share:.1%}") for pair in pairs
    ]
    sheet = Sheet(["the most frequent confusions", "pictures", "share of the class"], rows)
    return [Text([name_most_confused(found, names)]), sheet]


def name_most_confused(found: Predictions, names: Sequence[str]) -> str:
    """The two classes that are taken for each other most often, both ways together; several where they are as many."""
    wrong = (found.labels != found.predicted) & (found.predicted >= 0)
    pairs = np.sort(np.stack([found.labels[wrong], found.predicted[wrong]], axis=1), axis=1)
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    most = kinds[counts == counts.max()]
    some = [f"{names[i]} and {names[j]}" for i, j in most[:MOST_NAMED]]
    more = f" and {len(most) - MOST_NAMED:,} more pairs" if len(most) > MOST_NAMED else ""
    times = count_words(int(counts.max()), "time")
    each = " each" if len(most) > 1 else ""
    return f"Most confused, {times}{each}, both ways together: {', '.join(some)}{more}."


def _list_classes(found: Predictions, names: Sequence[str], *, grouped: bool) -> Block:
    scores = score_classes(found.labels, found.predicted, len(names))
    rows = [(name, *_describe_score(score)) for name, score in zip(names, scores, strict=True)]
    columns = ["class", "pictures", "times predicted", "precision", "recall", "F1"]
    caption = "Brackets have the interval of 95%, from five pictures on; a dash is 0 of 0."
    if grouped:
        caption += f" {GROUPED_INTERVAL}"
    return Sheet(columns, rows, caption)


def _describe_score(score: ClassScore) -> tuple[int | str, ...]:
    return (score.support, score.predicted, *map(_write_share, (score.precision, score.recall, score.f1)))


def _write_share(share: Share | None) -> str:
    if share is None:
        return "-"
    interval = "" if share.low is None or share.high is None else f" ({share.low:.2f} to {share.high:.2f})"
    return f"{share.value:.2f}{interval}"


def _chart_two_classes(found: Predictions, names: Sequence[str]) -> list[Block]:
    """For two classes the precision and recall of each, by the threshold from which on it is predicted."""
    if len(names) != 2 or not _names_classes(found, names) or not np.isfinite(found.confidence).all():
        return []
    return [block for positive in (1, 0) for block in _chart_class(found, names, positive)]


def _chart_class(found: Predictions, names: Sequence[str], positive: int) -> list[Block]:
    scores = np.array([dict(best).get(names[positive], 0.0) for best in found.top])
    curve = precision_recall_curve(scores, found.labels == positive)
    if curve is None:
        return [Text([f"No picture is of {names[positive]}: there is no recall."])]
    some = np.unique(np.linspace(0, len(curve.recall) - 1, MOST_POINTS).astype(int))
    points = [(float(curve.recall[i]), float(curve.precision[i])) for i in some]
    chosen = choose_threshold(curve)
    told = (
        f"Call a picture {names[positive]} from a probability of {chosen.value:g} on: precision "
        f"{chosen.precision:.3f}, recall {chosen.recall:.3f}, F1 {chosen.f1:.3f}, the best F1 here; {CHOSEN_THRESHOLD}."
    )
    title = f"Precision and recall of {names[positive]} (average precision {curve.average_precision:.3f})"
    series = [Series("precision", points, 0, "steps")]
    return [
        Chart(title, "recall", "precision", series, y_range=(0.0, 1.02)),
        Text([told]),
        Code([f"{chosen.value:g}"], f"threshold for {names[positive]}"),
    ]


def show_pictures(shown: Shown, on_page: set[str], maps: Mapping[int, str]) -> list[Block]:
    """The most confident mistakes of a stage, and the right ones of which it is least certain. `maps` are the keys of
    contribution maps by row."""
    found, chosen = shown.predictions, shown.chosen
    if found is None or chosen is None:
        return [Text([shown.lacking])]
    if shown.unpredicted:
        return [Text([shown.unpredicted])]
    mistakes = [_make_item(shown, int(row), on_page, maps) for row in chosen.mistakes]
    unsure = [_make_item(shown, int(row), on_page, maps) for row in chosen.unsure]
    wrong = int((~found.right).sum())
    blocks: list[Block] = [Text([shown.album.why], "warning")] if shown.album.why else []
    blocks.append(Text([MAPS if maps else NO_MAPS, *_say_temperature(shown)]))
    if mistakes:
        some = f"{len(mistakes)} of {wrong:,}" if len(mistakes) < wrong else f"all {wrong:,}"
        blocks.append(Gallery(f"The most confident mistakes: {some}", mistakes))
    else:
        blocks.append(Text(["No mistake on these pictures."], "good"))
    return [*blocks, Gallery("Right, and least certain", unsure)] if unsure else blocks


def _say_temperature(shown: Shown) -> list[str]:
    temperature = ((shown.record.summary or {}).get("calibration") or {}).get("temperature", 1)
    return [] if temperature == 1 else ["Probabilities are those before the temperature, which predict applies."]


def _make_item(shown: Shown, row: int, on_page: set[str], maps: Mapping[int, str]) -> Item:
    found = shown.predictions
    assert found is not None, "it has the row"
    key, right = shown.key(row), bool(found.right[row])
    label = "" if right else f", is {shown.names[found.labels[row]]}"
    next_ones = ", ".join(f"{name} {_percent(p)}" for name, p in found.top[row][1:3])
    lines = [f"next: {next_ones}"] if next_ones else []
    is_there = key in on_page
    return Item(
        [key if is_there else None, maps.get(row)],
        f"called {say(shown, row)}{label}",
        lines if is_there else [*lines, found.ids[row]],
        "good" if right else "warning",
    )


def say(shown: Shown, row: int) -> str:
    """What a stage says of a picture. zero_shot names the output of its source too."""
    found = shown.predictions
    assert found is not None, "it has the row"
    name, probability = found.top[row][0]
    label = shown.names[found.predicted[row]] if found.predicted[row] >= 0 else name
    guess = write_guess(name, probability)
    return guess if label == name else f"{label} ({name} {_percent(probability)})"


def write_guess(name: str, probability: float) -> str:
    """An output with its probability, which is NaN where the network gave none."""
    return f"{name} ({_percent(probability)})"


def _percent(probability: float) -> str:
    if not math.isfinite(probability):
        return "no probability"
    return ">99.9%" if 0.9995 <= probability < 1 else "<0.1%" if 0 < probability < 0.0005 else f"{probability:.1%}"


def find_turned(before: Shown, after: Shown) -> tuple[np.ndarray, np.ndarray] | None:
    """The rows that a later stage has right and the one before it wrong, and the other way round, at most so many of
    each as a gallery shows; None where they are not known on the same pictures."""
    first, second = before.predictions, after.predictions
    if first is None or second is None or before.part != after.part or first.ids != second.ids:
        return None
    return changed(first.right, second.right)


def show_turned(before: Shown, after: Shown, on_page: set[str]) -> list[Block]:
    """Pictures that a later stage fixed, and those that it broke."""
    turned = find_turned(before, after)
    if turned is None:
        return []
    if not any(map(len, turned)):
        return [Text([f"{after.label} corrected no mistake of {before.label}'s, and made no new one."])]
    counts = [count_words(len(rows), "picture") for rows in turned]
    titles = (
        f"{after.label} corrected {counts[0]} that {before.label} had wrong",
        f"{after.label} has {counts[1]} wrong that {before.label} had right",
    )
    return [_show_turned(before, after, *pair, on_page) for pair in zip(titles, turned, strict=True)]


def _show_turned(before: Shown, after: Shown, title: str, rows: np.ndarray, on_page: set[str]) -> Block:
    items = [_make_turn(before, after, int(row), on_page) for row in rows[:IN_GALLERY]]
    some = f"; {len(items)} of them" if len(items) < len(rows) else ""
    return Gallery(f"{title}{some}", items) if items else Text([f"{title}."])


def _make_turn(before: Shown, after: Shown, row: int, on_page: set[str]) -> Item:
    found, key = after.predictions, after.key(row)
    assert found is not None, "it has the row"
    lines = [f"is {after.names[found.labels[row]]}", f"{before.label}: {say(before, row)}"]
    is_there = key in on_page
    return Item(
        [key if is_there else None],
        f"{after.label}: {say(after, row)}",
        lines if is_there else [*lines, found.ids[row]],
        "good" if found.right[row] else "warning",
    )
