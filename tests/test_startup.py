"""`tljax.train` gets JAX ready as the command line does; `tljax.load` leaves JAX as the program has it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import make_source, small

from tljax.model import load
from tljax.stages.from_config import run
from tljax.startup import one_line, prepare_outputs

HERE = Path(__file__).parent
MODES = {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
WIDE = """import json, sys
import jax, numpy as np
import tiny_runs, tljax
loss = tljax.train(tiny_runs.small("feature_extraction", pretrained=sys.argv[2]), sys.argv[1])["loss"]
before = dict(jax.config.values)
model = tljax.load(sys.argv[1])
images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
logits, features = model(images), model.features(images, at="conv5_block1")
types = [str(x.dtype) for x in (logits, features, model.start(images), jax.numpy.ones(1))]
changed = {name for name, value in jax.config.values.items() if before[name] != value}
print(json.dumps([loss, logits.tolist(), types, jax.config.jax_compilation_cache_dir, list(changed)]))
"""


def test_64_bits_in_the_program_change_no_run_and_no_answer(tmp_path):
    wide, programs = tmp_path / "wide", tmp_path / "cache" / "programs"
    env = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", "TLJAX_CACHE_DIR": str(tmp_path / "cache")}
    del env["JAX_COMPILATION_CACHE_DIR"]
    source = make_source(tmp_path / "source")
    code = [sys.executable, "-c", WIDE, str(wide), str(source)]
    done = subprocess.run(code, env=env | MODES, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "JAX_ENABLE_X64 is ignored" in done.stdout
    # With other random numbers the loss would be another.
    loss, logits, types, folder, changed = json.loads(done.stdout.splitlines()[-1])
    assert types == ["float32"] * 3 + ["float64"] and not changed
    assert Path(folder).parent == programs and Path(folder).is_dir()
    # A program in 32 bits trains the same, and reads that run.
    np.testing.assert_allclose(
        run(small("feature_extraction", pretrained=str(source)), tmp_path / "plain")["loss"], loss, rtol=1e-3
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(load(wide)(images), logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\nb \x1b[2J \u202e \udcff 猫"), r"main.py: a\nb \x1b[2J \u202e \udcff 猫" + "\n"),
        (KeyError("a"), "main.py: KeyError: 'a' (--debug shows where)\n"),
        (RuntimeError("a\n\x1bb"), "main.py: RuntimeError: a\n\\x1bb (--debug shows where)\n"),
    ],
)
def test_an_error_is_a_line_that_steers_no_terminal(capsys, monkeypatch, error, line):
    # These last for the process.
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with pytest.raises(SystemExit), one_line(debug=False):
        raise error
    assert capsys.readouterr().err == line


def test_a_line_goes_through_a_pipe_when_it_is_printed(monkeypatch):
    pipe = io.BytesIO()
    with io.TextIOWrapper(pipe, write_through=False) as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        prepare_outputs()
        print("epoch 1")
        assert pipe.getvalue() == b"epoch 1\n"
