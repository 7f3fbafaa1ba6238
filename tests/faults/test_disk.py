"""Disk full, a workdir that cannot be written to or is gone, two runs at once: a line, and nothing saved is harmed.

Where a small disk can be mounted: `pytest tests/faults/test_disk.py -m long -s`
"""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from harness import HERE, Run, command, environment, newest, outcome
from tiny_runs import make_source, small

from tljax import startup
from tljax.config import Data
from tljax.runs import checkpoints, files, workdir
from tljax.runs.integrity import Damaged
from tljax.stages import from_config


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    env = environment(folder / "cache")
    run = Run(command("augmented.py", folder / "run"), env)
    assert run.wait() == 0, run.lines
    return outcome(folder / "run"), env


def last_line(run: Run) -> str:
    """What it says when it ends, one line without a traceback."""
    lines = [line for line in run.lines if not line.startswith(("PHASE", "STEPS", "END"))]
    assert not any("Traceback" in line for line in lines), "\n".join(lines)
    assert lines[-1].startswith("main.py: "), lines
    return lines[-1]


def test_files_that_cannot_be_written(tmp_path):
    """As on a full disk, at the first save."""
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))"
    wrapper = f"import os, resource, sys; {limit}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    weights = f"--config.pretrained={make_source(tmp_path / 'source')}"
    arguments = command("head.py", tmp_path / "run", weights)[1:]
    run = Run([sys.executable, "-c", wrapper, *arguments], environment(tmp_path / "cache"))
    assert run.wait() == 1
    assert "cannot be written" in last_line(run) and str(tmp_path / "run") in last_line(run)


