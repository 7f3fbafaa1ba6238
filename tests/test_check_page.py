"""The page of a check: which findings, cards and pictures it has, what it carries for the table that is saved, and that
it replaces nothing but such a page. What is decided on it is tried in test_browser.py."""

import re
from pathlib import Path

import numpy as np
import pytest
from kitchen_sink import CELLS, CHECKED_NAMES, HOSTILE, make_check
from test_page import Reader, read_content

from tljax.check.cards import (
    Case,
    Place,
    choose_files,
    choose_findings,
    join_pairs,
    list_cases,
    make_ledger,
    part_twins,
    read_images,
)
from tljax.check.findings import Finding, carry_over, write_findings
from tljax.check.page import (
    choose_edges,
    describe_shortcut,
    make_check_page,
    sort_cases,
    trace_shares,
    write_check_page,
)
from tljax.check.result import Checked, Part, Result, Shortcut
from tljax.report.blocks import Chart, Page, Sheet, Text
from tljax.report.page import render
from tljax.report.run_page import check_place
from tljax.text import printable


@pytest.fixture(scope="module")
def content() -> dict:
    return read_content(render(make_check_page(*make_check())))


def find(kind: str, file: str, score: float = 0.5, other: str = "", decision: str = "") -> Finding:
    return Finding(file, "train", kind, score, "cat", "", decision, other)


def read_table(ledger: dict) -> list[list[str]]:
    """The cells of a page's ledger, row by row."""
    cells = [ledger["texts"][place] for place in ledger["rows"]]
    width = len(ledger["columns"])
    return [cells[i : i + width] for i in range(0, len(cells), width)]


def test_the_page_carries_the_table_as_it_is_written(content, tmp_path):
    """Whatever stands in names; what was decided about a picture is known."""
    result, _, _ = make_check()
    ledger = content["ledger"]
    rows = read_table(ledger)[: -ledger["spare"]]
    write_findings(tmp_path / "check.csv", result.findings)
    quoted = [",".join(f'"{cell}"' for cell in (text.replace('"', '""') for text in row)) for row in
              [[ledger["texts"][place] for place in ledger["columns"]], *rows]]  # fmt: skip
    assert (tmp_path / "check.csv").read_bytes().decode("utf-8-sig") == "".join(f"{line}\r\n" for line in quoted)
    assert {row[0]: row[6] for row in rows if row[6]} == {HOSTILE[0]: "drop", "folder/picture_012.png": HOSTILE[2],
                                                    "before.png": "keep"}  # fmt: skip


def test_what_a_reader_sees_is_the_name_and_not_its_cell(content):
    ledger = content["ledger"]
    seen = {text: ledger["shown"].get(str(place), text) for place, text in enumerate(ledger["texts"])}
    assert seen["'=1+2.png"] == "=1+2.png" and seen["''-a\r\nb.png"] == r"'-a\r\nb.png"
    assert {printable(name) for name in (*HOSTILE, *CELLS)} <= set(seen.values())
    # Only what differs is there twice.
    assert len(ledger["shown"]) < 20 < len(ledger["texts"])


def test_a_twin_without_a_finding_has_a_spare_row(content):
    """It is saved if that twin is decided about: the page shows it, and its twin is in the other column."""
    ledger = content["ledger"]
    *_, last = read_table(ledger)
    assert ledger["spare"] == 3 and last == ["keep", "train", "leak", "0.9500", "'=sum", "", "", HOSTILE[5]]


def test_a_twin_that_was_decided_about_is_beside_the_findings():
    """It is no finding in a next check either."""
    new = [find("leak", "a", other="b"), find("contradiction", "c", other="d"), find("contradiction", "d", other="c")]
    old = [find("leak", "b", other="a", decision="keep"), find("dark", "d", decision="drop")]
    carried = carry_over(old, new, "abcd").findings
    found, beside = part_twins(carried)
    assert [row.file for row in found] == ["a", "c", "d"] and beside == old[:1]
    places = {name: Place("train", "cat") for name in "abcd"}
    ledger = make_ledger(found, beside, ["cat"], places, {}, {})
    assert [(row[0], row[6]) for row in ledger.rows] == [("a", ""), ("c", ""), ("d", "drop"), ("b", "keep")]
    assert ledger.spare == 1 and list_cases(found, ("leak",))[0].files == ["b", "a"]


