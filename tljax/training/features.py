"""Activations at the cut, which the frozen units compute once; the steps read them in place of images.

Activations at a unit are the inputs of that unit. They are kept in the user's cache folder for later runs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from tljax.config import Cache, Data
from tljax.data.augmentation import View
from tljax.data.batches import map_batches
from tljax.data.decoding import Encoded
from tljax.devices.mesh import round_up
from tljax.devices.processes import max_over_processes
from tljax.networks.architectures import Architecture
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
FoundT = TypeVar("FoundT")
RunAverages = Callable[[Any], tuple[Array, ...]]
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
    run_averages: Callable[[tuple[str, ...]], RunAverages]
    """units -> a function that returns what a head at each of them would read, from images."""


class Inputs(NamedTuple):
    """What the frozen units run over: the images of a split, or a view of them."""

    arrays: tuple[Any, ...]
    """The images and, for a view, their rows in the split (int32)."""
    fingerprint: str
    """Digest of the images."""
    view: View | None = None
    about: Mapping[str, Any] = MappingProxyType({})
    """The part of the cache key that says what the view is; nothing for the images as they are."""

    def run(self, run: Callable[[Any], FoundT]) -> Callable[..., FoundT]:
        """`run`, from the `arrays` on."""
        view = self.view
        return run if view is None else lambda images, rows: run(view(images, rows))


class Activations(NamedTuple):
    """Activations that one program computes."""

    what: str
    """Their name in messages."""
    abouts: tuple[dict[str, Any], ...]
    """The cache key of each of them."""
    run: Callable[..., tuple[Array, ...]]


class Averages(NamedTuple):
    """What a head at each of several units would read of the pictures of a split."""

    by_unit: dict[str, tuple[Float[np.ndarray, "n c"], ...]]
    """An array for each view of the pictures."""
    seconds: float | None
    """How long the pass took in which they were computed, for all views; None if an earlier version did it."""


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
    # Nothing is drawn to mirror every second one.
    drawn = {} if [name for name, _ in data.augmentations] == ["flip"] else {"seed": seed}
    shared = {**drawn, "augment": data.augmentations, "rows": sha256(rows)}
    abouts = [{"view": i, **shared} if i or crops else {} for i in range(data.views or 1)]
    return tuple(Inputs(arrays, digest, view(i), about) for i, about in enumerate(abouts))


def measure(prefix: Prefix, cuts: Sequence[Cut], side: int, mesh: Mesh) -> dict[str, ShapeDtypeStruct]:
    """Shape and dtype of the activations of a few images of this `side`, by cut; nothing is computed."""
    # As many images as `_find` compares: the function is then traced once for both.
    few = ShapeDtypeStruct((round_up(CHECKED, mesh.size), side, side, 3), np.uint8)
    return {cut.position: jax.eval_shape(prefix.run(None, cut.position), few) for cut in cuts}


def measure_averages(prefix: Prefix, units: Sequence[str], mesh: Mesh) -> tuple[ShapeDtypeStruct, ...]:
    """Shape and dtype of what a head at each of `units` would read of a few images; their side does not matter."""
    few = ShapeDtypeStruct((round_up(CHECKED, mesh.size), 32, 32, 3), np.uint8)
    shapes: tuple[ShapeDtypeStruct, ...] = jax.eval_shape(prefix.run_averages(tuple(units)), few)
    return shapes


def compute(over: Pass) -> dict[str, Any]:
    """Activations of each split at the last cut: an array [n, ...], or for several views a tuple of such arrays.

    Activations at the other cuts are computed on the way, and cached too if they fit on the disk. The cache key is a
    digest of the images, of the frozen weights before the cut, and of `prefix.about`. Cached activations are used only
    if those of a few images agree with the results of `prefix.run`.
    """
    images = max_over_processes(sum(len(one.arrays[0]) for each in over.inputs.values() for one in each))
    abouts = {
        cut.position: _describe(cut.position, cut, over.prefix, over.shapes[cut.position])
        for cut in over.cuts
        if cut == over.cuts[-1] or images * image_bytes(over.shapes[cut.position]) <= over.disk_bytes
    }
    found = {name: tuple(_compute_split(one, abouts, over) for one in each) for name, each in over.inputs.items()}
    return {name: each[0] if len(each) == 1 else each for name, each in found.items()}


def compute_averages(over: Pass, units: Sequence[str]) -> dict[str, Averages]:
    """What a head at each of `units` would read, by split, from one pass over the images to the last of them.

    They are kept in the cache as a run whose head is at the unit keeps them: it finds them there. They are used only if
    those of a few images agree with newly computed ones, and all are there.
    """
    run, network = over.prefix.run_averages(tuple(units)), over.prefix.about["network"]
    shapes = measure_averages(over.prefix, units, over.mesh)
    architecture = Architecture(*(network[name] for name in Architecture._fields))
    abouts = []
    for unit, shape in zip(units, shapes, strict=True):
        short = architecture.end_before(unit)
        own = over.prefix.about | {"network": network | short._asdict()}
        abouts.append(_describe("head", Cut(architecture.units, unit), over.prefix._replace(about=own), shape))
    wanted = Activations(f"averages at {len(units)} units", tuple(abouts), run)
    found = {}
    for name, each in over.inputs.items():
        views, seconds = zip(*(_average_split(one, wanted, shapes, over) for one in each), strict=True)
        by_unit = {unit: tuple(view[i] for view in views) for i, unit in enumerate(units)}
        found[name] = Averages(by_unit, None if None in seconds else sum(seconds))
    return found


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


def _describe(at: str, cut: Cut, prefix: Prefix, shape: ShapeDtypeStruct) -> dict[str, Any]:
    """The cache key of activations at a `cut`, which is at the unit `at` of its network; without the images."""
    return {
        "what": f"activations at {at}",
        "dtype": str(shape.dtype),
        "weights": cut.select(prefix.weights),
        **prefix.about,
    }


def _compute_split(inputs: Inputs, abouts: dict[str, dict[str, Any]], over: Pass) -> np.ndarray:
    """Activations at the last of `abouts`, computed cut by cut from the last cut in the cache, or else from the images.

    All processes do this together: activations that one process does not find in its cache, all processes compute.
    """
    arrays = inputs.arrays
    start, missing = None, list(abouts)
    for cut in reversed(abouts):
        kept = _find(_want_one(inputs, abouts[cut], inputs.run(over.prefix.run(None, cut))), arrays, over)
        if kept is not None:
            start, arrays, missing = cut, (kept[0]["activations"],), missing[missing.index(cut) + 1 :]
            break
    for cut in missing:
        run = inputs.run(over.prefix.run(None, cut)) if start is None else over.prefix.run(start, cut)
        made = _run(_want_one(inputs, abouts[cut], run), arrays, (over.shapes[cut],), over)
        arrays, start = (made[0]["activations"],), cut
    h: np.ndarray = arrays[0]
    return h


def _want_one(inputs: Inputs, about: dict[str, Any], run: Callable[..., Array]) -> Activations:
    return Activations(about["what"], (_key(inputs, about),), lambda *x: (run(*x),))


def _average_split(
    inputs: Inputs, wanted: Activations, shapes: Sequence[ShapeDtypeStruct], over: Pass
) -> tuple[list[np.ndarray], float | None]:
    """One array for each of `wanted`, and the seconds in which they were computed."""
    wanted = wanted._replace(abouts=tuple(_key(inputs, about) for about in wanted.abouts), run=inputs.run(wanted.run))
    made = _find(wanted, inputs.arrays, over) or _run(wanted, inputs.arrays, shapes, over)
    seconds = [float(one["seconds"]) for one in made if "seconds" in one]
    return [one["activations"] for one in made], seconds[0] if len(seconds) == len(made) else None


def _key(inputs: Inputs, about: dict[str, Any]) -> dict[str, Any]:
    return about | {"images": inputs.fingerprint, **inputs.about}


def _digest(images: SplitImages) -> str:
    return images.fingerprint if isinstance(images, Encoded) else sha256(images)


def _find(wanted: Activations, arrays: tuple[Any, ...], over: Pass) -> list[dict[str, np.ndarray]] | None:
    """What is kept of each of `wanted`; None unless all are, and are those of this network."""
    entries = [cache.find(about) for about in wanted.abouts] if over.disk_bytes else []
    found = [entry for entry in entries if entry is not None]
    if max_over_processes(len(found) < len(wanted.abouts)):
        return None
    count, about = len(arrays[0]), wanted.abouts[0]
    rows = np.sort(np.random.default_rng().choice(count, min(CHECKED, count), replace=False))
    few = tuple(array[rows] for array in arrays)
    name = f"checking the cached {wanted.what}"
    batches = [h for _, h in map_batches(wanted.run, few, CHECKED, over.mesh, name=name)]
    lives = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    made = [
        entry | {"activations": entry["activations"].view(live.dtype)} for entry, live in zip(found, lives, strict=True)
    ]
    pairs = zip(made, lives, strict=True)
    wrong = any(
        entry["activations"].shape != (count, *live.shape[1:])
        or _differ(entry["activations"][rows], live, about["compute"])
        for entry, live in pairs
    )
    if not max_over_processes(wrong):
        print(f"{wanted.what} of {count:,} images{_name_view(about)}: found in the cache")
        return made
    print(f"the cached {wanted.what} are not those of this network: computed again")
    for one in wanted.abouts:
        cache.forget(one)
    return None


def _differ(kept: np.ndarray, live: np.ndarray, compute: str) -> bool:
    """Whether activations that were kept are others than newly computed ones."""
    tolerance = TOLERANCE_16_BITS if compute == "bfloat16" else TOLERANCE
    return bool(np.any(np.abs(kept - live) > tolerance * np.abs(live).max(initial=0)))


def _run(
    wanted: Activations, arrays: tuple[Any, ...], few: Sequence[ShapeDtypeStruct], over: Pass
) -> list[dict[str, np.ndarray]]:
    """The activations of all images, and the seconds that this took. `few` are shapes and dtypes of those of a few."""
    began, about = time.perf_counter(), wanted.abouts[0]
    # NumPy's files cannot hold bfloat16.
    stored = [
        ShapeDtypeStruct((len(arrays[0]), *one.shape[1:]), np.uint16 if one.dtype == jnp.bfloat16 else one.dtype)
        for one in few
    ]
    with ExitStack() as stack:
        rooms = _share_room(wanted, stored, over.disk_bytes)
        made = [
            stack.enter_context(cache.build(key, {"activations": shape}, room))
            for key, shape, room in zip(wanted.abouts, stored, rooms, strict=True)
        ]
        for rows, found in map_batches(wanted.run, arrays, over.batch_size, over.mesh, name=wanted.what):
            for entry, h in zip(made, found, strict=True):
                entry["activations"][rows] = h.view(entry["activations"].dtype)
        seconds = time.perf_counter() - began
        for entry in made:
            entry["seconds"] = np.array(seconds)
    print(f"{wanted.what} of {len(arrays[0]):,} images{_name_view(about)}: computed in {seconds:.1f} s")
    pairs = zip(made, few, strict=True)
    return [entry | {"activations": entry["activations"].view(one.dtype)} for entry, one in pairs]


def _share_room(wanted: Activations, stored: Sequence[ShapeDtypeStruct], disk_bytes: int) -> list[int]:
    """The limit of the cache folder for each of several entries, with which all of them stay within `disk_bytes`: an
    unfinished one does not count there."""
    sizes = [int(np.prod(one.shape)) * np.dtype(one.dtype).itemsize for one in stored]
    if len(sizes) > 1 and disk_bytes and sum(sizes) > disk_bytes:
        gib, limit = sum(sizes) / 2**30, disk_bytes / 2**30
        print(f"{wanted.what} are not kept: {gib:.2f} GiB, cache.disk_gib={limit:g}")
        return [0] * len(sizes)
    return [disk_bytes - (sum(sizes) - size) * bool(disk_bytes) for size in sizes]


def _name_view(about: dict[str, Any]) -> str:
    return f", view {about['view']}" if "view" in about else ""
