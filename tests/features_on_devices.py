"""Runs the same feature_extraction twice on DEVICES CPU devices: activations are computed, then found in the cache.

python tests/features_on_devices.py DEVICES FOLDER
"""

import sys
from pathlib import Path

import conftest  # noqa: F401
import jax

DEVICES, FOLDER = int(sys.argv[1]), Path(sys.argv[2])
jax.config.update("jax_num_cpu_devices", DEVICES)

from tiny_runs import DIGITS

from tljax.config import Config
from tljax.stages.from_config import run

SETTINGS = {"epochs": 1, "batch_size": 5 * DEVICES, "data": DIGITS}
run(Config(stage="from_scratch", cut="conv1", network="tiny", **SETTINGS), FOLDER / "source")
for name in ("computed", "found"):
    run(Config(stage="feature_extraction", pretrained=str(FOLDER / "source"), **SETTINGS), FOLDER / name)
