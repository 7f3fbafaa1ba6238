"""Activations at the cut, which the frozen units compute once; the steps read them in place of images.

Activations at a unit are the inputs of that unit. They are kept in the user's cache folder for later runs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt8

from tljax.config import Cache, Data
from tljax.data.augmentation import View
from tljax.data.batches import map_batches
from tljax.data.decoding import Encoded
from tljax.devices.mesh import round_up
from tljax.devices.processes import max_over_processes
from tljax.networks.cut import Cut
from tljax.storage import cache
from tljax.trees import sha256

# At each start, cached activations of a few images are compared with newly computed ones. Tolerances are relative to
# the largest activation. The same network at another batch size differs by 1e-6 of it; in bfloat16, whose numbers are
# 0.8% apart, by more.
CHECKED = 8
TOLERANCE = 1e-4
TOLERANCE_16_BITS = 2e-2
# The most pixels of a batch per device: the images and all that is computed from them are in memory at once.
PASS_PIXELS = 2**20

Run = Callable[[Any], Array]
SplitImages = UInt8[np.ndarray, "n size size 3"] | Encoded


class Prefix(NamedTuple):
    """The frozen units of a network, and everything but the images that their activations depend on."""

    run: Callable[[str | None, str], Run]
    """(start, end) -> a function that returns activations at the unit `end`, from images if `start` is None, else from
    activations at the unit `start`."""
    weights: dict[str, str]
    """Digests of all frozen leaves, by path."""
    about: dict[str, Any]
    """Everything else, as JSON; `compute` is the dtype in which the blocks compute."""


class Inputs(NamedTuple):
    """What the frozen units run over: the images of a split, or a view of them."""

    arrays: tuple[Any, ...]
    """The images and, for a view, their rows in the split (int32)."""
    fingerprint: str
    """Digest of the images."""
    view: View | None = None
    about: Mapping[str, Any] = MappingProxyType({})
    """The part of the cache key that says what the view is; nothing for the images as they are."""

    def run(self, run: Run) -> Callable[..., Array]:
        """`run`, from the `arrays` on."""
        view = self.view
        return run if view is None else lambda images, rows: run(view(images, rows))


class Pass(NamedTuple):
    """The frozen units, and what they run over."""

    prefix: Prefix
    cuts: tuple[Cut, ...]
    """Training reads the activations at the last one; those at the others are computed on the way, for later stages."""
    shapes: dict[str, ShapeDtypeStruct]
    """Shape and dtype of the activations of a few images, by cut."""
    inputs: Mapping[str, tuple[Inputs, ...]]
    """What is read of each split: its images, or several views of them."""
    mesh: Mesh
    batch_size: int
    """Images at a time, of all devices together."""
    disk_bytes: int
    """The limit of the user's cache folder."""


def as_they_are(images: SplitImages) -> Inputs:
    """The inputs of a split whose images are not changed."""
    return Inputs((images,), _digest(images))


def in_views(
    images: SplitImages, rows: Int[np.ndarray, " n"], data: Data, seed: int, view: Callable[[int], View]
) -> tuple[Inputs, ...]:
    """The inputs of each of the `data.views` of a split's images, whose rows in the split are `rows`.

    `view(number)` is what makes a view; it depends on `seed` and `data.augmentations`. The first view is the images as
    they are, unless they are cut out of larger ones.
    """
    arrays, digest = (images, rows.astype(np.int32)), _digest(images)
    crops = any(name == "crop" for name, _ in data.augmentations)
    shared = {"seed": seed, "augment": data.augmentations, "rows": sha256(rows)}
    abouts = [{"view": i, **shared} if i or crops else {} for i in range(data.views or 1)]
    return tuple(Inputs(arrays, digest, view(i), about) for i, about in enumerate(abouts))


def measure(prefix: Prefix, cuts: Sequence[Cut], side: int, mesh: Mesh) -> dict[str, ShapeDtypeStruct]:
    """Shape and dtype of the activations of a few images of this `side`, by cut; nothing is computed."""
    # As many images as `_find` compares: the function is then traced once for both.
    few = ShapeDtypeStruct((round_up(CHECKED, mesh.size), side, side, 3), np.uint8)
    return {cut.position: jax.eval_shape(prefix.run(None, cut.position), few) for cut in cuts}


def compute(over: Pass) -> dict[str, Any]:
    """Activations of each split at the last cut: an array [n, ...], or for several views a tuple of such arrays.

    Activations at the other cuts are computed on the way, and cached too if they fit on the disk. The cache key is a
    digest of the images, of the frozen weights before the cut, and of `prefix.about`. Cached activations are used only
    if those of a few images agree with the results of `prefix.run`.
    """
    images = max_over_processes(sum(len(one.arrays[0]) for each in over.inputs.values() for one in each))
    abouts = {
        cut.position: {
            "what": f"activations at {cut.position}",
            "dtype": str(over.shapes[cut.position].dtype),
            "weights": cut.select(over.prefix.weights),
            **over.prefix.about,
        }
        for cut in over.cuts
        if cut == over.cuts[-1] or images * image_bytes(over.shapes[cut.position]) <= over.disk_bytes
    }
    found = {name: tuple(_compute_split(one, abouts, over) for one in each) for name, each in over.inputs.items()}
    return {name: each[0] if len(each) == 1 else each for name, each in found.items()}


def image_bytes(shape: ShapeDtypeStruct) -> float:
    """The size of the activations of one image, in bytes; `shape` are those of a few."""
    return float(np.prod(shape.shape[1:])) * shape.dtype.itemsize


