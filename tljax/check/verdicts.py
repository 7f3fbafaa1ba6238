"""The table of a check: a line for each kind of finding, the worst first, with its number and what to do."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tljax.check.cards import part_twins
from tljax.check.findings import Finding
from tljax.check.result import Result, Shortcut, Verdict
from tljax.check.twins import Named
from tljax.data.layouts import join_names
from tljax.text import count_words, printable

# So many names are told in a line.
NAMED = 3


class VerdictKind(NamedTuple):
    """What a kind of finding is called in the table, what it means and what to do about it, where the verdict does not
    say that itself."""

    title: str
    means: str = ""
    do: str = ""


# The kinds of findings, the worst first.
VERDICT_KINDS: dict[str, VerdictKind] = {
    "leak": VerdictKind("leaks", "a twin is in another split: accuracy on these is too high", "drop them"),
    "group_leak": VerdictKind("split groups", "", "give whole groups to one split"),
    "contradiction": VerdictKind("contradictions", "a twin has another class", "give both one class, or drop them"),
    "broken": VerdictKind("broken", "no run can read them", "replace, remove or drop them"),
    "shortcut": VerdictKind("shortcuts", "", "make pictures of all classes alike in it"),
    "class_empty": VerdictKind("empty classes"),
    "class_few": VerdictKind("small classes"),
    "class_alike": VerdictKind("classes alike"),
    "label": VerdictKind("labels"),
    "class_uneven": VerdictKind("uneven classes"),
    "exact_twin": VerdictKind("exact twins", "an equal picture is in the same split, and counts twice", "drop them"),
    "near_twin": VerdictKind("near twins", "a picture very much like it is in the same split", "look at them"),
    "half_read": VerdictKind("half readable", "JPEGs without their end, of which no row is missing", "they can stay"),
    "constant": VerdictKind("constant", "they have one color, nearly", "drop them"),
    "border": VerdictKind("borders", "they have a border or bars of one color", "cut them off"),
    "dark": VerdictKind("dark", "hardly anything is to be seen", "look at them"),
    "bright": VerdictKind("bright", "hardly anything is to be seen", "look at them"),
    "blurred": VerdictKind("blurred", "they have no details", "look at them"),
    "odd_size": VerdictKind("odd sizes", "nearly all others have another size", "look at them"),
    "odd_shape": VerdictKind("odd shapes", "nearly all others have another shape", "look at them"),
}


def judge_findings(findings: Sequence[Finding]) -> list[Verdict]:
    """A verdict for each kind that was found: its pictures, each once, the worst first."""
    ranked = sorted(findings, key=lambda finding: -finding.score)
    pictures: dict[str, dict[str, None]] = {}
    for finding in ranked:
        pictures.setdefault(finding.kind, {})[finding.file] = None
    return [Verdict(kind, len(files), _tell(VERDICT_KINDS[kind], files)) for kind, files in pictures.items()]


def _tell(kind: VerdictKind, files: Iterable[str]) -> str:
    return f"{kind.means}; {kind.do} ({join_names(files, ', ', NAMED)})"


def judge_shortcuts(shortcuts: Sequence[Shortcut]) -> list[Verdict]:
    """A verdict about all shortcuts, if there are some."""
    said = [
        f"{its.property}: {its.rule} names {its.share:.0%} of {its.label}, and is right in {its.precision:.0%}"
        for its in shortcuts
    ]
    text = f"a network can learn these instead: {join_names(said, '; ', NAMED)}; {VERDICT_KINDS['shortcut'].do}"
    return [Verdict("shortcut", len(shortcuts), text)] if said else []


def judge_groups(names: Sequence[str], parts: Mapping[str, Int[np.ndarray, " n"]]) -> list[Verdict]:
    """A verdict about the groups (`data.group`) of which some pictures are in one part and some in another, if there
    are some. `parts` are the groups of the pictures in each."""
    counts = Counter(group for groups in parts.values() for group in np.unique(groups).tolist())
    both = [names[group] for group, number in counts.items() if number > 1]
    text = f"pictures that belong together are in several splits; {VERDICT_KINDS['group_leak'].do}"
    return [Verdict("group_leak", len(both), f"{text} ({join_names(both, ', ', NAMED)})")] if both else []


def list_named(shortcuts: Sequence[Shortcut], named: Named) -> list[Finding]:
    """A row for each picture that a shortcut names; the score is how often it is right."""
    places = {file: place for place, file in enumerate(named.ids)} if shortcuts else {}
    precisions: dict[str, float] = {}
    for its in shortcuts:
        for file in its.files:
            precisions[file] = max(its.precision, precisions.get(file, 0.0))
    return [
        Finding(file, named.splits[place], "shortcut", precision, named.labels[place])
        for file, precision in precisions.items()
        for place in (places[file],)
    ]


def rank_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Findings, the worst first: by kind as in the table, then by score."""
    order = {kind: place for place, kind in enumerate(VERDICT_KINDS)}
    return sorted(findings, key=lambda finding: (order[finding.kind], -finding.score))


def rank_verdicts(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Verdicts, the worst first."""
    order = list(VERDICT_KINDS)
    return sorted(verdicts, key=lambda verdict: order.index(verdict.kind))


def list_table(result: Result) -> list[str]:
    """The lines that a check prints: the data, the table, what was not found, and notes."""
    counts = [f"{part} {sum(classes.values()):,}" for part, classes in result.counts.items()]
    there = sum(sum(classes.values()) for classes in result.counts.values())
    unread = sum(verdict.number for verdict in result.verdicts if verdict.kind == "broken")
    broken = f" and {unread:,} that cannot be read" if unread else ""
    head = (
        f"{result.data}: {count_words(there, 'picture')} ({', '.join(counts)}){broken}, "
        f"{len(result.class_names):,} class{'es' * (len(result.class_names) != 1)}"
    )
    decided = count_decided(result.findings)
    rows = [
        f"  {VERDICT_KINDS[its.kind].title:<15}{its.number:>7,}  {its.text}{_tell_decided(decided.get(its.kind))}"
        for its in result.verdicts
    ]
    found = {verdict.kind for verdict in result.verdicts}
    # A note says how far labels could be judged.
    clean = [kind.title for name, kind in VERDICT_KINDS.items() if name not in {*found, "label"}]
    none = [f"none: {', '.join(clean)}"] if clean else []
    return [printable(line) for line in (head, *rows, *none, *result.notes)]


class Decided(NamedTuple):
    """How many pictures of a kind were decided about, of how many."""

    decided: int
    pictures: int


def count_decided(findings: Sequence[Finding]) -> dict[str, Decided]:
    """How many pictures of each kind were decided about: a decision about a picture is one about all of its rows."""
    known = {finding.file for finding in findings if finding.decision}
    of_kind: dict[str, set[str]] = {}
    for finding in part_twins(findings)[0]:
        of_kind.setdefault(finding.kind, set()).add(finding.file)
    return {kind: Decided(len(files & known), len(files)) for kind, files in of_kind.items()}


def _tell_decided(its: Decided | None) -> str:
    return f" [{its.decided:,} of {its.pictures:,} decided]" if its is not None and its.decided else ""


def is_open(result: Result) -> bool:
    """Whether something was found about which nothing was decided yet. About classes nothing can be."""
    decided = count_decided(result.findings)
    all_decided = {kind for kind, its in decided.items() if its.decided == its.pictures}
    return any(verdict.kind not in all_decided for verdict in result.verdicts)
