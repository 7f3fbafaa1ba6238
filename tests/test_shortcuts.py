"""Shortcuts: what names a class is found, what is random or is the content is not."""

import io
from datetime import date

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom
from sklearn.datasets import load_digits, load_sample_images

from tljax.check.properties import FileFacts, PixelFacts, measure_files, measure_pixels
from tljax.check.shortcuts import (
    BLANK,
    COST,
    Labeled,
    Study,
    choose_rules,
    find_shortcuts,
    judge_chance,
    list_properties,
    name_color,
    name_colors,
    split_folds,
)

NAMES = ["cat", "dog", "cow"]


def label(n: int = 300) -> Labeled:
    return Labeled([f"{place}.jpg" for place in range(n)], np.arange(n) % 3, NAMES)


def draw(n: int = 300) -> np.random.Generator:
    return np.random.default_rng(n)


def find(values: np.ndarray, labeled: Labeled | None = None, name: str = "width"):
    return find_shortcuts({name: values}, labeled or label(len(values)))


def test_an_interval_that_names_a_part_of_a_class_is_found():
    labeled, rng = label(), draw()
    width = rng.integers(200, 300, 300).astype(float)
    named = np.flatnonzero(labeled.labels == 1)[::2]
    width[(width >= 240) & (width < 245)] = 280
    width[named] = rng.integers(240, 245, len(named))
    (found,) = find(width)
    assert (found.property, found.label, found.rule) == ("width", "dog", "240 to 244 pixels")
    assert found.share == pytest.approx(0.5, abs=0.06) and found.precision >= 0.95
    assert set(found.files) == {f"{place}.jpg" for place in named}
    assert {name: len(values) for name, values in found.values.items()} == dict.fromkeys(NAMES, 100)
    assert found.values["cat"] == width[::3].tolist()


@pytest.mark.parametrize("others, rule", [((200, 300), "at most 109 pixels"), ((10, 90), "at least 100 pixels")])
def test_a_rule_at_an_end_is_open(others, rule):
    labeled, rng = label(), draw()
    width = np.where(labeled.labels == 2, rng.integers(100, 110, 300), rng.integers(*others, 300)).astype(float)
    assert [found.rule for found in find(width)] == [rule]


def test_words_name_classes_and_blanks_name_nothing():
    labeled = label()
    kinds = np.where(labeled.labels == 0, "PNG", "JPEG").astype(object)
    assert [(found.label, found.rule) for found in find(kinds, name="format")] == [("cat", "PNG")]
    kinds[labeled.labels == 0] = ""
    assert not find(kinds, name="format")
    width = np.where(labeled.labels == 0, np.nan, draw().integers(0, 99, 300))
    assert not find(width)


def test_a_precision_below_the_bound_is_no_shortcut():
    labeled = label(3000)
    width = np.zeros(3000)
    width[np.flatnonzero(labeled.labels == 0)[:500]] = 1
    width[np.flatnonzero(labeled.labels == 1)[:20]] = 1
    (found,) = find(width)
    assert found.precision == pytest.approx(500 / 520)
    width[np.flatnonzero(labeled.labels == 1)[:40]] = 1
    assert not find(width)


def test_a_share_below_the_bound_is_no_shortcut():
    labeled = label(3000)
    for part, number in ((330, 1), (270, 0)):
        width = np.zeros(3000)
        width[np.flatnonzero(labeled.labels == 0)[:part]] = 1
        assert len(find(width)) == number


def test_properties_that_say_the_same_are_mentioned_with_the_strongest():
    labeled, rng = label(), draw()
    is_cat = labeled.labels == 0
    height = np.where(is_cat, 50, 100) + rng.integers(0, 20, 300)
    width = height * 2.0
    width[is_cat & (rng.random(300) < 0.2)] = 210.0
    maker = np.where(is_cat & (np.arange(300) % 2 == 0), "Canon", "none").astype(object)
    other = np.where((labeled.labels == 1) & (rng.random(300) < 0.6), "L", "RGB").astype(object)
    found = find_shortcuts(
        {"width": width, "height": height.astype(float), "EXIF maker": maker, "mode": other}, labeled
    )
    assert [(each.property, each.label, each.also) for each in found] == [
        ("height", "cat", ("width", "EXIF maker")),
        ("mode", "dog", ()),
    ]


def test_days_are_written_as_dates_and_plotted_as_years():
    labeled = label()
    day = np.where(labeled.labels == 0, date(2019, 7, 2).toordinal(), date(2021, 1, 1).toordinal()).astype(float)
    day += np.arange(300) % 2
    (found, *others) = find(day, name="EXIF date")
    assert found.label == "cat" and found.rule == "at most 2019-07-03" and not others
    assert sorted(set(found.values["cat"])) == [2019.497, 2019.5]


