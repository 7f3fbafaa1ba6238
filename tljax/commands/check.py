"""check: looks at data before a run learns from it, and leaves a table and a page on which it is put right."""

import argparse
import fcntl
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tljax.arguments import CHECK_SETTINGS
from tljax.check.cards import SAVED, fill_places, list_places
from tljax.check.examine import examine
from tljax.check.findings import Finding, carry_over, read_findings, write_findings
from tljax.check.network import choose_network
from tljax.check.page import check_free, make_check_page, write_check_page
from tljax.check.reading import ReadData, list_dropped, open_data, read_data
from tljax.check.result import Result
from tljax.check.verdicts import is_open, list_table
from tljax.config import Cache, Data, data_flags
from tljax.data.corrections import find_class, read_decisions
from tljax.data.layouts import join_names
from tljax.data.sources import SOURCES, check_place
from tljax.model import Model, load
from tljax.report.origin import find_program
from tljax.runs.records import read_stage
from tljax.text import count_words, join_lines, printable

# What a check leaves in its folder, beside the table `SAVED`.
PAGE = "check.html"
# So many pictures are told.
LOST_TOLD = 3


def run(flags: argparse.Namespace) -> None:
    """Checks the data and prints a table; ends with exit code 1 if something was found and `--strict` asks for it."""
    model = None if flags.run is None else load(flags.run)
    config = read_settings(flags, model)
    config.check()
    check_place(config)
    before = prepare_folder(config, flags.out)
    if config.corrections is not None:
        before = [*read_findings(config.corrections_file), *before]
    opened = open_data(config)
    size = config.image_size or opened.source.image_size
    disk_bytes = Cache().disk_bytes
    read = read_data(config, opened, size, disk_bytes)
    known = {*read.checked.ids, *read.reasons, *list_dropped(opened)}
    if flags.out is not None and (flags.out / SAVED).exists():
        refuse_decisions(flags.out / SAVED, known, opened.class_names)
    network = choose_network(model, read.checked.digests, of_files=read.of_files)
    result = examine(config.name, read, network, [*opened.warnings, *opened.notes], disk_bytes)
    carried = carry_over(before, result.findings, known).findings
    result = result._replace(findings=fill_places(carried, list_places(read.checked)))
    # Nobody may read what is printed.
    if flags.out is not None:
        leave(result, read, flags.out)
    print(join_lines(*list_table(result), name_next(result, flags.out)))
    if flags.strict and is_open(result):
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
      FileExistsError: if it is no folder, or has a page that is none of a check.
      FileNotFoundError: if the folder around it is not there.
      PermissionError: if nothing can be written there.
    """
    if out is None:
        return []
    if config.kind == "folder" and out.resolve().is_relative_to(config.path.resolve()):
        raise ValueError(f"--out {out} is inside of {config.name}: pictures are not changed; give a folder outside")
    if os.path.lexists(out) and not out.is_dir():
        raise FileExistsError(f"--out {out} is a {'file' if out.exists() else 'link to nothing'}; give a folder")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {out.parent}; make it first")
    if not os.access(out if out.is_dir() else out.absolute().parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {out}: nothing can be written there; give a folder of your own")
    if (out / SAVED).is_dir():
        raise FileExistsError(f"{out / SAVED} is a folder; give another --out")
    check_free(out / PAGE)
    return read_findings(out / SAVED) if os.path.lexists(out / SAVED) else []


def refuse_decisions(table: Path, known: set[str], class_names: Sequence[str]) -> None:
    """Refuses a `table` whose decisions cannot be carried over.

    Raises:
      ValueError: if one is no decision, or is about a picture that is not `known`, and would be lost.
    """
    decisions = read_decisions(table)
    lost = [str(decision) for file, decision in decisions.items() if file not in known]
    if lost:
        told = join_names(lost, "; ", LOST_TOLD)
        raise ValueError(
            f"{table} has {count_words(len(lost), 'decision')} about other pictures: {told}; "
            "give another --out, or take these rows out"
        )
    for decision in decisions.values():
        find_class(decision, class_names, table)


def leave(result: Result, read: ReadData, out: Path) -> None:
    """Writes the table and the page."""
    out.mkdir(exist_ok=True)
    page = make_check_page(result, read.checked, read.reasons, name_run(result.data, out), str(out / SAVED))
    with wait_for(out):
        write_findings(out / SAVED, result.findings)
        write_check_page(out / PAGE, page)


def name_next(result: Result, out: Path | None) -> str:
    """What to do next."""
    if out is not None:
        return f"written: {out / SAVED}; to see what was found and to decide about it, open {out / PAGE}"
    return "to see them and to decide about them, give --out FOLDER" if result.findings else "nothing to decide about"


@contextmanager
def wait_for(out: Path) -> Iterator[None]:
    """A block in which no other check writes into the folder `out`. The system releases the lock however it ends."""
    folder = os.open(out, os.O_RDONLY)
    try:
        # Some file systems have no locks.
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def name_run(data: str, out: Path) -> str:
    """The command of a run that reads what was decided."""
    words = ["--config.data.name=" + data, f"--config.data.corrections={out / SAVED}"]
    return f"{find_program({'command': sys.argv})} --config recipe --workdir runs/corrected {shlex.join(words)}"
