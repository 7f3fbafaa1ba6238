"""What a device holds, and that several devices compute what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tljax import checkpoint, mesh, partition


@pytest.mark.parametrize(
    ("batch_size", "devices", "nearest"), [(256, 3, "255 or 258"), (3, 8, "use 8"), (9, 8, "8 or 16")]
)
def test_a_batch_that_cannot_be_dealt_out_is_refused(batch_size, devices, nearest):
    with pytest.raises(ValueError, match=rf"batch_size={batch_size}: .* {devices} devices; .*{nearest}"):
        mesh.check_batch_size(batch_size, devices)
    mesh.check_batch_size(devices * 4, devices)


def test_bfloat16_is_for_accelerators():
    here = mesh.make_mesh()
    assert mesh.compute_dtype(here, "auto") is mesh.compute_dtype(here, "float32") is None
    assert mesh.compute_dtype(here, "bfloat16") == jnp.bfloat16


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def runs(folder) -> dict[str, dict]:
    """What `several_devices.py` reports of one and of eight devices, and where eight left a checkpoint."""
    script = Path(__file__).parent / "several_devices.py"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    processes = {
        devices: subprocess.Popen(
            [sys.executable, script, devices, folder / devices], stdout=subprocess.PIPE, env=environment
        )
        for devices in ("1", "8")
    }
    outputs = {devices: process.communicate()[0] for devices, process in processes.items()}
    assert all(process.returncode == 0 for process in processes.values())
    return {devices: json.loads(output.splitlines()[-1]) for devices, output in outputs.items()}


@pytest.mark.parametrize("batch_norm", ["inference", "training"])
def test_eight_devices_train_as_one(runs, batch_norm):
    one, eight = (runs[devices][batch_norm] for devices in ("1", "8"))
    assert len(one["losses"]) == 20
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=1e-5)
    # With the weights after five, ten, fifteen and twenty steps of Adam, in which rounding has grown.
    np.testing.assert_allclose(eight["val_losses"], one["val_losses"], rtol=1e-4)
    # The last batch is ragged.
    assert one["evaluated"] == eight["evaluated"] == 37
    assert one["predicted"] == eight["predicted"]


def test_each_device_holds_its_part(runs):
    one, eight = (runs[devices]["inference"] for devices in ("1", "8"))
    assert eight["image_bytes"] * 8 == one["image_bytes"]
    assert eight["optimizer_bytes"] < one["optimizer_bytes"] / 6
    assert eight["parameter_bytes"] == one["parameter_bytes"]


def test_what_eight_devices_left_is_read_on_one(runs, folder):
    with checkpoint.open_checkpoints(folder / "8") as manager:
        variables, _ = checkpoint.restore_variables(manager, 1)
    assert partition.digest(**variables, cut=None) == runs["8"]["digest"]
