"""What the steps take: examples on the device, or on their way to it, and which of them make up a batch."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Num
from tqdm import tqdm

# Of a split that does not fit, as much is on the device at a time, and as much on its way.
STREAMED_BYTES = 2**27


def order(n: int, *, seed: int, epoch: int) -> Int[Array, " n"]:
    """A permutation of `range(n)` (int32), a function of `seed` and `epoch` alone, made on the device."""
    return jax.random.permutation(jax.random.fold_in(jax.random.key(seed), epoch), n)


class Chunk(NamedTuple):
    """Examples on the device, and the batches to take from them."""

    images: Num[Array, "n ..."]
    """Pixels 0..255, or activations at a cut."""
    labels: Int[Array, " n"]
    rows: Int[Array, "steps batch"]
    """Rows of `images` a batch."""
    count: Any
    """So many of `rows` are examples (int32 scalar); the others, at the end, fill up the last batch."""

    @property
    def steps(self) -> int:
        """Batches that hold examples."""
        return -(-int(self.count) // self.rows.shape[1])


@dataclass(frozen=True)
class Examples:
    """Images or activations with their labels, as the steps read them: arrays of JAX on the device where they fit, of
    NumPy on the host, perhaps memory-mapped, where they do not.

    A batch has `batch_size` rows, or as many as there are; the last one is filled up with row 0.
    """

    images: Any
    labels: Any
    batch_size: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def steps(self) -> int:
        """Batches of a pass."""
        return -(-len(self) // self.batch_size)

    def chunks(self, order: Int[Array, " n"] | None = None) -> Iterator[Chunk]:
        """A pass over all examples in the `order` of their rows if given, else as stored. All chunks have one shape."""
        n, size = len(self), min(self.batch_size, len(self))
        rows = jnp.arange(n, dtype=jnp.int32) if order is None else order
        if isinstance(self.images, jax.Array):
            padded = jnp.pad(rows, (0, self.steps * size - n)).reshape(self.steps, size)
            yield Chunk(self.images, self.labels, padded, np.int32(n))
            return
        on_host, row_bytes = np.asarray(rows), self.images.nbytes // n
        length = size * min(self.steps, max(1, STREAMED_BYTES // (size * row_bytes)))
        in_place = jnp.arange(length, dtype=jnp.int32).reshape(-1, size)

        def gather(start: int) -> Chunk:
            chosen = on_host[start : start + length]
            padded = np.pad(chosen, (0, length - len(chosen)))
            images, labels = jax.device_put((self.images[padded], self.labels[padded]))
            return Chunk(images, labels, in_place, np.int32(len(chosen)))

        # While the device works on one chunk, the next is on its way.
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(gather, 0)
            for start in range(length, n, length):
                ready, ahead = ahead, pool.submit(gather, start)
                yield ready.result()
            yield ahead.result()


def place(images: Num[np.ndarray, "n ..."], labels: Int[np.ndarray, " n"], batch_size: int, memory: int) -> Examples:
    """Examples on the device if the images are at most `memory` bytes, else left on the host to be streamed."""
    if images.nbytes > memory:
        return Examples(images, labels, batch_size)
    return Examples(jax.device_put(images), jax.device_put(labels), batch_size)


def map_batches(
    f: Callable[..., Any], arrays: Sequence[np.ndarray], batch_size: int, *, name: str
) -> Iterator[tuple[slice, tuple[np.ndarray, ...]]]:
    """`f` of so many rows of `arrays` at a time: the rows, and each of its outputs for them, on the host.

    The last batch is filled up with row 0. The device works on one batch while another is handed out.
    """
    n = len(arrays[0])
    size = min(batch_size, n)

    def start(first: int) -> tuple[slice, Any]:
        rows = np.arange(first, min(first + size, n))
        padded = np.pad(rows, (0, size - len(rows)))
        return slice(first, first + len(rows)), f(*(array[padded] for array in arrays))

    with tqdm(total=n, desc=name, unit=" images", leave=False, disable=None, dynamic_ncols=True) as bar:
        ahead = start(0)
        for following in [*range(size, n, size), None]:
            rows, outputs = ahead
            if following is not None:
                ahead = start(following)
            yield rows, tuple(np.asarray(output)[: rows.stop - rows.start] for output in outputs)
            bar.update(rows.stop - rows.start)