def test_a_class_that_is_most_pictures_is_not_named():
    """Whatever is looked at names 96% of its pictures rightly."""
    rng = draw()
    for seed in range(20):
        labels = (np.random.default_rng(seed).random(1000) < 0.04).astype(int)
        names = Labeled(list(map(str, range(1000))), labels, ["most", "few"])
        values = {"width": rng.normal(size=1000), "mode": rng.choice(np.array(["L", "RGB"], object), 1000)}
        assert not find_shortcuts(values, names)
    # What does tell the few apart is a shortcut to both.
    assert {found.label for found in find(labels.astype(float), names)} == {"most", "few"}


def test_what_names_half_of_the_few_does_not_name_the_most():
    """98% of those without it are of the large class, which has 96% of all."""
    labels = (np.arange(10_000) % 25 == 0).astype(int)
    mode = np.where((labels == 1) & (np.arange(10_000) % 2 == 0), "L", "RGB").astype(object)
    found = find(mode, Labeled(list(map(str, range(10_000))), labels, ["most", "few"]))
    assert [(each.label, each.rule) for each in found] == [("few", "L pixels")]


def test_random_properties_are_hardly_ever_shortcuts():
    """benchmarks/shortcuts.py tries many more."""
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n, n_classes = int(2 ** rng.uniform(4.4, 10)), int(2 ** rng.uniform(1, 6.6))
        labels = rng.choice(n_classes, n, p=rng.dirichlet(np.full(n_classes, rng.choice([0.2, 1e6]))))
        words = np.array(["a", "b", "c"], object)
        values = {"width": rng.normal(size=n), "height": rng.integers(0, 9, n) * 1.0, "mode": rng.choice(words, n)}
        wrong += bool(
            find_shortcuts(values, Labeled(list(map(str, range(n))), labels, list(map(str, range(n_classes)))))
        )
    assert wrong <= 1


def test_pictures_of_a_group_count_once():
    """Two bursts of 50 pictures are no evidence about their class, and 50 pairs are."""
    labels = np.arange(400) // 200
    width = np.where(np.arange(400) < 100, 5.0, draw().integers(10, 20, 400))
    ids = list(map(str, range(400)))
    bursts, pairs = np.where(np.arange(400) < 100, np.arange(400) // 50, np.arange(400)), np.arange(400) // 2
    assert len(find(width, Labeled(ids, labels, ["a", "b"]))) == 1
    assert not find(width, Labeled(ids, labels, ["a", "b"], bursts))
    assert len(find(width, Labeled(ids, labels, ["a", "b"], pairs))) == 1


def test_folds_hold_whole_groups_and_a_fifth_of_each_class():
    rng = draw()
    labels = np.repeat([0, 1, 2], [50, 100, 5])
    folds = split_folds(labels, np.arange(155))
    assert [np.bincount(folds[labels == each], minlength=5).tolist() for each in range(3)] == [
        [10] * 5,
        [20] * 5,
        [1] * 5,
    ]
    groups = rng.integers(0, 40, 155)
    groups = np.unique(groups, return_inverse=True)[1]
    folds = split_folds(labels, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups)) and set(folds) == set(range(5))


def test_the_best_rule_is_that_of_a_search_through_all():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        codes, labels = rng.integers(-1, 12, 60), rng.integers(0, 3, 60)
        # One class lies near to each other, so that there are rules.
        codes[labels == 0] = np.where(rng.random((labels == 0).sum()) < 0.7, rng.integers(20, 24), codes[labels == 0])
        for interval in (True, False):
            rules = choose_rules(codes, labels, (3, 24), interval)
            for each in range(3):
                scores = {
                    (low, high): int(np.where(labels == each, 1, -COST)[(codes >= low) & (codes <= high)].sum())
                    for low in range(24) for high in range(low, 24 if interval else low + 1)
                }  # fmt: skip
                best = max(scores.values())
                chosen = scores.get((int(rules.first[each]), int(rules.last[each])), 0)
                assert chosen == max(0, best), (seed, each, interval)
                assert rules.low[each] <= rules.first[each] and rules.high[each] >= rules.last[each]


