"""Activations replace images without changing a loss, and cached ones are never used without a check."""

import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import DIGITS as SIXTY
from tiny_runs import TINY, make_source, small

from tljax import trees
from tljax.config import Cache, Config, Data
from tljax.data.preprocessing import CAFFE, preprocess
from tljax.devices.mesh import make_mesh
from tljax.networks.architectures import VARIANTS
from tljax.networks.cut import Cut
from tljax.networks.resnet import ResNet, fold
from tljax.stages import from_config
from tljax.storage import cache
from tljax.training import features, inference, metrics

MODEL = ResNet(3, architecture=TINY)
KEY = jax.random.key(0)
MESH = make_mesh()
IMAGES = {"train": np.random.default_rng(0).integers(0, 256, (37, 32, 32, 3), np.uint8)}
CUTS = tuple(Cut(MODEL.units, unit) for unit in ("conv5_block1", "head"))
HEAD = CUTS[-1]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def frozen():
    variables = jax.jit(MODEL.init)(KEY, np.zeros((1, 32, 32, 3), np.float32))
    return HEAD.split(variables)[0]


@partial(jax.jit, static_argnames=("start", "end"))
def run_units(frozen, x, start, end):
    return inference.run_prefix(fold(MODEL, frozen), x, model=MODEL, end=end, preprocessing=CAFFE, start=start)


@partial(jax.jit, static_argnames="units")
def average_units(frozen, x, units):
    return inference.average_units(fold(MODEL, frozen), x, model=MODEL, preprocessing=CAFFE, units=units)


def make_prefix(frozen, calls: list, compute: str = "float32") -> features.Prefix:
    def prefix(start, end):
        def run(x):
            if not isinstance(x, jax.core.Tracer):
                calls.append((start, end, len(x)))
            return run_units(frozen, x, start, end)

        return run

    def averages(units):
        def run(x):
            if not isinstance(x, jax.core.Tracer):
                calls.append((units, len(x)))
            return average_units(frozen, x, units)

        return run

    about = {"compute": compute, "network": TINY._asdict()}
    return features.Prefix(prefix, HEAD.digest(frozen), about, averages)


def make_pass(prefix: features.Prefix, cuts=(HEAD,), inputs=None) -> features.Pass:
    inputs = inputs or {name: (features.as_they_are(images),) for name, images in IMAGES.items()}
    return features.Pass(prefix, cuts, features.measure(prefix, cuts, 32, MESH), inputs, MESH, 16, 2**30)


def compute(frozen, cuts=(HEAD,), images=IMAGES, calls=None):
    prefix = make_prefix(frozen, [] if calls is None else calls)
    inputs = {name: (features.as_they_are(split),) for name, split in images.items()}
    return features.compute(make_pass(prefix, cuts, inputs))


def embed(frozen, images, cut="head"):
    """Activations at `cut` by the network with its BatchNorms, not folded."""
    return jax.jit(partial(MODEL.apply, method="prefix"), static_argnums=2)(frozen, preprocess(images, CAFFE), cut)


def test_activations_are_those_of_the_frozen_units(frozen):
    found = compute(frozen)["train"]
    np.testing.assert_allclose(found, embed(frozen, IMAGES["train"]), rtol=1e-4, atol=1e-5)
    assert found.shape == (37, 256)


def test_one_pass_serves_several_cuts(frozen):
    calls = []
    found = compute(frozen, CUTS, calls=calls)["train"]
    assert calls == [(None, "conv5_block1", 16)] * 3 + [("conv5_block1", "head", 16)] * 3
    np.testing.assert_allclose(found, embed(frozen, IMAGES["train"]), rtol=1e-4, atol=1e-5)
    calls.clear()
    earlier = compute(frozen, CUTS[:1], calls=calls)["train"]
    assert calls == [(None, "conv5_block1", 8)]
    np.testing.assert_allclose(earlier, embed(frozen, IMAGES["train"], "conv5_block1"), rtol=1e-4, atol=1e-5)
    # Delete the activations at the head alone: they are computed from those at the earlier cut.
    fingerprints = [path for path in cache.folder("arrays").iterdir() if "at head" in (path / "about.json").read_text()]
    for path in fingerprints:
        cache.shutil.rmtree(path)
    calls.clear()
    again = compute(frozen, CUTS, calls=calls)["train"]
    assert calls == [(None, "conv5_block1", 8)] + [("conv5_block1", "head", 16)] * 3
    np.testing.assert_array_equal(again, found)


def test_a_later_run_finds_them(frozen, capsys):
    first, calls = compute(frozen)["train"], []
    again = compute(frozen, calls=calls)["train"]
    assert calls == [(None, "head", 8)]
    np.testing.assert_array_equal(first, again)
    assert "activations at head of 37 images: found in the cache" in capsys.readouterr().out


