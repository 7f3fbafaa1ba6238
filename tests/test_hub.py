"""Weights of the Hugging Face Hub, from a server on this machine that speaks its protocol."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hub_server import COMMIT, serve_hub
from tiny_runs import TINY

from tljax.data.preprocessing import Preprocessing, Resizing
from tljax.networks.architectures import VARIANTS
from tljax.networks.resnet import ResNet
from tljax.trees import flatten
from tljax.weights.convert import to_torch
from tljax.weights.pretrained import load_weights

INPUT = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "crop_pct": 0.95, "interpolation": "bicubic"}
CONFIG = {
    "architecture": "tiny",
    "num_classes": 1000,
    "pretrained_cfg": {"input_size": [3, 64, 64], "test_input_size": [3, 96, 96], **INPUT},
}


def make_file(classes: int = 1000) -> bytes:
    """Random weights of the tiny network with torchvision's names."""
    from safetensors.numpy import save

    model = ResNet(classes, VARIANTS["v1.5"], TINY)
    variables = flatten(jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)))
    return save(to_torch({path: np.asarray(leaf) for path, leaf in variables.items()}))


@pytest.fixture(scope="module")
def weights() -> bytes:
    return make_file()


@pytest.fixture
def hub(tmp_path, monkeypatch, weights):
    """The hub, with `timm/tiny.test`; its cache is empty. `huggingface_hub` reads its variables at its import."""
    from huggingface_hub import constants

    with serve_hub() as hub:
        hub.repositories["timm/tiny.test"] = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights}
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.chdir(tmp_path)
        yield hub


@pytest.mark.parametrize("name", ["timm/tiny.test", "timm/tiny.test@v1", f"timm/tiny.test@{COMMIT}"])
def test_a_name_is_enough(hub, name):
    found = load_weights(name)
    assert (found.architecture, found.variant, found.input_size) == (TINY, "v1.5", 64)
    assert found.preprocessing == Preprocessing("rgb", 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert found.resizing == Resizing(0.95, "bicubic", antialias=True)
    assert found.labels[0] == ("n01440764", "tench") and len(found.labels) == 1000
    revision = name.partition("@")[2] or "main"
    assert f"GET /timm/tiny.test/resolve/{revision}/model.safetensors".replace(revision, COMMIT) in [
        line.replace(f"/{revision}/", f"/{COMMIT}/") for line in hub.asked
    ]


def test_what_is_here_comes_first(hub, tmp_path):
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "tiny.tests").mkdir()
    with pytest.raises(FileNotFoundError, match=r"neither a file, nor a folder, .*; did you mean timm/tiny.tests"):
        load_weights("timm/tiny.test")
    assert not hub.asked
    (tmp_path / "timm" / "tiny.test").write_bytes(b"")
    with pytest.raises(ValueError, match="weights are read from"):
        load_weights("timm/tiny.test")


def test_it_is_downloaded_once_and_then_read_without_the_hub(hub, monkeypatch, capsys):
    from huggingface_hub import constants

    cache = constants.HF_HUB_CACHE
    first = load_weights("timm/tiny.test")
    asking = "timm/tiny.test is no file or folder here, {} the cache {}; asking the Hugging Face Hub\n"
    assert capsys.readouterr().out == asking.format("not in", cache)
    downloads = [line for line in hub.asked if line.startswith("GET")]
    load_weights("timm/tiny.test")
    assert [line for line in hub.asked if line.startswith("GET")] == downloads
    # Without a network: what the library raises then is no OSError.
    capsys.readouterr()
    with monkeypatch.context() as away:
        nowhere = "http://127.0.0.1:9"
        away.setattr(constants, "ENDPOINT", nowhere)
        away.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/resolve/{revision}/{filename}")
        assert load_weights("timm/tiny.test").architecture == TINY
        assert capsys.readouterr().out == asking.format("in", cache)
        with pytest.raises(FileNotFoundError) as unreachable:
            load_weights("timm/other@v1")
        for told in (
            "HTTPS_PROXY",
            "`hf download timm/other --revision v1`",
            f"models--timm--other from the cache there into {cache}",
            "--config.pretrained=None",
        ):
            assert told in str(unreachable.value)
        Path("tim").mkdir()
        Path("tim/other").mkdir()
        with pytest.raises(
            FileNotFoundError, match=r"here \(did you mean tim/other\?\): .* cannot be reached \([^()]*\)$"
        ):
            load_weights("timm/other", setting="RUN")
        assert "timm/other is no file or folder here (did you mean tim/other?), not in" in capsys.readouterr().out
    # Gone, and offline.
    hub.repositories.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = load_weights("timm/tiny.test")
    np.testing.assert_array_equal(first.leaves["params/head/kernel"], again.leaves["params/head/kernel"])
    with pytest.raises(
        FileNotFoundError, match=r"config\.json of timm/other is not in the cache, and HF_HUB_OFFLINE is set"
    ):
        load_weights("timm/other")


