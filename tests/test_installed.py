"""The installed wheel works from any folder: it has the packages and the shipped configs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import make_source, read_summary

from tljax.cli import shipped_configs

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the installed wheel alone. On PYTHONPATH it comes before the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheel")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (folder / "wheel").glob("*.whl")
    install = ["install", "-q", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    return folder / "site"


def test_a_stage_runs_from_another_folder(installed, tmp_path):
    make_source(tmp_path / "source")
    settings = "--config.pretrained=source --config.data.name=digits --config.data.classes 5 6 7 --config.epochs=1"
    bounds = "--config.data.max_images=60 --config.batch_size=16"
    command = f"{installed}/bin/tljax --config feature_extraction --workdir run {settings} {bounds}".split()
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_summary(tmp_path / "run")["epochs"] == 1
    where = "import tljax.cli; print(tljax.cli.__file__, *tljax.cli.shipped_configs().values())"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    paths = found.stdout.split()
    assert all(path.startswith(str(installed)) for path in paths)
    assert len(paths) == 1 + len(shipped_configs())


def test_the_wheel_has_what_is_no_python(installed):
    assert (installed / "tljax" / "py.typed").is_file()
    assert (installed / "tljax" / "weights" / "imagenet_classes.txt").is_file()
    assert all((installed / "tljax" / "report" / f"page.{ending}").is_file() for ending in ("html", "css", "js"))
