"""A page is one file that fetches nothing, whatever its texts hold; the browser's part is in test_browser.py."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from kitchen_sink import HOSTILE, make_page

from tljax.report.blocks import Chart, Mark, Page, Section, Series, Sheet, Text
from tljax.report.chart_axes import choose_axes
from tljax.report.page import render
from tljax.text import printable


class Reader(HTMLParser):
    """What an HTML parser sees: tags with their attributes, and the texts of styles and scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.inside = ""
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": []}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.texts.get(tag, []).append("")
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside in self.texts:
            self.texts[self.inside][-1] += data


@pytest.fixture(scope="module")
def document() -> str:
    return render(make_page())


def read_content(text: str) -> dict:
    return json.loads(Reader(text).texts["script"][0])


def make_one(block) -> Page:
    return Page("page", [], [Section("one", "One", [block])])


def read_block(block) -> dict:
    return read_content(render(make_one(block)))["sections"][0]["blocks"][0]


def test_the_policy_allows_this_script_and_this_style_alone(document):
    reader = Reader(document)
    (policy,) = (tag["content"] for _, tag in reader.tags if tag.get("http-equiv") == "Content-Security-Policy")
    content, script = reader.texts["script"]
    (style,) = reader.texts["style"]

    hashes = f"script-src {_hash(script)}; style-src {_hash(style)}"
    assert policy == f"default-src 'none'; {hashes}; img-src data:; base-uri 'none'; form-action 'none'"
    assert "{" in content and "\r" not in document


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_texts_open_no_element_and_set_no_attribute(document):
    reader = Reader(document)
    plain = Reader(render(Page("page", [], [])))
    assert [tag for tag, _ in reader.tags] == [tag for tag, _ in plain.tags]
    names = {name for _, attributes in reader.tags for name in attributes}
    assert "style" not in names and not [name for name in names if name.startswith("on")]
    assert not re.search("[<>&\u2028\u2029]", reader.texts["script"][0])


def test_hostile_texts_are_shown_as_they_are(document):
    (title,) = Reader(document).texts["title"]
    content = read_content(document)
    assert title == content["title"] == f"demo {HOSTILE[1]}"
    lines = content["sections"][0]["blocks"][0]["lines"]
    assert lines[1:] == [printable(text) for text in HOSTILE]
    assert lines[1] == "<img src=x onerror=alert(1)>" and "\\udcff" in lines[8]
    document.encode("utf-8")


def test_numbers_that_are_none_are_words_in_sheets_and_gaps_in_charts():
    rows = [["a", math.nan, -math.inf, None, np.float32(0.5), np.int64(3)]]
    assert read_block(Sheet(["a"] * 6, rows))["rows"] == [["a", "not a number", "infinite", None, 0.5, 3]]
    series = Series("loss", [(1, math.nan), (2, np.float64(0.5)), (3, math.inf), (4, None)])
    assert read_block(Chart("c", "x", "y", [series]))["series"][0]["points"] == [
        [1, None],
        [2, 0.5],
        [3, None],
        [4, None],
    ]


def test_arrays_are_lists():
    assert read_block(Text(np.array(["a", "b"])))["lines"] == ["a", "b"]


def test_a_chart_without_a_finite_point_has_no_axes():
    assert choose_axes(Chart("c", "x", "y", [Series("s", [(1, math.nan)])])) is None
    assert choose_axes(Chart("c", "x", "y", [Series("s", [(1, 0.0), (2, -1.0)])], log_y=True)) is None
    assert choose_axes(Chart("c", "x", "y", [])) is None


def test_axes_show_all_points_and_marks():
    points = [(2, 1.0), (4, 3.0), (8, None)]
    axes = choose_axes(Chart("c", "x", "y", [Series("s", points)], [Mark(9, "m"), Mark(math.nan, "m")]))
    assert axes.x == (2, 9) and axes.xs == [2, 4, 8] and axes.y == pytest.approx((0.9, 3.1))
    axes = choose_axes(Chart("c", "x", "y", [Series("s", [(1, 0.0), *points])], log_y=True))
    assert axes.y == pytest.approx((1 / 1.2, 3.6)) and axes.xs == [1, 2, 4, 8]
    assert choose_axes(Chart("c", "x", "y", [Series("s", points)], y_range=(0, 2))).y == (0, 2)
    assert choose_axes(Chart("c", "x", "y", [Series("s", points)], diagonal=True))[:2] == ((0, 1), (0, 1))


@pytest.mark.parametrize("value", [0.0, 5.0, -5.0])
def test_one_point_has_room_around_it(value):
    axes = choose_axes(Chart("c", "x", "y", [Series("s", [(value, value)])]))
    assert axes.x[0] <= value < axes.x[1] and axes.y[0] <= value < axes.y[1]


def test_the_script_is_short_and_parses_no_html(document):
    script = Reader(document).texts["script"][1]
    assert len(script.splitlines()) < 400 and max(map(len, script.splitlines())) <= 120
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|fetch|https?:(?!//www\.w3)", script
    )


def measure_luminance(color: str) -> float:
    """Relative luminance of an sRGB colour `#rrggbb` (WCAG 2.2)."""
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def measure_contrast(a: str, b: str) -> float:
    low, high = sorted([measure_luminance(a), measure_luminance(b)])
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_in_light_and_dark(document):
    """WCAG 2.2: 4.5 for letters, 3 for what is drawn. A cell's letters stand on its fullest shade too."""
    (style,) = Reader(document).texts["style"]
    schemes = [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in style.split(":root")[1:]]
    assert len(schemes) == 2 and all(len(scheme) == 18 for scheme in schemes)
    for scheme in schemes:
        texts = [
            (name, ground) for name in ("ink", "quiet", "accent", "good", "warning") for ground in ("paper", "raised")
        ]
        for name, ground in [*texts, ("ink", "right"), ("ink", "wrong")]:
            assert measure_contrast(scheme[name], scheme[ground]) >= 4.5, (name, ground)
        for i in range(8):
            assert measure_contrast(scheme[f"c{i}"], scheme["paper"]) >= 3, i
