"""check: looks at data before a run learns from it, and leaves a table and a page on which it is put right."""

import argparse
import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tljax.arguments import CHECK_SETTINGS
from tljax.check.cards import fill_places, list_places
from tljax.check.examine import examine
from tljax.check.findings import Finding, carry_over, read_findings, write_findings
from tljax.check.network import choose_network
from tljax.check.page import check_free, make_check_page, write_check_page
from tljax.check.reading import ReadData, list_dropped, open_data, read_data, warn_of_groups
from tljax.check.result import Result
from tljax.check.verdicts import list_table
from tljax.config import Cache, Data, data_flags
from tljax.data.layouts import join_names
from tljax.data.sources import SOURCES, check_place
from tljax.model import Model, load
from tljax.report.origin import find_program
from tljax.runs.records import read_stage
from tljax.text import count_words, join_lines, printable

# What a check leaves in its folder.
TABLE, PAGE = "check.csv", "check.html"
# So many pictures are told.
LOST_TOLD = 3


def run(flags: argparse.Namespace) -> None:
    """Checks the data and prints a table; ends with exit code 1 if something was found and `--strict` asks for it."""
    model = None if flags.run is None else load(flags.run)
    config = read_settings(flags, model)
    config.check()
    check_place(config)
    before = prepare_folder(config, flags.out)
    opened = open_data(config)
    size = config.image_size or opened.source.image_size
    disk_bytes = Cache().disk_bytes
    read = read_data(config, opened, size, disk_bytes)
    network = choose_network(model, read.digests, of_files=read.of_files)
    notes = [*opened.warnings, *warn_of_groups(opened, read.checked), *opened.notes]
    result = examine(config.name, read, network, notes, disk_bytes)
    known = {*read.checked.ids, *read.reasons, *list_dropped(opened)}
    if flags.out is not None:
        result = carry(result, read, before, known, flags.out)
    print(join_lines(*list_table(result)))
    if flags.out is not None:
        leave(result, read, flags.out)
    elif result.findings:
        print("to see them and to decide about them, give --out FOLDER")
    if flags.strict and result.verdicts:
        sys.exit(1)


def read_settings(flags: argparse.Namespace, model: Model | None) -> Data:
    """The settings of the data: those that were given, then how the network `model` reads pictures."""
    given = {field.name: value for field in fields(Data) if (value := getattr(flags, field.name, None)) is not None}
    name = name_data(flags.data)
    adopted = {} if model is None else adopt_settings(model, name)
    used = {setting: value for setting, value in adopted.items() if setting not in given}
    if used:
        print(printable(f"as in {flags.run}: {data_flags(used)}"))
    return replace(Data(name=name), **{**used, **given})


def adopt_settings(model: Model, name: str) -> dict[str, Any]:
    """How a run reads pictures: their side and fit and, where it reads the data `name` itself, all that a check takes
    and that differs from the defaults. Nothing for weights that are no run."""
    if not Path(model.name).is_dir():
        return {}
    saved = read_stage("", Path(model.name)).config
    own = saved is not None and (saved.data.name == name or (bool(saved.data.kind) and is_same(saved.data, name)))
    others = {setting: getattr(saved.data, setting) for setting in CHECK_SETTINGS} if saved is not None and own else {}
    usual = Data()
    return {setting: value for setting, value in others.items() if value != getattr(usual, setting)} | {
        "image_size": model.image_size, "fit": model.fit
    }  # fmt: skip


def is_same(data: Data, name: str) -> bool:
    """Whether `name` is the folder or table that `data` names otherwise."""
    other = Data(name=name)
    return other.kind == data.kind and other.path.resolve() == data.path.resolve()


def name_data(data: str) -> str:
    """`data.name` for what was given: a folder or a table that is there may stand for itself."""
    if data in SOURCES or ":" in data:
        return data
    path = Path(data).expanduser()
    if path.is_dir():
        return f"folder:{data}"
    return f"csv:{data}" if path.is_file() else data


def prepare_folder(config: Data, out: Path | None) -> list[Finding]:
    """Checks that a check may write into the folder `out`, and reads what was decided there before.

    Raises:
      ValueError: if `out` is inside of the data, or has a check.csv that is no such table.
      FileExistsError: if it is a file, or has a page that is none of a check.
      FileNotFoundError: if the folder around it is not there.
    """
    if out is None:
        return []
    if config.kind == "folder" and out.resolve().is_relative_to(config.path.resolve()):
        raise ValueError(f"--out {out} is inside of {config.name}: pictures are not changed; give a folder outside")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out {out} is a file; give a folder")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {out.parent}; make it first")
    check_free(out / PAGE)
    return read_findings(out / TABLE) if (out / TABLE).exists() else []


def carry(result: Result, read: ReadData, before: list[Finding], known: set[str], out: Path) -> Result:
    """The result with the decisions that were made `before` about `known` pictures.

    Raises:
      ValueError: if some were made about others, which would be lost.
    """
    findings, lost = carry_over(before, result.findings, known)
    if lost:
        told = join_names([f"{each.file}: {each.decision}" for each in lost], "; ", LOST_TOLD)
        raise ValueError(
            f"{out / TABLE} has {count_words(len(lost), 'decision')} about other pictures ({told}); give "
            "another --out, or take these rows out"
        )
    return result._replace(findings=fill_places(findings, list_places(read.checked)))


def leave(result: Result, read: ReadData, out: Path) -> None:
    """Writes the table and the page, and says what to do with them."""
    out.mkdir(exist_ok=True)
    page = make_check_page(result, read.checked, read.reasons, name_run(result.data, out), str(out / TABLE))
    write_findings(out / TABLE, result.findings)
    write_check_page(out / PAGE, page)
    print(printable(f"written: {out / TABLE}; to see what was found and to decide about it, open {out / PAGE}"))


def name_run(data: str, out: Path) -> str:
    """The command of a run that reads what was decided."""
    words = ["--config.data.name=" + data, f"--config.data.corrections={out / TABLE}"]
    return f"{find_program({'command': sys.argv})} --config recipe --workdir runs/corrected {shlex.join(words)}"
