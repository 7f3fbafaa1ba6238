"""A page as one file of HTML: the template, the style and the script beside this file, and what is shown as JSON.

The page fetches nothing. Its Content-Security-Policy lets this script and this style run by their hashes, and no other.
A page on which something is decided has a second script and a second style, behind the first ones.
"""

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from string import Template
from typing import Any

from tljax.report.blocks import Chart, Ledger, Page, Sheet
from tljax.report.chart_axes import choose_axes
from tljax.report.ledger import Exact, number_texts
from tljax.runs.files import open_file
from tljax.text import printable

# In so many of its first bytes a page says what made it.
MARKED_WITHIN = 4096
# Characters that could end the JSON's element, or a line of it, for a reader of HTML.
_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def render(page: Page) -> str:
    """The whole HTML document of a page, which UTF-8 can write whatever stands in its texts."""
    names = ["page", *(["page_decisions"] if page.ledger else [])]
    script, style = ("\n".join(_read(f"{name}.{kind}") for name in names) for kind in ("js", "css"))
    return Template(_read("page.html")).substitute(
        policy=_make_policy(script, style),
        command=page.command,
        title=html.escape(_clean(page.title)),
        style=style,
        script=script,
        content=_to_json(page),
    )


def is_page(path: Path, command: str) -> bool:
    """Whether a file is a page that `command` made.

    Raises:
      OSError: if it cannot be read.
    """
    with open_file(path) as file:
        return make_mark(command) in file.read(MARKED_WITHIN)


def make_mark(command: str) -> bytes:
    """What stands in each page that `command` made."""
    return f'<meta name="generator" content="tljax {command}">'.encode()


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _make_policy(script: str, style: str) -> str:
    allowed = f"script-src {_hash(script)}; style-src {_hash(style)}; img-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _to_json(page: Page) -> str:
    text = json.dumps(_simplify(page), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _simplify(value: Any) -> Any:
    """Values as JSON has them: a block is a dict with its `kind`, a text is `printable`, and NaN is null."""
    if isinstance(value, Exact):
        return value
    if isinstance(value, str):
        return _clean(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_clean(key): _simplify(entry) for key, entry in value.items()}
    if is_dataclass(value):
        return {"kind": type(value).__name__} | {name: _simplify(entry) for name, entry in _list_fields(value).items()}
    return [_simplify(entry) for entry in value]


def _list_fields(block: Any) -> dict[str, Any]:
    """The fields of a block. Numbers in sheets that are none are words, a chart has its `axes`, and a ledger has
    `number_texts`."""
    if isinstance(block, Ledger):
        return number_texts(block)
    named = {field.name: getattr(block, field.name) for field in fields(block)}
    if isinstance(block, Sheet):
        return named | {"rows": [[_name_number(cell) for cell in row] for row in block.rows]}
    if isinstance(block, Chart):
        axes = choose_axes(block)
        return named | {"axes": axes and axes._asdict()}
    return named


def _name_number(cell: str | float | None) -> str | float | None:
    if not isinstance(cell, Real) or math.isfinite(cell):
        return cell
    return "not a number" if math.isnan(cell) else "infinite"


def _clean(text: str) -> str:
    # Data URIs are long, and nearly all texts are fine.
    return text if text.isprintable() else printable(text)
