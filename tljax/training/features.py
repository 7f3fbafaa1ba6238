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

from tljax.config import Config, Data
from tljax.data.augmentation import View, find_side
from tljax.data.batches import map_batches
from tljax.data.decoding import Encoded
from tljax.devices.mesh import round_up
from tljax.devices.processes import max_over_processes
from tljax.networks.cut import Cut
from tljax.storage import cache
from tljax.trees import Row, sha256

# At each start, cached activations of a few images are compared with newly computed ones. Tolerances are relative to
# the largest activation. The same network at another batch size differs by 1e-6 of it; in bfloat16, whose numbers are
# 0.8% apart, by more.
CHECKED = 8
TOLERANCE = 1e-4
TOLERANCE_16_BITS = 2e-2
# The most pixels of a batch per device: the images and all that is computed from them are in memory at once.
PIXELS = 2**20

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
    view: Callable[[int], View] = lambda number: lambda images, rows: images
    """What makes the view with a number of images."""


class Pass(NamedTuple):
    """How the frozen units run over the images: their devices, their batch size, and the limit of the cache folder."""

    prefix: Prefix
    mesh: Mesh
    batch_size: int
    disk_bytes: int


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


def compute(
    images: dict[str, SplitImages],
    cuts: Sequence[Cut],
    prefix: Prefix,
    config: Config,
    mesh: Mesh,
    rows: Int[np.ndarray, " n"] | None = None,
) -> dict[str, Any] | None:
    """Activations of each split of `images` at the last of `cuts`, or None if the frozen units must run in every step.

    They are arrays [n, ...]; with `config.data.views`, those of train are a tuple of such arrays, one for each view.
    `rows` are then the rows of train's images in their split.

    With None, a printed line gives the reason. Activations at the other cuts are computed on the way, and cached too
    if they fit on the disk. The cache key is a digest of the images, of the frozen weights before the cut, and of
    `prefix.about`. Cached activations are used only if those of a few images agree with the results of `prefix.run`.
    """
    views = config.data.views or 1
    seen = sum(len(split) * (views if name == "train" else 1) for name, split in images.items())
    total = max_over_processes(seen)
    name, first = next(iter(images.items()))
    size = find_side(config.data, first.shape[1]) if name == "train" else first.shape[1]
    # As many images as `_find` compares: the function is then traced once for both.
    checked = round_up(CHECKED, mesh.size)
    few = ShapeDtypeStruct((checked, size, size, 3), np.uint8)
    shapes = {cut: jax.eval_shape(prefix.run(None, cut.position), few) for cut in cuts}
    gib = {cut: total * h.size / checked * h.dtype.itemsize / 2**30 for cut, h in shapes.items()}
    obstacle = why_not(config) or why_too_large(config, gib[cuts[-1]])
    if obstacle:
        print(f"the frozen units run in every step: {obstacle}")
        return None
    abouts = {
        cut.position: {
            "what": f"activations at {cut.position}",
            "dtype": str(shapes[cut].dtype),
            "weights": cut.select(prefix.weights),
            **prefix.about,
        }
        for cut in cuts
        if cut == cuts[-1] or gib[cut] <= config.cache.disk_gib
    }
    over = Pass(prefix, mesh, batch_size(config, size, mesh), config.cache.disk_bytes)
    by_unit = {cut.position: shape for cut, shape in shapes.items()}
    found: dict[str, Any] = {
        name: _compute_split(Inputs((split,), _digest(split)), abouts, by_unit, over)
        for name, split in images.items()
        if name != "train" or config.data.views is None
    }
    if config.data.views is not None and "train" in images:
        assert rows is not None, "a view depends on the rows"
        print(describe_views(config.data))
        arrays, digest = (images["train"], rows.astype(np.int32)), _digest(images["train"])
        each = [Inputs(arrays, digest, prefix.view(i), _describe_view(config, rows, i)) for i in range(views)]
        found["train"] = tuple(_compute_split(inputs, abouts, by_unit, over) for inputs in each)
    return found


def describe_views(data: Data) -> str:
    """A line that says what `data.views` does."""
    return (
        f"the frozen units run once for {data.views} views of each training picture, the first as it is, the others "
        f"changed by config.data.augment={data.augment!r}; in every epoch a picture shows one of them"
    )


def _describe_view(config: Config, rows: Int[np.ndarray, " n"], number: int) -> Row:
    """The part of the cache key that says what view `number` is. The first is the images as they are, unless they are
    cut out of larger ones."""
    data = config.data
    if number == 0 and not any(name == "crop" for name, _ in data.augmentations):
        return {}
    return {"view": number, "seed": config.seed, "augment": data.augmentations, "rows": sha256(rows)}


def batch_size(config: Config, image_size: int, mesh: Mesh) -> int:
    """The number of images that the frozen units process at a time, on all devices together."""
    return min(config.batch_size, max(1, PIXELS // image_size**2) * mesh.size)


def why_not(config: Config) -> str | None:
    """The reason why these settings run the frozen units in every step, whatever the data; None if they do not."""
    if not config.cache.features:
        return "config.cache.features=False"
    if config.data.augment != "none" and config.data.views is None:
        return f"config.data.augment={config.data.augment!r} gives them other images in every epoch"
    return None


def why_too_large(config: Config, gib: float) -> str | None:
    """The reason why activations of so many GiB cannot be kept; None if they can."""
    settings = config.cache
    if gib <= max(settings.memory_gib, settings.disk_gib):
        return None
    limits = f"config.cache.memory_gib={settings.memory_gib:g} and disk_gib={settings.disk_gib:g}"
    return f"their activations take {gib:.2f} GiB, more than {limits}"


def _compute_split(inputs: Inputs, abouts: dict[str, dict[str, Any]], shapes: dict[str, Any], over: Pass) -> np.ndarray:
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
        shape = ShapeDtypeStruct((len(images), *shapes[cut].shape[1:]), shapes[cut].dtype)
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
    batches = map_batches(lambda *x: (run(*x),), few, CHECKED, mesh, name="comparison")
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
