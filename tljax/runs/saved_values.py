"""What the meta of checkpoints and `summary.json` may hold: a value that no run has written is named before anything is
built from it.

Somebody may have edited them, with the digests to match.
"""

import math
import re
import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

from tljax.config import STAGES, WIDEST, is_number
from tljax.data.decoding import MOST_PIXELS, Fit
from tljax.data.preprocessing import Preprocessing
from tljax.networks.architectures import VARIANTS, Architecture
from tljax.training.progress import EarlyStopper, judged_from_json
from tljax.training.unchosen import Judged, Unchosen
from tljax.trees import Row


class Rule(NamedTuple):
    """What a value must be: a test, and the same in words."""

    holds: Callable[[Any], bool]
    wanted: str


# The largest whole number that a run writes: JSON may hold some that no float holds.
LARGEST_WHOLE = 2**63 - 1


def is_finite(value: Any) -> bool:
    """Whether `value` is a number that a run may have computed, and finite."""
    return is_number(value, -LARGEST_WHOLE, LARGEST_WHOLE) or (isinstance(value, float) and math.isfinite(value))


def is_measured(value: Any) -> bool:
    """Whether `value` is a number that a run may have computed: infinity and NaN are some too."""
    return isinstance(value, float) or is_finite(value)


def is_whole(value: Any, low: int = 0, high: float = LARGEST_WHOLE) -> bool:
    return isinstance(value, int) and is_number(value, low, high)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def all_are(kind: Callable[[Any], bool], values: Any) -> bool:
    """Whether `values` is a list of what `kind` accepts, or a dict with such values by name."""
    found = list(values.values()) if isinstance(values, dict) else values
    return isinstance(found, list) and all(map(kind, found))


