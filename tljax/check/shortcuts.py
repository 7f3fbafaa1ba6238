"""Shortcuts: a property of pictures that is not their content, such as their width, and names a class.

A rule names the pictures whose number lies in an interval, or whose word is one. For each class and property, the rule
is chosen on four fifths of the pictures and tried on the last fifth, five times. It counts where those that it names
there are of the class far too often for chance.
"""

from collections.abc import Mapping, Sequence
from colorsys import rgb_to_hsv
from datetime import date
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt8
from scipy.ndimage import uniform_filter
from scipy.special import betainc

from tljax.check.properties import FileFacts, PixelFacts
from tljax.check.result import Report, Shortcut
from tljax.training.grouped import number_groups

# The part of a class that a rule names at least, and the part of those it names that are of the class.
LEAST_SHARE, LEAST_PRECISION = 0.3, 0.95
# Where a class is most of all pictures, no more than this part of the others' share is named wrongly.
MOST_WRONG = 0.25
# The probability of one shortcut by chance, in all classes and properties together (Bonferroni).
CHANCE = 0.01
SHORTCUT_FOLDS = 5
# A picture of another class that is named costs as much as so many of the class that are not: a precision of 0.95.
COST = 19
# Properties say the same if they name so much of the same pictures (intersection by union).
SAME = 0.5
# The most colors of edges that are told apart, and the pictures that make one at least. Colors are counted in bins of
# so many levels.
MOST_COLORS, LEAST_ALIKE, COLOR_BIN = 12, 5, 16
# Colors whose channels differ by so many levels are one.
ONE_COLOR_LEVELS = 28
BLANK = -1

Codes = Int[np.ndarray, " n"]
# What it is for each picture: numbers, NaN where they are not known, or words (objects), which may be empty.
Property = np.ndarray


class Labeled(NamedTuple):
    """The id and the class of each picture, the names of classes, and which pictures belong together (twins, or those
    of a patient): these are on one side of a fold and count once."""

    ids: Sequence[str]
    labels: Int[np.ndarray, " n"]
    class_names: Sequence[str]
    groups: Int[np.ndarray, " n"] | None = None


class Rules(NamedTuple):
    """For each class, the codes from `low` to `high`; `high` < `low` where there is no rule. `first` and `last` are the
    codes of pictures that the rule was made of."""

    low: Int[np.ndarray, " c"]
    high: Int[np.ndarray, " c"]
    first: Int[np.ndarray, " c"]
    last: Int[np.ndarray, " c"]


class Study(NamedTuple):
    """What is asked about every property: the class and the fold of each picture, the `unit` that it is part of (the
    pictures of a group and class are one), and the part of the units that each class has."""

    labels: Int[np.ndarray, " n"]
    folds: Int[np.ndarray, " n"]
    units: Int[np.ndarray, " n"]
    bases: Float64[np.ndarray, " c"]

    @property
    def sizes(self) -> Int[np.ndarray, " c"]:
        return np.bincount(self.labels, minlength=len(self.bases))


class Tried(NamedTuple):
    """How well a property names each class, in cross-validation, and whether that counts. `codes` are the places of the
    pictures' values among the sorted `values`, or `BLANK`; `rules` are made of all pictures."""

    name: str
    values: np.ndarray
    codes: Codes
    share: Float64[np.ndarray, " c"]
    precision: Float64[np.ndarray, " c"]
    counts: Bool[np.ndarray, " c"]
    rules: Rules

    def name_pictures(self, label: int) -> Int[np.ndarray, " m"]:
        return find_named(self.rules, self.codes, label)


def list_properties(files: FileFacts, pixels: PixelFacts) -> dict[str, Property]:
    """What is looked at, by name."""
    known = np.array(files.format, object) != ""
    maker = np.where(known & (np.array(files.maker, object) == ""), "none", np.array(files.maker, object))
    return {
        "width": files.width,
        "height": files.height,
        "aspect": files.aspect,
        "bytes": compare_bytes(files, pixels),
        "format": np.array(files.format, object),
        "mode": np.array(files.mode, object),
        "gray or color": np.where(pixels.gray, "gray", "color").astype(object),
        "brightness": pixels.brightness.astype(np.float64),
        "border color": np.array(name_edges(pixels), object),
        "EXIF maker": maker,
        "EXIF date": files.day,
    }


