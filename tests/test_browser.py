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
from pathlib import Path
from typing import Any

import pytest
from kitchen_sink import HOSTILE, make_big_page, make_page
from made_runs import leave_lesson
from tiny_runs import DIGITS

from tljax.config import Lesson, Stage
from tljax.report.page import render
from tljax.report.run_page import leave_page
from tljax.text import printable

SIZES = [(1280, 900), (390, 844)]
FOLDERS = [*filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)), f"{sys.prefix}/node_modules"]
CONTROLS = "a, button, summary, input, [tabindex='0']"


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
    browser.get(address)
    return browser


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
