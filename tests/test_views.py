"""Fixed views of each picture: what they are, how a pass draws them, and what the frozen units compute of them."""

import shutil
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_features import CUTS, HEAD, IMAGES, MESH, embed, make_pass, make_prefix
from test_ridge import leave_out, simulate
from tiny_runs import DIGITS, make_source, read_rows, read_summary, rewrite_meta, small

from tljax.config import Cache, Config, Data, Head
from tljax.data import datasets
from tljax.data.augmentation import find_kept_side, make_view
from tljax.data.batches import EMPTY, draw_order, place_examples
from tljax.runs import readers
from tljax.stages.from_config import run
from tljax.training import features, ridge

STRONG = Data(augment="flip,shift,color,erase=1").augmentations
PICTURES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
ROWS = np.array([3, 0, 7, 12, 5, 40], np.int32)


def test_the_first_view_is_the_picture_and_each_second_one_is_mirrored():
    views = [np.asarray(make_view((("flip", 0.5),), i, seed=0)(PICTURES, ROWS)) for i in range(4)]
    for i, view in enumerate(views):
        np.testing.assert_array_equal(view, PICTURES[:, :, ::-1] if i % 2 else PICTURES)
    np.testing.assert_array_equal(make_view(STRONG, 0, seed=0)(PICTURES, ROWS), PICTURES)


def test_a_view_is_a_function_of_seed_number_and_row():
    view = np.asarray(make_view(STRONG, 2, seed=0)(PICTURES, ROWS))
    order = np.array([4, 1, 5])
    np.testing.assert_allclose(make_view(STRONG, 2, seed=0)(PICTURES[order], ROWS[order]), view[order], atol=1e-3)
    others = make_view(STRONG, 4, seed=0), make_view(STRONG, 2, seed=1)
    for other in (*(made(PICTURES, ROWS) for made in others), make_view(STRONG, 2, seed=0)(PICTURES, ROWS + 1)):
        assert all((a != b).any() for a, b in zip(np.asarray(other), view, strict=True))


def test_views_of_crops_have_the_image_s_side():
    data = Data(augment="flip,crop")
    kept = np.random.default_rng(0).integers(0, 256, (3, find_kept_side(data, 32), 37, 3), np.uint8)
    for number in range(3):
        assert make_view(data.augmentations, number, seed=0)(kept, ROWS[:3]).shape == (3, 32, 32, 3)