def compare_bytes(files: FileFacts, pixels: PixelFacts) -> Float64[np.ndarray, " n"]:
    """The bytes of each file by what is usual for its pixels and details, which is what the content takes: a digit 1 is
    a small file. Logarithms are fitted by least squares."""
    known = np.isfinite(files.bytes * files.width * files.height)
    about = [files.width * files.height, pixels.spread + 1, pixels.sharpness + 0.01, pixels.detail + 1]
    columns = np.log2(np.array(about, np.float64)[:, known])
    fitted = np.stack([*columns, pixels.brightness[known] / 255, np.ones(known.sum())], 1)
    wanted = np.log2(np.maximum(1, files.bytes[known]))
    usual = fitted @ np.linalg.lstsq(fitted, wanted, rcond=1e-6)[0]
    compared = np.full(len(known), np.nan)
    compared[known] = np.exp2(wanted - usual).round(4)
    return compared


def find_shortcuts(
    properties: Mapping[str, Property], labeled: Labeled, report: Report = lambda done: None
) -> list[Shortcut]:
    """The properties that name a class, the strongest first. The strongest of properties that name mostly the same
    pictures of a class mentions the others in `also`.

    Properties with one value for all pictures, and pictures whose value is not known, name nothing.
    """
    several = {name: values for name, values in properties.items() if _count_values(values) > 1}
    study, found = _make_study(labeled), []
    for name, values in several.items():
        found.append(_try_property(name, values, study, CHANCE / len(several)))
        report(len(found) / len(several))
    named = [tried for tried in found if tried.counts.any()]
    plots = {tried.name: _list_values(tried, labeled) for tried in named}
    shortcuts = [
        _describe(strongest, label, labeled, plots)._replace(also=tuple(other.name for other in others))
        for label in range(len(labeled.class_names))
        for strongest, *others in _group_same(label, named)
    ]
    return sorted(shortcuts, key=lambda shortcut: -shortcut.share * shortcut.precision)


def _count_values(values: Property) -> int:
    return len(np.unique(values[_is_known(values)]))


def _is_known(values: Property) -> Bool[np.ndarray, " n"]:
    return values != "" if values.dtype == object else np.isfinite(values)


def encode(values: Property) -> tuple[np.ndarray, Codes]:
    """The sorted values, and the place of each picture's among them; `BLANK` where it is not known."""
    known = _is_known(values)
    distinct, places = np.unique(values[known], return_inverse=True)
    codes = np.full(len(values), BLANK)
    codes[known] = places
    return distinct, codes


def _make_study(labeled: Labeled) -> Study:
    labels, n_classes = np.asarray(labeled.labels), len(labeled.class_names)
    groups = number_groups(len(labels), labeled.groups)
    distinct, units = np.unique(groups * n_classes + labels, return_inverse=True)
    bases = np.bincount(distinct % n_classes, minlength=n_classes) / max(1, len(distinct))
    return Study(labels, split_folds(labels, groups), units, bases)


