"""How far the numbers of a stage can be believed: what they were measured on, what chose on it, and what to expect on
new pictures.

Functions take the content of `summary.json`, in which keys are lacking that earlier versions did not write.
"""

from typing import NamedTuple

from tljax.data.layouts import join_names
from tljax.text import count_words
from tljax.training.calibration import accuracy_interval, is_uneven, least_accuracy
from tljax.training.unchosen import MANY, Unchosen
from tljax.trees import Row

# With fewer pictures a class, heads that have one less are worse by more than 0.02 (docs/numbers.md).
FEW_OF_A_CLASS = 5
# Pictures that are known to the source change an accuracy by their share at most.
FEW_KNOWN = 0.02


class Expected(NamedTuple):
    """The accuracy to expect on new pictures, with an interval of 95%; that of a solved head has no upper end."""

    accuracy: float
    low: float
    high: float | None

    def write(self, promise: str = "") -> str:
        """It in words, the interval after a `promise`."""
        ends = f"at least {self.low:.2f}" if self.high is None else f"{self.low:.2f} to {self.high:.2f}"
        return f"{self.accuracy:.2f} ({promise}{ends})"


def leave_copies_out(summary: Row) -> Row:
    """`summary` as it would be without the validation pictures that are in train too: they say nothing of new ones."""
    rest = summary.get("in_train")
    if rest is None:
        return summary
    data = summary.get("data", {})
    splits = data.get("splits", {})
    validation = splits.get("validation", {}) | {"images": rest["left"]}
    own = {name: rest[name] for name in ("accuracy", "unchosen", "worth") if name in rest}
    others = {name: value for name, value in summary.items() if name not in ("unchosen", "worth")}
    return others | own | {"data": {**data, "splits": {**splits, "validation": validation}}}


def expect_on_new(summary: Row) -> Expected | None:
    """The accuracy to expect on new pictures, by the pictures that count; None where nothing is known or, with many
    pictures, the accuracy itself says it."""
    summary = leave_copies_out(summary)
    held_out = (summary.get("solved") or {}).get("held_out")
    images = count_validation(summary)
    if "unchosen" in summary:
        return _expect_unchosen(summary)
    if held_out is not None and not summary.get("best_epoch") and find_doubts(summary, held_out).left_out_count:
        return Expected(held_out["accuracy"], _at_least(held_out), None)
    known = (summary.get("known_to_source") or {}).get("validation")
    if summary["accuracy"] is None or images is None or _worth(summary) >= MANY or has_chosen(summary) or known:
        return None
    return Expected(summary["accuracy"], *accuracy_interval(summary["accuracy"], _worth(summary)))


def _expect_unchosen(summary: Row) -> Expected:
    return Expected(*(summary["unchosen"][name] for name in Unchosen._fields))


def has_chosen(summary: Row) -> bool:
    """Whether validation pictures chose among epochs and a solved head."""
    return summary.get("best_epoch") is not None and summary["epochs"] + ("solved" in summary) > 1


def count_validation(summary: Row) -> int | None:
    """The number of validation pictures; None where there are none, or an earlier version did not say."""
    images: int | None = summary.get("data", {}).get("splits", {}).get("validation", {}).get("images")
    return images


def _worth(summary: Row) -> float:
    """How many pictures that have nothing to do with each other say as much as those of validation."""
    worth: float = summary.get("worth", {}).get("pictures", count_validation(summary) or 0)
    return worth


def is_left_out(summary: Row) -> bool:
    """Whether loss and accuracy are those of training pictures that were left out, as without validation pictures."""
    return "validation" not in summary.get("data", {}).get("splits", ("validation",))


class Doubts(NamedTuple):
    """Why validation pictures, or the training pictures that were left out, may say too much."""

    fewer: bool
    """There are fewer validation pictures, or groups of them, or none."""
    chose: bool
    """The validation pictures chose the epoch, and how much that says too much is not known."""
    validation_known: bool
    """The source had learned from them."""
    train_known: bool

    @property
    def left_out_count(self) -> bool:
        """Whether to go by the training pictures that were left out, and not by the validation pictures."""
        return not self.train_known and (self.fewer or self.chose or self.validation_known)


def find_doubts(summary: Row, held_out: Row) -> Doubts:
    """The doubts about a stage whose solved head was judged on `held_out` pictures."""
    there, out = count_validation(summary) or 0, held_out["pictures"]
    chose = summary.get("epochs", 0) > 0 and "unchosen" not in summary and there < MANY
    known = summary.get("known_to_source") or {}
    are_known = (known.get(name, 0) > FEW_KNOWN * n for name, n in (("validation", there), ("train", out)))
    fewer = (
        summary["worth"]["groups"] < held_out["groups"] if "worth" in summary and "groups" in held_out else there < out
    )
    return Doubts(fewer, chose, *are_known)


