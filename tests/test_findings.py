"""Findings are written and read again, whatever their names are and whatever a spreadsheet makes of the file."""

import csv
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.check.cards import Place, fill_places
from tljax.check.findings import FINDING_COLUMNS, Finding, carry_over, read_findings, write_findings
from tljax.runs import files

FOUND = [
    Finding("train/cat/1.png", "train", "label", 0.9876, "cat", "dog"),
    Finding("=1+2;é.png", "val", "leak", 1.0, "dog", "", "drop", "train/cat/1.png"),
    Finding("'-a\n b.png", "train", "near_twin", 0.0, "007", "", "keep", "x\udcff.png"),
]


def find(kind: str, file: str, other: str = "") -> Finding:
    return Finding(file, "train", kind, 0.5, "cat", "dog" * (kind == "label"), other=other)


# What a cell may not hold as it is, and what stands for it.
parts = st.sampled_from([*"=-+@'1.;,\"\r\n\t \\", "\udcff", "\ud800", "\\udcff", "ud9af"])
texts = st.lists(st.one_of(st.characters(exclude_characters="\0"), parts), max_size=6).map("".join)
findings = st.builds(Finding, texts, texts, texts, st.integers(0, 10_000).map(lambda n: n / 10_000), texts, texts)


@settings(max_examples=50, deadline=None)
@given(st.lists(findings, max_size=9), texts, texts)
def test_all_texts_come_back(found, file, other):
    found = [*found, Finding(file, "train", "leak", 0.5, "a", other=other)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.csv"
        write_findings(path, found)
        path.read_bytes().decode("utf-8")
        assert read_findings(path) == found


def save_again(path: Path, to: Path, separator: str, encoding: str, begin: str = "", ending: str = "\r\n") -> Path:
    """Writes the rows of a table, turned round and with blank rows, a column of notes and commas in numbers."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    with to.open("w", encoding=encoding, newline="") as file:
        file.write(begin)
        writer = csv.writer(file, delimiter=separator, lineterminator=ending)
        writer.writerows([[*(name.upper() for name in header), "Notes"], [""] * 9])
        for row in reversed(rows):
            writer.writerow([cell.replace(".", ",") if name == "score" else cell
                             for name, cell in zip(header, row, strict=True)] + ["see"])  # fmt: skip
    return to


@pytest.mark.parametrize(
    "how",
    [
        (";", "utf-8-sig"),
        (",", "utf-8", "", "\n"),
        ("\t", "utf-16"),
        (";", "utf-8-sig", "sep=;\r\n"),
    ],
)
def test_what_a_spreadsheet_saved_again_is_the_same(tmp_path, how):
    write_findings(tmp_path / "check.csv", FOUND)
    assert read_findings(save_again(tmp_path / "check.csv", tmp_path / "again.csv", *how)) == FOUND[::-1]


def test_a_table_of_files_and_decisions_is_enough(tmp_path):
    (tmp_path / "own.csv").write_text("decision;file;score\nDrop;a.png;\n;b.png;0.5\n")
    assert read_findings(tmp_path / "own.csv") == [
        Finding("a.png", "", "", 0.0, "", decision="Drop"),
        Finding("b.png", "", "", 0.5, ""),
    ]
    write_findings(tmp_path / "none.csv", [])
    assert read_findings(tmp_path / "none.csv") == []


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("file,decision,score\na,keep,0\nb,,953\n", "row 3 has the score '953', which is no number from 0 to 1"),
        ("sep=;\r\nfile;decision;score\na;keep;0\nb;;1,1\n", "row 3 has the score '1,1'"),
        ("file,decision,score\n\na,keep,\na,drop,\n", "row 3 (a: keep) and row 4 (a: drop) decide otherwise"),
        ("file,choice\na,keep\n", "has no column 'decision'; its columns are file, choice"),
        ("file,decision\n,keep\n", "row 2 has the decision 'keep' and no file"),
        ("file\na\n", "has the one column 'file': it needs one called file and one called decision"),
        ("", "is empty: it needs two columns, one called file and one called decision"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, rows, said):
    (tmp_path / "check.csv").write_text(rows)
    with pytest.raises(ValueError) as error:
        read_findings(tmp_path / "check.csv")
    assert said in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"there is no such file; did you mean .*check\.csv\?"):
        read_findings(tmp_path / "chek.csv")


def test_decisions_are_carried_over_and_never_lost_in_silence(tmp_path):
    path = tmp_path / "check.csv"
    write_findings(path, FOUND)
    before = path.read_bytes()
    new = [FOUND[0], replace(FOUND[2], score=0.5, decision=""), replace(FOUND[2], kind="dark", decision="")]
    with pytest.raises(ValueError, match=r"has 2 decisions that would be lost: row 3 \(=1\+2;é\.png: drop\); row 4 "):
        write_findings(path, new)
    assert path.read_bytes() == before
    # The picture that has no finding any more is still there, or is not.
    there, lost = carry_over(read_findings(path), new, {FOUND[1].file, FOUND[2].file})
    kept_twice = [replace(row, decision="keep") for row in new[1:]]
    alone = replace(FOUND[1], kind="", score=0.0, other="")
    assert there == [FOUND[0], *kept_twice, alone] and lost == []
    kept, lost = carry_over(read_findings(path), new, [])
    assert kept == there[:3] and lost == [FOUND[1]]
    with pytest.raises(ValueError, match="has 1 decision that would be lost"):
        write_findings(path, kept)
    # Another decision, made while a check was at work.
    with pytest.raises(ValueError, match="has 1 decision that would be lost"):
        write_findings(path, [replace(each, decision="keep") for each in there])
    write_findings(path, kept, gone={FOUND[1].file})
    assert read_findings(path) == kept
    path.write_text("not mine\n")
    with pytest.raises(ValueError, match="has the one column"):
        write_findings(path, kept)
    assert path.read_text() == "not mine\n"


def test_a_table_of_files_and_decisions_is_carried_over(tmp_path):
    """Each decision stands where its picture was found, or is a twin."""
    (tmp_path / "check.csv").write_text("file;decision\na;drop\nb; \nc;dog\nd;keep\n")
    new = [find("leak", "a", "c"), find("dark", "a"), find("label", "b")]
    there, lost = carry_over(read_findings(tmp_path / "check.csv"), new, "abcd")
    dropped = [replace(row, decision="drop") for row in new[:2]]
    beside = [Finding("c", "", "leak", 0.5, "", "", "dog", "a"), Finding("d", "", "", 0.0, "", "", "keep")]
    assert there == [*dropped, new[2], *beside] and lost == []
    placed = [replace(beside[0], split="val", label="cat"), beside[1]]
    assert fill_places(there, {name: Place("val", "cat") for name in "abc"}) == [*there[:3], *placed]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "check.csv"
    write_findings(path, FOUND)

    def fill_the_disk(file: Path, content: bytes) -> None:
        file.write_bytes(content[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_through", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        write_findings(path, FOUND[1:])
    assert read_findings(path) == FOUND and [file.name for file in tmp_path.iterdir()] == ["check.csv"]


def test_no_cell_is_a_formula(tmp_path):
    write_findings(tmp_path / "check.csv", FOUND)
    with (tmp_path / "check.csv").open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == FINDING_COLUMNS
    assert [row[0] for row in rows] == ["train/cat/1.png", "'=1+2;é.png", "''-a\n b.png"]
    assert rows[2][7] == r"x\udcff.png"
