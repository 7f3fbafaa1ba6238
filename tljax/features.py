"""What the frozen units give, computed once: activations at the cut in place of images, kept and found again."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from tljax import cache, partition
from tljax.batches import map_batches
from tljax.config import Config
from tljax.decoding import Encoded
from tljax.mesh import largest, round_up

# Activations that were found are compared with those of a few images, computed anew at each start. The same network
# at another batch size differs by 1e-6 of the largest; computing in bfloat16, whose numbers are 0.8% apart, by more.
CHECKED = 8
TOLERANCE = 1e-4
TOLERANCE_16_BITS = 2e-2
# Of a batch, a device: its images and what they become are in memory at once.
PIXELS = 2**20

# (None or a unit, cut) -> the function from images, or from activations at the unit, to activations at the cut.
Run = Callable[[np.ndarray], Array]
Prefix = Callable[[str | None, str], Run]
Images = UInt8[np.ndarray, "n size size 3"] | Encoded


def compute(
    images: dict[str, Images],
    cuts: Sequence[str],
    weights: dict[str, str],
    about: dict[str, Any],
    prefix: Prefix,
    config: Config,
    mesh: Mesh,
) -> dict[str, Float[np.ndarray, "n ..."]] | None:
    """Activations at the last of `cuts` of each split of `images`, or None, with the reason in a line, where the
    frozen units must run in every step. Those at the other cuts are made on the way and kept too.

    They are found again under a fingerprint of the images, of `about` (JSON: all else that they follow from, the type
    that the blocks `compute` in among it) and of
    those of `weights`, the digests of all frozen leaves, that stand before the cut, if they are what `prefix` gives
    for some of the images.
    """
    total, size = largest(sum(map(len, images.values()))), next(iter(images.values())).shape[1]
    # As many as are compared below: the function is traced once for both.
    checked = round_up(CHECKED, mesh.size)
    few = ShapeDtypeStruct((checked, size, size, 3), np.uint8)
    shapes = {cut: jax.eval_shape(prefix(None, cut), few) for cut in cuts}
    gib = {cut: total * h.size / checked * h.dtype.itemsize / 2**30 for cut, h in shapes.items()}
    obstacle = _find_obstacle(config, gib[cuts[-1]])
    if obstacle:
        print(f"the frozen units run in every step: {obstacle}")
        return None
    cuts = [cut for cut in cuts if cut == cuts[-1] or gib[cut] <= config.cache.disk_gib]
    abouts = {
        cut: {
            "what": f"activations at {cut}",
            "dtype": str(shapes[cut].dtype),
            "weights": partition.select_frozen(weights, cut),
            **about,
        }
        for cut in cuts
    }
    return {
        name: _compute_split(
            split,
            abouts,
            shapes,
            prefix,
            mesh,
            batch_size=batch_size(config, size, mesh),
            disk_bytes=config.cache.disk_bytes,
        )
        for name, split in images.items()
    }


def batch_size(config: Config, image_size: int, mesh: Mesh) -> int:
    """Images that the frozen units take at a time."""
    return min(config.batch_size, max(1, PIXELS // image_size**2) * mesh.size)


def _find_obstacle(config: Config, gib: float) -> str | None:
    settings = config.cache
    if not settings.features:
        return "config.cache.features=False"
    if config.data.augment != "none":
        return f"config.data.augment={config.data.augment!r} gives them other images in every epoch"
    if gib > max(settings.memory_gib, settings.disk_gib):
        limits = f"config.cache.memory_gib={settings.memory_gib:g} and disk_gib={settings.disk_gib:g}"
        return f"their activations take {gib:.2f} GiB, more than {limits}"
    return None


def _compute_split(
    images: Images,
    abouts: dict[str, dict[str, Any]],
    shapes: dict[str, Any],
    prefix: Prefix,
    mesh: Mesh,
    *,
    batch_size: int,
    disk_bytes: int,
) -> np.ndarray:
    """From the last cut whose activations are kept, or from the images, on to the last of `abouts`, cut by cut.

    Several processes go through this together: what one of them does not find, all of them compute.
    """
    digest = images.fingerprint if isinstance(images, Encoded) else partition.sha256(images)
    abouts = {cut: about | {"images": digest} for cut, about in abouts.items()}
    h: Any = images
    start, missing = None, list(abouts)
    for cut in reversed(abouts):
        kept = _find(abouts[cut], images, prefix(None, cut), mesh) if disk_bytes else None
        if kept is not None:
            start, h, missing = cut, kept, missing[missing.index(cut) + 1 :]
            break
    for cut in missing:
        shape = ShapeDtypeStruct((len(images), *shapes[cut].shape[1:]), shapes[cut].dtype)
        h = _run(h, prefix(start, cut), abouts[cut], shape, mesh, batch_size, disk_bytes)
        start = cut
    return h


def _find(about: dict[str, Any], images: Images, run: Run, mesh: Mesh) -> np.ndarray | None:
    found = cache.find(about)
    if largest(found is None):
        return None
    assert found is not None
    rows = np.sort(np.random.default_rng().choice(len(images), min(CHECKED, len(images)), replace=False))
    batches = map_batches(lambda x: (run(x),), (images[rows],), CHECKED, mesh, name="comparison")
    live = np.concatenate([h for _, (h,) in batches])
    kept = found["activations"].view(live.dtype)
    right_shape = kept.shape == (len(images), *live.shape[1:])
    tolerance = TOLERANCE_16_BITS if about["compute"] == "bfloat16" else TOLERANCE
    wrong = not right_shape or np.any(np.abs(kept[rows] - live) > tolerance * np.abs(live).max(initial=0))
    if not largest(bool(wrong)):
        print(f"{about['what']} of {len(images):,} images: found in the cache")
        return kept
    print(f"the cached {about['what']} are not those of this network: computed again")
    cache.forget(about)
    return None


def _run(
    inputs: Any,
    run: Run,
    about: dict[str, Any],
    shape: ShapeDtypeStruct,
    mesh: Mesh,
    batch_size: int,
    disk_bytes: int,
) -> np.ndarray:
    began = time.perf_counter()
    # NumPy's files do not know bfloat16.
    stored = ShapeDtypeStruct(shape.shape, np.uint16 if shape.dtype == jnp.bfloat16 else shape.dtype)
    with cache.build(about, {"activations": stored}, disk_bytes) as arrays:
        for rows, (h,) in map_batches(lambda x: (run(x),), (inputs,), batch_size, mesh, name=about["what"]):
            arrays["activations"][rows] = h.view(stored.dtype)
    print(f"{about['what']} of {len(inputs):,} images: computed in {time.perf_counter() - began:.1f} s")
    return arrays["activations"].view(shape.dtype)
