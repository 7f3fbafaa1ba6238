"""A process of its own reads a weight file: arrays by name and the kind of the names, or a line that says why not."""

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tljax.weights import untrusted

KERNEL = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)


def write_legacy(path, weight: str = "conv1_conv/kernel:0"):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1_conv"]
        file.create_group("conv1_conv").attrs["weight_names"] = [weight.encode()]
        file["conv1_conv/conv1_conv/kernel:0"] = KERNEL
    return path


def test_the_legacy_layout_of_keras(tmp_path):
    arrays, kind = untrusted.read(write_legacy(tmp_path / "w.h5"))
    assert kind == "keras" and arrays.keys() == {"conv1_conv/kernel:0"}
    np.testing.assert_array_equal(arrays["conv1_conv/kernel:0"], KERNEL)


def test_the_layout_of_keras_3(tmp_path):
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = KERNEL
        file["optimizer/vars/0"] = KERNEL
    arrays, kind = untrusted.read(tmp_path / "w.weights.h5")
    assert kind == "keras_counters" and arrays.keys() == {"layers/conv2d/vars/0"}


def test_safetensors_in_two_types(tmp_path):
    save_file({"fc.weight": KERNEL[0, 0], "fc.bias": np.ones(3, ml_dtypes.bfloat16)}, tmp_path / "w.safetensors")
    arrays, kind = untrusted.read(tmp_path / "w.safetensors")
    assert kind == "torch" and arrays["fc.bias"].dtype == np.float32
    np.testing.assert_array_equal(arrays["fc.bias"], 1)


def test_a_weight_that_is_not_there_is_named(tmp_path):
    path = write_legacy(tmp_path / "w.h5", weight="conv1_conv/bias:0")
    with pytest.raises(ValueError, match=r"w\.h5 is no readable \.h5 file: .*bias:0"):
        untrusted.read(path)


def test_another_layout_is_refused(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["something"] = KERNEL
    with pytest.raises(ValueError, match="neither of Keras's two layouts of weights is in it"):
        untrusted.read(tmp_path / "w.h5")