def describe_views(data: Data) -> str:
    """A line that says what `data.views` does."""
    return (
        f"the frozen units run once for {data.views} views of each training picture, the first as it is, the others "
        f"changed by config.data.augment={data.augment!r}; in every epoch a picture shows one of them"
    )


def batch_size(most: int, side: int, mesh: Mesh) -> int:
    """The number of images of this `side` that the frozen units process at a time, on all devices together; `most` is
    the batch size of training."""
    return min(most, max(1, PASS_PIXELS // side**2) * mesh.size)


def count_passes(training: int, others: int, views: int | None) -> int:
    """How many images go through the frozen units, of so many for training, each in so many `views`, and `others`."""
    return training * (views or 1) + others


def find_obstacle(data: Data, cache: Cache, passes: int, shape: ShapeDtypeStruct) -> str | None:
    """The reason why the frozen units run in every step; None if their activations are computed once, in so many
    `passes` of an image. `shape` are the activations of a few images."""
    return why_in_every_step(data, cache) or why_too_large(cache, passes * image_bytes(shape) / 2**30)


def why_in_every_step(data: Data, cache: Cache) -> str | None:
    """The reason why these settings run the frozen units in every step, whatever the data; None if they do not."""
    if not cache.features:
        return "config.cache.features=False"
    if data.augment != "none" and data.views is None:
        return f"config.data.augment={data.augment!r} gives them other images in every epoch"
    return None


def why_too_large(cache: Cache, gib: float) -> str | None:
    """The reason why activations of so many GiB cannot be kept; None if they can."""
    if gib <= max(cache.memory_gib, cache.disk_gib):
        return None
    limits = f"config.cache.memory_gib={cache.memory_gib:g} and disk_gib={cache.disk_gib:g}"
    return f"their activations take {gib:.2f} GiB, more than {limits}"


def _compute_split(inputs: Inputs, abouts: dict[str, dict[str, Any]], over: Pass) -> np.ndarray:
    """Activations at the last of `abouts`, computed cut by cut from the last cut in the cache, or else from the images.

    All processes do this together: activations that one process does not find in its cache, all processes compute.
    """
    arrays, images = inputs.arrays, inputs.arrays[0]
    abouts = {cut: about | {"images": inputs.fingerprint, **inputs.about} for cut, about in abouts.items()}
    start, missing = None, list(abouts)
    for cut in reversed(abouts):
        run = inputs.run(over.prefix.run(None, cut))
        kept = _find(abouts[cut], arrays, run, over.mesh) if over.disk_bytes else None
        if kept is not None:
            start, arrays, missing = cut, (kept,), missing[missing.index(cut) + 1 :]
            break
    for cut in missing:
        few = over.shapes[cut]
        shape = ShapeDtypeStruct((len(images), *few.shape[1:]), few.dtype)
        run = inputs.run(over.prefix.run(None, cut)) if start is None else over.prefix.run(start, cut)
        arrays, start = (_run(arrays, run, abouts[cut], shape, over),), cut
    h: np.ndarray = arrays[0]
    return h


def _digest(images: SplitImages) -> str:
    return images.fingerprint if isinstance(images, Encoded) else sha256(images)


def _find(about: dict[str, Any], arrays: tuple[Any, ...], run: Callable[..., Array], mesh: Mesh) -> np.ndarray | None:
    found = cache.find(about)
    if max_over_processes(found is None):
        return None
    assert found is not None
    count = len(arrays[0])
    rows = np.sort(np.random.default_rng().choice(count, min(CHECKED, count), replace=False))
    few = tuple(array[rows] for array in arrays)
    batches = map_batches(lambda *x: (run(*x),), few, CHECKED, mesh, name=f"checking the cached {about['what']}")
    live = np.concatenate([h for _, (h,) in batches])
    kept = found["activations"].view(live.dtype)
    right_shape = kept.shape == (count, *live.shape[1:])
    tolerance = TOLERANCE_16_BITS if about["compute"] == "bfloat16" else TOLERANCE
    wrong = not right_shape or np.any(np.abs(kept[rows] - live) > tolerance * np.abs(live).max(initial=0))
    if not max_over_processes(bool(wrong)):
        print(f"{about['what']} of {count:,} images{_name_view(about)}: found in the cache")
        return kept
    print(f"the cached {about['what']} are not those of this network: computed again")
    cache.forget(about)
    return None


def _run(
    arrays: tuple[Any, ...], run: Callable[..., Array], about: dict[str, Any], shape: ShapeDtypeStruct, over: Pass
) -> np.ndarray:
    began = time.perf_counter()
    # NumPy's files cannot hold bfloat16.
    stored = ShapeDtypeStruct(shape.shape, np.uint16 if shape.dtype == jnp.bfloat16 else shape.dtype)
    with cache.build(about, {"activations": stored}, over.disk_bytes) as made:
        batches = map_batches(lambda *x: (run(*x),), arrays, over.batch_size, over.mesh, name=about["what"])
        for rows, (h,) in batches:
            made["activations"][rows] = h.view(stored.dtype)
    seconds = time.perf_counter() - began
    print(f"{about['what']} of {len(arrays[0]):,} images{_name_view(about)}: computed in {seconds:.1f} s")
    return made["activations"].view(shape.dtype)


def _name_view(about: dict[str, Any]) -> str:
    return f", view {about['view']}" if "view" in about else ""
