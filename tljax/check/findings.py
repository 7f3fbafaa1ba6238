"""What a check finds about pictures: a row each in `check.csv`, in which a person decides what a run reads."""

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

from tljax.data.corrections import read_decisions, read_sheet, read_word
from tljax.data.layouts import join_names
from tljax.runs.files import write_bytes
from tljax.text import count_words, escape_surrogates, plain_cell


@dataclass(frozen=True)
class Finding:
    """What was found about a picture, and what a person decided about it.

    `file` is its id (`Split.ids`), `split` that of the source. `kind` is one of broken, half_read, exact_twin,
    near_twin, leak, contradiction, odd_size, odd_shape, dark, bright, blurred, constant, border, shortcut, label, or
    empty where there is a decision alone. `score` is from 0 to 1, and a higher one is worse. `label` is the picture's
    class, `suggested` another, `other` another picture. `decision` is empty, keep, drop or a class.
    """

    file: str
    split: str
    kind: str
    score: float
    label: str
    suggested: str = ""
    decision: str = ""
    other: str = ""


FINDING_COLUMNS = tuple(field.name for field in fields(Finding))


def write_findings(path: Path, findings: Sequence[Finding], gone: Collection[str] = ()) -> None:
    """Writes `check.csv`, atomically. Scores have four digits behind the point: a spreadsheet of a country that writes
    commas reads three as thousands, and one or two as a date.

    Raises:
      ValueError: if a file is there that is none of findings, or has decisions that `findings` have not, about pictures
        that are not `gone`.
      OSError: if it cannot be written.
    """
    if path.exists():
        _refuse_to_lose(path, {(finding.file, read_word(finding.decision)) for finding in findings}, gone)
    text = io.StringIO(newline="")
    # In quotes, a space at the beginning of a name is read again.
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(FINDING_COLUMNS)
    writer.writerows(write_cells(finding) for finding in findings)
    # By the mark at its beginning, Excel knows UTF-8.
    write_bytes(path, text.getvalue().encode("utf-8-sig"))


def _refuse_to_lose(path: Path, decided: Collection[tuple[str, str]], gone: Collection[str]) -> None:
    there = read_decisions(path).items()
    lost = [str(decision) for name, decision in there if name not in gone and (name, decision.said) not in decided]
    if lost:
        raise ValueError(
            f"{path} has {count_words(len(lost), 'decision')} that would be lost: {join_names(lost, '; ', 3)}; carry "
            "them over, or write another file"
        )


def write_cells(finding: Finding) -> list[str]:
    """The cells of a row of `check.csv`, before they are put in quotes."""
    values = (getattr(finding, name) for name in FINDING_COLUMNS)
    return [plain_cell(escape_surrogates(value)) if isinstance(value, str) else f"{value:.4f}" for value in values]


def read_findings(path: Path) -> list[Finding]:
    """The rows of a `check.csv`, which a spreadsheet may have saved again. Columns but `file` and `decision` may be
    missing; a blank score is 0.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no such table, two decisions contradict each other, or a score is no number from 0 to 1.
    """
    read_decisions(path)
    sheet = read_sheet(path)
    blank = [""] * len(sheet.numbers)
    texts = {name: sheet.cells.get(name, blank) for name in FINDING_COLUMNS if name != "score"}
    scores = [
        _read_score(cell, f"{path}: row {number}")
        for cell, number in zip(sheet.cells.get("score", blank), sheet.numbers, strict=True)
    ]
    rows = (dict(zip(texts, cells, strict=True)) for cells in zip(*texts.values(), strict=True))
    return [Finding(**row, score=score) for row, score in zip(rows, scores, strict=True)]


def _read_score(cell: str, place: str) -> float:
    try:
        score = float(cell.strip().replace(",", ".") or 0)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise ValueError(
            f"{place} has the score {cell!r}, which is no number from 0 to 1: a spreadsheet may have changed it; empty "
            "the column"
        )
    return score


class CarriedOver(NamedTuple):
    """Findings with the decisions of earlier ones, and the decisions that are lost: their pictures are gone."""

    findings: list[Finding]
    lost: list[Finding]


def carry_over(old: Sequence[Finding], new: Sequence[Finding], pictures: Collection[str]) -> CarriedOver:
    """The `new` findings with the decisions of `old` ones about `pictures` that are still there.

    A decision stands in all rows about its picture. Where nothing is found about that any more, it has a row of its
    own: that of a twin, or one without a kind.
    """
    there = set(pictures)
    decided = {finding.file: finding for finding in old if finding.decision.strip()}
    about = {finding.file for finding in new}
    twins = {finding.other: finding for finding in new}
    carried = [replace(row, decision=decided[row.file].decision) if row.file in decided else row for row in new]
    left = [finding for finding in decided.values() if finding.file not in about]
    own = [_give_a_row(finding, twins.get(finding.file)) for finding in left if finding.file in there]
    return CarriedOver([*carried, *own], [finding for finding in left if finding.file not in there])


def _give_a_row(finding: Finding, twin: Finding | None) -> Finding:
    """A row for a decision about a picture that has no finding: `twin` is the finding about a twin of it."""
    kind, score, other = (twin.kind, twin.score, twin.file) if twin else ("", 0.0, "")
    return replace(finding, kind=kind, score=score, suggested="", other=other)
