"""Whose features a check uses: never those that have learned from the checked pictures, where there are others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import pytest
from tiny_runs import make_source

from tljax.check import network
from tljax.check.network import choose_network, read_features
from tljax.check.pixels import describe_pixels
from tljax.model import Model, load
from tljax.networks.architectures import NETWORKS
from tljax.runs.learned import NOTHING, learn, write_learned
from tljax.storage.cache import folder
from tljax.weights import pretrained

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
DIGESTS = np.random.default_rng(1).integers(1, 2**32, (30, 4), np.uint32)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """A cache of its own, and no way to download."""
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: pytest.fail("something is downloaded"))


def leave(folder: Path, rows, source: str | None = None, before=NOTHING) -> str:
    """The folder of a run that has learned from some of the pictures and began with the weights of `source`."""
    make_source(folder)
    (folder / "config.json").write_text(json.dumps({"pretrained": source}))
    write_learned(folder, learn(DIGESTS[rows], before, of_files=True))
    return str(folder)


def choose(run: str | None) -> network.FeatureNetwork:
    return choose_network(None if run is None else load(run), DIGESTS, of_files=True)


def test_without_a_run_imagenet_is_used_only_if_it_is_on_this_disk(monkeypatch):
    assert choose(None).model is None and "imagenet is not on this disk" in choose(None).why
    name = pretrained.KERAS_URL.format("resnet50").rsplit("/", 1)[1]
    (folder("downloads") / name).write_bytes(b"cut off")
    assert choose(None).model is None
    md5 = pooch.file_hash(str(folder("downloads") / name), alg="md5")
    monkeypatch.setitem(NETWORKS, "resnet50", NETWORKS["resnet50"]._replace(keras_md5=md5))
    monkeypatch.setattr(network, "load", lambda name: name)
    found = choose(None)
    assert found.model == "imagenet" and found.why.startswith("features of imagenet") and not found.memorized


def test_a_run_that_learned_from_other_pictures_is_used(tmp_path):
    found = choose(leave(tmp_path / "run", slice(0)))
    assert found.model.name == str(tmp_path / "run") and found.why == f"features of {tmp_path / 'run'}"


def test_of_a_run_that_learned_from_them_the_source_is_used_as_far_back_as_needed(tmp_path):
    first = leave(tmp_path / "first", slice(0))
    second = leave(tmp_path / "second", slice(4), first)
    third = leave(tmp_path / "third", slice(7), second)
    found = choose(third)
    assert found.model.name == first and not found.memorized
    assert found.why == f"features of {first}, the source of {third}: {third} has learned from 7 of these 30 pictures"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (None, "began with random weights"),
        ("imagenet", "its source imagenet is not on this disk"),
        ("timm/resnet50.a1_in1k", "its source timm/resnet50.a1_in1k is not on this disk"),
        ("here", "its source cannot be used"),
    ],
)
def test_without_a_source_its_own_features_are_used_with_a_warning(tmp_path, source, why):
    run = leave(tmp_path / "run", slice(4), str(tmp_path) if source == "here" else source)
    found = choose(run)
    assert found.model.name == run and found.memorized and why in found.why
    assert "may have memorized wrong labels: it has learned from 4 of these 30 pictures" in found.why


def test_runs_that_began_with_each_other_do_not_go_round(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    leave(one, slice(4), str(other))
    leave(other, slice(4), str(one))
    assert choose(str(one)).memorized


def test_a_run_that_kept_nothing_may_have_learned_them(tmp_path):
    run = leave(tmp_path / "run", slice(0))
    (tmp_path / "run" / "learned.npz").unlink()
    assert choose(run).memorized and "has not kept what it learned from" in choose(run).why
    # Digests of pixels say nothing about files.
    write_learned(tmp_path / "run", learn(DIGESTS[:3], NOTHING, of_files=False))
    assert choose(run).memorized


def test_a_run_that_is_none_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        choose(str(tmp_path / "nothing"))


def test_features_are_computed_once_and_kept(tmp_path, monkeypatch):
    found = choose(leave(tmp_path / "run", slice(0)))
    parts, seen = [IMAGES[:19], IMAGES[:0], IMAGES[19:]], []
    features = np.array(read_features(found, parts, DIGESTS, 2**24, seen.append))
    np.testing.assert_array_equal(features, load(found.model.name).features(IMAGES))
    assert seen[-1] == 1 and seen == sorted(seen)
    asked, compute = [], Model.features
    monkeypatch.setattr(Model, "features", lambda self, images: asked.append(len(images)) or compute(self, images))
    np.testing.assert_array_equal(read_features(found, parts, DIGESTS, 2**24), features)
    assert asked == [16], "only the pictures by which they are known again"
    # Other pixels of the same files, as at another size, are computed anew.
    read_features(found, [255 - IMAGES], DIGESTS, 2**24)
    assert asked[1:] == [8, 30]


def test_weights_of_a_file_see_pictures_at_their_own_size(tmp_path):
    run = load(leave(tmp_path / "run", slice(0)))
    file = replace(run, name="imagenet", image_size=224)
    ours = read_features(network.FeatureNetwork(file, ""), [IMAGES], DIGESTS)
    np.testing.assert_array_equal(ours, run.features(IMAGES))


def test_pixels_alone_know_colors_and_edges():
    dark, bright = np.zeros((2, 32, 32, 3), np.uint8), np.full((2, 32, 32, 3), 250, np.uint8)
    bright[1, :, 16:, 0] = 0
    features = read_features(network.FeatureNetwork(None, ""), [dark, bright], DIGESTS[:4])
    np.testing.assert_array_equal(features, describe_pixels(np.concatenate([dark, bright])))
    np.testing.assert_array_equal(features[0], features[1])
    assert np.isfinite(features).all() and np.abs(features[3] - features[2]).max() > 1
    edges = features[:, 8 * 49 : 8 * 49 + 8 * 64].reshape(4, 8, 8, 8)
    assert not edges[:3].any() and edges[3, :, 3:5].argmax(-1).tolist() == [[4, 4]] * 8, "the red ends to the right"
    np.testing.assert_allclose(features[2, -192:], 250, rtol=1e-6)
    large = np.repeat(np.repeat(IMAGES, 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(describe_pixels(large), describe_pixels(IMAGES), atol=1e-3)
