"""The page in headless Chromium: nothing on the console, every control by mouse and by keyboard, narrow and wide, light
and dark, on paper, and axe-core's rules.

It takes `chromium` and `chromedriver` (Debian's packages `chromium` and `chromium-driver`), selenium, and axe-core
(`npm install axe-core`, with `NODE_PATH` or below the environment). Where one lacks, the tests are skipped, but with
`CI=true` they fail.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kitchen_sink import CELLS, CHECKED_NAMES, HOSTILE, make_big_page, make_check, make_page
from made_runs import leave_lesson
from tiny_runs import DIGITS

from tljax.check.findings import Finding, read_findings, write_findings
from tljax.check.page import make_check_page
from tljax.config import Lesson, Stage
from tljax.data.corrections import read_decisions
from tljax.report.page import render
from tljax.report.run_page import leave_page
from tljax.text import printable

SIZES = [(1280, 900), (390, 844)]
FOLDERS = [*filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)), f"{sys.prefix}/node_modules"]
CONTROLS = "a, button, summary, input, select, [tabindex='0']"


def find_parts() -> dict[str, Any]:
    """What the tests take, with `None` for what is not here."""
    try:
        from selenium import webdriver
    except ImportError:
        webdriver = None
    scripts = [path for folder in FOLDERS if (path := Path(folder, "axe-core", "axe.min.js")).is_file()]
    return {
        "chromium": shutil.which("chromium") or shutil.which("google-chrome"),
        "chromedriver": shutil.which("chromedriver"),
        "selenium": webdriver,
        "axe-core": next(iter(scripts), None),
    }


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    found = find_parts()
    lacking = ", ".join(name for name, part in found.items() if part is None)
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(f"the browser's tests lack {lacking}")
    if lacking:
        pytest.skip(f"the browser's tests lack {lacking}")
    return found


@pytest.fixture(scope="module")
def browser(parts) -> Iterator[Any]:
    webdriver = parts["selenium"]
    options = webdriver.ChromeOptions()
    options.binary_location = parts["chromium"]
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(parts["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(make_page()), "utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def lesson_address(tmp_path_factory) -> str:
    """The page of a lesson of two stages, whose name is hostile."""
    lesson = Lesson(data=DIGITS, stages={name: Stage(name) for name in ("feature_extraction", "from_scratch")})
    folder = leave_lesson(tmp_path_factory.mktemp("runs") / "<img src=x onerror=alert(1)>", lesson)
    leave_page(folder, ())
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser, address) -> Any:
    """The page as it is when it is opened, on a desk in the light."""
    return show(browser, address)


def show(browser, address: str, size: tuple[int, int] = SIZES[0], scheme: str = "light", media: str = "") -> Any:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    # On a busy machine the driver may return before a page that is opened again has gone.
    browser.execute_script("window.isBefore = true")
    browser.get(address)
    wait_until(browser, "!window.isBefore && document.readyState === 'complete'")
    return browser


def wait_until(page, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 60).until(lambda _: page.execute_script(f"return {condition}"))


def find(page, selector: str, number: int = 0) -> Any:
    return page.find_elements("css selector", selector)[number]


def press(page, *keys: str) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    ActionChains(page).send_keys(*(getattr(Keys, key) for key in keys)).perform()


def click(page, element) -> None:
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def focus(page, element) -> None:
    page.execute_script("arguments[0].focus()", element)


def focused(page) -> str:
    return page.execute_script("return document.activeElement.textContent")


def read_console(page) -> list[str]:
    return [entry["message"] for entry in page.get_log("browser")]


# What is behind a title is drawn a moment after the click.
SETTLE = "requestAnimationFrame(() => setTimeout(arguments[0], 20));"
OPEN_ALL = f"document.querySelectorAll('summary, .matrix .right').forEach((node) => node.click()); {SETTLE}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_on_the_console_nothing_overflows_and_axe_finds_nothing(browser, address, parts, size, scheme):
    check_page(show(browser, address, size, scheme), parts, size, scheme)


@pytest.mark.parametrize(("size", "scheme"), [(SIZES[0], "light"), (SIZES[1], "dark")])
def test_so_it_is_on_the_page_of_a_lesson(browser, lesson_address, parts, size, scheme):
    check_page(show(browser, lesson_address, size, scheme), parts, size, scheme)


def check_page(page, parts: dict[str, Any], size: tuple[int, int], scheme: str) -> None:
    page.execute_async_script(OPEN_ALL)
    assert page.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [size[0], size[0]]
    page.execute_script(parts["axe-core"].read_text("utf-8"))
    found = page.execute_async_script("axe.run({resultTypes: ['violations']}).then(arguments[0])")
    broken = [(rule["id"], node["target"], node["html"]) for rule in found["violations"] for node in rule["nodes"]]
    assert not broken and len(found["passes"]) > 20
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 27)"}[scheme]
    assert read_console(page) == []


def test_hostile_texts_are_text(page):
    assert page.title == f"demo {HOSTILE[1]}" == find(page, "h1").text
    assert [line.text for line in page.find_elements("css selector", ".text")[0].find_elements("tag name", "p")] == [
        "A sentence in plain words.",
        *map(printable, HOSTILE),
    ]
    counts = "return [document.scripts.length, document.querySelectorAll('[src=x]').length]"
    assert page.execute_script(counts) == [2, 0]


def test_the_policy_stops_scripts_styles_and_fetches(page):
    script = """
    const broken = [];
    document.addEventListener('securitypolicyviolation', (event) => broken.push(event.effectiveDirective));
    const node = document.createElement('script');
    node.textContent = 'window.ran = true';
    document.body.append(node);
    document.body.setAttribute('style', 'opacity: .5');
    const read = () => [window.ran ?? false, getComputedStyle(document.body).opacity, broken.sort()];
    fetch('data:,x').catch(() => setTimeout(() => arguments[0](read()), 20));
    """
    broken = ["connect-src", "script-src-elem", "style-src-attr"]
    assert page.execute_async_script(script) == [False, "1", broken]
    assert len(read_console(page)) >= 3


def test_every_control_is_reached_by_the_tab_key_and_seen(page):
    """One of a group of radio buttons, tabs and cells: arrows move between these."""
    page.execute_async_script(OPEN_ALL)
    script = """
    window.reached = new Set();
    window.unseen = [];
    document.addEventListener('focusin', ({ target }) => {
      window.reached.add(target);
      const style = getComputedStyle(target);
      if (style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 2) window.unseen.push(target.outerHTML);
    });
    window.waited = [...document.querySelectorAll(arguments[0])].filter((node) =>
      node.checkVisibility() && node.tabIndex >= 0 && (node.type !== 'radio' || node.checked));
    return window.waited.length;
    """
    number = page.execute_script(script, CONTROLS)
    press(page, *["TAB"] * number)
    script = "return [waited.filter((node) => !reached.has(node)).map((node) => node.outerHTML), unseen]"
    assert number > 80 and page.execute_script(script) == [[], []]


def read_tabs(page) -> list[str]:
    """The tab that is chosen, and how each panel begins that is shown."""
    panels = page.find_elements("css selector", "#stages > div > [role=tabpanel]")
    chosen = [tab.text for tab in page.find_elements("css selector", "[aria-label=Stage] [aria-selected=true]")]
    return chosen + [panel.find_element("css selector", ".text").text for panel in panels if panel.is_displayed()]


def test_tabs_by_mouse_and_keyboard(page):
    assert read_tabs(page) == ["from_scratch", "Stage from_scratch."]
    find(page, "[aria-label=Stage] [role=tab]", 1).click()
    assert read_tabs(page) == ["feature_extraction", "Stage feature_extraction."]
    for key, name in (("ARROW_RIGHT", HOSTILE[0]), ("END", HOSTILE[4]), ("ARROW_RIGHT", "from_scratch")):
        press(page, key)
        assert read_tabs(page) == [name, f"Stage {name}."] and focused(page) == name
    press(page, "ARROW_LEFT", "HOME")
    assert read_tabs(page)[0] == "from_scratch"


def read_matrix(page) -> tuple[str, int]:
    """What is said of the chosen cell, and the number of its pictures."""
    shown = find(page, "[aria-live]")
    return shown.text.split("\n")[0], len(shown.find_elements("tag name", "img"))


def test_cells_of_the_matrix_by_mouse_and_keyboard(page):
    cells = page.find_elements("css selector", ".matrix")[0].find_elements("tag name", "button")
    assert read_matrix(page) == ("Choose a cell to see its pictures.", 0)
    cells[0].click()
    told, pictures = read_matrix(page)
    assert told.startswith("class 28 called class 28: ") and told.endswith("; 3 shown here") and pictures == 3
    press(page, "ARROW_RIGHT", "ENTER")
    told, pictures = read_matrix(page)
    assert told == f"{cells[1].get_attribute('aria-label')}; none shown here" and pictures == 0
    assert [cell.get_attribute("aria-pressed") for cell in cells[:2]] == ["false", "true"]
    press(page, "ARROW_LEFT", "ARROW_LEFT", "ARROW_UP", "SPACE")
    assert read_matrix(page)[1] == 3


def test_counts_and_shares_by_mouse_and_keyboard(page):
    cell, radios = find(page, ".matrix button"), page.find_elements("css selector", "fieldset input")
    count, share = cell.get_attribute("aria-label").split(": ")[1].split(", ")
    assert cell.text == count
    radios[1].click()
    assert cell.text == share
    press(page, "ARROW_LEFT")
    assert cell.text == count


def read_column(page, number: int) -> list[str]:
    rows = "[...document.querySelector('table').tBodies[0].rows]"
    script = f"return {rows}.map((row) => row.cells[arguments[0]].textContent)"
    return page.execute_script(script, number)


def test_columns_are_sorted_by_mouse_and_keyboard(page):
    heads = page.find_elements("css selector", "table")[0].find_elements("css selector", "th button")
    heads[2].click()
    shares = list(map(float, read_column(page, 2)))
    assert shares == sorted(shares) and heads[2].find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    press(page, "ENTER")
    assert list(map(float, read_column(page, 2))) == shares[::-1]
    heads[1].click()
    assert read_column(page, 1)[-2:] == ["infinite", "not a number"] and read_column(page, 1)[:3] == ["0", "10", "20"]
    heads[3].click()
    assert read_column(page, 3)[0] == "85.5% (90 to 99)" and read_column(page, 3)[-2:] == ["1,200", "-"]
    heads[4].click()
    press(page, "ENTER")
    assert read_column(page, 4)[0] == "3" and read_column(page, 4)[1] == "\u2013"


def test_values_of_a_chart_by_mouse_and_keyboard(page):
    from selenium.webdriver import ActionChains

    plot, readout = find(page, ".plot"), find(page, ".readout")
    assert readout.text == "epoch 20 · train: 1.75 · validation: 1.7"
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(page).move_to_element_with_offset(plot, 60 - plot.rect["width"] // 2, 0).perform()
    assert readout.text == "epoch 1 · train: 34.05 · validation: 30.2"
    focus(page, plot)
    press(page, "ARROW_RIGHT", "ARROW_RIGHT")
    assert readout.text == "epoch 3 · train: 11.38" == plot.get_attribute("aria-valuetext")
    press(page, "END", "ARROW_RIGHT")
    assert readout.text.startswith("epoch 20 ")
    find(page, ".chart summary").click()
    page.execute_async_script(SETTLE)
    assert find(page, ".chart tbody tr", 2).text == "3 11.38 \u2013"


def test_details_by_mouse_and_keyboard(page):
    summary = find(page, "#all > details > summary")
    summary.click()
    page.execute_async_script(SETTLE)
    assert "Hidden until asked." in find(page, "#all > details").text
    press(page, "ENTER")
    assert "Hidden until asked." not in find(page, "#all > details").text


def test_contents_lead_to_their_section(page):
    link = find(page, "nav a", 1)
    link.click()
    place = "return [location.hash, document.querySelector('#stages').getBoundingClientRect().top < innerHeight]"
    assert page.execute_script(place) == ["#stages", True]
    focus(page, find(page, "nav a"))
    press(page, "ENTER")
    assert page.execute_script("return location.hash") == "#all"


def test_names_and_commands_are_copied(page):
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    page.execute_cdp_cmd("Browser.grantPermissions", {"permissions": permissions})
    read = "navigator.clipboard.readText().then(arguments[0], arguments[0])"
    find(page, ".code .copy").click()
    wait_until_said(page, "Copied: python main.py predict runs/demo photo.png")
    assert page.execute_async_script(read) == "python main.py predict runs/demo photo.png"
    focus(page, find(page, ".code .copy", 1))
    press(page, "ENTER")
    wait_until_said(page, f"Copied: {HOSTILE[0]}")
    assert page.execute_async_script(read) == HOSTILE[0]
    page.execute_script("document.querySelector('[role=status]').textContent = ''")
    click(page, find(page, ".card .copy"))
    wait_until_said(page, f"Copied: {HOSTILE[0]}")
    assert page.execute_async_script(read) == HOSTILE[0]


def wait_until_said(page, *texts: str) -> None:
    """Waits until one of these texts is said; the word on a button goes back after a moment."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 60).until(lambda _: find(page, "[role=status]").text in texts)