def test_no_class_that_is_a_word_can_be_given(content):
    ledger = content["ledger"]
    classes = [ledger["texts"][place] for place in ledger["classes"]]
    assert len(classes) == len(CHECKED_NAMES) - 1 and "Keep" not in classes and "'=sum" in classes


def test_texts_open_no_element(content):
    document = render(make_check_page(*make_check()))
    empty = render(Page("page", [], []))
    assert [tag for tag, _ in Reader(document).tags] == [tag for tag, _ in Reader(empty).tags]
    assert content["title"] == f"Check of folder:{HOSTILE[0]}"
    document.encode("utf-8")


def test_run_pages_do_not_grow_and_a_check_without_findings_is_good():
    page = make_check_page(Result("digits", ("0",), {"train": {"0": 3}}, [], [], [], []), Checked(("0",), {}))
    document = render(page)
    assert page.ledger is None and "page.ledger" not in document and ".choice" not in document
    assert page.lead == ["digits: 3 pictures (train 3), 1 class"]
    assert [section.id for section in page.sections] == ["overview", "classes"]
    assert page.sections[0].blocks == [Text(["Nothing was found."], "good")]
    assert "page.ledger" in render(make_check_page(*make_check()))


def test_the_second_script_is_short_and_parses_no_html():
    script = Path(render.__code__.co_filename).with_name("page_decisions.js").read_text("utf-8")
    assert len(script.splitlines()) < 300 and max(map(len, script.splitlines())) <= 120
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|fetch|https?:", script)


def test_findings_that_are_left_out_are_undecided_ones_that_are_less_bad():
    found = [find("label", f"{i}.png", i / 10) for i in range(9)]
    found += [find("dark", "a.png", 0.1), find("dark", "b.png", 0.0, decision=" Drop ")]
    chosen = [(row.file, row.decision) for row in choose_findings(found, 4)]
    assert chosen == [("7.png", ""), ("8.png", ""), ("a.png", ""), ("b.png", "drop")]
    assert [row.file for row in choose_findings(found, 2)] == ["8.png", "b.png"]
    decided = [find("dark", f"{i}.png", decision="Keep") for i in range(9)]
    assert [row.decision for row in choose_findings(decided, 4)] == ["keep"] * 9


def test_groups_of_twins_are_cards():
    found = [
        find("near_twin", "b", 0.9, "a"),
        find("leak", "d", 0.8, "c"),
        find("near_twin", "e", 0.7, "b"),
        find("leak", "f", 0.95, "d"),
        find("label", "a", 1.0),
    ]
    cases = list_cases(found, ("leak", "near_twin"))
    assert cases == [Case([3, 1], ["c", "f", "d"]), Case([0, 2], ["a", "b", "e"])]
    assert join_pairs([("a", ""), ("b", ""), ("c", "b")])["a"] == "a"
    chain = join_pairs((str(i), str(i + 1)) for i in range(5000))
    assert len(set(chain.values())) == 1


def test_kinds_that_no_section_has_are_about_single_pictures():
    cases = sort_cases([find("dark", "a"), find("border", "a"), find("label", "a"), find("broken", "b"), find("", "c")])
    assert {name: [case.rows for case in its] for name, its in cases.items()} == {
        "twins": [], "labels": [[2]], "shortcuts": [], "broken": [[3]], "pictures": [[1, 0]],
        "before": [[4]],
    }  # fmt: skip


def test_kinds_share_the_room_for_pictures():
    """A card has all of its pictures or none, and the worst of each kind come first."""
    found = [find("leak", f"l{i}", 1 - i / 100, f"o{i}") for i in range(50)] + [find("dark", f"d{i}") for i in range(2)]
    cases = [case for several in sort_cases(found).values() for case in several]
    places = {name: Place("train", "cat") for row in found for name in (row.file, row.other)} | {"x": Place("", "")}
    assert choose_files(found, cases, places, ["x", "y"], 8) == ["x", "o0", "l0", "d0", "o1", "l1", "d1"]
    # The rest of a large group is not shown at first, and a broken picture takes no room.
    large = [find("near_twin", f"n{i}", other="n") for i in range(40)]
    places = {name: Place("train", "cat") for row in large[1:] for name in (row.file, row.other)}
    assert choose_files(large, list_cases(large, ("near_twin",)), places) == ["n", "n1", "n2", "n3", "n4"]


