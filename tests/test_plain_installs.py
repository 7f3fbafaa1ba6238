"""Every format is made with what the README's first command installs, and with the extra that docs/export.md names, and
read with what the page says, where tljax is not.

`pytest tests/test_plain_installs.py -m long -s -n0` makes environments from the package index, the largest of 6 GB
(timm brings torch), and prints the answers.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from docs_examples import read_example
from PIL import Image

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
INSTALL = (ROOT / "README.md").read_text().split("```bash\n")[1].split(" && .venv/bin/python main.py")[0]
EXTRA = (ROOT / "docs" / "export.md").read_text().split("```bash\n")[1].splitlines()[0]
# Runs by their variant: how pictures become square.
FITS = {"v1": "pad", "v1.5": "stretch"}


def shell(command: str, folder: Path, code: int = 0) -> str:
    """What bash prints that runs a command in a folder, without this process's packages."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "KERAS_BACKEND")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A checkout whose environment has what the README's first command installs, with a run of each variant."""
    assert INSTALL == "python3 -m venv .venv && .venv/bin/pip install -e ." and EXTRA.startswith(
        ".venv/bin/pip install"
    )
    folder = tmp_path_factory.mktemp("plain") / "tljax"
    for name in ("tljax", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("main.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shell(INSTALL, folder)
    settings = "--config.data.name=digits --config.data.max_images=60 --config.batch_size=20 --config.epochs=1"
    for variant, fit in FITS.items():
        chosen = f"--workdir runs/{variant} --config.variant={variant} --config.data.fit={fit}"
        shell(f".venv/bin/python main.py --config from_scratch {settings} {chosen}", folder)
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (4, 7, 3), np.uint8), np.ones((12, 12, 1), np.uint8))
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder


def predict(plain: Path, variant: str) -> tuple[list[str], np.ndarray]:
    """The labels of the photo with their probabilities, the most probable first."""
    command = f".venv/bin/python main.py predict runs/{variant} photo.png --top 10 --out -"
    names, probabilities = zip(*json.loads(shell(command, plain))["top"], strict=True)
    return list(names), np.array(probabilities)


@pytest.mark.parametrize(
    ("title", "variant", "outs"),
    [
        ("StableHLO", "v1", ["model.stablehlo"]),
        ("Keras", "v1", ["model.weights.h5", "model.h5"]),
        ("timm", "v1.5", ["exported/model.safetensors"]),
        ("onnxruntime", "v1", ["model.onnx"]),
    ],
)
def test_it_is_made_on_a_plain_install_and_read_with_what_the_page_says(plain, tmp_path, title, variant, outs):
    names, expected = predict(plain, variant)
    shell(f"python3 -m venv reader && . reader/bin/activate && {read_example(title, 'bash')}", tmp_path)
    assert "No module named 'tljax'" in shell("reader/bin/python -c 'import tljax'", tmp_path, code=1)
    shutil.copy(plain / "photo.png", tmp_path)
    for out in outs:
        (tmp_path / out).parent.mkdir(exist_ok=True)
        command = f".venv/bin/python main.py export runs/{variant} {tmp_path / out}"
        if title == "onnxruntime":
            assert "without onnx and onnxruntime: pip install onnx onnxruntime" in shell(command, plain, code=1)
            shell(EXTRA, plain)
        shell(command, plain)
        (tmp_path / "read.py").write_text(read_example(title).replace(outs[0], out))
        activated = (
            f". reader/bin/activate\n{read_example(title, 'bash').replace('pip install', 'true')}\npython read.py"
        )
        label, probability = shell(activated, tmp_path).split()[-2:]
        about = json.loads(next(iter((tmp_path / out).parent.glob("*.json"))).read_text())
        about = about.get("tljax", about)
        power = about["temperature"] if about["probabilities"] == "softmax(logits)" else 1
        told = expected**power / (expected**power).sum()
        print(f"{out}: {label} {probability}, predict: {names[0]} {told[0]:.7f}, the last one {told[-1]:.7f}")
        assert label == names[0] and told[0] - told[-1] > 1e-3
        assert float(probability) == pytest.approx(told[0], abs=1e-5)
    # pytest keeps the folders of three calls.
    shutil.rmtree(tmp_path / "reader")
