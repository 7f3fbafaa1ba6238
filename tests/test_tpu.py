"""What a compiled program takes is read off right, and what cannot be compiled is said in a line."""

from functools import partial

import jax
import numpy as np
import pytest

from tljax.commands.lessons import run
from tljax.config import Config, Lesson
from tljax.devices import tpu
from tljax.devices.mesh import by_row, make_mesh, whole
from tljax.devices.tpu import CHIPS, Program

PROGRAM = """
  %all-reduce.3 = f32[64,3]{1,0} all-reduce(f32[64,3]{1,0} %x), replica_groups={}
  %all-reduce-start.1 = (bf16[10]{0}, f32[]) all-reduce-start(%a, %b), to_apply=%add
  %all-reduce-done.1 = (bf16[10]{0}, f32[]) all-reduce-done(%all-reduce-start.1)
  %all-gather-start = (f32[2]{0}, f32[16]{0}) all-gather-start(%c), dimensions={0}
  %all-gather-done = f32[16]{0} all-gather-done(%all-gather-start)
  %fusion = f32[8]{0} fusion(f32[8]{0} %all-reduce.3), calls=%all-reduce-scatter.2
"""


def test_collectives_are_counted_once():
    assert tpu.count_collectives(PROGRAM) == {"all-reduce": (2, 64 * 3 * 4 + 10 * 2 + 4), "all-gather": (1, 64)}


def test_a_program_is_measured_for_one_chip():
    mesh = make_mesh()
    x = jax.ShapeDtypeStruct((32, 64), np.float32, sharding=by_row(mesh))
    w = jax.ShapeDtypeStruct((64, 64), np.float32, sharding=whole(mesh))
    step = jax.jit(lambda w, x: w + x.T @ (x @ w), donate_argnums=0)
    measured = tpu.compile_program("step", step, (w, x), 32, CHIPS["v5e"])
    assert measured.flops == pytest.approx(2 * 2 * 32 * 64 * 64, rel=0.1)
    assert measured.arguments == 4 * (32 * 64 + 64 * 64)
    assert measured.donated == measured.results == 4 * 64 * 64
    assert measured.collectives == {}


def test_the_nearer_limit_is_named():
    collectives = {"all-reduce": (3, 2_000_000)}
    program = partial(Program, 100, 2**30, 0, 0, 2**29, 0, collectives=collectives, compile_seconds=1)
    lines = tpu.describe("step", program(flops=197e10, traffic=819e8), CHIPS["v5e"])
    for part in ("1.50 of 16 GiB", "19,700 MFLOP, 819.00 MB", "3 all-reduce of 2.0 MB", "at most      1,000 images/s"):
        assert part in lines
    assert "limited by memory traffic (10,000 by compute)" in lines
    lines = tpu.describe("step", program(flops=197e12, traffic=819e8), CHIPS["v5e"])
    assert "at most      100 images/s a chip, limited by compute" in lines


def test_what_does_not_fit_is_said():
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory. Used 17.2G of 15.7G hbm. Exceeded")

    class Step:
        def lower(self, *arguments):
            return Lowered()

    with pytest.raises(ValueError, match=r"step does not fit .* it needs 17\.2G of 15\.7G; take a smaller batch_size"):
        tpu.compile_program("step", Step(), (), 1, CHIPS["v5e"])


@pytest.mark.parametrize("config", [Config(stage="from_scratch", cut="conv1"), Lesson()])
def test_an_unknown_slice_is_refused(tmp_path, config):
    config.compile_for = "v9:2x2"
    with pytest.raises(ValueError, match="the chip must be one of v4, v5e, v6e"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