def _either(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """`kind`, or None."""
    return lambda value: value is None or kind(value)


def _whole(low: int, high: float = LARGEST_WHOLE) -> Rule:
    upper = "" if high == LARGEST_WHOLE else f", at most {high:,.0f}"
    return Rule(lambda value: is_whole(value, low, high), f"must be a whole number, at least {low}{upper}")


def _number(low: float, high: float) -> Rule:
    return Rule(lambda value: is_number(value, low, high), f"must be a number from {low:g} to {high:g}")


def _one_of(choices: Collection[str]) -> Rule:
    return Rule(lambda value: is_text(value) and value in choices, f"must be one of {', '.join(choices)}")


def _three(low: float, high: float) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(is_number(x, low, high) for x in value)

    return Rule(holds, f"must be three numbers from {low:g} to {high:g}")


def _list(kind: Callable[[Any], bool], wanted: str) -> Rule:
    return Rule(lambda value: isinstance(value, list) and all_are(kind, value), wanted)


def _dict(kind: Callable[[Any], bool] = lambda _: True, wanted: str = "must be a dict") -> Rule:
    return Rule(lambda value: isinstance(value, dict) and all_are(kind, value), wanted)


def _is_epoch(row: Any) -> bool:
    """Whether `row` has the metrics of an epoch or of a solved head."""
    if not isinstance(row, dict):
        return False
    measured = [row.get(name, "") for name in ("loss", "accuracy", "val_loss", "val_accuracy")]
    solved = row.get("solved", {})
    optional = [row.get(name) for name in ("learning_rate", "images_per_second")]
    numbers = all(map(_either(is_measured), [*measured, *optional]))
    held_out = isinstance(solved, dict) and _is_held_out(solved.get("held_out"))
    return numbers and held_out and is_text(row.get("stage")) and is_whole(row.get("epoch"))


def _is_held_out(value: Any) -> bool:
    """Whether `value` is what a solved head expects on new pictures, or None. Earlier versions wrote less of it."""
    if not isinstance(value, dict):
        return value is None
    numbers = [value.get("accuracy"), *(value[name] for name in ("at_least", "balanced_accuracy") if name in value)]
    return (
        all(is_number(number, 0, 1) for number in numbers)
        and is_whole(value.get("pictures"), 1)
        and is_whole(value.get("groups", 1), 1)
        and is_number(value.get("of_a_class", 1.0), 1)
        and _either(is_measured)(value.get("loss"))
        and ("worst_class" not in value or ("balanced_accuracy" in value and _is_worst_class(value["worst_class"])))
    )


def _is_worst_class(value: Any) -> bool:
    """Whether `value` names a class of those that were left out, with its accuracy and the number of its pictures."""
    return (
        isinstance(value, dict)
        and is_text(value.get("name"))
        and is_number(value.get("accuracy"), 0, 1)
        and is_whole(value.get("pictures"), 1)
    )


def _is_split(value: Any) -> bool:
    """Whether `value` is what a summary says about a split. Earlier versions did not count its classes."""
    if not isinstance(value, dict) or not is_whole(value.get("images", 0)) or not is_text(value.get("of", "")):
        return False
    classes = value.get("classes")
    return classes is None or (isinstance(classes, dict) and all_are(is_whole, classes))


def _is_in_train(value: Any) -> bool:
    """Whether `value` says how many pictures are in train too, and the accuracy on the others."""
    if not isinstance(value, dict) or not is_whole(value.get("pictures"), 1) or not is_whole(value.get("left")):
        return False
    worth = value.get("worth", {"groups": 1, "pictures": 1})
    return (
        (is_number(value.get("accuracy"), 0, 1) if value["left"] else value.get("accuracy", "") is None)
        and isinstance(worth, dict)
        and is_whole(worth.get("groups"), 1)
        and is_number(worth.get("pictures"), 0)
        and worth["pictures"] > 0
        and ("unchosen" not in value or _is_unchosen(value["unchosen"]))
    )


def _is_begun(value: Any) -> bool:
    """Whether `value` is the JSON of a `PartialEpoch`."""
    if not isinstance(value, dict) or not is_whole(value.get("steps")) or not is_measured(value.get("seconds")):
        return False
    sums = value.get("sums")
    return (
        isinstance(sums, list)
        and len(sums) == 3
        and all(all_are(is_measured, part) and len(part) == value["steps"] for part in sums)
    )


def _is_stopper(value: Any) -> bool:
    """Whether `value` is the JSON of an `EarlyStopper`."""
    return (
        isinstance(value, dict)
        and value.keys() == set(EarlyStopper._fields)
        and is_measured(value["best"])
        and is_whole(value["best_epoch"])
        and is_whole(value["wait"])
        and isinstance(value["stopped"], bool)
    )


def _is_judged(value: Any) -> bool:
    """Whether `value` is the JSON of what an epoch makes of the validation pictures."""
    if not isinstance(value, dict) or value.keys() != set(Judged._fields) or not all_are(is_text, value):
        return False
    try:
        return len(judged_from_json(value).right) > 0
    except ValueError:
        return False


def _is_calibration(value: Any) -> bool:
    """Whether `value` has what is shown of a calibration. Without other pictures, there is no calibration error.
    Earlier versions wrote neither bins nor sizes of sets."""
    if not isinstance(value, dict) or not is_finite(value.get("temperature")):
        return False
    error = value.get("calibration_error", {"with_temperature": 0.0, "without_temperature": 0.0})
    return (
        all(is_text(_find(value, f"{name}.split")) for name in ("fitted_on", "measured_on"))
        and is_whole(_find(value, "fitted_on.images"))
        and is_whole(value["measured_on"].get("images", 0))
        and isinstance(error, dict)
        and all(is_finite(error.get(name)) for name in ("with_temperature", "without_temperature"))
        and _are_bins(value.get("bins", {"with_temperature": [], "without_temperature": []}))
        and isinstance(value.get("coverage", {}), dict)
        and all_are(_is_coverage, value.get("coverage", {}))
        and all(map(_is_promise, value.get("coverage", {})))
    )


def _are_bins(value: Any) -> bool:
    """Whether `value` has the bins of a calibration error, with and without a temperature."""

    def is_bin(row: Any) -> bool:
        if not isinstance(row, list) or len(row) != 3:
            return False
        return is_whole(row[0], 1) and all(is_number(share, 0, 1) for share in row[1:])

    named = [value.get(name) for name in ("with_temperature", "without_temperature")] if isinstance(value, dict) else []
    return len(named) == 2 and all(isinstance(rows, list) and all_are(is_bin, rows) for rows in named)


def _is_coverage(value: Any) -> bool:
    """Whether `value` says how often sets of labels have the right one, and how large they are."""
    if not isinstance(value, dict) or not is_number(value.get("covered"), 0, 1) or not is_finite(value.get("labels")):
        return False
    sizes = value.get("sizes", [])
    return isinstance(sizes, list) and all_are(is_whole, sizes)


def _is_promise(name: str) -> bool:
    """Whether a coverage is promised by this `name`, such as 0.9."""
    return re.fullmatch(r"0?\.\d{1,9}", name) is not None


def _is_unchosen(value: Any) -> bool:
    """Whether `value` is the JSON of an `Unchosen`."""
    return (
        isinstance(value, dict)
        and value.keys() == set(Unchosen._fields)
        and all(is_number(number, 0, 1) for number in value.values())
    )


# The most blocks, features and outputs of a network that is read: ResNet152 has 50, 2,048 and 1,000.
MOST_BLOCKS, MOST_FEATURES, MOST_OUTPUTS = 1000, 2**17, 10**6
# The meta of a checkpoint. A key with dots lies in dicts.
META_RULES: dict[str, Rule] = {
    "network": _dict(),
    "network.num_classes": _whole(1, MOST_OUTPUTS),
    "network.variant": _one_of(VARIANTS),
    "network.stage_sizes": Rule(
        lambda sizes: isinstance(sizes, list) and all(is_whole(n, 1) for n in sizes) and sum(sizes) <= MOST_BLOCKS,
        f"must be numbers of blocks, at most {MOST_BLOCKS:,} together",
    ),
    "network.width": _whole(1, MOST_FEATURES),
    "network.hidden": _list(lambda size: is_whole(size, 1, WIDEST), f"must be sizes from 1 to {WIDEST:,}"),
    "cut": Rule(is_text, "must be the name of a unit"),
    "preprocessing": _dict(),
    "preprocessing.channels": _one_of(("rgb", "bgr")),
    "preprocessing.scale": _number(1e-6, 1e6),
    "preprocessing.mean": _three(-1e6, 1e6),
    "preprocessing.std": _three(1e-6, 1e6),
    "image_size": _whole(1, int(MOST_PIXELS**0.5)),
    "fit": _one_of(get_args(Fit)),
    "class_names": _list(is_text, "must be the names of the classes"),
    "data": _dict(lambda split: isinstance(split, list) and len(split) == 2 and all_are(is_whole, split),
                  "must be two numbers for each split"),
    "content": Rule(_either(lambda splits: isinstance(splits, dict) and all_are(is_text, splits)),
                    "must be a digest for each split"),
    "read_anew": _dict(lambda count: is_whole(count, 1), "must be a number of pictures for each split"),
    "views_used": Rule(lambda value: value is None or isinstance(value, bool), "must be true or false"),
    "best": _whole(0),
    "digest": _dict(is_text, "must be a text for each array"),
    "history": _list(_is_epoch, "must be the metrics of epochs"),
    "stopper": Rule(_is_stopper, "must be the state of early stopping"),
    "begun": Rule(_is_begun, "must be the sums of the steps of an epoch"),
    "judged": _list(_is_judged, "must be losses and right predictions of pictures"),
    "spread": Rule(lambda value: isinstance(value, bool), "must be true or false"),
}  # fmt: skip
NETWORK_KEYS = ("network", "network.num_classes", "network.variant", "network.stage_sizes", "network.width", "cut")
# What every reader of a checkpoint needs, who takes it as weights, and who goes on from it.
READ_KEYS = (*NETWORK_KEYS, "best", "digest")
WEIGHTS_KEYS = (
    "preprocessing", *(f"preprocessing.{name}" for name in Preprocessing._fields),
    "image_size", "fit", "class_names", "history",
)  # fmt: skip
PROGRESS_KEYS = ("history", "stopper", "begun")

_CLASS_ACCURACY = _dict(_either(lambda value: is_number(value, 0, 1)), "must be a number from 0 to 1 for each class")
SUMMARY_RULES: dict[str, Rule] = {
    "stage": _one_of(STAGES),
    "loss": Rule(_either(is_measured), "must be a number"),
    "accuracy": Rule(_either(lambda value: is_number(value, 0, 1)), "must be a number from 0 to 1"),
    "seconds": Rule(is_finite, "must be a number"),
    "best_epoch": _whole(0),
    "epochs": _whole(0),
    "cut": Rule(is_text, "must be the name of a unit"),
    "params": _dict(),
    "params.trainable": _whole(0),
    "params.total": _whole(0),
    "params.non_trainable": _whole(0),
    "frozen_leaves_unchanged": Rule(_either(is_whole), "must be a number of arrays"),
    "labels": _dict(is_whole, "must be a whole number for each split"),
    "test": _dict(),
    "test.loss": Rule(_either(is_measured), "must be a number"),
    "test.accuracy": Rule(_either(is_measured), "must be a number"),
    "balanced_accuracy": Rule(_either(is_measured), "must be a number"),
    "test.balanced_accuracy": Rule(_either(is_measured), "must be a number"),
    "worth": _dict(),
    "worth.groups": _whole(1),
    "worth.pictures": Rule(lambda value: is_number(value, 0) and value > 0, "must be a number above 0"),
    "class_names": _list(is_text, "must be the names of the classes"),
    "class_accuracy": _CLASS_ACCURACY,
    "test.class_accuracy": _CLASS_ACCURACY,
    "calibration": Rule(_is_calibration, "must be a temperature, with the pictures that it is fitted on"),
    "unmapped_classes": _list(is_text, "must be names of classes"),
    "unmapped_mass": Rule(is_finite, "must be a number"),
    "solved": _dict(),
    "solved.single": _whole(0),
    "solved.copies": _whole(0),
    "solved.groups": _whole(1),
    "solved.held_out": Rule(_is_held_out, "must be what is expected on new pictures"),
    "unchosen": Rule(_is_unchosen, "must be an accuracy and its interval"),
    "in_train": Rule(_is_in_train, "must be a number of pictures, and the accuracy on the others"),
    "test.in_train": Rule(_is_in_train, "must be a number of pictures, and the accuracy on the others"),
    "data": _dict(),
    "data.name": Rule(is_text, "must be the name of a data set"),
    "data.image_size": _whole(1),
    "data.left_out": _dict(is_whole, "must be a number of files for each reason"),
    "data.notes": _list(is_text, "must be texts"),
    "data.warnings": _list(is_text, "must be texts"),
    "data.splits": _dict(
        _is_split, "must be a dict for each split, with its number of pictures and those of its classes"
    ),
    "data.splits.validation.images": _whole(1),
    "known_to_source": Rule(
        _either(lambda counts: isinstance(counts, dict) and all_are(is_whole, counts)),
        "must be a whole number for each split",
    ),
}

# A row of `environment.jsonl`.
ENVIRONMENT_RULES: dict[str, Rule] = {
    "command": _list(is_text, "must be the words of a command"),
    "versions": _dict(is_text, "must be the version of each package"),
}


def _is_head(value: Any) -> bool:
    """Whether `value` is what a probe says of the solved head at a unit."""
    if not isinstance(value, dict) or not is_text(value.get("unit")):
        return False
    shares = [value.get(name) for name in ("expected", "accuracy")]
    return all(map(_either(lambda share: is_number(share, 0, 1)), shares)) and _either(
        lambda seconds: is_number(seconds, 0)
    )(value.get("seconds"))


# What a learning curve says of each number of labels.
POINT = ("labels", "accuracy", "low", "high")


def _is_growth(value: Any) -> bool:
    """Whether `value` is the JSON of a learning curve, or None."""
    if not isinstance(value, dict):
        return value is None
    points, classes = [value.get(name) for name in ("measured", "fitted")], value.get("classes")
    are_points = partial(_are_numbers, names=POINT)
    return (
        value.keys() == {"measured", "fitted", "twice", "without", "classes"}
        and all(isinstance(each, list) and all_are(are_points, each) for each in points)
        and bool(value["measured"])
        and _either(partial(_are_numbers, names=("value", "low", "high")))(value["twice"])
        and value["without"] in ("", "few", "flat", "bad")
        and isinstance(classes, list)
        and all_are(partial(_are_numbers, names=("label", "half", "all", "pictures", "low")), classes)
    )


def _is_tuned(value: Any) -> bool:
    """Whether `value` is the JSON of accuracies by labels of a fine-tuning, or None."""
    if not isinstance(value, dict):
        return value is None
    points = value.get("points")
    right = value.keys() == {"name", "points"} and is_text(value["name"]) and isinstance(points, list) and bool(points)
    return right and all_are(partial(_are_numbers, names=POINT), points)


def _are_numbers(value: Any, names: Collection[str]) -> bool:
    """Whether `value` has numbers by these names, and nothing else."""
    right = isinstance(value, dict) and value.keys() == set(names)
    return right and all(isinstance(number, bool) or is_finite(number) for number in value.values())


PROBE_RULES: dict[str, Rule] = {
    "place": Rule(is_text, "must be the name of a unit"),
    "heads": _list(_is_head, "must be a row for each unit"),
    "pictures": _whole(1),
    "growth": Rule(_is_growth, "must be a learning curve"),
}
# `how_deep.json`, and what the recipe of a study has besides that of others.
ANSWER_RULES: dict[str, Rule] = {
    "chosen": Rule(is_text, "must be the name of a stage"),
    "said": _list(is_text, "must be texts"),
    "command": Rule(is_text, "must be a command"),
    **PROBE_RULES,
}
# Studies that ended before do not have it.
LATER_ANSWER_RULES = {"tuned_by_labels": Rule(_is_tuned, "must be a fine-tuning with its accuracies by labels")}
PLAN_RULES: dict[str, Rule] = {
    "study.seconds": Rule(is_finite, "must be a number"),
    **{f"study.{name}": rule for name, rule in PROBE_RULES.items()},
}
RECIPE_RULES: dict[str, Rule] = {"reasons": _list(is_text, "must be texts")}


def check_values(values: Any, rules: Mapping[str, Rule], needed: Collection[str]) -> None:
    """Checks JSON that was read.

    Raises:
      ValueError: with the key and its value, for a value against the rule of its key, or if a key of `needed` is not
        there.
    """
    if not isinstance(values, dict):
        raise ValueError(f"it is {reprlib.repr(values)}, and no dict")
    for key, rule in rules.items():
        found = _find(values, key)
        if found is _find and key in needed:
            raise ValueError(f"it has no {key!r}")
        if found is not _find and not rule.holds(found):
            raise ValueError(f"{key}={reprlib.repr(found)} {rule.wanted}")


def _find(values: Any, key: str) -> Any:
    """The value at a key with dots; this function if there is none, which no JSON holds."""
    for name in key.split("."):
        if not isinstance(values, dict) or name not in values:
            return _find
        values = values[name]
    return values


def check_meta(meta: Any, needed: Collection[str] = READ_KEYS) -> None:
    """Checks the meta of a checkpoint: `check_values`, and that its parts describe one network.

    Raises:
      ValueError: with the key and its value.
    """
    check_values(meta, META_RULES, needed)
    network = meta["network"]
    architecture = Architecture(tuple(network["stage_sizes"]), network["width"])
    if len(architecture.stage_sizes) > 20 or architecture.features > MOST_FEATURES:
        sizes = reprlib.repr(network["stage_sizes"])
        raise ValueError(
            f"network.stage_sizes={sizes} and network.width={network['width']} are more than {MOST_FEATURES:,} features"
        )
    units = architecture.units
    if meta["cut"] not in units:
        raise ValueError(f"cut={meta['cut']!r:.80} must be one of its units, {units[0]} ... {', '.join(units[-2:])}")
    if "class_names" in meta and len(meta["class_names"]) != network["num_classes"]:
        names = len(meta["class_names"])
        raise ValueError(f"network.num_classes={network['num_classes']}, but there are {names} class_names")
    _check_digests(meta["digest"], network, units)


def check_kept(meta: Any, needed: Collection[str], run: Path) -> None:
    """Checks that the meta of a checkpoint of the folder `run` has all that is `needed`.

    Raises:
      ValueError: with the folder, the key and its value.
    """
    try:
        check_meta(meta, (*READ_KEYS, *needed))
    except ValueError as error:
        raise ValueError(f"{run}: the meta of its checkpoint was edited: {error}; run that again") from error


def _check_digests(digests: Mapping[str, str], network: Mapping[str, Any], units: tuple[str, ...]) -> None:
    """Raises ValueError unless the digests are of a network with these `units`."""
    paths = [path.split("/") for path in digests if path.split("/")[0] in ("params", "batch_stats")]
    found = {path[1] for path in paths if len(path) > 2}
    if found != set(units):
        sizes = reprlib.repr(network["stage_sizes"])
        raise ValueError(
            f"network.stage_sizes={sizes} has the units {reprlib.repr(units)}, its digest those of "
            f"{reprlib.repr(sorted(found))}"
        )
    layers = {path[2] for path in paths if path[:2] == ["params", "head"] and path[2].startswith("hidden_")}
    if len(layers) != len(network.get("hidden", ())):
        raise ValueError(
            f"network.hidden={reprlib.repr(network.get('hidden', []))}, its arrays are of {len(layers)} hidden layers"
        )


def check_summary(summary: Any, *, in_lesson: bool) -> None:
    """Checks the content of `summary.json`; `in_lesson` if it is to be a row of a lesson's table.

    Raises:
      ValueError: with the key and its value.
    """
    trained = isinstance(summary, dict) and "best_epoch" in summary
    more = (*["epochs"] * trained, *["params", "params.trainable"] * in_lesson)
    check_values(summary, SUMMARY_RULES, ("stage", "loss", "accuracy", "seconds", *more))


def are_epochs(rows: Sequence[Row]) -> bool:
    """Whether these are rows of `metrics.jsonl`."""
    return all(map(_is_epoch, rows))
