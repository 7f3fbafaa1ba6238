"""A solved head at every unit, from one pass: each is that of a run whose head reads there."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import DIGITS, TINY, make_source, read_summary, small

from tljax.config import Cache, Head
from tljax.stages import probe
from tljax.stages.from_config import run
from tljax.stages.stage import load_data, load_source

UNITS = TINY.units[1:]


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    source = make_source(tmp_path_factory.mktemp("probe") / "source")
    return small("feature_extraction", pretrained=str(source), head=Head(init="ridge"), epochs=0)


def test_heads_are_those_of_runs_that_find_what_they_read(solved, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    dataset = load_data(solved)
    found = probe.probe(solved, dataset, load_source(solved))
    assert tuple(found.heads) == UNITS
    capsys.readouterr()
    run(replace(solved, head=Head("conv4_block1", "ridge")), tmp_path / "run")
    assert capsys.readouterr().out.count("activations at head of ") == 2
    summary, row = read_summary(tmp_path / "run"), found.heads["conv4_block1"].row
    held_out = summary["solved"]["held_out"]
    assert (row["accuracy"], row["expected"]) == (summary["accuracy"], held_out["accuracy"])
    np.testing.assert_allclose([row["loss"], row["held_out"]], [summary["loss"], held_out["loss"]], rtol=1e-4)
    # What comes later costs more; the price of the pass is known also where it was found.
    again = probe.probe(solved, dataset, load_source(solved), UNITS)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "averages" in line] == [
        f"averages at 5 units of {count} images: found in the cache" for count in (60, 54)
    ]
    assert again.heads["head"].row["seconds"] > 0
    assert min(found.differences.values()) == (0, 0)
    table = probe.describe(found).splitlines()
    assert len(table) == 2 + len(UNITS) and table[2].startswith("| conv2_block1 |")


def test_views_of_the_pictures_are_learned_from_and_limits_are_named(solved):
    viewed = replace(solved, data=replace(DIGITS, augment="flip", views=2, validation_split="none"))
    found = probe.probe(viewed, load_data(viewed), load_source(viewed), ("conv5_block1", "head"))
    assert [len(found.heads[unit].averages["train"]) for unit in ("conv5_block1", "head")] == [2, 2]
    assert all(one.judged is None and one.row["accuracy"] is None for one in found.heads.values())
    tight = replace(solved, cache=Cache(memory_gib=1e-5, disk_gib=1e-5))
    with pytest.raises(ValueError, match=r"no head can be solved at 5 units: their activations take .* more than"):
        probe.probe(tight, load_data(tight), load_source(tight))
