"""A pass takes every example once, in order, whether the examples are kept on the device or streamed to it."""

import jax
import numpy as np
import pytest

from tljax.data import batches
from tljax.data.batches import draw_order, map_batches, place_examples
from tljax.devices.mesh import make_mesh

MESH = make_mesh()


@pytest.mark.parametrize(("n", "size"), [(100, 8), (96, 8), (5, 5), (3, 8), (9, 1), (1025, 64), (129, 128)])
@pytest.mark.parametrize("spread", [False, True])
def test_order_is_a_permutation_of_each_column(n, size, spread):
    first = draw_order(n, size, seed=1, epoch=2, spread=spread)
    np.testing.assert_array_equal(np.sort(first, axis=0), np.broadcast_to(np.arange(len(first))[:, None], first.shape))
    places = first * size + np.arange(size)
    sizes = np.sum(places < n, axis=1)
    assert sizes.sum() == n
    if spread:
        assert sizes.max() - sizes.min() <= 1
    else:
        # Places without an example are in the last batch alone, in the columns where the last row has none.
        np.testing.assert_array_equal(places.reshape(-1) < n, np.arange(places.size) < n)
    np.testing.assert_array_equal(first, draw_order(n, size, seed=1, epoch=2, spread=spread))
    if len(first) > 8:
        assert len({tuple(column) for column in first.T}) == size
        for seed, epoch in ((1, 3), (2, 2), (2, 1)):
            assert (first != draw_order(n, size, seed=seed, epoch=epoch, spread=spread)).any()


def test_spreading_the_padding_moves_nothing_else():
    last, spread = (draw_order(100, 8, seed=1, epoch=2, spread=spread) for spread in (False, True))
    for before, after in zip(last.T, spread.T, strict=True):
        # Row 12 has no example in the last four columns.
        np.testing.assert_array_equal(before[before < 12], after[after < 12])
    np.testing.assert_array_equal(last[:, :4], spread[:, :4])
    np.testing.assert_array_equal(*(draw_order(96, 8, seed=1, epoch=2, spread=spread) for spread in (False, True)))


# An order that leaves the padding last, as older runs have it, is as just to the rows of a column.
@pytest.mark.parametrize(("n", "spread"), [(10, True), (10, False), (9, True)])
def test_every_example_is_as_likely_in_every_batch(n, spread):
    size, epochs = 2, 2000
    orders = [draw_order(n, size, seed=0, epoch=e, spread=spread) for e in range(epochs)]
    places = np.stack(orders) * size + np.arange(size)
    counts = np.stack([np.bincount(batch.reshape(-1), minlength=10) for batch in places.transpose(1, 0, 2)])
    # An example, or the padding, is in each of the five batches in a fifth of the 2,000 epochs, with a standard
    # deviation of 18.
    np.testing.assert_allclose(counts, epochs / 5, atol=90)


def test_padding_is_drawn_for_each_column():
    orders = [draw_order(9, 4, seed=0, epoch=e) for e in range(1000)]
    # Row 2 holds one example, in column 0; of three columns each has its padding in each of three batches.
    counts = np.mean([order[:, 1:] == 2 for order in orders], axis=0)
    np.testing.assert_allclose(counts, 1 / 3, atol=0.08)


def make_images(n: int) -> np.ndarray:
    """Images of 192 numbers, which do not fill a tile; the first number of image i is i."""
    return np.arange(n, dtype=np.int32)[:, None, None, None] + 1000 * np.arange(192, dtype=np.int32).reshape(8, 8, 3)


@jax.jit
def take_batch(chunk, i):
    return chunk.batch(i)


def take(chunk, start) -> list[np.ndarray]:
    """The labels of each batch of a chunk from batch `start` on; checks that the images belong to them."""
    found = []
    for i in range(start, int(chunk.steps)):
        batch = {name: np.asarray(array) for name, array in take_batch(chunk, np.int32(i)).items()}
        images, labels = (batch[name][batch["mask"]] for name in ("image", "label"))
        np.testing.assert_array_equal(images, make_images(25)[labels])
        found.append(labels)
    return found


@pytest.mark.parametrize("streamed_bytes", [1, 4 * 4096 * 2, 2**27])
@pytest.mark.parametrize("memory", [0, 2**20])
@pytest.mark.parametrize("n", [3, 8, 10, 25])
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_pass_takes_every_example_once_in_its_order(monkeypatch, n, memory, streamed_bytes, shuffled):
    monkeypatch.setattr(batches, "STREAMED_BYTES", streamed_bytes)
    examples = place_examples(make_images(n), np.arange(n, dtype=np.int32), n, 4, memory, MESH)
    size = min(n, 4)
    rows = draw_order(n, size, seed=0, epoch=3) if shuffled else None
    chunks = list(examples.chunks(rows))
    found = [labels for chunk in chunks for labels in take(*chunk)]
    places = np.arange(n) if rows is None else (rows * size + np.arange(size)).reshape(-1)
    np.testing.assert_array_equal(np.concatenate(found), places[places < n])
    assert len(found) == examples.steps == -(-n // 4)
    if not shuffled:
        assert all(len(labels) == size for labels in found[:-1])
    assert len({jax.tree.map(np.shape, chunk) for chunk, _ in chunks}) == 1
    # A chunk without examples has the same shapes, so it runs the same program.
    blank = examples.blank()
    assert jax.tree.map(np.shape, blank) == jax.tree.map(np.shape, chunks[0][0]) and blank.steps == 0
    for skip in range(1, examples.steps):
        rest = [labels for chunk in examples.chunks(rows, skip) for labels in take(*chunk)]
        assert all(map(np.array_equal, rest, found[skip:])) and len(rest) == len(found) - skip
    assert (len(chunks) == 1) == (memory > 0 or streamed_bytes == 2**27 or n <= 4 or (n <= 8 and streamed_bytes > 1))


def test_what_does_not_fit_stays_on_the_host():
    images, labels = make_images(10), np.arange(10, dtype=np.int32)
    assert isinstance(place_examples(images, labels, len(labels), 4, images.nbytes, MESH).images, jax.Array)
    assert place_examples(images, labels, len(labels), 4, images.nbytes - 1, MESH).images is images


@pytest.mark.parametrize("n", [1, 4, 10])
def test_mapping_drops_what_fills_up_the_last_batch(n):
    sizes = []

    def double(images, labels):
        sizes.append(len(images))
        return images[:, 0, 0, 0] * 2, labels

    found = list(map_batches(double, (make_images(n), np.arange(n)), 4, MESH, name="x"))
    doubled, labels = (np.concatenate(parts) for parts in zip(*(outputs for _, outputs in found), strict=True))
    np.testing.assert_array_equal(doubled, 2 * np.arange(n))
    np.testing.assert_array_equal(labels, np.arange(n))
    assert [(rows.start, rows.stop) for rows, _ in found] == [(i, min(i + 4, n)) for i in range(0, n, 4)]
    assert set(sizes) == {min(n, 4)}
