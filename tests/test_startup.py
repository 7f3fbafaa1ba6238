"""`tljax.train` gets JAX ready as the command line does; `tljax.load` leaves JAX as the program has it."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TRAIN = """import json, sys
import jax
import tiny_runs, tljax
summary = tljax.train(tiny_runs.small("from_scratch"), sys.argv[1])
print(json.dumps([summary["loss"], bool(jax.config.jax_enable_x64), jax.config.jax_compilation_cache_dir]))
"""
LOAD = """import json, sys
import jax, numpy as np
import tljax
before = dict(jax.config.values)
model = tljax.load(sys.argv[1])
images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
logits, features = model(images, tta=True), model.features(images, at="conv5_block1")
model.predict(images)
types = [str(logits.dtype), str(features.dtype), str(model.start(images).dtype), str(jax.numpy.ones(1).dtype)]
print(json.dumps([logits.tolist(), types, dict(jax.config.values) == before]))
"""


def run_python(code: str, workdir: Path, x64: bool) -> list:
    """What the last printed line holds."""
    paths = f"{HERE}{os.pathsep}{HERE.parent}"
    cache = str(workdir.parent / "cache")
    env = os.environ | {"PYTHONPATH": paths, "JAX_ENABLE_X64": str(int(x64)), "TLJAX_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", code, str(workdir)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("JAX_ENABLE_X64 is ignored" in done.stdout) == (x64 and code == TRAIN)
    found: list = json.loads(done.stdout.splitlines()[-1])
    return found


def test_64_bits_in_the_program_change_no_run_and_no_answer(tmp_path):
    plain, wide = tmp_path / "plain", tmp_path / "wide"
    loss, x64, programs = run_python(TRAIN, plain, x64=False)
    assert not x64 and programs.startswith(str(tmp_path / "cache" / "programs"))
    assert any(Path(programs).iterdir())
    assert run_python(TRAIN, wide, x64=True) == [loss, True, programs]
    logits, types, same = run_python(LOAD, plain, x64=False)
    assert types == ["float32"] * 4 and same
    assert run_python(LOAD, wide, x64=True) == [logits, ["float32"] * 3 + ["float64"], True]
