"""A benchmark that cannot write its results says so before it measures."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(FOLDER))

from protocol import output_file


def test_the_folder_of_the_results_is_made(tmp_path):
    assert output_file(tmp_path / "a" / "b" / "results.json").parent.is_dir()
    assert not list((tmp_path / "a" / "b").iterdir())
    with pytest.raises(argparse.ArgumentTypeError, match=r"is a folder; give a file, such as .*/a/b/results.json"):
        output_file(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("compare.py --peers nowhere --images 1536 --out taken/results.json", "taken/results.json cannot be written"),
        ("compare.py --peers nowhere --images 1536 --out results.md", "--out results.md: must end in .json"),
        ("gpu.py --quick --out taken/gpu", "taken/gpu.json cannot be written"),
        ("ablation.py --data-dir nowhere --out taken", "taken/results cannot be written"),
        ("views.py --data-dir nowhere --out taken", "taken/results cannot be written"),
    ],
)
def test_results_that_cannot_be_written_are_refused_at_once(command, said, tmp_path):
    (tmp_path / "taken").touch()
    script, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1], done.stderr
