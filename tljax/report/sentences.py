"""A stage in one sentence, for a reader who knows no statistics."""

import math
from collections.abc import Callable
from typing import TypeGuard

from tljax.report.belief import (
    Expected,
    count_validation,
    expect_on_new,
    find_copies_of,
    find_imbalance,
    has_chosen,
    has_few,
    is_left_out,
    leave_copies_out,
    name_validation,
)
from tljax.text import count_words, printable
from tljax.training.unchosen import MANY
from tljax.trees import Row


def plain_sentence(name: str, summary: Row) -> str:
    """What the stage `name` trained, on how many labels, how good it is, how sure that is, and on which pictures.
    `summary` is the content of its `summary.json`, in which keys are lacking that earlier versions did not write."""
    return printable(f"{name} {_what_trained(summary)}{_what_chose(summary)}: {_how_good(summary)}.")


def _what_trained(summary: Row) -> str:
    if summary["stage"] == "zero_shot":
        return "trained nothing"
    solved = summary.get("solved") is not None and not summary.get("epochs")
    return f"trained {_units(summary)}{' in one step' * solved}{_labels(summary)}"


def _units(summary: Row) -> str:
    """Which part of the network trained, with how many parameters. Earlier versions did not write the cut."""
    cut, params = summary.get("cut"), summary["params"]
    if summary["stage"] == "from_scratch" or cut == "conv1":
        return f"the whole network ({_millions(params['trainable'])} parameters)"
    parameters = f"{_part(params)} parameters"
    if cut is None:
        return parameters
    return f"the head ({parameters})" if cut == "head" else f"{cut} to head ({parameters})"


def _part(params: Row) -> str:
    """How many parameters train, and of how many if that is known, such as `3.8 of 5.2 million`."""
    trained = _millions(params["trainable"])
    if "total" not in params:
        return trained
    return f"{trained.removesuffix(' million')} of {_millions(params['total'])}"


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f} million" if number >= 1e6 else f"{number:,}"


def _labels(summary: Row) -> str:
    train = summary.get("data", {}).get("splits", {}).get("train", {})
    number = summary.get("labels", {}).get("train", train.get("images"))
    if not number:
        return ""
    one_each = number > 1 and set((train.get("classes") or {}).values()) == {1}
    return f" on {count_words(number, 'labelled picture')}{', one of each class' * one_each}"


def _what_chose(summary: Row) -> str:
    if not has_chosen(summary):
        return ""
    there = count_validation(summary)
    return f" and chose its epoch on {'validation pictures' if there is None else f'{there:,} others'}"


def _how_good(summary: Row) -> str:
    split = _find_split(summary)
    if not split:
        return _why_nothing(summary)
    on_new, doubts = _on_new(summary, split), [doubt(summary, split) for doubt in DOUBTS]
    if split == "test":
        said = [_count_right(summary, split), *doubts, on_new]
    else:
        said = [on_new or _count_right(summary, split), *doubts]
    return "; ".join(filter(None, said))


def _on_new(summary: Row, split: str) -> str:
    """What to expect on new pictures, and like which; empty where the table does not say it."""
    expected = expect_on_new(summary)
    if expected is None:
        return ""
    if expected.high is None:
        groups = "groups" in (summary["solved"].get("held_out") or {})
        judged = f"judging each of these by a head that did not see {'its group' if groups else 'it'}"
        return f"of new pictures like its training pictures expect {_write(expected)}, {judged}"
    there = _count(summary, "validation")
    like = "the validation pictures" if there is None else f"the {there:,} validation pictures"
    if "in_train" in summary:
        like = f"the {name_validation(leave_copies_out(summary))}"
    elif has_chosen(summary) and split != "test":
        like = "these"
    return f"of new pictures like {like} expect {_write(expected)}"


def _find_split(summary: Row) -> str:
    """Whose pictures say how good the stage is: test, validation, or train where those count that were left out. Empty
    where none do."""
    if _is_share(summary.get("test", {}).get("accuracy")):
        return "test"
    if not _is_share(summary["accuracy"]) or _is_diverged(summary):
        return ""
    expected = expect_on_new(summary)
    return "train" if is_left_out(summary) or (expected and expected.high is None) else "validation"


def _is_share(value: float | None) -> TypeGuard[float]:
    return value is not None and 0 <= value <= 1


def _is_diverged(summary: Row) -> bool:
    return summary["loss"] is not None and not math.isfinite(summary["loss"])


