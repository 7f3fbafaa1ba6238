"""The needs of a compiled program are read off correctly, and one line says what cannot be compiled."""

from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tljax.config import Config, Lesson
from tljax.devices import tpu
from tljax.devices.mesh import by_row, make_mesh, whole
from tljax.devices.tpu import CHIPS, Program
from tljax.stages.from_config import run

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
    lines = tpu.describe_program("step", program(flops=197e10, traffic=819e8), CHIPS["v5e"])
    for part in ("1.50 of 16 GiB", "19,700 MFLOP, 819.00 MB", "3 all-reduce of 2.0 MB", "at most      1,000 images/s"):
        assert part in lines
    assert "limited by memory traffic (10,000 by compute)" in lines
    lines = tpu.describe_program("step", program(flops=197e12, traffic=819e8), CHIPS["v5e"])
    assert "at most      100 images/s a chip, limited by compute" in lines


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory. Used 17.2G of 15.7G hbm. Exceeded hbm capacity by 1.45G.",
            "it needs 17.2G of 15.7G, 1.45G too much",
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory. Used 17.2G of 15.7G hbm. Exceeded", "it needs 17.2G of 15.7G"),
        (
            "RESOURCE_EXHAUSTED: memory required for HLO temporaries (16.45G) exceeds available HBM (15.75G).",
            "its temporaries alone need 16.45G of 15.75G",
        ),
        ("RESOURCE_EXHAUSTED: scoped vmem is full\n  more memory, please", "the compiler says: more memory, please"),
        ("RESOURCE_EXHAUSTED", "the compiler says: RESOURCE_EXHAUSTED"),
    ],
)
def test_what_does_not_fit_is_said(message, said):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(message)

    class Step:
        def lower(self, *arguments):
            return Lowered()

    with pytest.raises(ValueError) as error:
        tpu.compile_program("step", Step(), (), 1, CHIPS["v5e"])
    assert str(error.value) == f"step does not fit into a chip: {said}; take a smaller batch_size"


@pytest.mark.parametrize(
    ("topology", "nearest"),
    [
        ("v6e:2x2x2", "v6e:2x4"),
        ("v5e:3x3", "v5e:2x4"),
        ("v5e:", "v5e:1x1"),
        ("v4:2x2x3", "v4:2x2x4"),
        ("v4:4x4x6", "v4:4x4x8"),
        ("v5e:32x32", "v5e:16x16"),
    ],
)
def test_a_slice_that_no_one_sells_is_refused_with_the_nearest(topology, nearest):
    with pytest.raises(
        ValueError, match=f"compile_for='{topology}': no such slice is sold; the nearest is '{nearest}'"
    ):
        tpu.topology_mesh(topology)


def test_the_slices_of_the_readme_are_sold():
    for topology in ("v4:2x2x1", "v5e:2x2", "v5e:16x16", "v6e:4x4", "v5e:1x1"):
        chip, _, shape = topology.partition(":")
        assert shape in tpu.SLICES[chip]


def test_a_batch_that_a_slice_cannot_deal_out_is_named_by_its_stages_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(tpu, "topology_mesh", lambda topology: (SimpleNamespace(size=8), CHIPS["v5e"]))
    config = Lesson(pretrained="imagenet", compile_for="v5e:2x4")
    config.stages["fine_tune"].batch_size = 100
    with pytest.raises(ValueError, match=r"^config\.stages\.fine_tune\.batch_size=100: .* 8 devices; use 96 or 104"):
        run(config, tmp_path / "run")
    with pytest.raises(ValueError, match=r"^config\.batch_size=100: .* use 96 or 104"):
        run(Config(pretrained="imagenet", batch_size=100, compile_for="v5e:2x4"), tmp_path / "run")


def test_it_says_what_it_is_compiling(tmp_path, monkeypatch, capsys):
    """This machine takes the place of a TPU slice, and nothing is compiled."""
    monkeypatch.setattr(tpu, "topology_mesh", lambda topology: (make_mesh(), CHIPS["v5e"]))
    said = []

    def compile_program(name, program, arguments, images, chip):
        said.append(capsys.readouterr().out.splitlines()[-1])
        return Program(images, 1, 0, 0, 0, 0, 1.0, 1.0, {}, 0.0)

    monkeypatch.setattr(tpu, "compile_program", compile_program)
    run(Config(pretrained="imagenet", batch_size=8, compile_for="v5e:2x2"), tmp_path / "run")
    names = ("frozen units, once", "training step", "evaluation step")
    assert said == [f"compiling {name} ..." for name in names]


@pytest.mark.parametrize("config", [Config(stage="from_scratch", cut="conv1"), Lesson(pretrained="imagenet")])
def test_an_unknown_slice_is_refused(tmp_path, config):
    config.compile_for = "v9:2x2"
    with pytest.raises(ValueError, match="the chip must be one of v4, v5e, v6e"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
