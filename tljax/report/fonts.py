"""The letters of names in figures: from fonts of this machine that have them, else in Latin letters."""

import os
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

from tljax.text import escape, printable

# They have a box for every letter.
BOXES = ("last resort", ".last")
# Style, weight and stretch.
USUAL = ("normal", 400, "normal")


class Letters(NamedTuple):
    """`families` of fonts, the first of which is matplotlib's own; and what no font here has."""

    families: list[str]
    lacking: frozenset[str]

    def write(self, text: str) -> str:
        """`text` on one line, and what no font has in Latin letters."""
        shown = unicodedata.normalize("NFC", printable(text))
        return "".join(to_latin(c) if c in self.lacking else c for c in shown)


def choose_backend() -> None:
    """To be called before matplotlib is imported: a notebook names its own backend in the environment, which a process
    that is started from there does not have."""
    os.environ["MPLBACKEND"] = "agg"


def find_letters(texts: Iterable[str]) -> Letters:
    """The fonts that are needed for `texts`."""
    choose_backend()
    from matplotlib import font_manager, rcParams

    lacking = {c for text in texts for c in unicodedata.normalize("NFC", printable(text))}
    own = font_manager.FontProperties(family=rcParams["font.family"])
    families = [own.get_name()]
    lacking -= find_drawn(font_manager.findfont(own), lacking)
    for family, file in list_fonts() if lacking else ():
        if found := find_drawn(file, lacking):
            families.append(family)
            lacking -= found
    return Letters(families, frozenset(lacking))


def list_fonts() -> list[tuple[str, Any]]:
    """The upright fonts of usual weight by their family, and their files."""
    from matplotlib.font_manager import FontPath, fontManager

    usual = [font for font in fontManager.ttflist if (font.style, font.weight, font.stretch) == USUAL]
    files = {font.name: FontPath(font.fname, font.index) for font in usual if not font.name.lower().startswith(BOXES)}
    return sorted(files.items())


def find_drawn(file: Any, characters: set[str]) -> set[str]:
    """Those of `characters` that a font draws. Fonts of colored pictures have no outlines, and draw none."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(file)
        known = font.get_charmap()
        there = {c for c in characters if ord(c) in known}
        return {c for c in there if c.isspace() or not c.isprintable() or any(font.load_char(ord(c)).bbox)}
    # A font that is damaged, or of a kind that has no outlines, is none.
    except (OSError, RuntimeError, ValueError):
        return set()


def to_latin(character: str) -> str:
    """A letter in Latin letters, `:cat:` for an emoji; an escape if nobody has said how."""
    from anyascii import anyascii

    unseen = unicodedata.category(character) in ("Mn", "Me", "Cf")
    return anyascii(character) or ("" if unseen else escape(character))