def _why_nothing(summary: Row) -> str:
    nothing = "nothing says how good it is"
    if summary.get("unmapped_classes"):
        return f"none of the classes has a counterpart in its source, so {nothing}"
    if _is_diverged(summary):
        return f"its loss is no number, so {nothing}"
    return f"there were no pictures to judge it by, so {nothing}" if is_left_out(summary) else nothing


def _write(expected: Expected) -> str:
    """What to expect, in whole percents, as the table has it, unless that would be 100 for all of them."""
    digits = int(expected.low >= 0.99)
    value, low = _percent(expected.accuracy, digits), f"{expected.low:.{digits}%}"
    if expected.high is None:
        return f"about {value} right, at least about {low}"
    return f"{value} right, between {low} and {expected.high:.{digits}%}"


def _percent(share: float, digits: int) -> str:
    """A share in percent; 100 and 0 are those of all and of none alone."""
    text, least = f"{share:.{digits}%}", 10.0**-digits
    if share < 1 and float(text[:-1]) == 100:
        return f"more than {100 - least:.{digits}f}%"
    return f"less than {least:.{digits}f}%" if share > 0 and float(text[:-1]) == 0 else text


def _count_right(summary: Row, split: str) -> str:
    """Which share of the pictures of a split is right, where that is all that is known."""
    measured = summary["test"] if split == "test" else summary
    number = _count(summary, split)
    share = _percent(measured["accuracy"], 1 if number and number >= MANY else 0)
    pictures = {"train": "training pictures, each left out once"}.get(split, f"{split} pictures")
    return f"of {'the' if number is None else f'{number:,}'} {pictures}, {share} are right"


def _count(summary: Row, split: str) -> int | None:
    """The number of pictures that say how good the stage is, if it is known."""
    held_out = (summary.get("solved") or {}).get("held_out")
    if split == "train":
        return held_out["pictures"] if held_out else None
    found: int | None = summary.get("data", {}).get("splits", {}).get(split, {}).get("images")
    return summary.get("images") if found is None and split == "validation" else found


def _unmapped(summary: Row, split: str) -> str:
    missing, classes = len(summary.get("unmapped_classes", ())), len(summary.get("class_names", ()))
    return f"{missing:,} of the {classes:,} classes have no counterpart in its source" if missing else ""


def _uneven(summary: Row, split: str) -> str:
    """What the accuracy is to be compared with where the classes are of different sizes."""
    found = find_imbalance(summary, split)
    if found is None:
        return ""
    held_out = (summary.get("solved") or {}).get("held_out") or {}
    balanced = held_out.get("balanced_accuracy") if split == "train" else found.balanced
    mean = f", and the mean over the classes is {_percent(balanced, 0)}" if _is_share(balanced) else ""
    return f"the classes are of different sizes: always saying {found.largest} has {_percent(found.share, 0)}{mean}"


def _chosen(summary: Row, split: str) -> str:
    summary = leave_copies_out(summary)
    few = (count_validation(summary) or 0) < MANY
    if split != "validation" or not has_chosen(summary) or "unchosen" in summary or not few:
        return ""
    return "these pictures chose its epoch, so that is too high, by how much is not known"


def _known(summary: Row, split: str) -> str:
    known = (summary.get("known_to_source") or {}).get(split)
    name = "training" if split == "train" else split
    return f"its source had learned from {known:,} of the {name} pictures, so that is too high" if known else ""


def _in_train(summary: Row, split: str) -> str:
    found = None if split == "train" else find_copies_of(summary, split)
    if found is None:
        return ""
    if found.rest is None:
        return "all of them are in train too, so that says nothing of new ones"
    some = f"{found.pictures:,} of the {split} pictures {'is' if found.pictures == 1 else 'are'} in train too"
    return f"{some}, and of the others {_percent(found.rest, 0)} are right"


def _few_of_a_class(summary: Row, split: str) -> str:
    held_out = (summary.get("solved") or {}).get("held_out")
    few = held_out is not None and has_few(summary, held_out)
    return "with so few of a class that is too low" if split == "train" and few else ""


def _copies(summary: Row, split: str) -> str:
    copies = (summary.get("solved") or {}).get("copies")
    return f"{copies:,} of them are copies of others, so that is too high" if split == "train" and copies else ""


# What makes the number for the pictures of a split say less, each in words; empty where it does not.
DOUBTS: tuple[Callable[[Row, str], str], ...] = (
    _unmapped,
    _uneven,
    _chosen,
    _in_train,
    _known,
    _few_of_a_class,
    _copies,
)