def test_a_moved_repository_is_followed(hub):
    hub.repositories["old/tiny"] = "timm/tiny.test"
    assert load_weights("old/tiny").architecture == TINY


def test_a_damaged_file_is_named_and_not_used(hub, tmp_path):
    load_weights("timm/tiny.test")
    (blob,) = (path for path in (tmp_path / "hub").rglob("blobs/*") if len(path.name) == 64)
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=f"{blob.name} is damaged: its SHA-256 is not the hub's; delete it"):
        load_weights("timm/tiny.test")


def test_a_file_that_is_damaged_on_its_way_is_not_used(hub):
    hub.damages = True
    hub.repositories["timm/other"] = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": make_file(5),
    }
    with pytest.raises(ValueError, match=r"is damaged: its SHA-256"):
        load_weights("timm/other")


def _change(config: dict, **settings: object) -> bytes:
    return json.dumps(config | {"pretrained_cfg": config["pretrained_cfg"] | settings}).encode()


REFUSED = {
    "the hub has no timm/none, or it is private: check the name": None,
    "is gated: accept its terms on the hub's page": (403, "GatedRepo"),
    "holds no model.safetensors: it is no model of timm": {"config.json": json.dumps(CONFIG).encode()},
    "holds no config.json: it is no model of timm": {"model.safetensors": b""},
    "it is a resnet50d, which tljax does not have; it has resnet50": {
        "config.json": json.dumps(CONFIG | {"architecture": "resnet50d"}).encode()
    },
    "its config.json is not one of timm's .KeyError: 'architecture'": {"config.json": b'{"model_type": "bert"}'},
    "its config.json is not one of timm's .JSONDecodeError": {"config.json": b"<html>"},
    "its config.json is not one of timm's .TypeError": {"config.json": b"[]"},
    "its config.json does not describe an input .ValueError": {"config.json": _change(CONFIG, crop_pct=0)},
    "its config.json does not describe an input .ValueError: a": {
        "config.json": _change(CONFIG, interpolation="hamming")
    },
    "its config.json does not describe an input .ValueError: a v": {"config.json": _change(CONFIG, std=[1, 1, 0])},
    "its config.json does not describe an input .ValueError: a val": {
        "config.json": _change(CONFIG, mean=[0.5, float("nan"), 0.5])
    },
    "its config.json does not describe an input .TypeError": {"config.json": _change(CONFIG, mean=None)},
    "its config.json does not describe an input .ValueError: a va": {
        "config.json": _change(CONFIG, input_size=[3, 64, 32])
    },
    "cannot be reached": (503, "Unavailable"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_there_is_one_line(hub, message, monkeypatch):
    import huggingface_hub.utils._http as http

    # It would wait between its tries.
    monkeypatch.setattr(http.time, "sleep", lambda seconds: None)
    if REFUSED[message] is not None:
        hub.repositories["timm/none"] = REFUSED[message]
    with pytest.raises((ValueError, OSError), match=message) as error:
        load_weights("timm/none")
    text = str(error.value)
    assert text.startswith("config.pretrained='timm/none', which is no file or folder here: ") and "\n" not in text


def test_no_such_revision(hub):
    with pytest.raises(FileNotFoundError, match=r"timm/tiny\.test has no revision 'v9'"):
        load_weights("timm/tiny.test@v9")


def test_a_run_starts_from_the_hub(hub, tmp_path):
    """As a user runs it: the address and the cache come from the environment."""
    root = Path(__file__).parents[1]
    script = (
        "import sys; sys.path[:0] = [{!r}, {!r}]; import jax; "
        "jax.config.update('jax_disable_most_optimizations', True); "
        "import tiny_runs, tljax.cli; sys.exit(tljax.cli.main(sys.argv[1:]))"
    ).format(str(root), str(root / "tests"))
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "TLJAX_CACHE_DIR": str(tmp_path / "cache")}
    settings = ["--config.pretrained=timm/tiny.test", "--config.data.name=digits", "--config.data.max_images=8"]
    command = [
        sys.executable,
        "-c",
        script,
        "--config",
        str(root / "configs/zero_shot.py"),
        "--workdir",
        "run",
        *settings,
    ]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tiny v1.5 on" in done.stdout
    assert (tmp_path / "home" / "hub" / "models--timm--tiny.test").is_dir()
