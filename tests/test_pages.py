"""The pages lead where they say: every relative link, picture and heading of the Markdown files is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    (*ROOT.glob("*.md"), *(page for name in ("docs", "benchmarks", "tests") for page in (ROOT / name).rglob("*.md")))
)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _read_links(page: Path) -> list[str]:
    """The targets of the links in a page, without those into the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text("utf-8")))
    return [target for target in targets if "://" not in target]


def _read_anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them: small letters, hyphens for spaces, no other punctuation."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _is_there(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    file = page.parent / name if name else page
    return file.exists() and (not anchor or anchor in _read_anchors(file))


def test_every_link_leads_to_a_file_and_a_heading():
    links = [(page, target) for page in PAGES for target in _read_links(page)]
    assert len(links) > 50
    broken = [f"{page.relative_to(ROOT)}: {target}" for page, target in links if not _is_there(page, target)]
    assert not broken, "\n".join(broken)
