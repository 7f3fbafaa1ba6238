"""What somebody may have meant by a name that is none: how `data.name` is written, and which path is near."""

import difflib
import os
import re
from contextlib import suppress
from pathlib import Path

from tljax.data.layouts import EXTENSIONS, suggest_table

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
# Tables that are no text.
OTHER_TABLES = (".xlsx", ".xls", ".ods", ".parquet", ".feather", ".arrow", ".sqlite", ".db")
_URL = re.compile(r"\w+://.*")
_OTHER_WAY = re.compile(r"(?i:(folder|directory|dir)|csv|tsv|table)\s*[:=]\s*(.+)")


def explain_name(name: str) -> str:
    """What to write instead of `name`, which stands for no data set; empty where nothing tells what it means."""
    if not name.strip():
        return "it is empty: write folder:PATH, csv:FILE or the name of a TFDS data set"
    if _URL.fullmatch(name):
        return "it is an address: download and unpack it yourself, then write folder:PATH"
    if other := _OTHER_WAY.fullmatch(name):
        return f"write {'folder' if other[1] else 'csv'}:{other[2]}"
    _, colon, place = name.partition(":")
    if colon and os.path.exists(Path(place).expanduser()):
        return explain_place(place)
    path = Path(name).expanduser()
    if os.path.exists(path) or re.match(r"[~./]|.*[/\\]", name) or path.suffix:
        return explain_place(name)
    return ""


def explain_place(place: str) -> str:
    """What lies at a path, and how that is written; where nothing does, what is near it."""
    path = Path(place).expanduser()
    if path.is_dir():
        return f"it is a folder: write folder:{place}{suggest_table(path)}"
    if not path.is_file():
        near = find_near_path(path)
        return f"there is no such file or folder{f'; did you mean {write_place(near)}?' if near else ''}"
    ending = path.suffix.lower()
    if ending in ARCHIVES:
        return "it is an archive: unpack it, then write folder:PATH"
    if ending in OTHER_TABLES:
        return "it is no table in text: save it as CSV, then write csv:FILE"
    if ending in EXTENSIONS:
        return "it is one picture: write folder:PATH with the folder that holds the folders of the classes"
    return f"it is a file: write csv:{place} if it is a table of files and labels"


def write_place(path: Path) -> str:
    """How a folder or a table is written as a name of data."""
    return f"{'folder' if path.is_dir() else 'csv'}:{path}"


def find_near_path(path: Path) -> Path | None:
    """The path that is there and like `path`, which is not, part by part; None if there is none."""
    if os.path.exists(path):
        return path
    folder = None if path == path.parent else find_near_path(path.parent)
    names: dict[str, str] = {}
    with suppress(OSError):
        names = {name.casefold(): name for name in os.listdir(folder)} if folder else {}
    near = difflib.get_close_matches(path.name.casefold(), names, 1, cutoff=0.65)
    return folder / names[near[0]] if folder and near else None