def test_a_disk_that_is_full_at_the_end(tmp_path, monkeypatch, capsys):
    """Each file of the end is named in a line, and the evidence that is lacking ends no run. With room it goes on."""
    data = Data(name="digits", classes=("5", "6"), validation_split="train[80%:]", test_split="val", max_images=20)
    source = str(make_source(tmp_path / "source"))
    config = small("feature_extraction", pretrained=source, data=data)
    from_config.run(config, tmp_path / "whole")
    full, plain = {"none"}, files.write_through

    def write(path, content):
        if path.name.removesuffix(".tmp") in full:
            plain(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(path, content)

    monkeypatch.setattr(files, "write_through", write)
    for name in ("predictions.jsonl", "test_predictions.jsonl", "summary.json"):
        full = {name, "evidence.npz"}
        said = re.escape(f"{tmp_path / 'run' / name} cannot be written (No space left on device)")
        with pytest.raises(OSError, match=said):
            from_config.run(config, tmp_path / "run")
        assert not (tmp_path / "run" / name).exists() and not list((tmp_path / "run").glob("*.tmp"))
    assert "evidence.npz cannot be written (No space left on device)); the run goes on" in capsys.readouterr().out
    full = {"none"}
    from_config.run(config, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    ("then", "printed"),
    [
        ("del late", "RuntimeError: another"),
        ("raise ValueError('wrong')", "main.py: wrong"),
        ("import jax.numpy; jax.numpy.zeros(10**15)", "main.py: a device is out of memory (it was asked"),
    ],
    ids=["in a run", "after an error", "out of memory"],
)
def test_what_tensorstore_ends_late_is_not_printed(then, printed):
    """Python cannot raise what fails in its threads then, and warns about reads that never began."""
    script = (
        "from tljax import startup\nasync def read(): pass\n"
        "class Late:\n    def __init__(self, text): self.text = text\n"
        "    def __del__(self): raise RuntimeError(self.text)\n"
        "never_begun = read()\n"
        "with startup.one_line(debug=False):\n"
        "    closed = Late('Event loop is closed'); del closed\n"
        f"    late = Late('another'); {then}\n"
        "never_begun.close()"
    )
    run = Run([sys.executable, "-c", script], os.environ | {"PYTHONPATH": str(HERE.parents[1])})
    run.wait()
    assert printed in run.lines[-2], run.lines
    assert not any("is closed" in line or "RuntimeWarning" in line for line in run.lines), run.lines


def test_a_device_that_is_not_there_is_one_line(tmp_path):
    run = Run(command("head.py", tmp_path / "run"), environment(tmp_path / "cache") | {"JAX_PLATFORMS": "cuda"})
    assert run.wait() == 1
    assert "JAX_PLATFORMS=cuda: there is no such device, or JAX is installed without it" in last_line(run)


def test_a_path_from_which_nothing_can_be_read_back_is_refused_at_the_start(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoints cannot be read from a path with '\['; give another --workdir"):
        from_config.run(small("from_scratch"), tmp_path / "run [1]" / "a")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_cannot_be_read_back_ends_the_run_in_its_first_epoch(tmp_path, monkeypatch):
    def fail(self, number):
        raise Damaged("nothing there")

    monkeypatch.setattr(checkpoints.Checkpoints, "restore_variables", fail)
    with pytest.raises(OSError, match=r"just written cannot be read back .* not fit for checkpoints"):
        from_config.run(small("from_scratch"), tmp_path / "run")


def test_the_variable_for_64_bits_is_ignored_and_that_is_said(capsys):
    jax.config.update("jax_enable_x64", True)
    try:
        startup.use_float32()
        assert jax.numpy.arange(2.0).dtype == "float32"
    finally:
        jax.config.update("jax_enable_x64", False)
    startup.use_float32()
    assert capsys.readouterr().out == "JAX_ENABLE_X64 is ignored: runs compute in float32 and bfloat16\n"


@pytest.mark.long
def test_the_run_is_the_same_with_x64(tmp_path, undisturbed):
    expected, env = undisturbed
    run = Run(command("augmented.py", tmp_path / "run"), env | {"JAX_ENABLE_X64": "1"})
    assert run.wait() == 0, run.lines
    assert any("JAX_ENABLE_X64 is ignored" in line for line in run.lines)
    assert outcome(tmp_path / "run") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="nobody, root neither, can write to /proc")
@pytest.mark.long
def test_a_workdir_that_cannot_be_made(undisturbed):
    run = Run(command("augmented.py", Path("/proc/runs/new")), undisturbed[1])
    assert run.wait() == 1
    assert "/proc/runs/new cannot be written to" in last_line(run)


@pytest.mark.long
def test_two_runs_at_once(tmp_path, undisturbed):
    expected, env = undisturbed
    one = Run(command("augmented.py", tmp_path / "run"), env | {"SLOW": "0.3"})
    assert one.wait_for("PHASE training")
    two = Run(command("augmented.py", tmp_path / "run"), env)
    assert two.wait() == 1
    assert f"{tmp_path / 'run'}: another run is at work there" in last_line(two)
    assert one.wait() == 0
    assert outcome(tmp_path / "run") == expected


@pytest.mark.long
def test_a_workdir_that_is_gone(tmp_path, undisturbed):
    run = Run(command("augmented.py", tmp_path / "run"), undisturbed[1] | {"SLOW": "0.3"})
    assert run.wait_for("PHASE training", 2)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert run.wait() == 1
    assert str(tmp_path / "run") in last_line(run)
    assert not (tmp_path / "run").exists()
    # What was saved goes on where it is now.
    again = Run(command("augmented.py", tmp_path / "elsewhere"), undisturbed[1])
    assert again.wait() == 0
    assert any("goes on after epoch 1" in line for line in again.lines)
    assert outcome(tmp_path / "elsewhere") == undisturbed[0]


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tljax", str(disk)], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.long
@pytest.mark.parametrize("save", [1, 3, 6])
@pytest.mark.parametrize("left", [0, 2**17, 2**19])
def test_a_full_disk(undisturbed, small_disk, save, left):
    """At the first, a middle and the last save, with so many bytes left; once there is room the run goes on."""
    expected, env = undisturbed
    folder = small_disk / "run"
    run = Run(command("augmented.py", folder), env | {"SLOW": "0.5"})
    assert run.wait_for("PHASE saving", save)
    run.process.send_signal(signal.SIGSTOP)
    before = newest(folder)
    with (small_disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(small_disk).free - left)
    run.process.send_signal(signal.SIGCONT)
    code = run.wait()
    said = last_line(run) if code else ""
    print(f"save {save}, {left} bytes left: {code} {said}")
    assert code == 1 and "cannot be written" in said and str(folder) in said
    assert newest(folder) == before
    (small_disk / "filler").unlink()
    again = Run(command("augmented.py", folder), env)
    assert again.wait() == 0, again.lines
    assert any(f"goes on after epoch {save - 1}" in line for line in again.lines) == (save > 1)
    assert outcome(folder) == expected


@pytest.mark.long
def test_a_workdir_that_is_read_only(undisturbed, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    run = Run(command("augmented.py", small_disk / "run"), undisturbed[1])
    assert run.wait() == 1
    assert f"{small_disk / 'run'} cannot be written to (Read-only file system)" in last_line(run)


def test_an_environment_that_cannot_be_recorded_is_a_line(tmp_path, capsys):
    (tmp_path / "environment.jsonl").mkdir()
    workdir.record_environment(tmp_path)
    assert "the environment is not recorded: " in capsys.readouterr().out


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), ("| true", 1)])
def test_a_closed_output_is_no_traceback(tmp_path, closed, code):
    root = str(HERE.parents[1])
    script = f"set -o pipefail; {sys.executable} -m main --help {closed}; echo $? > {tmp_path / 'code'}"
    done = subprocess.run(["bash", "-c", script], cwd=root, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert (tmp_path / "code").read_text() in ("0\n", f"{code}\n")
