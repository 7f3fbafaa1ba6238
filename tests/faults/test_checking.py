"""A check is killed, or its disk is full: decisions stay as they were, and no file is half-written."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from pictures import make_folder

from tljax.check.findings import Finding, read_findings, write_findings
from tljax.cli import main
from tljax.runs import files

# A check that waits where it has written a file, and renames it.
WAITING = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tljax.cli import main

def wait(path, target, replace=Path.replace):
    if target.name != sys.argv[1]:
        return replace(path, target)
    print("waits", flush=True)
    time.sleep(300)

Path.replace = wait
main(["check", *sys.argv[2:]])
"""
DECIDED = Finding("red/1.png", "train", "exact_twin", 1.0, "red", "", "drop", "red/0.png")


@pytest.fixture
def data(tmp_path):
    return make_folder(tmp_path / "data", {"red": 3, "blue": 3})


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    write_findings(tmp_path / "out/check.csv", [DECIDED])
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("number", "at"),
    [
        (signal.SIGKILL, "check.csv"),
        (signal.SIGTERM, "check.html"),
        pytest.param(signal.SIGINT, "check.csv", marks=pytest.mark.long),
    ],
)
def test_a_kill_leaves_decisions_as_they_were(data, out, number, at):
    command = [sys.executable, "-c", WAITING, at, str(data), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and "waits\n" in run.stdout
        run.send_signal(number)
    assert run.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert {row.file: row.decision for row in read_findings(out / "check.csv") if row.decision} == {"red/1.png": "drop"}
    assert not (out / "check.html").exists()
    main(["check", str(data), "--out", str(out)])
    assert sorted(path.name for path in out.iterdir()) == ["check.csv", "check.html"]


@pytest.mark.parametrize("full", ["check.csv", "check.html"])
def test_a_full_disk_is_one_line(data, out, monkeypatch, capsys, full):
    plain = files.write_through

    def write(path, content):
        if path.name.removesuffix(".tmp") == full:
            plain(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(path, content)

    monkeypatch.setattr(files, "write_through", write)
    with pytest.raises(SystemExit) as ended:
        main(["check", str(data), "--out", str(out)])
    assert ended.value.code == 1
    assert f"{out / full} cannot be written (No space left on device)" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["check.csv"]
    rows = [row for row in read_findings(out / "check.csv") if row.decision]
    assert {(row.file, row.decision) for row in rows} == {("red/1.png", "drop")}
