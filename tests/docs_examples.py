"""The code in docs/export.md, for tests that run it."""

from pathlib import Path


def read_example(title: str, language: str = "python") -> str:
    """The code below a heading of docs/export.md."""
    text = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    return section.split(f"```{language}\n")[1].split("```")[0]
