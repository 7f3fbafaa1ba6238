"""The text files of a run: JSON, rows of JSON, lists of digests, written whole or not at all. Of several processes the
leader writes, the others nothing."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tljax.config import jsonable
from tljax.devices.processes import leads
from tljax.trees import Row


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    content = text.encode("utf-8")
    if not leads():
        return
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise type(error)(f"{path} cannot be written ({error.strerror})") from error


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON."""
    write_text(path, json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
      ValueError: if it is damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); bring it back, give another --workdir, or --overwrite"
        ) from error


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes `rows` as JSON, a line each."""
    write_text(path, "".join(json.dumps(jsonable(row), ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: Path) -> list[Row]:
    """What `write_rows` wrote."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def sum_files(folder: Path, name: str) -> str:
    """Digest and path of every file in `folder`, a line each, as sha256sum writes them, for a file `name` there.

    Raises:
      OSError: if one cannot be read.
    """

    def line(path: str) -> str:
        with (folder / path).open("rb") as file:
            return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path}\n"

    def refuse(error: OSError) -> None:
        raise error

    walked = os.walk(folder, onerror=refuse)
    paths = (os.path.relpath(os.path.join(parent, found), folder) for parent, _, names in walked for found in names)
    with ThreadPoolExecutor() as pool:
        return "".join(pool.map(line, sorted(set(paths) - {name, f"{name}.tmp"})))


def write_predictions(
    workdir: Path, ids: Sequence[str], labels: np.ndarray, losses: np.ndarray, top5: Sequence[list]
) -> None:
    """`predictions.jsonl`: a line an image with its label (int), cross-entropy (nats) and five likeliest outputs."""
    rows = zip(ids, labels, losses, top5, strict=True)
    write_rows(
        workdir / "predictions.jsonl",
        [{"id": i, "label": int(n), "loss": float(loss), "top5": best} for i, n, loss, best in rows],
    )
