"""A run goes on with another number of devices, at the same position in the data.

`pytest tests/faults/test_devices.py -m long`
"""

import os
import signal

import numpy as np
import pytest
from harness import Run, command, environment, newest

from tljax.runs import checkpoints, files


@pytest.mark.long
def test_saved_on_eight_devices_restored_on_four_and_on_one(tmp_path):
    env = environment(tmp_path / "cache")
    # Eight devices add in another order than one: with a larger learning rate the losses would soon drift apart.
    rate = "--config.optimizer.learning_rate=1e-5"
    whole = Run(command("augmented.py", tmp_path / "whole", rate), env)
    assert whole.wait() == 0, whole.lines
    folder, said, digests = tmp_path / "run", [], []
    for devices in (8, 4, 1):
        slow = {"XLA_FLAGS": f"{env['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}", "SLOW": "0.2"}
        run = Run(command("augmented.py", folder, rate), env | slow)
        if devices > 1:
            assert run.wait_for("PHASE training", 2)
            os.kill(run.process.pid, signal.SIGTERM)
        assert run.wait() == (143 if devices > 1 else 0), run.lines
        said += [line for line in run.lines if line.startswith("goes on")]
        digests.append(newest(folder))
    # It was stopped in the middle of the second and of a later epoch.
    assert len(said) == 2 and said[0].startswith("goes on after epoch 1, step ") and "step 0" not in said[0], said
    rows, expected = (files.read_rows(path / "metrics.jsonl") for path in (folder, tmp_path / "whole"))
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in expected]
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose([r[name] for r in rows], [r[name] for r in expected], rtol=1e-3)
    with checkpoints.open_checkpoints(folder) as kept:
        assert kept.read_meta(max(kept.numbers))["begun"]["steps"] == 0
