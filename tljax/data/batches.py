"""What the steps take: examples on the device, or on their way to it, and which of them make up a batch."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Int, Num
from tqdm import tqdm

from tljax.data.decoding import read_ahead
from tljax.devices.mesh import by_column, by_row, full_batch, own_columns, put, round_up, rows_on_host
from tljax.devices.processes import leads, max_over_processes

# The label where there is no example.
EMPTY = -1
# Of a split that does not fit, as much is on the device at a time, and as much on its way.
STREAMED_BYTES = 2**27
# On a TPU arrays lie in tiles of such rows. Of examples that fill tiles it takes one without touching the others; of
# any others, pixels for example, it first copies all that are on it, to twice the memory.
ROWS, LANES = 8, 128


def draw_order(n: int, batch_size: int, *, seed: int, epoch: int) -> Int[np.ndarray, "steps batch"]:
    """Which row of each column makes up each batch (int32), a function of `n`, `batch_size`, `seed` and `epoch` alone.

    Examples lie in columns: 0 to `batch_size - 1` are the first row, and so on. Each column is shuffled on its own, and
    a batch takes one example of each. So every example is taken once, and a device that holds some of the columns
    needs no others, however many devices there are. Places without an example, in the last row, come last.
    """
    steps = -(-n // batch_size)
    draws = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), epoch), (batch_size, steps))
    empty = jnp.arange(batch_size).reshape(-1, 1) + batch_size * jnp.arange(steps).reshape(1, -1) >= n
    return np.asarray(jnp.argsort(jnp.where(empty, 1, draws), axis=1).T, np.int32)


@struct.dataclass
class Chunk:
    """Examples on the devices, in columns, and the batches to take from them."""

    images: Num[Array, "rows batch blocks lanes"]
    """Pixels 0..255, or activations at a cut, each as `to_tiles` lays it out."""
    labels: Int[Array, "rows batch"]
    """`EMPTY` where there is no example."""
    rows: Int[Array, "steps batch"]
    """The row of each column that a batch takes."""
    steps: Any
    """So many batches hold examples (int32 scalar)."""
    shape: tuple[int, ...] = struct.field(pytree_node=False)
    """That of an example."""
    mesh: Mesh = struct.field(pytree_node=False)

    def batch(self, i: Int[Array, ""]) -> dict[str, Array]:
        """Batch `i` as the steps read it: image [batch ...], label and mask [batch]."""

        def pick(columns: Array, rows: Array) -> Array:
            return columns[rows, jnp.arange(len(rows))]

        # Left to itself, the compiler does not see that a device needs no columns but its own.
        column_spec, row_spec = by_column(self.mesh).spec, by_row(self.mesh).spec
        pick_own = jax.shard_map(pick, mesh=self.mesh, in_specs=(column_spec, row_spec), out_specs=row_spec)
        images, labels = (pick_own(x, self.rows[i]) for x in (self.images, self.labels))
        images = images.reshape(len(images), -1)[:, : math.prod(self.shape)].reshape(-1, *self.shape)
        return {"image": images, "label": jnp.maximum(labels, 0), "mask": labels != EMPTY}


def to_tiles(images: Num[np.ndarray, "rows batch ..."]) -> Num[np.ndarray, "rows batch blocks lanes"]:
    """Each example as tiles of `ROWS` rows of `LANES` numbers, the last filled up."""
    flat = images.reshape(*images.shape[:2], -1)
    blocks, lanes = tiled_shape(images.shape[2:])
    if missing := blocks * lanes - flat.shape[2]:
        flat = np.pad(flat, ((0, 0), (0, 0), (0, missing)))
    return flat.reshape(*flat.shape[:2], blocks, lanes)


def tiled_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """What an example of this shape has after `to_tiles`."""
    return -(-math.prod(shape) // (ROWS * LANES)) * ROWS, LANES


@dataclass(frozen=True)
class Examples:
    """Images or activations with their labels, as the steps read them: in columns on the devices where they fit, laid
    out as in a `Chunk`, else this process's part on the host, one after another, perhaps memory-mapped. `count` are
    those of all processes, `shape` is that of one."""

    images: Any
    labels: Any
    count: int
    shape: tuple[int, ...]
    batch_size: int
    mesh: Mesh

    def __len__(self) -> int:
        return self.count

    @property
    def steps(self) -> int:
        """Batches of a pass."""
        return -(-self.count // self.batch_size)

    def chunks(
        self, order: Int[np.ndarray, "steps batch"] | None = None, skip: int = 0
    ) -> Generator[tuple[Chunk, int]]:
        """A pass over all examples in `order` if given, else as they are stored, without its first `skip` batches:
        chunks, all of one shape, and the first batch to take of each."""
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

        # While the devices work on one chunk, the next is on its way.
        with closing(examples), ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(gather, parts[0])
            for part in parts[1:]:
                ready, ahead = ahead, pool.submit(gather, part)
                yield ready.result()
            yield ahead.result()

    def blank(self) -> Chunk:
        """A chunk like those of a pass, but with nothing to take from it."""
        columns = len(own_columns(self.mesh, self.batch_size))
        if isinstance(self.images, jax.Array):
            return self._chunk(self.images, self.labels, self._put(_rows(self.steps, columns)), 0)
        images = np.zeros((self._length, columns, *tiled_shape(self.shape)), self.images.dtype)
        labels = np.full(images.shape[:2], EMPTY, np.int32)
        images, labels, rows = self._put((images, labels, _rows(*labels.shape)))
        return self._chunk(images, labels, rows, 0)

    @property
    def _length(self) -> int:
        """Batches of a chunk, of what does not lie on the devices."""
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
    """For each of `parts` the examples that its rows name, laid out, as the first of `length` rows; the others have
    none."""

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
    """Examples on the devices of `mesh` if the images, an array [n, ...] or not decoded yet, take at most `memory`
    bytes, else left on the host to be streamed.

    They are those of `count` that `mesh.own_rows` gives to this process, and all of them where there is but one.
    """
    size, shape = full_batch(mesh, batch_size, count), images.shape[1:]
    if max_over_processes(images.nbytes > memory):
        return Examples(images, labels, count, shape, size, mesh)
    steps = -(-count // size)
    (columns,) = take(images, labels, [_rows(steps, len(own_columns(mesh, size)))], steps)
    images, labels = put(columns, by_column(mesh), size)
    return Examples(images, labels, count, shape, size, mesh)


def _rows(steps: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """Each column from its first row to its last."""
    return np.broadcast_to(np.arange(steps, dtype=np.int32)[:, None], (steps, batch_size))


def progress_bar(total: int, name: str, *, unit: str, done: int = 0) -> tqdm:
    """On a terminal, and of several processes the leader's."""
    disable = None if leads() else True
    return tqdm(total=total, initial=done, desc=name, unit=unit, leave=False, disable=disable, dynamic_ncols=True)


def map_batches(
    f: Callable[..., Any],
    arrays: Sequence[Any],
    batch_size: int,
    mesh: Mesh,
    *,
    name: str,
    rows: Int[np.ndarray, " rows"] | None = None,
) -> Iterator[tuple[slice, tuple[np.ndarray, ...]]]:
    """`f` of so many of the `rows` (None: all) of `arrays`, or of images that are not decoded yet, at a time: which
    ones, and each of its outputs for them, on the host.

    The last batch is filled up. The devices work on one batch while another is handed out. Of several processes each
    gives and gets rows of its own.
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
                bar.update(done.stop - done.start)
