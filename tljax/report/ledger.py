"""A ledger as a page has it: each text stands there once, and rows are numbers."""

from collections.abc import Sequence
from typing import Any

from tljax.data.corrections import DROP, KEEP
from tljax.report.blocks import Ledger
from tljax.text import as_written, printable, restore_surrogates


class Exact(str):
    """A text that a page saves as it is, whatever stands in it."""


def number_texts(ledger: Ledger) -> dict[str, Any]:
    """The content of a ledger as JSON.

    `texts` are the different cells: nothing, keep, drop, then others. All else are their places: `rows` in one list,
    `classes`, and the keys of `keys` and `notes`. `shown` has what a reader sees of a cell where that is not the cell.
    """
    numbers: dict[str, int] = {"": 0, KEEP: 1, DROP: 2}

    def number(cells: Sequence[str]) -> list[int]:
        return [numbers.setdefault(cell, len(numbers)) for cell in cells]

    columns, rows = number(ledger.columns), [place for row in ledger.rows for place in number(row)]
    classes = number(ledger.classes)
    named = {name: dict(zip(number(list(found)), found.values(), strict=True))
             for name, found in (("keys", ledger.keys), ("notes", ledger.notes))}  # fmt: skip
    read = {place: printable(restore_surrogates(as_written(cell))) for cell, place in numbers.items()}
    return {
        "name": ledger.name,
        "place": ledger.place,
        "columns": columns,
        "rows": rows,
        "spare": ledger.spare,
        "classes": classes,
        **{name: {str(place): text for place, text in found.items()} for name, found in named.items()},
        "texts": [Exact(cell) for cell in numbers],
        "shown": {str(place): read[place] for cell, place in numbers.items() if read[place] != cell},
    }
