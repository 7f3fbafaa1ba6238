"""What the frozen units give, computed once: activations at the cut in place of images, kept and found again."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from tljax.config import Config
from tljax.data.batches import map_batches
from tljax.data.decoding import Encoded
from tljax.devices.mesh import round_up
from tljax.devices.processes import max_over_processes
from tljax.networks.cut import Cut
from tljax.storage import cache
from tljax.trees import sha256

# Activations that were found are compared with those of a few images, computed anew at each start. The same network
# at another batch size differs by 1e-6 of the largest; computing in bfloat16, whose numbers are 0.8% apart, by more.
CHECKED = 8
TOLERANCE = 1e-4
TOLERANCE_16_BITS = 2e-2
# Of a batch, a device: its images and what they become are in memory at once.
PIXELS = 2**20

Run = Callable[[np.ndarray], Array]
SplitImages = UInt8[np.ndarray, "n size size 3"] | Encoded


class Prefix(NamedTuple):
    """The frozen units of a network, and what their activations follow from."""

    run: Callable[[str | None, str], Run]
    """(None or a unit, a later unit) -> the function from images, or from activations at the one, to activations at
    the other."""
    weights: dict[str, str]
    """Digests of all frozen leaves."""
    about: dict[str, Any]
    """All else, as JSON; `compute` is the type in which the blocks compute."""


class Pass(NamedTuple):
    """How the frozen units go over images: on which devices, how many at a time, and what may be kept of it."""

    prefix: Prefix
    mesh: Mesh
    batch_size: int
    disk_bytes: int


def compute(
    images: dict[str, SplitImages], cuts: Sequence[Cut], prefix: Prefix, config: Config, mesh: Mesh
) -> dict[str, Float[np.ndarray, "n ..."]] | None:
    """Activations at the last of `cuts` of each split of `images`, or None, with the reason in a line, where the
    frozen units must run in every step. Those at the other cuts are made on the way and kept too.

    The cache key is a digest of the images, of the frozen weights before the cut, and of `prefix.about`. What is found
    is believed only if it is what `prefix.run` gives for some of the images.
    """
    total, size = max_over_processes(sum(map(len, images.values()))), next(iter(images.values())).shape[1]
    # As many as are compared below: the function is traced once for both.
    checked = round_up(CHECKED, mesh.size)
    few = ShapeDtypeStruct((checked, size, size, 3), np.uint8)
    shapes = {cut: jax.eval_shape(prefix.run(None, cut.position), few) for cut in cuts}
    gib = {cut: total * h.size / checked * h.dtype.itemsize / 2**30 for cut, h in shapes.items()}
    obstacle = why_not(config) or _too_large(config, gib[cuts[-1]])
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
    return {name: _compute_split(split, abouts, by_unit, over) for name, split in images.items()}


def batch_size(config: Config, image_size: int, mesh: Mesh) -> int:
    """SplitImages that the frozen units take at a time."""
    return min(config.batch_size, max(1, PIXELS // image_size**2) * mesh.size)


def why_not(config: Config) -> str | None:
    """Why the settings keep the frozen units in every step, whatever the data; None where they do not."""
    if not config.cache.features:
        return "config.cache.features=False"
    if config.data.augment != "none":
        return f"config.data.augment={config.data.augment!r} gives them other images in every epoch"
    return None


def _too_large(config: Config, gib: float) -> str | None:
    settings = config.cache
    if gib <= max(settings.memory_gib, settings.disk_gib):
        return None
    limits = f"config.cache.memory_gib={settings.memory_gib:g} and disk_gib={settings.disk_gib:g}"
    return f"their activations take {gib:.2f} GiB, more than {limits}"


def _compute_split(
    images: SplitImages, abouts: dict[str, dict[str, Any]], shapes: dict[str, Any], over: Pass
) -> np.ndarray:
    """From the last cut whose activations are kept, or from the images, on to the last of `abouts`, cut by cut.

    Several processes go through this together: what one of them does not find, all of them compute.
    """
    fingerprint = images.fingerprint if isinstance(images, Encoded) else sha256(images)
    abouts = {cut: about | {"images": fingerprint} for cut, about in abouts.items()}
    h: Any = images
    start, missing = None, list(abouts)
    for cut in reversed(abouts):
        kept = _find(abouts[cut], images, over.prefix.run(None, cut), over.mesh) if over.disk_bytes else None
        if kept is not None:
            start, h, missing = cut, kept, missing[missing.index(cut) + 1 :]
            break
    for cut in missing:
        shape = ShapeDtypeStruct((len(images), *shapes[cut].shape[1:]), shapes[cut].dtype)
        h = _run(h, over.prefix.run(start, cut), abouts[cut], shape, over)
        start = cut
    return h


def _find(about: dict[str, Any], images: SplitImages, run: Run, mesh: Mesh) -> np.ndarray | None:
    found = cache.find(about)
    if max_over_processes(found is None):
        return None
    assert found is not None
    rows = np.sort(np.random.default_rng().choice(len(images), min(CHECKED, len(images)), replace=False))
    batches = map_batches(lambda x: (run(x),), (images[rows],), CHECKED, mesh, name="comparison")
    live = np.concatenate([h for _, (h,) in batches])
    kept = found["activations"].view(live.dtype)
    right_shape = kept.shape == (len(images), *live.shape[1:])
    tolerance = TOLERANCE_16_BITS if about["compute"] == "bfloat16" else TOLERANCE
    wrong = not right_shape or np.any(np.abs(kept[rows] - live) > tolerance * np.abs(live).max(initial=0))
    if not max_over_processes(bool(wrong)):
        print(f"{about['what']} of {len(images):,} images: found in the cache")
        return kept
    print(f"the cached {about['what']} are not those of this network: computed again")
    cache.forget(about)
    return None


def _run(inputs: Any, run: Run, about: dict[str, Any], shape: ShapeDtypeStruct, over: Pass) -> np.ndarray:
    began = time.perf_counter()
    # NumPy's files do not know bfloat16.
    stored = ShapeDtypeStruct(shape.shape, np.uint16 if shape.dtype == jnp.bfloat16 else shape.dtype)
    with cache.build(about, {"activations": stored}, over.disk_bytes) as arrays:
        batches = map_batches(lambda x: (run(x),), (inputs,), over.batch_size, over.mesh, name=about["what"])
        for rows, (h,) in batches:
            arrays["activations"][rows] = h.view(stored.dtype)
    print(f"{about['what']} of {len(inputs):,} images: computed in {time.perf_counter() - began:.1f} s")
    return arrays["activations"].view(shape.dtype)