def test_without_a_clipboard_the_text_is_selected(page):
    page.execute_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    command = "python main.py predict runs/demo photo.png"
    find(page, ".code .copy").click()
    wait_until_said(page, f"Copied: {command}", f"Selected: {command}")
    assert page.execute_script("return getSelection().toString()") == command


def test_on_paper_there_are_no_buttons_and_nothing_is_cut_off(browser, address):
    page = show(browser, address, (760, 1000), "dark", "print")
    script = """
    const shown = [...document.querySelectorAll(arguments[0])].filter((node) => node.checkVisibility());
    const scrolls = (node) => getComputedStyle(node).overflow !== 'visible';
    const cut = [...document.querySelectorAll('.scroll')].filter(scrolls);
    return [shown.map((node) => node.textContent), document.documentElement.scrollWidth, cut.length,
            getComputedStyle(document.body).backgroundColor];
    """
    found = page.execute_script(script, "nav, .copy, summary, fieldset, .readout, [aria-selected=false]")
    assert found == [[], 760, 0, "rgb(255, 255, 255)"]
    assert len(browser.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 100_000
    assert read_console(page) == []


def test_a_big_page_is_drawn_whole(browser, tmp_path):
    (tmp_path / "big.html").write_text(render(make_big_page()), "utf-8")
    page = show(browser, (tmp_path / "big.html").as_uri(), SIZES[1])
    count = "return ['.card', 'tbody tr', '.matrix thead th'].map((name) => document.querySelectorAll(name).length)"
    assert page.execute_script(count) == [600, 1040, 40]
    assert page.execute_script("return document.documentElement.scrollWidth") == SIZES[1][0]
    assert read_console(page) == []


@pytest.fixture(scope="module")
def check_address(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("check") / "check.html"
    path.write_text(render(make_check_page(*make_check(), table="out/check.csv")), "utf-8")
    return path.as_uri()


@pytest.fixture
def check(browser, check_address) -> Any:
    """The page of a check as it is when it is opened."""
    return show(browser, check_address)


@pytest.mark.parametrize(("size", "scheme"), [(SIZES[0], "dark"), (SIZES[1], "light")])
def test_so_it_is_on_the_page_of_a_check(browser, check_address, parts, size, scheme):
    check_page(show(browser, check_address, size, scheme), parts, size, scheme)
    script = """
    const table = document.querySelector('#overview .scroll');
    const shown = [...document.querySelectorAll('button, .choice label')].filter((node) => node.checkVisibility());
    const low = shown.filter((node) => node.offsetHeight < arguments[0]);
    return [table.scrollWidth - table.clientWidth, low.length];
    """
    assert browser.execute_script(script, 32 if size == SIZES[1] else 28) == [0, 0]


def find_card(page, section: str, number: int = 0) -> Any:
    return find(page, f"#{section} .case", number)


def read_choices(card) -> list[str]:
    """What is chosen for each picture of a card."""
    script = """
    return [...arguments[0].querySelectorAll('.choice')].map((choice) => choice.querySelector('.chosen')
      ? choice.querySelector('.chosen').selectedOptions[0].text
      : choice.querySelector('label:has(:checked)').textContent);
    """
    return card.parent.execute_script(script, card)


def test_the_controls_of_a_card_are_reached_by_the_tab_key_and_seen(check):
    script = """
    window.reached = [];
    document.addEventListener('focusin', ({ target }) => {
      const { outlineStyle, outlineWidth } = getComputedStyle(target);
      window.reached.push([target.type, outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2]);
    });
    """
    check.execute_script(script)
    focus(check, find(check, "#twins .tools select"))
    press(check, *["TAB"] * 9)
    tools, picture = ["select-one", "checkbox", "select-one", "button"], ["button", "radio", "select-one"]
    assert check.execute_script("return reached") == [[name, True] for name in [*tools, *picture, *picture]]


def read_state(page) -> tuple[str, bool]:
    """What the bar says, and whether leaving the page warns."""
    script = """
    const event = new Event('beforeunload', { cancelable: true });
    dispatchEvent(event);
    return event.defaultPrevented;
    """
    return find(page, ".saving p", 1).text, page.execute_script(script)


def test_a_picture_is_decided_by_mouse_and_keyboard_and_has_one_decision(check):
    leak, dark = find_card(check, "twins"), find_card(check, "pictures", 1)
    # What was decided before is there. Both cards show the first picture.
    name = leak.find_elements("tag name", "code")[1].text
    assert name == HOSTILE[0] == dark.find_element("tag name", "code").text
    assert read_choices(leak) == ["undecided", "drop"] and read_choices(dark) == ["drop"]
    assert read_state(check) == ("2 of 31 pictures and 1 other decided", False)
    click(check, dark.find_elements("css selector", ".choice label")[1])
    assert read_choices(leak) == ["undecided", "keep"] and read_choices(dark) == ["keep"]
    assert read_state(check) == ("2 of 31 pictures and 1 other decided; not saved yet", True)
    press(check, "ARROW_RIGHT")
    # As it was.
    assert read_choices(leak) == ["undecided", "drop"] and read_state(check) == (
        "2 of 31 pictures and 1 other decided",
        False,
    )
    press(check, "ARROW_LEFT", "ARROW_LEFT")
    assert (
        read_choices(dark) == ["undecided"]
        and read_state(check)[0] == "1 of 31 pictures and 1 other decided; not saved yet"
    )
    find(check, ".saving button").click()
    assert read_choices(dark) == ["keep"]
    focus(check, find(check, ".saving button"))
    press(check, "ENTER", "SPACE", "ENTER")
    assert read_choices(dark) == ["drop"] and find(check, "[role=status]").text == "Taken back: 1 picture"
    assert read_state(check) == ("2 of 31 pictures and 1 other decided", False)
    press(check, "ENTER")
    assert read_choices(dark) == ["drop"] and focused(check) == "Undo"
    assert find(check, ".saving button").get_attribute("aria-disabled") == "true"


def test_another_label_is_one_of_all_classes_which_are_there_when_they_are_asked_for(check):
    card = find_card(check, "labels")
    select = card.find_element("tag name", "select")
    count = "return [arguments[0].options.length, document.querySelectorAll('.choice option').length]"
    first, others = check.execute_script(count, select)
    assert first == 1
    focus(check, select)
    assert check.execute_script(count, select)[0] == len(CHECKED_NAMES)
    names = check.execute_script("return [...arguments[0].options].map((option) => option.textContent)", select)
    assert names[1:] == [printable(name) for name in CHECKED_NAMES if name != "Keep"]
    press(check, "END")
    assert read_choices(card) == ["class 008"]
    press(check, "TAB")
    assert check.execute_script(count, select) == [2, others + 2]
    # By the mouse.
    click(check, select)
    check.execute_script("arguments[0].blur()", select)
    click(check, card.find_elements("css selector", ".choice label")[3])
    suggested = card.find_elements("css selector", ".choice label")[3].text
    assert read_choices(card) == [suggested] and f"suggested: {suggested}" in card.text
    assert check.execute_script(count, select) == [1, others]
    assert read_console(check) == []


def test_kinds_are_chosen_and_decided_together(check):
    kind, action = check.find_elements("css selector", "#twins .tools select")
    apply, only = find(check, "#twins .tools button"), find(check, "#twins .tools input")
    names = "return [...arguments[0].options].map((option) => option.text)"
    kinds = ["all (8)", "leak (6)", "contradiction (1)", "near twin (1)"]
    assert check.execute_script(names, kind) == kinds
    focus(check, kind)
    press(check, "ARROW_DOWN")
    cards = check.find_elements("css selector", "#twins .case")
    assert len(cards) == 6 and find(check, "#twins .note", 1).text.startswith("6 of 6 cards are shown")
    splits = [f"drop those in {split} that another split has" for split in ("train", "validation")]
    actions = ["choose …", "keep the undecided", "drop the undecided", "drop all but the first of each card", *splits,
               "give the suggested label", "make undecided"]  # fmt: skip
    assert check.execute_script(names, action) == actions
    # Nothing is done that was not chosen.
    click(check, apply)
    assert read_state(check) == ("2 of 31 pictures and 1 other decided", False)
    assert apply.get_attribute("aria-disabled") == "true"
    assert find(check, "[role=status]").text == ""
    choose(check, action, 4)
    assert apply.get_attribute("aria-disabled") == "false"
    click(check, apply)
    # The twin of what is dropped already stays.
    assert [read_choices(card) for card in cards] == [["undecided", "drop"], *[["drop", "undecided"]] * 5]
    assert find(check, "[role=status]").text == "drop those in train that another split has: 5 pictures"
    focus(check, only)
    press(check, "SPACE")
    # One of both stays: there is nothing left to decide.
    assert check.find_elements("css selector", "#twins .case") == []
    assert read_state(check) == ("4 of 31 pictures and 4 others decided; not saved yet", True)
    click(check, find(check, ".saving button"))
    choose(check, kind, 1)
    # What was decided before is done.
    assert len(check.find_elements("css selector", "#twins .case")) == 5
    choose(check, action, 1)
    focus(check, apply)
    press(check, "ENTER", "TAB")
    # Those that are in train are no finding. Cards stay until others are asked for.
    cards = check.find_elements("css selector", "#twins .case")
    assert [read_choices(card) for card in cards] == [["undecided", "keep"]] * 5
    choose(check, kind, 0)
    assert len(check.find_elements("css selector", "#twins .case")) == 2
    click(check, find(check, ".saving button"))
    assert read_state(check) == ("2 of 31 pictures and 1 other decided", False)
    choose(check, action, 3)
    click(check, apply)
    group = find(check, "#twins .of-3")
    assert read_choices(group) == ["undecided", *["drop"] * 5]
    # Those that are behind a button too.
    click(check, group.find_elements("css selector", "button")[-1])
    assert read_choices(group) == ["undecided", *["drop"] * 8] and focused(check) == "Copy"
    assert read_console(check) == []


def test_broken_pictures_are_dropped_or_left_and_cards_say_what_they_are(check):
    """A run ends at one that is kept or has another label."""
    action, card = find(check, "#broken .tools select"), find_card(check, "broken")
    assert [option.text for option in action.find_elements("tag name", "option")] == [
        "choose …", "drop the undecided", "make undecided",
    ]  # fmt: skip
    assert card.find_element("tag name", "fieldset").text.split("\n")[1:] == ["undecided", "drop"]
    titles = {name: find_card(check, name).find_element("class name", "title").text
              for name in ("broken", "before", "labels")}  # fmt: skip
    assert titles == {"broken": "broken", "before": "not found any more", "labels": "label · 0.98"}
    assert find(check, "#before .note", 1).text == "1 of 1 cards are shown"
    assert find(check, "#labels .note", 1).text.endswith("how probable it is that the label was drawn at random.")
    breaks = "return [...arguments[0].querySelector('code').childNodes].map((node) => node.textContent || '|').join('')"
    assert check.execute_script(breaks, find_card(check, "before")) == "before.|png"


def choose(page, select, number: int) -> None:
    """Chooses an option by the keyboard."""
    focus(page, select)
    press(page, "HOME", *["ARROW_DOWN"] * number)


def test_more_cards_are_drawn_when_they_are_asked_for(browser, tmp_path):
    (tmp_path / "check.html").write_text(render(make_check_page(*make_check(100))), "utf-8")
    page = show(browser, (tmp_path / "check.html").as_uri())
    more = find(page, "#labels .block > button")
    number = page.execute_script("return page.sections[2].blocks[0].cards.length")
    assert number > 60 and more.text == f"Show {number - 60} more"
    assert len(page.find_elements("css selector", "#labels .case")) == 60
    focus(page, more)
    press(page, "ENTER")
    assert len(page.find_elements("css selector", "#labels .case")) == number and not more.is_displayed()
    assert page.execute_script("return document.activeElement.type") == "radio"


def test_what_is_saved_is_what_a_check_would_write(check, tmp_path):
    """Byte by byte, whatever stands in names; and it is read as it was decided."""
    check.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    result, _, _ = make_check()
    click(check, find_card(check, "twins", 3).find_elements("css selector", ".choice label")[1])
    choose(check, find(check, "#labels .tools select"), 3)
    click(check, find(check, "#labels .tools button"))
    find(check, ".saving .save").click()
    saved, expected = tmp_path / "check.csv", tmp_path / "expected.csv"
    wait_for(check, saved.exists)
    decided = {HOSTILE[0]: "drop", "folder/picture_012.png": HOSTILE[2], CELLS[5]: "keep", "before.png": "keep"}
    suggested = [row for row in result.findings if row.suggested not in ("", "Keep")]
    for row in result.findings:
        if row.kind == "label" and row.suggested != "Keep":
            decided.setdefault(row.file, next(other.suggested for other in suggested if other.file == row.file))
    assert {name for name in HOSTILE if name not in (HOSTILE[7], HOSTILE[0])} <= set(decided.values())
    rows = [replace(row, decision=decided.get(row.file, "")) for row in result.findings]
    # A twin that has no finding has a row if it is decided about.
    rows += [Finding(CELLS[5], "train", "leak", 0.97, "cat", decision="keep", other=HOSTILE[3])]
    write_findings(expected, rows)
    assert saved.read_bytes() == expected.read_bytes()
    assert read_findings(saved) == [replace(row, score=pytest.approx(row.score)) for row in rows]
    assert {name: each.said for name, each in read_decisions(saved).items()} == {
        name: said.strip() for name, said in decided.items()
    }
    told = "Saved as check.csv among the downloads: put it in place of out/check.csv"
    assert read_state(check) == (f"{len(decided) - 2} of 31 pictures and 2 others decided", False)
    assert find(check, "[role=status]").text == find(check, ".saving p").text == told
    click(check, find(check, ".saving button"))
    assert read_state(check)[1] and find(check, ".saving p").text == ""
    assert read_console(check) == []


def test_decisions_are_words_on_paper(browser, check_address):
    page = show(browser, check_address, (760, 1000), "light", "print")
    shown = [node.text for node in page.find_elements("css selector", "#pictures .decided")]
    assert shown == [f"decision: {printable(HOSTILE[2])}", "decision: drop"]
    script = "return [...document.querySelectorAll('.tools, .saving, .choice')].some((node) => node.checkVisibility())"
    assert page.execute_script(script) is False
    assert page.execute_script("return document.documentElement.scrollWidth") == 760


def wait_for(page, holds) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 60, 0.05).until(lambda _: holds())