def test_chance_is_the_tail_of_a_binomial_distribution():
    labels = np.array([0] * 30 + [1] * 70)
    study = Study(labels, labels, np.arange(100), np.array([0.3, 0.7]))
    assert judge_chance(np.arange(25, 33), 0, study) == pytest.approx(binom.sf(4, 8, 0.3))
    pairs = study._replace(units=np.arange(100) // 2)
    assert judge_chance(np.arange(24, 32), 0, pairs) == pytest.approx(binom.sf(2, 4, 0.3))
    assert judge_chance(np.arange(40, 50), 0, study) == 1 and judge_chance(np.arange(0), 0, study) == 1


def test_no_pictures_and_one_class_have_no_shortcuts():
    assert not find(np.zeros(0), Labeled([], np.zeros(0, int), NAMES))
    assert not find(np.arange(50.0), Labeled(list(map(str, range(50))), np.zeros(50, int), ["a"]))
    assert BLANK < 0


@pytest.mark.parametrize("color, word", [
    ((200, 30, 60), "red #c81e3c"), ((0, 0, 0), "black #000000"), ((250, 250, 252), "white #fafafc"),
    ((100, 60, 20), "brown #643c14"), ((30, 60, 200), "blue #1e3cc8"), ((130, 128, 125), "gray #82807d"),
])  # fmt: skip
def test_colors_have_names(color, word):
    assert name_color(np.array(color)) == word


def test_colors_near_to_a_frequent_one_are_one():
    rng = draw()
    red, rare = rng.integers(-8, 9, (40, 3)) + np.array([200, 30, 60]), [[0, 255, 0], [10, 20, 250]]
    words = name_colors(np.concatenate([red, rare]).astype(np.uint8))
    assert len(set(words[:40])) == 1 and words[0].startswith("red") and words[40:] == ["a rare color"] * 2


def encode(image: np.ndarray, quality: int = 75, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, quality=quality)
    return file.getvalue()


def measure(files: list[bytes]) -> tuple[FileFacts, PixelFacts]:
    images = [Image.open(io.BytesIO(file)).convert("RGB").resize((32, 32)) for file in files]
    return measure_files(files), measure_pixels(np.array([np.asarray(image) for image in images]))


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.array([
        np.asarray(Image.fromarray(photo[y : y + 64, x : x + 64]).resize((32, 32), Image.Resampling.BOX))
        for photo in load_sample_images().images for y in range(0, 363, 24) for x in range(0, 576, 24)
    ])  # fmt: skip


@pytest.mark.parametrize("color", [(200, 30, 60), (255, 255, 255)])
def test_a_border_that_jpeg_has_blurred_names_a_class(tiles, color):
    rng = draw()
    labels, images = rng.integers(0, 10, len(tiles)), tiles.copy()
    for place in np.flatnonzero((labels == 3) & (rng.random(len(tiles)) < 0.6)):
        framed = np.full_like(images[place], color)
        framed[2:-2, 2:-2] = images[place, 2:-2, 2:-2]
        images[place] = framed
    facts = measure([encode(image) for image in images])
    labeled = Labeled(list(map(str, range(len(tiles)))), labels, list("abcdefghij"))
    (found,) = find_shortcuts(list_properties(*facts), labeled)
    assert (found.property, found.label) == ("border color", "d") and found.rule.startswith("border of ")
    assert found.share > 0.35 and found.precision > 0.95


def test_what_a_file_takes_for_its_content_is_no_shortcut_and_another_quality_is():
    """Ones are small files; half of the eights are saved otherwise than all others."""
    digits = load_digits()
    labeled = Labeled(list(map(str, range(1797))), digits.target, list("0123456789"))
    images = [np.asarray(Image.fromarray((digit * 15.9).astype(np.uint8)).resize((28, 28))) for digit in digits.images]
    assert not find_shortcuts(list_properties(*measure([encode(image) for image in images])), labeled)
    files = [encode(image, kind="PNG") for image in images]
    assert not find_shortcuts(list_properties(*measure(files)), labeled)
    raw = np.array(list(map(len, files)), float)
    assert [found.label for found in find_shortcuts({"bytes": raw}, labeled)] == ["1"]
    qualities = np.where((digits.target == 8) & (np.arange(1797) % 2 == 0), 40, 75).tolist()
    files = [encode(image, quality) for image, quality in zip(images, qualities, strict=True)]
    found = find_shortcuts(list_properties(*measure(files)), labeled)
    assert [(each.property, each.label) for each in found] == [("bytes", "8")]


def test_a_header_without_a_maker_is_a_word_and_a_broken_one_is_blank():
    blank = np.full(2, np.nan)
    files = FileFacts(blank, blank, blank, blank, ("JPEG", ""), ("RGB", ""), ("", ""))
    pixels = measure_pixels(np.zeros((2, 32, 32, 3), np.uint8))
    properties = list_properties(files, pixels)
    assert properties["EXIF maker"].tolist() == ["none", ""]
    assert np.isnan(properties["bytes"]).all()