def split_folds(labels: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The fold of each picture: classes are spread evenly, and a group is in one fold. Groups are numbered from 0."""
    heads = np.unique(groups, return_index=True)[1]
    shuffled = np.random.default_rng(0).permutation(len(heads))
    # A group is dealt as one picture of the class of its first one.
    folds = np.empty(len(heads), int)
    folds[np.lexsort((shuffled, labels[heads]))] = np.arange(len(heads)) % SHORTCUT_FOLDS
    return folds[groups]


def _try_property(name: str, values: Property, study: Study, chance: float) -> Tried:
    distinct, codes = encode(values)
    interval, n_classes = values.dtype != object, len(study.bases)
    hits, named = np.zeros((2, n_classes), int)
    seen: list[tuple[Rules, Codes]] = []
    for fold in range(SHORTCUT_FOLDS):
        others, own = (np.where(part, codes, BLANK) for part in (study.folds != fold, study.folds == fold))
        rules = choose_rules(others, study.labels, (n_classes, len(distinct)), interval)
        in_fold = count_hits(rules, own, study.labels)
        hits, named, seen = hits + in_fold[0], named + in_fold[1], [*seen, (rules, own)]
    share, precision = hits / np.maximum(1, study.sizes), hits / np.maximum(1, named)
    least = np.maximum(LEAST_PRECISION, 1 - MOST_WRONG * (1 - study.sizes / max(1, len(codes))))
    counts = (share >= LEAST_SHARE) & (precision >= least)
    for label in np.flatnonzero(counts).tolist():
        places = np.concatenate([find_named(rules, own, label) for rules, own in seen])
        counts[label] = judge_chance(places, label, study) <= chance / np.count_nonzero(study.sizes)
    rules = choose_rules(codes, study.labels, (n_classes, len(distinct)), interval)
    return Tried(name, distinct, codes, share, precision, counts, rules)


def choose_rules(codes: Codes, labels: Int[np.ndarray, " n"], sizes: tuple[int, int], interval: bool) -> Rules:
    """For each class, the interval of codes (or the one code) with the highest sum of its pictures, less `COST` for
    each picture of another class. Blanks are no pictures. `sizes` are the numbers of classes and of codes.

    The best interval is found as the largest sum of neighbors is (Kadane; Bentley 1984), for all classes at once: of
    the running sum at its end, less the lowest one before its beginning.
    """
    there = np.flatnonzero(codes >= 0)
    n_classes, n_codes = sizes
    counts = np.bincount(codes[there], minlength=n_codes)
    up_to = np.cumsum(counts)
    atoms, own = np.unique(labels[there].astype(np.int64) * n_codes + codes[there], return_counts=True)
    label, code = np.divmod(atoms, n_codes)
    ends = np.cumsum(own)
    ends -= np.concatenate([[0], ends])[np.searchsorted(label, label)]
    at_end = ends - COST * (up_to[code] - ends)
    begins = ends - own
    at_begin = begins - COST * (up_to[code] - counts[code] - begins)
    start = np.arange(len(atoms))
    if interval:
        # No sum of a class is as low as those of the next one.
        lowered = at_begin - label * (4 * COST * (len(codes) + 1))
        start = np.maximum.accumulate(np.where(lowered == np.minimum.accumulate(lowered), start, 0))
    score = at_end - at_begin[start]
    order = np.lexsort((-score, label))
    order = order[score[order] > 0]
    labels, best = np.unique(label[order], return_index=True)
    first, last = np.zeros(n_classes, int), np.full(n_classes, -1)
    first[labels], last[labels] = code[start[order[best]]], code[order[best]]
    return _extend(first, last, counts) if interval else Rules(first, last, first, last)


def _extend(first: Int[np.ndarray, " c"], last: Int[np.ndarray, " c"], counts: Int[np.ndarray, " v"]) -> Rules:
    """Rules that go half the way to the next code that is seen."""
    seen, some = np.concatenate([[-1], np.flatnonzero(counts), [len(counts)]]), last >= first
    before, behind = seen[np.searchsorted(seen, first) - 1], seen[np.searchsorted(seen, last, "right") % len(seen)]
    low = np.where(before < 0, 0, (before + first + 1) // 2)
    high = np.where(behind >= len(counts), len(counts) - 1, (behind + last) // 2)
    return Rules(np.where(some, low, first), np.where(some, high, last), first, last)


def count_hits(
    rules: Rules, codes: Codes, labels: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " c"], Int[np.ndarray, " c"]]:
    """How many pictures of its class each rule names, and how many in all."""
    there = np.flatnonzero(codes >= 0)
    own = labels[there]
    inside = (codes[there] >= rules.low[own]) & (codes[there] <= rules.high[own])
    ordered = np.sort(codes[there])
    named = np.searchsorted(ordered, rules.high, "right") - np.searchsorted(ordered, rules.low)
    return np.bincount(own[inside], minlength=len(rules.low)), np.maximum(0, named)


def find_named(rules: Rules, codes: Codes, label: int) -> Int[np.ndarray, " m"]:
    """The pictures that the rule of a class names."""
    return np.flatnonzero((codes >= rules.low[label]) & (codes <= rules.high[label]))


def judge_chance(places: Int[np.ndarray, " m"], label: int, study: Study) -> float:
    """The probability that at least as many of the units at `places` are of the class by chance: the binomial
    distribution's tail."""
    units, first = np.unique(study.units[places], return_index=True)
    hits = np.count_nonzero(study.labels[places[first]] == label)
    return float(betainc(hits, len(units) - hits + 1, study.bases[label])) if hits else 1.0


def _group_same(label: int, found: Sequence[Tried]) -> list[list[Tried]]:
    """The properties that name a class; those that name mostly the same pictures together, and the strongest first."""
    left = [(tried, tried.name_pictures(label)) for tried in found if tried.counts[label]]
    left.sort(key=lambda each: -each[0].share[label] * each[0].precision[label])
    groups = []
    while left:
        strongest = left[0][1]
        same = [place for place, (_, pictures) in enumerate(left) if not place or _overlap(strongest, pictures) >= SAME]
        groups.append([left[place][0] for place in same])
        left = [each for place, each in enumerate(left) if place not in same]
    return groups


def _overlap(one: Int[np.ndarray, " m"], other: Int[np.ndarray, " k"]) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)


