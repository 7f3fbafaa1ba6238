"""The kinds of weights that `config.pretrained` can name, read from small files made here."""

import hashlib

import h5py
import numpy as np
import pooch
import pytest
from safetensors.numpy import save_file

from tljax.data.preprocessing import CAFFE, TORCH
from tljax.weights import imagenet, pretrained


def write_legacy(path, *, root: str = ""):
    """Two layers as Keras writes them: the names in attributes, the arrays in groups."""
    with h5py.File(path, "w") as file:
        group = file.create_group(root) if root else file
        group.attrs["layer_names"] = [b"conv1_conv", b"conv1_relu", b"probs"]
        layers = {"conv1_conv": ["conv1_conv/kernel:0"], "conv1_relu": [], "probs": ["probs/bias:0"]}
        for layer, weights in layers.items():
            group.create_group(layer).attrs["weight_names"] = [w.encode() for w in weights]
        group["conv1_conv/conv1_conv/kernel:0"] = np.ones((7, 7, 3, 64), np.float32)
        group["probs/probs/bias:0"] = np.arange(1000, dtype=np.float32)


@pytest.mark.parametrize("root", ["", "model_weights"])
def test_legacy_h5(tmp_path, root):
    path = tmp_path / "w.h5"
    write_legacy(path, root=root)
    source = pretrained.load_weights(str(path))
    assert set(source.leaves) == {"params/conv1/conv/kernel", "params/head/bias"}
    assert (source.variant, source.preprocessing, source.input_size) == ("v1", CAFFE, 224)
    assert source.labels == imagenet.labels() and not source.is_run


def test_keras_3_weights_h5(tmp_path):
    path = tmp_path / "w.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((7, 7, 3, 64), np.float32)
        file["layers/dense/vars/1"] = np.zeros(7, np.float32)
    source = pretrained.load_weights(str(path))
    assert set(source.leaves) == {"params/conv1/conv/kernel", "params/head/bias"}
    assert [name for _, name in source.labels] == [f"output_{i}" for i in range(7)]


def test_safetensors_are_v1_5_with_their_own_preprocessing(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, path)
    source = pretrained.load_weights(str(path))
    assert source.leaves["params/conv1/conv/kernel"].shape == (7, 7, 3, 64)
    assert (source.variant, source.preprocessing, source.labels) == ("v1.5", TORCH, ())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"\x80\x04", "is a pickle"),
        ("w.h5", b"not hdf5", "is no readable .h5 file"),
        ("w.safetensors", b"\xff" * 40, "is no readable .safetensors file"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        pretrained.load_weights(str(path))
    assert "\n" not in str(error.value)


def test_an_h5_of_another_kind_is_refused(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(ValueError, match="neither of Keras's two layouts"):
        pretrained.load_weights(str(tmp_path / "w.h5"))


@pytest.mark.parametrize(
    ("network", "md5"),
    [
        (None, "2cb95161c43110f7111970584f804107"),
        ("resnet101", "f1aeb4b969a6efcfb50fad2f0c20cfc5"),
        ("resnet152", "100835be76be38e30d865e96f2aaae62"),
    ],
)
def test_imagenet_without_a_connection_says_which_file_to_put_where(tmp_path, monkeypatch, capsys, network, md5):
    def offline(url, target, downloader):
        raise ConnectionError("no network")

    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda self, *arguments: offline(*arguments))
    with pytest.raises(FileNotFoundError) as error:
        pretrained.load_weights("imagenet", network)
    file = f"{network or 'resnet50'}_weights_tf_dim_ordering_tf_kernels.h5"
    url = f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{file}"
    for part in (url, md5, f"into {tmp_path}/downloads", "set HTTPS_PROXY", "--config recipe --config.pretrained=None"):
        assert part in str(error.value)
    assert (
        capsys.readouterr().out
        == f"{file} is not in {tmp_path}/downloads; downloading it from storage.googleapis.com\n"
    )
    # A file put there by hand is taken only with the right checksum.
    (tmp_path / "downloads" / file).write_bytes(b"something else")
    with pytest.raises(FileNotFoundError, match=r"put that file.*/downloads$"):
        pretrained.load_weights("imagenet", network, setting="RUN")
    assert (
        f"{file} is another file, or cut off (MD5 {hashlib.md5(b'something else').hexdigest()});"
        in capsys.readouterr().out
    )
    (tmp_path / "downloads" / file).rename(tmp_path / "downloads" / "a.h5")
    with pytest.raises(FileNotFoundError):
        pretrained.load_weights("imagenet", network)
    assert f"{file} is not in {tmp_path}/downloads, which holds a.h5;" in capsys.readouterr().out


def test_imagenet_in_capital_letters_says_how_it_is_written():
    with pytest.raises(FileNotFoundError, match=r"'ImageNet' is neither .*; write imagenet in small letters"):
        pretrained.load_weights("ImageNet")
