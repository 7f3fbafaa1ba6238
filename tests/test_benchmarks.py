"""A benchmark that cannot write its results says so before it measures."""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(FOLDER))

from photographs import COUNTS, PHOTOGRAPHS, TILES, Photograph, cut, find_photograph, share_out, split_photographs
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


def test_tiles_lie_beside_each_other():
    """Each pixel of the picture has a value of its own, so tiles that share one would share a value."""
    pixels = np.arange(7 * 11, dtype=np.uint8).reshape(7, 11)
    tiles = [np.asarray(tile) for tile in cut(Image.fromarray(pixels), tiles=12, side=2)]
    assert len(tiles) == 15 and len(np.unique(tiles)) == 15 * 4
    np.testing.assert_array_equal(tiles[0], pixels[:2, :2])
    np.testing.assert_array_equal(tiles[-1], pixels[4:6, 8:10])


@pytest.mark.parametrize("label", ["animal", "made", "person"])
def test_a_photograph_is_in_one_split_and_has_tiles_enough(label):
    photographs = [one for one in PHOTOGRAPHS if one.label == label]
    by_split = split_photographs(photographs, np.random.default_rng(0))
    assert sorted(one.name for split in by_split.values() for one in split) == [one.name for one in photographs]
    for split, some in by_split.items():
        shares = share_out(COUNTS[split], len(some))
        assert sum(shares) == COUNTS[split] and max(shares) <= TILES


def test_a_photograph_that_is_not_installed_names_what_to_install():
    for package, path in (("no-such-package", "a.jpg"), ("numpy", "a.jpg")):
        with pytest.raises(SystemExit, match=rf"^{package} .*: pip install --no-deps scikit-image.*$"):
            find_photograph(Photograph("animal", "cat", package, path))