def test_images_are_those_of_their_names():
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    part = [
        Part(images[i : i + 2], (f"a{i}", f"a{i + 1}"), np.zeros(2, int), np.zeros((0, 4), np.uint32), None, list)
        for i in (0, 2)
    ]
    found = read_images(Checked(("cat",), {"train": part[0], "test": part[1]}), ["a3", "gone", "a0", "a2"])
    assert {name: int(image.max()) for name, image in found.items()} == {"a3": 3, "a0": 0, "a2": 2}


def test_the_page_says_what_it_leaves_out(content):
    result, checked, reasons = make_check(900)
    page = make_check_page(result, checked, reasons, "tljax --config recipe", "out/check.csv")
    overview, _, labels = page.sections[:3]
    assert len(page.pictures) == 600 and "cards; the others are last, by name." in labels.blocks[0].note
    # Those without a picture come last, though they are worse.
    images, labels = np.zeros((702, 2, 2, 3), np.uint8), np.zeros(702, int)
    part = Part(images, tuple(map(str, range(702))), labels, np.zeros((0, 4), np.uint32), None, list)
    checked = Checked(("cat",), {"train": part})
    found = [find("leak", str(i), 0.9, str(i + 1)) for i in range(0, 700, 2)] + [find("near_twin", "700", 0.5, "701")]
    twins = make_check_page(Result("x", ("cat",), {}, [], found, [], []), checked).sections[1].blocks[0]
    assert twins.cards[298:302] == [[298], [350], [299], [300]]
    assert twins.note.endswith(" There is room for the pictures of 300 of 351 cards; the others are last, by name.")
    said = "with all rows of the table. Put it in place of out/check.csv: "
    assert said in overview.blocks[2].lines[1] and page.ledger.place == "out/check.csv"
    assert overview.blocks[3].lines == ["tljax --config recipe"]
    assert content["ledger"]["notes"] == {
        str(content["ledger"]["texts"].index(f"{name} is broken")): f"no picture: {HOSTILE[2]}" for name in HOSTILE[:2]
    }


def test_numbers_of_a_shortcut_are_shares_of_the_class_and_of_others():
    values = {"cat": [1.0, 1.0, 3.0], "dog": [1.0, float("nan")], "none": []}
    warning, chart, details = describe_shortcut(Shortcut("width", "cat", "above 2", 0.3, 1.0, (), values), {}, {})
    assert isinstance(chart, Chart) and warning.lines[0] == "width: above 2, of cat"
    assert {series.name: list(series.points) for series in chart.series} == {
        "all other classes": [(0.5, 1.0), (1.5, 0.0), (2.5, 0.0), (3.5, 0.0)],
        "cat": [(0.5, pytest.approx(2 / 3)), (1.5, 0.0), (2.5, pytest.approx(1 / 3)), (3.5, pytest.approx(1 / 3))],
    }
    assert [row[:2] for row in details.blocks[0].rows] == [["cat", 3], ["dog", 1]]
    wild = np.concatenate([np.random.default_rng(0).normal(size=1000), [1e9]])
    edges = choose_edges(wild)
    assert edges[-1] < 5 and sum(share for _, share in trace_shares(wild, edges)[:-1]) == pytest.approx(1)
    assert len(choose_edges(np.full(3, 0.5))) > 2


def test_words_of_a_shortcut_are_a_table():
    values = {"cat": ["PNG"] * 3 + ["GIF"], "dog": ["JPEG"] * 9 + [f"w{i}" for i in range(9)]}
    _, sheet = describe_shortcut(Shortcut("format", "cat", "is PNG", 0.75, 1.0, (), values), {}, {})
    assert isinstance(sheet, Sheet) and sheet.columns[:3] == ["class", "JPEG", "PNG"] and len(sheet.columns) == 9
    assert [row[:3] for row in sheet.rows] == [["cat", None, "75.0%"], ["dog", "50.0%", None]]
    assert sheet.caption == "format by class; the 8 most frequent of 12"


def test_nothing_but_such_a_page_is_replaced(tmp_path):
    place, page = tmp_path / "check.html", Page("one", [], [], command="check")
    write_check_page(place, page)
    write_check_page(place, page)
    with pytest.raises(FileExistsError, match="is there and is no report"):
        check_place([], place)
    place.write_text(render(Page("two", [], [])))
    with pytest.raises(FileExistsError, match=r"check\.html is there and is no page of a check; give another --out"):
        write_check_page(place, page)
    check_place([], place)
    place.unlink()
    place.symlink_to(tmp_path / "gone")
    with pytest.raises(FileExistsError):
        write_check_page(place, page)
    assert [file.name for file in tmp_path.iterdir()] == ["check.html"]