def has_few(summary: Row, held_out: Row) -> bool:
    """Whether so few pictures, or groups, of a class were judged that heads without one are worse."""
    few: bool = held_out["pictures"] < FEW_OF_A_CLASS * len(summary.get("class_names", ()))
    return few or held_out.get("of_a_class", FEW_OF_A_CLASS) < FEW_OF_A_CLASS


class Imbalance(NamedTuple):
    """What an accuracy on classes of different sizes is to be compared with."""

    balanced: float | None
    """The balanced accuracy; None if a run of an earlier version did not write it."""
    largest: str
    share: float
    """The largest class, and which part of the pictures are of it: as many are right where all are taken for it."""


def find_imbalance(summary: Row, split: str) -> Imbalance | None:
    """What to compare the accuracy on `split` with, test or else what the stage is measured on: validation or, without
    it, training pictures that were left out. None where its classes are of about the same size."""
    splits = summary.get("data", {}).get("splits", {})
    counts = splits.get(split if split in splits else "train", {}).get("classes")
    if not counts or not is_uneven(counts.values()):
        return None
    largest = max(counts, key=counts.__getitem__)
    measured = summary["test"] if split == "test" else summary
    return Imbalance(measured.get("balanced_accuracy"), largest, counts[largest] / sum(counts.values()))


def reservations(summary: Row) -> list[str]:
    """How far the accuracy of a stage can be believed, in lines."""
    doubt = _doubt(leave_copies_out(summary))
    return [
        *filter(None, (_in_train(summary, "validation"), _in_train(summary, "test"), doubt)),
        *expected_lines(leave_copies_out(summary)),
        *_known_lines(summary),
        *_unmapped_lines(summary),
    ]


class Copies(NamedTuple):
    """Pictures of a split that are in train too, and the accuracy on those that are not, None without any; with its
    interval of 95% where it is of few pictures that chose nothing."""

    pictures: int
    of: int
    accuracy: float
    """That on all of them."""
    rest: float | None
    interval: tuple[float, float] | None


def find_copies_of(summary: Row, split: str) -> Copies | None:
    """What a summary says of the pictures of `split`, validation or test, that are in train too; None if it says
    nothing."""
    measured = summary.get("test", {}) if split == "test" else summary
    found = measured.get("in_train")
    # Somebody may have edited the accuracy.
    if found is None or measured.get("accuracy") is None:
        return None
    interval = None
    if found["left"] and (split == "test" or not has_chosen(summary)):
        interval = few_interval(found["accuracy"], found.get("worth", {}).get("pictures", found["left"]))
    return Copies(
        found["pictures"], found["pictures"] + found["left"], measured["accuracy"], found["accuracy"], interval
    )


def few_interval(accuracy: float, pictures: float) -> tuple[float, float] | None:
    """The interval of 95% around the accuracy on pictures that chose nothing; None where they are many."""
    return accuracy_interval(accuracy, pictures) if 0 < pictures < MANY else None


def _in_train(summary: Row, split: str) -> str:
    """How accurate a stage is without the pictures that are in train too; empty where none are."""
    found = find_copies_of(summary, split)
    if found is None:
        return ""
    if found.rest is None:
        which = f"the one {split} picture is" if found.of == 1 else f"all {found.of:,} {split} pictures are"
        return f"{which} in train too, equal to the bit: none is left to say how good this is on new ones"
    be = "is" if found.pictures == 1 else "are"
    line = (
        f"{found.pictures:,} of the {found.of:,} {split} pictures {be} in train too, equal to the bit: accuracy "
        f"{found.accuracy:.4f} with them, {found.rest:.4f} without them"
    )
    # Another line says how far the accuracy on validation pictures can be believed.
    return f"{line} ({write_interval(found.interval)})" if split == "test" and found.interval else line


def write_interval(interval: tuple[float, float]) -> str:
    return f"95%: {interval[0]:.2f} to {interval[1]:.2f}"


def _doubt(summary: Row) -> str:
    """How far an accuracy on few validation pictures can be believed; empty where there are many or none.

    Where they have chosen among epochs, it is too high; runs of earlier versions do not know by how much.
    """
    images = count_validation(summary)
    if summary["accuracy"] is None or images is None or _worth(summary) >= MANY:
        return ""
    pictures = name_validation(summary, _of_groups(summary.get("worth")))
    if "unchosen" in summary:
        return (
            f"measured on the {pictures} that chose the epoch: on others expect about "
            f"{_expect_unchosen(summary).write('95%: ')}"
        )
    if has_chosen(summary):
        return (
            f"measured on the {pictures} that chose the epoch: the accuracy on them is too high, "
            "by how much is not known"
        )
    low, high = accuracy_interval(summary["accuracy"], _worth(summary))
    return f"measured on {pictures}, which chose nothing: {low:.2f} to {high:.2f} (95%)"


def name_validation(summary: Row, of: str = "") -> str:
    """The validation pictures that count, with their number."""
    return f"{count_validation(summary):,} validation pictures{of}{_not_in_train(summary)}"


