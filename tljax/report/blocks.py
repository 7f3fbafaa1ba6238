"""What a page is made of: values that say what is shown. `page.py` draws them.

All texts are plain: whatever stands in them is shown as it is, `<b>` as four characters. A number that is NaN or
infinite becomes a word in a table and a gap in a chart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

# A tone has a sign and a colour; "" has neither.
Tone = Literal["", "good", "warning"]
# How a series is drawn. Those of training are lines, those of validation dashed ones of another colour.
Style = Literal["line", "dashed", "dots", "steps"]


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    lines: Sequence[str]
    tone: Tone = ""


@dataclass(frozen=True)
class Sheet:
    """A table whose first column names its rows. A column is sorted by a click on its head.

    Numbers get at most four digits. A text that begins with a number, such as `93.1% (91 to 95)`, is sorted by it.
    `wide`: cells stay on one line, and the table scrolls by itself.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Series:
    """Points (x, y) by increasing x. `None`, NaN and infinity are gaps. `color`: one of eight, from 0."""

    name: str
    points: Sequence[tuple[float, float | None]]
    color: int = 0
    style: Style = "line"


@dataclass(frozen=True)
class Mark:
    """An upright line at `x` with a text."""

    x: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Series on common axes, with a legend, the values below the pointer, and a table of its numbers.

    Without `y_range` the axis shows all values; with it, what lies outside is cut off.
    `log_y` leaves out what is not above 0. `diagonal` draws y = x, with both axes over `y_range`, or 0 to 1.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    marks: Sequence[Mark] = ()
    log_y: bool = False
    y_range: tuple[float, float] | None = None
    diagonal: bool = False
    note: str = ""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: `counts[i][j]` pictures of class i are called class j.

    `pictures` has keys of the page's pictures by `"i,j"`; they are shown when the cell is chosen.
    """

    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    pictures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    title: str = "Confusion matrix"


@dataclass(frozen=True)
class Item:
    """A card: pictures side by side by their keys (`None` is left out), a title, and lines below it. The first
    picture's name can be copied."""

    pictures: Sequence[str | None]
    title: str
    lines: Sequence[str] = ()
    tone: Tone = ""


@dataclass(frozen=True)
class Gallery:
    """Cards side by side."""

    title: str
    items: Sequence[Item]
    note: str = ""


@dataclass(frozen=True)
class PictureGrid:
    """Pictures by their keys in rows and columns with titles."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str | None]]
    row_titles: Sequence[str] = ()


@dataclass(frozen=True)
class Code:
    """Lines such as commands, each of which can be copied."""

    lines: Sequence[str]
    label: str = ""


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and a value."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Details:
    """Blocks behind their title, until it is clicked."""

    title: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Tabs:
    """Titles with blocks, one of which is shown, such as stages; the one with the number `chosen` at first."""

    label: str
    options: Sequence[tuple[str, Sequence["Block"]]]
    chosen: int = 0


@dataclass(frozen=True)
class Decisions:
    """Cards on which a person decides about pictures. A card is some rows of the page's `Ledger`: it shows the pictures
    that these are about, those in their column `other` first. `score` says what the number on a card is; without it,
    there is none."""

    title: str
    cards: Sequence[Sequence[int]]
    note: str = ""
    score: str = ""


Block = Text | Sheet | Chart | Matrix | Gallery | PictureGrid | Code | Facts | Details | Tabs | Decisions


@dataclass(frozen=True)
class Thumbnail:
    """What a page shows of a picture; blocks name it by its key in the page's pool.

    `src`: a data URI, or "" where there is the name alone. `width`, `height`: its pixels; small ones are enlarged.
    `alt`: what is said instead of it to who does not see it.
    """

    name: str
    src: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Ledger:
    """A table of findings about pictures, which is saved from a page with what was decided on it.

    `rows` have cells as the file holds them, in `columns`: file, split, kind, score, label, suggested, decision, other.
    All rows of a picture get one decision: keep, drop or one of the cells `classes`. The last `spare` rows are about
    pictures without a finding; they are saved only if something was decided about these. `keys` (of the page's
    pictures) and `notes` are by the cell of a file. `place` is where the file `name` belongs that was saved.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    spare: int
    classes: Sequence[str]
    keys: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    place: str = ""


@dataclass(frozen=True)
class Section:
    """A heading of the page, which its list of contents leads to by `id` (letters and hyphens)."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page. `lead`: the paragraphs that everyone reads; `pictures`: the pool, by keys that blocks name;
    `ledger`: what `Decisions` are about; `command`: what makes such pages, and replaces no others."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    pictures: Mapping[str, Thumbnail] = field(default_factory=dict)
    ledger: Ledger | None = None
    command: str = "report"
