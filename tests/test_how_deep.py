"""Studies with a tiny network: what they choose, run and say, and that they go on after a kill."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import DIGITS, make_source, read_rows, read_summary

from tljax.config import HowDeep
from tljax.runs import files
from tljax.stages import how_deep, rules
from tljax.stages.from_config import run

CANDIDATES = ["solved_head", "fine_tune_conv5_block1", "fine_tune_conv4_block1", "fine_tune_all", "from_scratch"]
DATA = replace(DIGITS, validation_split="train[70%:]", test_split="val", max_images=None, labels_per_class=20)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Candidates train for an epoch or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "TUNE_EPOCHS", (1, 1))
        patch.setattr(rules, "EPOCHS", (2, 2))
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> HowDeep:
    source = make_source(tmp_path_factory.mktemp("how_deep") / "source")
    return HowDeep(pretrained=str(source), data=replace(DATA, augment="none"))


def read_answer(workdir: Path) -> dict:
    return files.read_json(workdir / "how_deep.json")


def test_it(tmp_path, study):
    run(study, tmp_path / "run")
    print((tmp_path / "run" / "report.md").read_text())
    print((tmp_path / "run" / "how_deep.json").read_text())
    print((tmp_path / "run" / "recipe.json").read_text())
    assert 0
