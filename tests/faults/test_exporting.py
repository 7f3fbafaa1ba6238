"""Exporting is killed, or its disk is full: what was there before stays, and nothing half-written has the name."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import make_source

from tljax.cli import main
from tljax.commands import export

# An export that waits where it has written all and renames the first file.
WAITING = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tljax.cli import main

def wait(path, target, replace=Path.replace):
    if target.name != "model.onnx":
        return replace(path, target)
    print("waits", flush=True)
    time.sleep(300)

Path.replace = wait
main(["export", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return make_source(tmp_path_factory.mktemp("exporting") / "run")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_leaves_what_was_there_before(source, tmp_path, number):
    out = tmp_path / "model.onnx"
    out.write_text("before")
    command = [sys.executable, "-c", WAITING, str(source), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and "waits\n" in run.stdout
        run.send_signal(number)
    assert run.returncode == (-9 if number == signal.SIGKILL else 143)
    assert len(list(tmp_path.glob(".export-*"))) == (number == signal.SIGKILL)
    assert out.read_text() == "before" and not (tmp_path / "model.onnx.json").exists()


def test_the_next_export_removes_what_a_killed_one_left(source, tmp_path):
    (tmp_path / ".export-model.onnx").mkdir()
    (tmp_path / ".export-model.onnx" / "tried.onnx").write_text("half")
    main(["export", str(source), str(tmp_path / "model.onnx")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]


def test_where_the_file_cannot_be_replaced_nothing_is(source, tmp_path, monkeypatch, capsys):
    """As a file that is a mount of its own."""

    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if target.name == "model.onnx":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return replace(path, target)

    for name in ("model.onnx", "model.onnx.json"):
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SystemExit):
        main(["export", str(source), str(tmp_path / "model.onnx")])
    assert "model.onnx cannot be written (Device or resource busy)" in capsys.readouterr().err
    assert {path.read_text() for path in tmp_path.iterdir()} == {"before"} and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["model.onnx", "model.stablehlo"])
@pytest.mark.parametrize("written", [0, 1])
def test_a_full_disk_leaves_what_was_there_before(source, tmp_path, monkeypatch, capsys, name, written):
    """It is full at the first or the second of the two files."""
    write, files = export.write_through, []

    def fill(path: Path, data: bytes) -> None:
        files.append(path)
        if len(files) <= written:
            return write(path, data)
        path.write_bytes(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / name).write_text("before")
    monkeypatch.setattr(export, "write_through", fill)
    with pytest.raises(SystemExit):
        main(["export", str(source), str(tmp_path / name)])
    assert capsys.readouterr().err == f"main.py: {tmp_path / name} cannot be written (No space left on device)\n"
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "before"
