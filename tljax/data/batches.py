"""Examples as the steps read them: on the devices or streamed to them, and in which order they form batches."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key, Num
from tqdm import tqdm

from tljax.data.augmentation import VIEWS_KEY
from tljax.data.prefetch import read_ahead
from tljax.devices.mesh import by_column, by_row, full_batch, own_columns, put, round_up, rows_on_host
from tljax.devices.processes import leads, max_over_processes

# The label of padding, where there is no example.
EMPTY = -1
# Folded into the key of an epoch, so that the places of padding are drawn by numbers of their own.
PADDING_KEY = 2**31 - 2
# Size of a process's part of one chunk, where a split does not fit on the devices. One chunk is on the devices while
# the next is on its way.
STREAMED_BYTES = 2**27
# A TPU stores arrays in tiles of `ROWS` x `LANES` numbers. Where every example fills whole tiles, the TPU takes one
# example without touching the others. Otherwise, as with plain pixels, it first copies all examples that it holds, and
# needs twice the memory.
ROWS, LANES = 8, 128


def draw_order(
    n: int, batch_size: int, *, seed: int, epoch: int, views: int = 1, spread: bool = True
) -> Int[np.ndarray, "steps batch"]:
    """The row (int32) that each batch takes from each column; it depends only on the arguments.

    Example `i` is in row `i // batch_size` of column `i % batch_size`. Each column is shuffled on its own, and a batch
    takes one example from each. So every example is taken once, and a device that holds some of the columns needs no
    others, whatever the number of devices.

    The last row is padded. The padding is `spread`: each batch gets as much of it as every other, or one more, drawn
    anew in every epoch. Without that, as in version 0.1.0, it all comes last, and the few examples of the last batch,
    which are of the same columns in every epoch, count many times as much as others.

    Where there are several `views` of each example, all rows of the first come before those of the second, and so on;
    each example draws one of its views.
    """
    steps = -(-n // batch_size)
    key = jax.random.fold_in(jax.random.key(seed), epoch)
    draws = jax.random.uniform(key, (batch_size, steps))
    empty = jnp.arange(batch_size).reshape(-1, 1) + batch_size * jnp.arange(steps).reshape(1, -1) >= n
    order = np.asarray(jnp.argsort(jnp.where(empty, 1, draws), axis=1).T, np.int32)
    if spread:
        order = _spread_padding(order, n - (steps - 1) * batch_size, jax.random.fold_in(key, PADDING_KEY))
    if views == 1:
        return order
    drawn = np.asarray(jax.random.randint(jax.random.fold_in(key, VIEWS_KEY), order.shape, 0, views))
    return order + np.int32(steps) * np.take_along_axis(drawn, order, axis=0)


def _spread_padding(
    order: Int[np.ndarray, "steps batch"], full: int, key: Key[Array, ""]
) -> Int[np.ndarray, "steps batch"]:
    """The `order` with the padding, which all columns but the first `full` have in their last place, moved to batches
    that are drawn: in turn from a random order of all of them, so that their numbers differ by one at most."""
    steps, size = order.shape
    batches_key, columns_key = jax.random.split(key)
    padded = np.asarray(jax.random.permutation(columns_key, np.arange(full, size)))
    # As far as the places of a column are sorted by these, its padding comes before the example that was in its place.
    places = np.broadcast_to(np.arange(steps, dtype=np.float32)[:, None], order.shape).copy()
    places[-1, padded] = np.resize(np.asarray(jax.random.permutation(batches_key, steps)), len(padded)) - 0.5
    return np.take_along_axis(order, np.argsort(places, axis=0), axis=0)


@dataclass(frozen=True)
class Views:
    """Several views of the same examples, indexed like one array: view `v` of example `i` is at `v * period + i`."""

    arrays: tuple[np.ndarray, ...]
    period: int

    @property
    def dtype(self) -> np.dtype:
        return self.arrays[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), *self.arrays[0].shape[1:]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def __len__(self) -> int:
        return len(self.arrays) * self.period

    def __getitem__(self, places: Int[np.ndarray, "..."]) -> np.ndarray:
        """The examples at `places`; for one between two views, which is padding, any example."""
        view, example = np.divmod(places, self.period)
        found = np.zeros((*np.shape(places), *self.shape[1:]), self.dtype)
        for v, array in enumerate(self.arrays):
            found[view == v] = array[np.minimum(example[view == v], len(array) - 1)]
        return found


@struct.dataclass
class Chunk:
    """Examples on the devices, in columns as in `draw_order`, and the batches to take from them."""

    images: Num[Array, "rows batch blocks lanes"]
    """Pixels 0..255, or activations at the cut; each example is laid out by `to_tiles`."""
    labels: Int[Array, "rows batch"]
    """`EMPTY` marks padding."""
    rows: Int[Array, "steps batch"]
    """The row that each batch takes from each column."""
    steps: Any
    """The number of batches to take (int32 scalar); the last chunk of a pass may have more rows than that."""
    shape: tuple[int, ...] = struct.field(pytree_node=False)
    """The shape of one example."""
    mesh: Mesh = struct.field(pytree_node=False)

    def batch(self, i: Int[Array, ""]) -> dict[str, Array]:
        """Batch `i` as the steps read it: image [batch ...], label and mask [batch]."""

        def pick(columns: Array, rows: Array) -> Array:
            return columns[rows, jnp.arange(len(rows))]

        # Without shard_map, the compiler does not see that a device needs no columns but its own.
        column_spec, row_spec = by_column(self.mesh).spec, by_row(self.mesh).spec
        pick_own = jax.shard_map(pick, mesh=self.mesh, in_specs=(column_spec, row_spec), out_specs=row_spec)
        images, labels = (pick_own(x, self.rows[i]) for x in (self.images, self.labels))
        images = images.reshape(len(images), -1)[:, : math.prod(self.shape)].reshape(-1, *self.shape)
        return {"image": images, "label": jnp.maximum(labels, 0), "mask": labels != EMPTY}


def to_tiles(images: Num[np.ndarray, "rows batch ..."]) -> Num[np.ndarray, "rows batch blocks lanes"]:
    """Lays each example out in tiles of `ROWS` x `LANES` numbers; the last tile is padded with zeros."""
    flat = images.reshape(*images.shape[:2], -1)
    blocks, lanes = tiled_shape(images.shape[2:])
    if missing := blocks * lanes - flat.shape[2]:
        flat = np.pad(flat, ((0, 0), (0, 0), (0, missing)))
    return flat.reshape(*flat.shape[:2], blocks, lanes)


def tiled_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape (blocks, lanes) that `to_tiles` gives to an example of `shape`."""
    return -(-math.prod(shape) // (ROWS * LANES)) * ROWS, LANES


@dataclass(frozen=True)
class Examples:
    """Images or activations with their labels, from which the steps get their chunks.

    Where they fit, they are on the devices, laid out as in a `Chunk`. Otherwise this process's part [n, ...] stays on
    the host: in memory, memory-mapped, or `Encoded`. `count` is the number of examples of all processes, `shape` the
    shape of one example. Each example has so many `views`; a pass takes it once, and `draw_order` chooses the view.
    """

    images: Any
    labels: Any
    count: int
    shape: tuple[int, ...]
    batch_size: int
    mesh: Mesh
    views: int = 1

    def __len__(self) -> int:
        return self.count

    @property
    def steps(self) -> int:
        """The number of batches in a pass."""
        return -(-self.count // self.batch_size)

    def chunks(
        self, order: Int[np.ndarray, "steps batch"] | None = None, skip: int = 0
    ) -> Generator[tuple[Chunk, int]]:
        """Yields the chunks of one pass, all of the same shapes, each with the index of its first batch to take.

        The pass takes the examples in `order` (by `draw_order`) or, with None, as they are stored. Its first `skip`
        batches are left out.
        """
        rows = _rows(self.steps, self.batch_size) if order is None else order
        rows = rows[:, own_columns(self.mesh, self.batch_size)]
        if isinstance(self.images, jax.Array):
            yield self._chunk(self.images, self.labels, self._put(rows), self.steps), skip
            return
        length = self._length
        in_place = self._put(_rows(length, rows.shape[1]))
        parts = [rows[start : start + length] for start in range(skip, self.steps, length)]

        examples = take(self.images, self.labels, parts, length)

        def gather(part: np.ndarray) -> tuple[Chunk, int]:
            images, labels = self._put(next(examples))
            return self._chunk(images, labels, in_place, len(part)), 0

        # The thread gathers and transfers the next chunk while the devices work on this one.
        with closing(examples), ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(gather, parts[0])
            for part in parts[1:]:
                ready, ahead = ahead, pool.submit(gather, part)
                yield ready.result()
            yield ahead.result()

    def blank(self) -> Chunk:
        """A chunk of the same shapes as those of a pass, but with no batch to take: for compiling the steps."""
        columns = len(own_columns(self.mesh, self.batch_size))
        if isinstance(self.images, jax.Array):
            return self._chunk(self.images, self.labels, self._put(_rows(self.steps, columns)), 0)
        images = np.zeros((self._length, columns, *tiled_shape(self.shape)), self.images.dtype)
        labels = np.full(images.shape[:2], EMPTY, np.int32)
        images, labels, rows = self._put((images, labels, _rows(*labels.shape)))
        return self._chunk(images, labels, rows, 0)

    @property
    def _length(self) -> int:
        """The number of batches in a chunk, where the examples are streamed."""
        columns = len(own_columns(self.mesh, self.batch_size))
        row_bytes = columns * math.prod(tiled_shape(self.shape)) * self.images.dtype.itemsize
        return min(self.steps, max(1, STREAMED_BYTES // row_bytes))

    def _chunk(self, images: Any, labels: Any, rows: Any, steps: int) -> Chunk:
        return Chunk(images, labels, rows, np.int32(steps), self.shape, self.mesh)

    def _put(self, arrays: Any) -> Any:
        return put(arrays, by_column(self.mesh), self.batch_size)


def take(
    images: Any, labels: Int[np.ndarray, " n"], parts: Sequence[Int[np.ndarray, "steps batch"]], length: int
) -> Generator[tuple[Num[np.ndarray, "length batch blocks lanes"], Int[np.ndarray, "length batch"]]]:
    """Yields for each of `parts` the examples at its rows, laid out by `to_tiles`, and their labels.

    A part is padded to `length` rows. Padding, and a place beyond the last example, has the label `EMPTY`.
    """

    def find(rows: np.ndarray) -> np.ndarray:
        places = rows * rows.shape[1] + np.arange(rows.shape[1])
        places = np.pad(places, ((0, length - len(rows)), (0, 0)), constant_values=len(labels))
        return np.minimum(places, len(labels))

    places = [find(rows) for rows in parts]
    marked = np.append(labels, np.int32(EMPTY))
    with closing(read_ahead(images, places)) as ahead:
        for p, chosen in zip(places, ahead, strict=True):
            yield to_tiles(chosen), marked[p]


def place_examples(
    images: Any,
    labels: Int[np.ndarray, " n"],
    count: int,
    batch_size: int,
    memory: int,
    mesh: Mesh,
) -> Examples:
    """Puts examples on the devices of `mesh` if the images take at most `memory` bytes, else leaves them for streaming.

    `images` is an array [n, ...] of images or activations, or `Encoded`, or a tuple of such arrays, one for each view.
    The `n` examples are those that `devices.mesh.own_rows` gives to this process, out of `count`. If one process must
    stream, all processes do.
    """
    size, views = full_batch(mesh, batch_size, count), len(images) if isinstance(images, tuple) else 1
    steps, columns = -(-count // size), len(own_columns(mesh, size))
    if isinstance(images, tuple):
        images = Views(images, steps * columns)
        padded = np.pad(labels, (0, images.period - len(labels)), constant_values=EMPTY)
        labels = np.tile(padded, views)
    shape = images.shape[1:]
    if not max_over_processes(images.nbytes > memory):
        (taken,) = take(images, labels, [_rows(views * steps, columns)], views * steps)
        images, labels = put(taken, by_column(mesh), size)
    return Examples(images, labels, count, shape, size, mesh, views)


def _rows(steps: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """The order in which the examples are stored: batch `i` takes row `i` of every column."""
    return np.broadcast_to(np.arange(steps, dtype=np.int32)[:, None], (steps, batch_size))


def progress_bar(total: int | None, name: str, *, unit: str, done: int = 0, layout: str | None = None) -> tqdm:
    """A progress bar that shows only on a terminal, and only in the leader process. `layout` is tqdm's `bar_format`."""
    disable = None if leads() else True
    bar = partial(tqdm, leave=False, disable=disable, dynamic_ncols=True)
    return bar(total=total, initial=done, desc=name, unit=unit, bar_format=layout)


def move(bar: tqdm, amount: int, *, first: bool) -> None:
    """Moves a bar. The `first` amount, for which something is compiled, does not count for the time that is left."""
    if not first:
        bar.update(amount)
        return
    bar.n = bar.initial = bar.last_print_n = bar.n + amount
    bar.unpause()
    bar.refresh()


def map_batches(
    f: Callable[..., Any],
    arrays: Sequence[Any],
    batch_size: int,
    mesh: Mesh,
    *,
    name: str,
    rows: Int[np.ndarray, " rows"] | None = None,
) -> Iterator[tuple[slice, tuple[np.ndarray, ...]]]:
    """Applies `f` to `rows` (None: all) of `arrays` in batches; yields slices of `rows` with their outputs on the host.

    `f` takes a batch of each of `arrays`, which may be `Encoded`, and returns a tuple of arrays. The last batch is
    padded; outputs for padding are dropped. The devices work on one batch while the caller gets the outputs of the one
    before. `batch_size` counts rows of all processes; each process passes its own rows and gets their outputs.
    """
    rows = np.arange(len(arrays[0])) if rows is None else rows
    n, processes = len(rows), jax.process_count()
    most = max_over_processes(n)
    size = round_up(min(batch_size, most * processes), mesh.size)
    own = len(own_columns(mesh, size))
    starts = range(0, most, own)
    padded = np.pad(rows, (0, len(starts) * own - n), constant_values=len(arrays[0]))
    places = [padded[start : start + own] for start in starts]
    bar = progress_bar(n, name, unit=" images")
    ahead = None
    with bar, ExitStack() as stack:
        streams = [stack.enter_context(closing(read_ahead(array, places))) for array in arrays]
        for start in [*starts, None]:
            ready = ahead
            if start is not None:
                batch = put([next(stream) for stream in streams], by_row(mesh), size)
                ahead = slice(min(start, n), min(start + own, n)), f(*batch)
            if ready is not None:
                done, outputs = ready
                yield done, tuple(rows_on_host(output)[: done.stop - done.start] for output in outputs)
                move(bar, done.stop - done.start, first=done.start == 0)
