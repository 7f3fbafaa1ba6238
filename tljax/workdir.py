"""The folder of a run: who works in it, how far the run is, the files that are text. Of several processes the leader
writes, the others nothing."""

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tljax.config import Config, FourStages, find_changes
from tljax.mesh import leads, wait

Row = dict[str, Any]

# What a run writes into its workdir; --overwrite deletes these and nothing else.
FILES = ("config.json", "metrics.jsonl", "predictions.jsonl", "report.md", "figures", "checkpoints", "summary.json")
LOCK = ".lock"


@contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Makes `workdir` unless it is there, and keeps every other run out of it meanwhile. What was made for this and is
    empty in the end is removed again.

    Raises:
      OSError: if it cannot be made, or another run is at work there.
    """
    if not leads():
        yield
        return
    _refuse_file(workdir)
    made = [path for path in (workdir, *workdir.parents) if not path.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / LOCK).open("a")
    except OSError as error:
        _remove(made)
        raise type(error)(f"{workdir} cannot be written to ({error.strerror}); give another --workdir") from error
    with file:
        _lock(file, workdir)
        try:
            yield
        finally:
            with suppress(OSError):
                (workdir / LOCK).unlink()
            _remove(made)


def _refuse_file(workdir: Path) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise FileExistsError(f"{workdir} is a file; give a folder as --workdir")


def _lock(file: Any, workdir: Path) -> None:
    # The system lets go of it however the process ends.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who was there a moment ago may have removed it.
        taken = not os.path.samestat(os.fstat(file.fileno()), (workdir / LOCK).stat())
    except (BlockingIOError, FileNotFoundError):
        taken = True
    except OSError as error:
        print(f"{workdir}: cannot keep other runs out ({error.strerror})")
        return
    if taken:
        raise FileExistsError(f"{workdir}: another run is at work there; wait, or give another --workdir")


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def find_run(workdir: Path, config: Config | FourStages) -> Literal["none", "begun", "finished"]:
    """How far the run of `config` in `workdir` is. One with fewer epochs counts as begun.

    Raises:
      FileExistsError: if what is there is no run that could go on.
      ValueError: if it is a run of another config, with what differs.
    """
    _refuse_file(workdir)
    found = [name for name in FILES if (workdir / name).exists()]
    if not found:
        return "none"
    if FILES[0] not in found:
        raise FileExistsError(
            f"{workdir} holds {', '.join(found)} but no {FILES[0]}; give another --workdir, or --overwrite"
        )
    before, now = read_json(workdir / FILES[0]), as_json(config)
    changes = find_changes(before, now)
    if changes:
        raise ValueError(
            f"{workdir} holds a run of another config ({'; '.join(changes)}); give its config, another --workdir, or "
            "--overwrite"
        )
    # More epochs are no change; the other way round they would be.
    longer = find_changes(now, before)
    return "finished" if not longer and _is_whole(workdir) else "begun"


def _is_whole(workdir: Path) -> bool:
    """Whether there is what a finished run leaves."""
    try:
        stage = read_json(workdir / "summary.json")["stage"]
    except (OSError, ValueError):
        return False
    return stage == "zero_shot" or (workdir / "metrics.jsonl").exists()


def begin_run(workdir: Path, config: Config | FourStages, *, overwrite: bool) -> None:
    """Writes `config.json` where there is none; with `overwrite` it deletes first what an earlier run left. All
    processes go on after that."""
    wait(f"{workdir} is checked")
    if overwrite:
        clear(workdir)
    if not (workdir / FILES[0]).exists():
        write_json(workdir / FILES[0], as_json(config))
    wait(f"{workdir} is there")


def go_on(workdir: Path, config: Config | FourStages) -> None:
    """From here on the run is one of `config`, and not finished."""
    if leads():
        (workdir / "summary.json").unlink(missing_ok=True)
    write_json(workdir / FILES[0], as_json(config))


def clear(workdir: Path) -> None:
    """Deletes what a run left in `workdir`: its summary first, so that it is no finished run any more, its config last,
    until when the folder is known as a run's."""
    for path in (workdir / name for name in reversed(FILES) if leads()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def as_json(config: Config | FourStages) -> Any:
    """What `config.json` holds."""
    return json.loads(json.dumps(jsonable(asdict(config))))


def jsonable(value: Any) -> Any:
    """`value` with tuples as lists and numbers that are not finite, which JSON does not have, as None."""
    if isinstance(value, Mapping):
        return {k: jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