def _not_in_train(summary: Row) -> str:
    """What tells validation pictures that count from others, if some do not."""
    return " not in train" * ("in_train" in summary)


def _of_groups(counted: Row | None) -> str:
    """How many groups pictures are of; empty where nothing says which belong together."""
    return f" of {count_words(counted['groups'], 'group')}" if counted and "groups" in counted else ""


def expected_lines(summary: Row) -> list[str]:
    """What is expected of the solved head of a run, what that is taken from, and whether to believe that or the
    validation pictures. Empty if none was solved."""
    solved = summary.get("solved")
    if not solved:
        return []
    held_out = solved.get("held_out")
    if held_out is None:
        nothing = "nothing says how good it is, and " * (summary["accuracy"] is None)
        one = "group" if "groups" in solved else "picture"
        return [f"one {one} a class, and none to leave out: {nothing}the penalty is the default"]
    lines, grouped = _held_out(held_out), "groups" in held_out
    if single := solved.get("single"):
        classes = "1 class has" if single == 1 else f"{single:,} classes have"
        one = "one group, whose pictures of it are not judged" if grouped else "one picture, which stays"
        lines.append(f"{classes} {one}: this says nothing about it")
    if solved.get("copies"):
        of = " in other groups" * grouped
        lines.append(f"{solved['copies']:,} of the pictures are copies of others{of}, which makes that too good")
    return [*lines, *_which_counts(summary, held_out)]


def _held_out(held_out: Row) -> list[str]:
    """What is expected of a solved head, and what that is taken from."""
    accuracy, pictures = held_out["accuracy"], held_out["pictures"]
    grouped = "groups" in held_out
    where = "" if grouped else "; less where pictures belong together, as those of one writer do"
    how = "each group left out together" if grouped else "each by a head that did not see it"
    lines = [
        f"expected on new pictures of the same kind and origin: accuracy {accuracy:.4f}, at least about "
        f"{_at_least(held_out):.2f} (95%){where}",
        f"judged on {pictures:,} training pictures{_of_groups(held_out)}, {how}",
    ]
    if "worst_class" in held_out:
        worst = held_out["worst_class"]
        lines[1] += (
            f": balanced accuracy {held_out['balanced_accuracy']:.4f}, worst class {worst['name']}: "
            f"{round(worst['accuracy'] * worst['pictures']):,} of {worst['pictures']:,} right"
        )
    return lines


def _at_least(held_out: Row) -> float:
    """What the accuracy is at least. Earlier versions had an interval instead, which did not hold."""
    return float(held_out.get("at_least", least_accuracy(held_out["accuracy"], held_out["pictures"])))


def _which_counts(summary: Row, held_out: Row) -> list[str]:
    """One sentence, where there are validation pictures too: those count who are new to the source, more, and chose
    nothing. The balanced accuracy is the one to go by where the classes of those that count are of different sizes."""
    there, out = count_validation(summary), held_out["pictures"]
    if there is None:
        return []
    if summary.get("best_epoch"):
        return [
            f"the expected accuracy is that of the solved head, not of epoch {summary['best_epoch']}, which is kept"
        ]
    doubts = find_doubts(summary, held_out)
    if doubts.validation_known and doubts.train_known:
        return ["which counts: neither, its source had learned from these pictures"]
    if not doubts.left_out_count:
        found = find_imbalance(summary, "validation")
        other = (
            "its source had learned from the others" if doubts.train_known else f"the expected accuracy is from {out:,}"
        )
        counts = f"what the {name_validation(summary)} say; {other}"
    else:
        found = find_imbalance(summary, "train") if "balanced_accuracy" in held_out else None
        why = (
            "the validation pictures chose the epoch"
            if doubts.chose
            else f"validation has {there:,}{_of_groups(summary.get('worth'))}{_not_in_train(summary)}"
        )
        why = "its source had learned from the validation pictures" if doubts.validation_known else why
        counts = f"the expected accuracy, from {out:,} pictures{_of_groups(held_out)}; {why}"
        if has_few(summary, held_out):
            counts += "; with so few of a class it is too low"
    balanced = "; the classes are of different sizes, so go by the balanced one" * (found is not None)
    return [f"which counts: {counts}{balanced}"]


def _known_lines(summary: Row) -> list[str]:
    """Which pictures that the accuracy was measured on the stage's source had learned from, a line for each split."""
    splits = summary.get("data", {}).get("splits", {})
    known = summary.get("known_to_source") or {}
    return [
        f"its source had learned from {count:,} of the {splits[name]['images']:,} {name} pictures: the accuracy there "
        "says too much"
        for name, count in known.items()
        if count and "images" in splits.get(name, {})
    ]


def _unmapped_lines(summary: Row) -> list[str]:
    unmapped = summary.get("unmapped_classes")
    if unmapped and summary["accuracy"] is None:
        return ["none of the classes has a counterpart in the source: there is no accuracy, and a loss means nothing"]
    return [f"classes without a counterpart in the source: {join_names(unmapped)}"] if unmapped else []