def test_what_another_process_does_not_find_is_computed_again(frozen, monkeypatch):
    first, calls = np.array(compute(frozen)["train"]), []
    # As if another process had found nothing.
    monkeypatch.setattr(features, "max_over_processes", lambda value: True if value is False else value)
    again = compute(frozen, calls=calls)["train"]
    assert calls == [(None, "head", 16)] * 3
    np.testing.assert_array_equal(first, again)


def test_other_weights_images_or_surroundings_are_something_else(frozen):
    compute(frozen)
    leaf = frozen["params"]["conv3_block1"]["2_conv"]["bias"]
    moved = jax.tree.map(lambda x: x, frozen)
    moved["params"]["conv3_block1"]["2_conv"]["bias"] = leaf.at[0].add(1e-3)
    other = {"train": IMAGES["train"].copy()}
    other["train"][36, 31, 31, 2] ^= 1
    for run in (lambda calls: compute(moved, calls=calls), lambda calls: compute(frozen, images=other, calls=calls)):
        calls = []
        run(calls)
        assert calls == [(None, "head", 16)] * 3
    calls = []
    features.compute(make_pass(make_prefix(frozen, calls, "bfloat16")))
    assert len(calls) == 3


def test_stale_activations_are_refused_and_made_again(frozen, folder, capsys):
    first = np.array(compute(frozen)["train"])
    (entry,) = (folder / "arrays").iterdir()
    stale = np.load(entry / "activations.npy") * np.float32(1.001)
    np.save(entry / "activations.npy", stale)
    about = json.loads((entry / "about.json").read_text())
    about["sha256"]["activations"] = trees.sha256(stale)
    # Its list has no digest, as that of an earlier version.
    del about["sha256_of_list"]
    (entry / "about.json").write_text(json.dumps(about))
    calls = []
    again = compute(frozen, calls=calls)["train"]
    assert calls == [(None, "head", 8)] + [(None, "head", 16)] * 3
    np.testing.assert_array_equal(again, first)
    assert "are not those of this network" in capsys.readouterr().out


def average(over, units=MODEL.units[1:]):
    return features.compute_averages(over, units)["train"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_pass_gives_what_a_head_at_each_unit_would_read(variant):
    """Blocks of v1 before one that halves the resolution compute every second position only, unless a head reads."""
    model = MODEL.clone(variant=VARIANTS[variant])
    variables = jax.jit(model.init)(KEY, np.zeros((1, 32, 32, 3), np.float32))
    units, own = model.units[1:], {"model": model, "preprocessing": CAFFE}

    def run(images):
        folded, x = fold(model, variables), preprocess(images, CAFFE)
        networks = [model.clone(architecture=TINY.end_before(unit)) for unit in units]
        expected = [network.apply(variables, x, "head", method="prefix") for network in networks]
        read = [inference.average_activations(folded, images, **own, at=unit) for unit in units]
        return inference.average_units(folded, images, **own, units=units), expected, read

    found, expected, read = jax.jit(run)(IMAGES["train"][:5])
    for i, unit in enumerate(units):
        np.testing.assert_allclose(found[i], expected[i], rtol=1e-4, atol=1e-5)
        if variant == "v1.5" or unit in ("conv2_block1", "head"):
            np.testing.assert_allclose(found[i], read[i], rtol=1e-4, atol=1e-5)
        else:
            assert np.abs(found[i] - read[i]).max() > 1e-3


def test_averages_are_kept_as_the_runs_keep_them_whose_heads_read_them(frozen, capsys):
    calls, units = [], MODEL.units[1:]
    over = make_pass(make_prefix(frozen, calls))
    first = average(over)
    assert calls == [(units, 16)] * 3 and first.seconds > 0
    assert {unit: views[0].shape for unit, views in first.by_unit.items()} == {
        unit: (37, TINY.end_before(unit).features) for unit in units
    }
    calls.clear()
    again = average(over)
    assert calls == [(units, 8)] and again.seconds == first.seconds
    assert "averages at 5 units of 37 images: found in the cache" in capsys.readouterr().out
    # The network whose head is at a unit.
    short = MODEL.clone(architecture=TINY.end_before("conv4_block1"))
    cut = Cut(short.units, "head")
    own = {kind: {unit: tree[unit] for unit in short.units if unit in tree} for kind, tree in frozen.items()}
    run = jax.jit(partial(inference.run_prefix, model=short, end="head", preprocessing=CAFFE))
    prefix = features.Prefix(
        lambda start, end: partial(run, fold(short, own)),
        cut.digest(own),
        over.prefix.about | {"network": short.architecture._asdict()},
        over.prefix.run_averages,
    )
    found = features.compute(make_pass(prefix, (cut,)))["train"]
    np.testing.assert_array_equal(found, first.by_unit["conv4_block1"][0])
    assert "activations at head of 37 images: found in the cache" in capsys.readouterr().out
    # One of them alone is missing.
    for path in cache.folder("arrays").iterdir():
        if '"width": 8' in (text := (path / "about.json").read_text()) and "conv3_block1" not in text:
            cache.shutil.rmtree(path)
    calls.clear()
    average(over)
    assert calls == [(units, 16)] * 3


def test_averages_stay_within_the_limit_of_the_cache_or_are_not_kept(frozen, folder, capsys):
    prefix = make_prefix(frozen, [])
    size = 37 * 4 * sum(TINY.end_before(unit).features for unit in MODEL.units[1:])
    found = average(make_pass(prefix)._replace(disk_bytes=size - 1))
    assert not list(folder.glob("arrays/*"))
    assert "averages at 5 units are not kept: 0.00 GiB" in capsys.readouterr().out
    # What was kept before makes room.
    compute(frozen, (CUTS[0],))
    kept = average(make_pass(prefix)._replace(disk_bytes=size))
    assert len(list((folder / "arrays").iterdir())) == 5
    for unit, views in found.by_unit.items():
        np.testing.assert_array_equal(views[0], kept.by_unit[unit][0])


def test_activations_in_bfloat16_are_kept_and_found(frozen, capsys):
    model = MODEL.clone(dtype=jnp.bfloat16)

    def run(start, end):
        program = partial(inference.run_prefix, model=model, end=end, preprocessing=CAFFE, start=start)
        return partial(jax.jit(program), fold(model, frozen))

    prefix = make_prefix(frozen, [], "bfloat16")._replace(run=run)
    for cut, dtype in zip(CUTS, (jnp.bfloat16, jnp.float32), strict=True):
        first, again = (features.compute(make_pass(prefix, (cut,))) for _ in range(2))
        assert first["train"].dtype == again["train"].dtype == dtype
        np.testing.assert_array_equal(np.asarray(again["train"], np.float32), np.asarray(first["train"], np.float32))
        found = f"activations at {cut.start} of 37 images: found in the cache"
        assert capsys.readouterr().out.splitlines()[1:] == [found]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache": Cache(features=False)}, "config.cache.features=False"),
        (
            {"data": replace(SIXTY, augment="flip")},
            "config.data.augment='flip' gives them other images in every epoch",
        ),
    ],
)
def test_the_frozen_units_run_in_every_step_for_a_reason(tmp_path, capsys, settings, message):
    source = str(make_source(tmp_path / "source"))
    from_config.run(small("feature_extraction", pretrained=source, **settings), tmp_path / "run")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "the frozen units run" in line)
    assert line.startswith("the frozen units run in every step: ") and message in line


