"""Each device holds its part, and several devices compute the same as one."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from processes import run_together

from tljax.devices import mesh, processes
from tljax.runs import checkpoints
from tljax.trees import digest_leaves

long = partial(pytest.param, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("batch_size", "devices", "nearest"), [(256, 3, "255 or 258"), (3, 8, "use 8"), (9, 8, "8 or 16")]
)
def test_a_batch_that_cannot_be_dealt_out_is_refused(batch_size, devices, nearest):
    with pytest.raises(ValueError, match=rf"batch_size={batch_size}: .* {devices} devices; .*{nearest}"):
        mesh.check_batch_size(batch_size, devices)
    mesh.check_batch_size(devices * 4, devices)


def test_the_flags_of_several_processes_belong_together():
    with pytest.raises(ValueError, match=r"--coordinator_address .* give all"):
        processes.join("localhost:1", 2, None)


@pytest.mark.parametrize("count", [0, 5, 37])
def test_one_process_reads_everything(count):
    assert mesh.own_rows(mesh.make_mesh(), 16, count).tolist() == list(range(count))


def test_bfloat16_is_for_accelerators():
    here = mesh.make_mesh()
    assert mesh.compute_dtype(here, "auto") is mesh.compute_dtype(here, "float32") is None
    assert mesh.compute_dtype(here, "bfloat16") == jnp.bfloat16


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def run(folder) -> Callable[..., dict]:
    """Runs `several_devices.py` with a layout "PROCESSESxDEVICES", once; its checkpoint is in `folder / layout`."""

    @cache
    def run_once(layout: str, batch_norm: str) -> dict:
        processes, devices = layout.split("x")
        place = folder / (layout if batch_norm == "training" else f"{layout}_{batch_norm}")
        outputs = run_together(int(processes), "several_devices.py", place, devices, batch_norm)
        (report,) = [line for line in outputs[0].splitlines() if line.startswith("{")]
        return json.loads(report)

    return lambda layout, batch_norm="training": run_once(layout, batch_norm)


# The lesson of two processes in test_lessons.py has BatchNorm in inference mode.
@pytest.mark.parametrize("batch_norm", ["training", long("inference")])
@pytest.mark.parametrize("layout", ["2x2", long("1x8"), long("2x4"), long("4x2")])
def test_several_devices_train_as_one(run, layout, batch_norm):
    one, several = run("1x1", batch_norm), run(layout, batch_norm)
    assert len(one["losses"]) == 20
    np.testing.assert_allclose(several["losses"], one["losses"], rtol=1e-5)
    # These come from the weights after 5, 10, 15 and 20 steps of Adam, in which rounding errors have grown.
    np.testing.assert_allclose(several["val_losses"], one["val_losses"], rtol=1e-4)
    # The last batch is ragged.
    assert one["evaluated"] == several["evaluated"] == 37
    assert one["predicted"] == several["predicted"]


@pytest.mark.parametrize(("layout", "devices"), [("2x2", 4), long("1x8", 8), long("2x4", 8)])
def test_each_device_holds_its_part(run, layout, devices):
    one, several = run("1x1"), run(layout)
    assert several["image_bytes"] * devices == one["image_bytes"]
    assert several["exchanged"] == [{}, {}]
    assert several["optimizer_bytes"] < one["optimizer_bytes"] / (0.75 * devices)
    assert several["parameter_bytes"] == one["parameter_bytes"]


@pytest.mark.parametrize("layout", ["2x2", long("1x8"), long("2x4")])
def test_a_head_is_solved_from_the_features_of_all_processes(run, layout):
    one, several = run("1x1")["solved"], run(layout)["solved"]
    for ours, theirs in zip(several, one, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.abs(theirs).max())


def test_every_process_gets_all_ids(run):
    assert run("1x1")["ids_gathered"] and run("2x2")["ids_gathered"]


@pytest.mark.parametrize("layout", ["2x2", long("1x8"), long("2x4")])
def test_what_several_devices_left_is_read_on_one(run, folder, layout):
    digest = run(layout)["digest"]
    with checkpoints.open_checkpoints(folder / layout) as kept:
        variables, _ = kept.restore_variables(1)
    assert digest_leaves(variables) == digest


@pytest.mark.long
def test_features_on_a_number_of_devices_that_8_is_no_multiple_of(tmp_path):
    script = Path(__file__).parent / "features_on_devices.py"
    output = subprocess.run([sys.executable, script, "3", tmp_path], check=True, capture_output=True, text=True).stdout
    assert "activations at head of 60 images: computed" in output
    assert "activations at head of 60 images: found" in output