def test_each_example_draws_one_of_its_views_anew_in_every_epoch():
    n, size, steps = 100, 8, 13
    plain = draw_order(n, size, seed=1, epoch=2)
    drawn = draw_order(n, size, seed=1, epoch=2, views=4)
    np.testing.assert_array_equal(drawn % steps, plain)
    counts = np.zeros((4, n), int)
    for epoch in range(400):
        order = draw_order(n, size, seed=0, epoch=epoch, views=4)
        places = (order % steps) * size + np.arange(size)
        real = places < n
        np.add.at(counts, ((order // steps)[real], places[real]), 1)
    # Each view of each example 100 times on average, with a standard deviation of 8.7.
    np.testing.assert_allclose(counts, 100, atol=45)


@pytest.mark.parametrize("memory", [0, 2**24])
def test_a_pass_takes_the_drawn_view_of_each_example(memory):
    n, size, steps = 21, 4, 6
    # The first number of an example says its view and its number.
    arrays = tuple(100 * v + np.arange(n, dtype=np.float32)[:, None] * np.ones(5, np.float32) for v in range(3))
    examples = place_examples(arrays, np.arange(n, dtype=np.int32), n, size, memory, MESH)
    assert (len(examples), examples.steps, examples.views) == (n, steps, 3)
    assert isinstance(examples.images, jax.Array) == bool(memory)
    order = draw_order(n, size, seed=0, epoch=1, views=3)
    taken = []
    for chunk, start in examples.chunks(order, skip=2):
        for i in range(start, int(chunk.steps)):
            batch = chunk.batch(jnp.int32(i))
            taken.append(np.where(batch["mask"], np.asarray(batch["image"])[:, 0], EMPTY))
            labels = np.where(batch["mask"], batch["label"], EMPTY)
            np.testing.assert_array_equal(labels, np.where(batch["mask"], taken[-1] % 100, EMPTY))
    places = (order % steps) * size + np.arange(size)
    expected = np.where(places < n, 100 * (order // steps) + places, EMPTY)
    np.testing.assert_array_equal(np.stack(taken), expected[2:])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def frozen():
    from test_features import KEY, MODEL

    return HEAD.split(jax.jit(MODEL.init)(KEY, np.zeros((1, 32, 32, 3), np.float32)))[0]


def test_the_frozen_units_run_once_for_each_view(folder, frozen):
    data = Data(augment="flip,color", views=3)
    config, rows, calls = Config(batch_size=16, data=data), np.arange(100, 137), []

    def compute(config=config, rows=rows):
        calls.clear()
        view = lambda i: jax.jit(make_view(data.augmentations, i, config.seed))  # noqa: E731
        seen = features.in_views(IMAGES["train"], rows, config.data, config.seed, view)
        inputs = {"train": seen if config.data.views else (features.as_they_are(IMAGES["train"]),)}
        return features.compute(make_pass(make_prefix(frozen, calls), CUTS, inputs))["train"]

    found = compute()
    assert [call[:2] for call in calls] == ([(None, "conv5_block1")] * 3 + [("conv5_block1", "head")] * 3) * 3
    for i, view in enumerate(found):
        seen = make_view(data.augmentations, i, config.seed)(IMAGES["train"], rows.astype(np.int32))
        np.testing.assert_allclose(view, embed(frozen, seen), rtol=1e-4, atol=1e-5)
    # Each view is an entry of the cache: more views compute the new ones alone, and the first is that of plain images.
    more = compute(replace(config, data=replace(data, views=4)))
    assert sum(call[2] for call in calls if call[0] is None) == 3 * 8 + 48 and len(more) == 4
    np.testing.assert_array_equal(compute(replace(config, data=Data())), found[0])
    assert all(call[2] == 8 for call in calls)
    for other in (compute(replace(config, seed=1)), compute(rows=rows + 1)):
        assert not np.allclose(other[1], found[1])
    calls.clear()
    np.testing.assert_array_equal(compute()[1], found[1])
    assert all(call[2] == 8 for call in calls), "those of other rows took its place"


def test_a_run_learns_from_views_and_says_so(tmp_path, capsys):
    source = str(make_source(tmp_path / "source"))
    data = replace(DIGITS, augment="flip,shift", views=3)
    config = Config(pretrained=source, network="tiny", batch_size=16, epochs=1, data=data)
    run(config, tmp_path / "views")
    said = capsys.readouterr().out
    assert "the frozen units run once for 3 views of each training picture" in said
    run(replace(config, data=replace(DIGITS)), tmp_path / "plain")
    losses = [[row["loss"] for row in read_rows(tmp_path / name)] for name in ("views", "plain")]
    assert losses[0] != losses[1] and read_summary(tmp_path / "views")["frozen_leaves_unchanged"]


@pytest.mark.parametrize(("n", "size", "weights"), [(40, 12, None), (12, 40, None), (30, 12, (2.0, 0.25, 1.0, 5.0))])
def test_a_solved_head_leaves_all_views_of_a_picture_out_together(n, size, weights):
    views, classes = 3, 4
    first, labels = simulate(n, size)
    rng = np.random.default_rng(1)
    rows = np.concatenate([first, *(first + rng.normal(0, 0.3, first.shape) for _ in range(views - 1))])
    solved = ridge.decompose(rows, np.tile(labels, views), classes, views, weights)
    each = np.ones(n) if weights is None else np.array(weights)[labels]
    groups, first_there = ridge.form_groups(labels, classes)
    held_out = ridge.hold_out(solved, 0.1)
    places = {row: i for i, row in enumerate(held_out.rows)}
    for group, is_first in zip(groups, first_there, strict=True):
        together = [v * n + i for v in range(views) for i in group]
        expected = leave_out(rows, np.tile(labels, views), together, 0.1, 4, weights)[: len(group)][is_first]
        np.testing.assert_allclose(
            held_out.scores[[places[i] for i in group[is_first]]], expected, rtol=1e-8, atol=1e-8
        )
    # The penalty is chosen by pictures that are left out one by one, with their views.
    by_hand = [
        sum(
            each[i]
            * np.square(
                leave_out(rows, np.tile(labels, views), [v * n + i for v in range(views)], penalty, 4, weights)
                - ridge.mark_classes(np.full(views, labels[i]), classes)
            ).sum()
            for i in range(n)
        )
        for penalty in ridge.PENALTIES
    ]
    np.testing.assert_allclose(ridge.sum_errors_by_groups(solved), by_hand, rtol=1e-6)
    assert ridge.choose_penalty(solved) == ridge.PENALTIES[np.argmin(by_hand)]


def test_one_view_by_groups_is_leaving_out_each():
    features_of, labels = simulate(50, 20)
    solved = ridge.decompose(features_of, labels, 4)
    assert ridge.PENALTIES[np.argmin(ridge.sum_errors_by_groups(solved))] == ridge.choose_penalty(solved)


def test_a_head_is_solved_from_views(tmp_path, capsys):
    source = str(make_source(tmp_path / "source"))
    data = replace(DIGITS, augment="flip,shift", views=4)
    config = Config(pretrained=source, network="tiny", batch_size=16, epochs=0, head=Head(init="ridge"), data=data)
    solved = run(config, tmp_path / "solved")
    plain = run(replace(config, data=replace(DIGITS)), tmp_path / "plain")
    rows = [read_rows(tmp_path / name)[0]["solved"] for name in ("solved", "plain")]
    assert rows[0]["pictures"] == rows[1]["pictures"] == 60 and rows[0]["copies"] == rows[1]["copies"]
    assert rows[0]["held_out"]["pictures"] == rows[1]["held_out"]["pictures"]
    assert solved["loss"] != plain["loss"]


def test_training_pictures_are_kept_larger_for_crops(folder):
    plain, larger = (
        datasets.load_dataset(replace(DIGITS, augment=augment), seed=0) for augment in ("flip", "flip,crop")
    )
    assert (plain.image_size, larger.image_size) == (32, 32)
    assert plain.train.images.shape[1:3] == (32, 32) and larger.train.images.shape[1:3] == (37, 37)
    assert larger.validation.images.shape == plain.validation.images.shape


def test_where_nothing_is_kept_views_are_not_used(tmp_path, capsys):
    data = replace(DIGITS, augment="flip", views=2)
    run(small("from_scratch", data=data), tmp_path / "new")
    assert "config.data.views is not used: nothing is frozen" in capsys.readouterr().out
    source, cache = str(tmp_path / "new"), Cache(features=False)
    run(small("feature_extraction", pretrained=source, data=data, cache=cache), tmp_path / "head")
    assert "config.data.views is not used: the frozen units run in every step" in capsys.readouterr().out


def test_whether_views_are_used_stays_as_it_was(tmp_path, capsys, decoding_here):
    """With less room in the cache, or more, other pictures would be learned from."""
    source = str(make_source(tmp_path / "source"))
    data, none, room = replace(DIGITS, augment="flip", views=2), Cache(memory_gib=0, disk_gib=0), Cache()
    begin = partial(small, "feature_extraction", pretrained=source, data=data)
    run(begin(cache=room), tmp_path / "used")
    with pytest.raises(ValueError, match=r"views in use, and .* no room for them now"):
        run(begin(cache=none, epochs=2), tmp_path / "used")
    run(begin(cache=none), tmp_path / "unused")
    with pytest.raises(ValueError, match=r"views not in use, and .* has room for them now"):
        run(begin(cache=room, epochs=2), tmp_path / "unused")
    # A run that did not record it goes on with a warning, and records it.
    capsys.readouterr()
    rewrite_meta(tmp_path / "used", lambda meta: meta.pop("views_used"))
    run(begin(cache=room, epochs=2), tmp_path / "used")
    assert "WARNING this run began when nothing recorded" in capsys.readouterr().out
    assert readers.read_run(tmp_path / "used")[1]["views_used"] is True


@pytest.mark.parametrize("how", ["in every step", pytest.param("other batches", marks=pytest.mark.long)])
def test_without_views_the_limits_of_the_cache_change_a_run_to_rounding(tmp_path, monkeypatch, decoding_here, how):
    """docs/runs.md: activations that are computed in other batches, or in every step, may differ in their last bits."""
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    begin = partial(small, "feature_extraction", pretrained=str(make_source(tmp_path / "source")))
    run(begin(), tmp_path / "begun")
    losses = {}
    for name, now in (("same", Cache()), (how, Cache(memory_gib=0, disk_gib=0) if how == "in every step" else Cache())):
        shutil.copytree(tmp_path / "begun", tmp_path / name)
        if name == "other batches":
            # The cache has lost them, and another run has computed its own.
            shutil.rmtree(tmp_path / "cache" / "arrays")
            run(begin(batch_size=5), tmp_path / "between")
        run(begin(cache=now, epochs=2), tmp_path / name)
        losses[name] = [row["loss"] for row in read_rows(tmp_path / name)]
    np.testing.assert_allclose(losses[how], losses["same"], rtol=1e-5)