def test_activations_are_kept_in_memory_or_on_disk_or_the_limits_are_named():
    """`test_views.py` has runs without room for them."""
    cache = Cache(memory_gib=0.25, disk_gib=0.5)
    assert features.why_too_large(cache, 0.5) is None
    said = "their activations take 0.51 GiB, more than config.cache.memory_gib=0.25 and disk_gib=0.5"
    assert features.why_too_large(cache, 0.51) == said


DIGITS = Data(name="digits", classes=("5", "6", "7"), max_images=160)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the weights `source` and the run `feature_extraction`, which started from them."""
    folder = tmp_path_factory.mktemp("features")
    make_source(folder / "source")
    head = Config(pretrained=str(folder / "source"), epochs=1, batch_size=16, data=DIGITS)
    from_config.run(head, folder / "feature_extraction")
    return folder


def find_losses(runs, workdir, stage: str, settings: Cache) -> np.ndarray:
    """The loss of every training step of one epoch, for a run of `stage` with the cache `settings`."""
    source = {"feature_extraction": "source", "fine_tune": "feature_extraction"}[stage]
    cut = {"feature_extraction": "head", "fine_tune": "conv5_block1"}[stage]
    config = Config(stage=stage, pretrained=str(runs / source), cut=cut, epochs=1, batch_size=8, data=DIGITS)
    config.cache = settings
    passes: list = []
    means = metrics.means
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "means", lambda sums: passes.append(sums.loss) or means(sums))
        from_config.run(config, workdir)
    # The longest array is that of the whole epoch, because evaluations have fewer steps.
    return max(passes, key=len)


@pytest.mark.parametrize("stage", [pytest.param("feature_extraction", marks=pytest.mark.long), "fine_tune"])
def test_losses_are_those_of_a_run_without(runs, tmp_path, stage):
    """The activations are kept in memory, and on disk too, or streamed from disk."""
    without = find_losses(runs, tmp_path / "without", stage, Cache(features=False))
    assert len(without) == 20
    for name, settings in (
        ("kept", Cache()),
        ("streamed", Cache(memory_gib=0)),
    ):
        losses = find_losses(runs, tmp_path / name, stage, settings)
        np.testing.assert_allclose(losses, without, rtol=1e-5, err_msg=name)
