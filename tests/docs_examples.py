"""The code in docs/, for tests that run it."""

from pathlib import Path


def read_example(title: str, language: str = "python", page: str = "export.md") -> str:
    """The first code in a language below a heading of a page in docs/."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text()
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    return section.split(f"```{language}\n")[1].split("```")[0]