def _list_values(tried: Tried, labeled: Labeled) -> dict[str, Sequence[float | str]]:
    """The known values by class, as a plot shows them: days as years."""
    values = np.array([_to_year(day) for day in tried.values]) if tried.name == "EXIF date" else tried.values
    labels = np.asarray(labeled.labels)
    order = np.argsort(labels, kind="stable")
    order = order[tried.codes[order] >= 0]
    ends = np.searchsorted(labels[order], np.arange(1, len(labeled.class_names)))
    parts = np.split(values[tried.codes[order]], ends)
    return {name: part.tolist() for name, part in zip(labeled.class_names, parts, strict=True)}


def _to_year(day: float) -> float:
    """A day as a year and its part, such as 2019.5."""
    found = date.fromordinal(int(day))
    return round(found.year + (found.timetuple().tm_yday - 1) / 366, 3)


def _describe(
    tried: Tried, label: int, labeled: Labeled, plots: Mapping[str, Mapping[str, Sequence[float | str]]]
) -> Shortcut:
    return Shortcut(
        property=tried.name,
        label=labeled.class_names[label],
        rule=write_rule(tried, label),
        share=float(tried.share[label]),
        precision=float(tried.precision[label]),
        files=tuple(labeled.ids[place] for place in tried.name_pictures(label)),
        values=plots[tried.name],
    )


def write_rule(tried: Tried, label: int) -> str:
    """Which pictures the rule of a class names, such as `at least 300 pixels`."""
    rules = tried.rules
    if rules.last[label] < rules.first[label]:
        return "none"
    first, last = (_write_value(tried.name, tried.values[codes[label]]) for codes in (rules.first, rules.last))
    if first == last:
        return first + UNITS.get(tried.name, "")
    at_start, at_end = rules.first[label] == 0, rules.last[label] == len(tried.values) - 1
    text = f"at most {last}" if at_start else f"at least {first}" if at_end else f"{first} to {last}"
    return text + UNITS.get(tried.name, "")


UNITS = {
    "width": " pixels",
    "height": " pixels",
    "bytes": " times what is usual for its size and details",
    "brightness": " of 255",
}


def _write_value(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if name == "EXIF date":
        return date.fromordinal(int(value)).isoformat()
    return f"{value:,.0f}" if name in ("width", "height") else f"{value:.4g}"


def name_edges(pixels: PixelFacts) -> list[str]:
    """For each picture `none`, or the color of its border, of bars along two edges, or of the plain ground that it is
    taken on, such as `border of red #c81e3c`. A color is one that several pictures have: those near to the most
    frequent one have that, and so on with what is left."""
    around, plain = pixels.edges == 4, pixels.edges > 0
    kinds = (
        (pixels.framed & around, "border"),
        (pixels.framed & ~around, "bars"),
        (plain & ~pixels.framed, "ground"),
    )
    words = np.full(len(plain), "none", object)
    for which, kind in kinds:
        places = np.flatnonzero(which)
        words[places] = [f"{kind} of {color}" for color in name_colors(pixels.edge_color[places])]
    return words.tolist()


def name_colors(colors: UInt8[np.ndarray, "m 3"]) -> list[str]:
    """The word of each color; `a rare color` for those that few have."""
    words, left = np.full(len(colors), "a rare color", object), np.arange(len(colors))
    for _ in range(MOST_COLORS):
        bins = colors[left] // COLOR_BIN
        counts = np.zeros((256 // COLOR_BIN,) * 3)
        np.add.at(counts, tuple(bins.T), 1)
        peak = np.unravel_index(np.argmax(uniform_filter(counts, 3, mode="constant")), counts.shape)
        around = (abs(bins.astype(int) - peak) <= 1).all(1)
        if around.sum() < LEAST_ALIKE:
            break
        middle = np.median(colors[left[around]], axis=0)
        near = (abs(colors[left] - middle) <= ONE_COLOR_LEVELS).all(1)
        words[left[near]] = name_color(middle)
        left = left[~near]
    return words.tolist()


def name_color(color: np.ndarray) -> str:
    """A color in a word and as HTML has it, such as `red #c81e3c`."""
    levels = [round(level) for level in color.tolist()]
    hue, _, value = rgb_to_hsv(*(level / 255 for level in levels))
    if max(levels) - min(levels) < COLORFUL:
        word = "black" if value < 0.25 else "gray" if value < 0.85 else "white"
    else:
        word = next(name for end, name in HUES if hue * 360 < end)
        word = "brown" if word == "orange" and value < 0.6 else word
    return f"{word} #" + "".join(f"{level:02x}" for level in levels)


# The end of each color's hues (degrees), and the difference of channels (levels) below which there is none.
HUES = (
    (15, "red"), (45, "orange"), (70, "yellow"), (165, "green"), (200, "cyan"), (260, "blue"), (300, "purple"),
    (345, "pink"), (361, "red"),
)  # fmt: skip
COLORFUL = 30
