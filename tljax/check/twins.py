"""Pictures that are there twice: equal, or encoded again, resized, mirrored, cropped by a little or made brighter.

1. Every picture is shrunk to `TWIN_SIDE` pixels a side. Equal digests of what was decoded are exact twins.
2. Candidates: low frequencies of a thumbnail (as in pHash, Zauner 2010, but not rounded to bits), each times its
   frequency, since natural pictures have amplitudes like 1 / f (Field 1987). Their cosine is computed for all pairs of
   pictures, mirrored ones too: the search is exact.
3. Candidates are laid over each other: a scale and a shift along each axis, by Gauss-Newton steps (Lucas and Kanade
   1981), then contrast and brightness.
4. Twins agree in their pixels, in their details alone, and in each part: `measure` is the worst of the three. The bound
   is lower where pictures of the data set that are no twins are as alike (digits, say): `find_bound`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from tljax.check.findings import Finding
from tljax.check.result import Report
from tljax.data.decoding import Encoded
from tljax.data.image_source import CHUNK
from tljax.storage.file_index import Digests, digest_bytes

# The side (pixels) at which pictures are compared, that of the first comparison, and that of the thumbnails.
TWIN_SIDE, COARSE, THUMB = 32, 16, 8
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
# The highest sums of the two frequencies of brightness and of color, and the weight of color.
LUMA_WAVES, COLOR_WAVES, COLOR_WEIGHT = 7, 2, 2.0
# A thumbnail whose norm is below this is flat, and like no other.
FLAT = 40.0
# Candidates have this cosine, and are among so many nearest of those behind them in the list.
LEAST_COSINE, CANDIDATES = 0.7, 6
# Rows and columns of a block of cosines, which fits the processor's cache.
BLOCK_ROWS, BLOCK_COLUMNS = 512, 2048
# Candidates have this correlation in the first comparison. The most alike of more than `most_pairs` go on.
LEAST_COARSE = 0.88
# The steps of both comparisons, and the furthest scale and shift (parts of the side).
STEPS, FURTHEST_SCALE, FURTHEST_SHIFT = (3, 4), 0.2, 0.1
# The standard deviations of the Gaussian blurs (pixels) for the comparison, and of what is no detail.
FINE, ROUGH, RIM = 0.7, 2.0, 3
# Twins differ by no more than this: 1 - correlation of pixels; the mean of that and 1 - correlation of details, each
# divided by its bound; and the mean square of the differences in one of 4 x 4 parts, divided by the variance of the
# picture. Chosen by eye on CIFAR-10 and the twins of seed 0 of benchmarks/twins.py.
PIXELS, DETAILS, PART = 0.03, 0.35, 0.25
# The variance (gray levels) of details that JPEG may have made.
NOISE = 4.0
# `find_bound`: so many pictures, and which of their nearest are no twins, at most.
ASKED, NO_TWINS = 200, slice(10, 15)
LEAST_BOUND = 0.1
# Pairs are compared so many at a time, in each of so many threads at most: 80 MB each.
EACH, MOST_THREADS = 250, 8
# `group_twins`: the distance of pictures of a group to its middle, at most.
CHAINED = 3.0

SmallPictures = UInt8[np.ndarray, "n 32 32 3"]


class Sketches(NamedTuple):
    """Digests of pictures' pixels, and the pictures at `TWIN_SIDE` pixels a side."""

    digests: Digests
    pictures: SmallPictures


class Pairs(NamedTuple):
    """Pairs of pictures, `first` < `second`; `mirrored` where one is the other's mirror image. `distance` is 0 for
    equal pixels, and 1 for what is hardly a twin."""

    first: Int[np.ndarray, " p"]
    second: Int[np.ndarray, " p"]
    mirrored: Bool[np.ndarray, " p"]
    distance: Float32[np.ndarray, " p"]

    def at(self, places: np.ndarray) -> "Pairs":
        return Pairs(*(column[places] for column in self))


class Named(NamedTuple):
    """The id, the split and the class of each picture."""

    ids: Sequence[str]
    splits: Sequence[str]
    labels: Sequence[str]


class Waves(NamedTuple):
    """Thumbnails' frequencies, of norm 1 at most: those that a mirror leaves as they are, and those it negates."""

    even: Float32[np.ndarray, "n e"]
    odd: Float32[np.ndarray, "n o"]


def find_twins(sketches: Sketches, report: Report = lambda done: None) -> Pairs:
    """Exact twins, each beside the first of its pixels, and near twins among the pictures that differ.

    `report` is called with the part that is done, 0 to 1.
    """
    groups = find_exact(sketches.digests)
    _, heads = np.unique(groups, return_index=True)
    copies = np.setdiff1d(np.arange(len(groups)), heads)
    near = find_near(sketches.pictures[heads] if len(copies) else sketches.pictures, report)
    firsts = heads[groups[copies]]
    exact = Pairs(firsts, copies, np.zeros(len(copies), bool), np.zeros(len(copies), np.float32))
    return _join([exact, near._replace(first=heads[near.first], second=heads[near.second])])


def sketch(images: UInt8[np.ndarray, "n size size 3"] | Encoded, report: Report = lambda done: None) -> Sketches:
    """Reads pictures in parts. Broken ones are as `images` has it: an error, or black.

    Raises:
      BrokenPictures: if images cannot be read.
    """
    parts = []
    for start in range(0, len(images), CHUNK):
        part = images[np.arange(start, min(start + CHUNK, len(images)))]
        parts.append(Sketches(np.array([digest_bytes(image.tobytes()) for image in part]), shrink(part)))
        report(min(1.0, (start + CHUNK) / len(images)))
    empty = Sketches(np.zeros((0, 4), np.uint32), np.zeros((0, TWIN_SIDE, TWIN_SIDE, 3), np.uint8))
    return Sketches(*map(np.concatenate, zip(empty, *parts, strict=True)))


def shrink(images: UInt8[np.ndarray, "n size size 3"]) -> SmallPictures:
    """Images at `TWIN_SIDE` pixels a side, as means of areas."""
    from PIL import Image

    if images.shape[1] == TWIN_SIDE:
        return images
    kind = Image.Resampling.BOX if images.shape[1] > TWIN_SIDE else Image.Resampling.BILINEAR
    return np.array([np.asarray(Image.fromarray(image).resize((TWIN_SIDE, TWIN_SIDE), kind)) for image in images])


def find_exact(digests: Digests) -> Int[np.ndarray, " n"]:
    """A number for each picture, equal for equal digests; numbers begin with 0 and are in the order of the pictures."""
    _, first, groups = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[groups.ravel()]


def find_near(pictures: SmallPictures, report: Report = lambda done: None) -> Pairs:
    """Near twins, with their distances."""
    waves = measure_waves(pictures)
    candidates = find_candidates(waves, lambda done: report(0.4 * done))
    bound = find_bound(pictures, waves)
    likely = choose_likely(pictures, candidates, most_pairs(len(pictures)), lambda done: report(0.4 + 0.2 * done))
    measured = measure(pictures, likely, lambda done: report(0.6 + 0.4 * done))
    report(1.0)
    return measured.at(np.flatnonzero(measured.distance <= bound))


def most_pairs(n: int) -> int:
    """How many pairs of `n` pictures are compared in all their pixels, at a millisecond each."""
    return max(10_000, n // 2)


def measure_waves(pictures: SmallPictures) -> Waves:
    parts = [_measure_waves(pictures[start : start + EACH]) for start in range(0, len(pictures), EACH)]
    waves = np.concatenate(parts) if parts else np.zeros((0, len(list_waves())), np.float32)
    odd = list_waves()[:, 1] % 2 == 1
    return Waves(np.ascontiguousarray(waves[:, ~odd]), np.ascontiguousarray(waves[:, odd]))


def list_waves() -> Int[np.ndarray, "w 2"]:
    """The vertical and horizontal frequencies that are kept, of brightness and of two colors."""
    return np.concatenate([np.argwhere(_keep_waves(most)) for most in (LUMA_WAVES, COLOR_WAVES, COLOR_WAVES)])


def _keep_waves(most: int) -> Bool[np.ndarray, "8 8"]:
    total = np.add.outer(np.arange(THUMB), np.arange(THUMB))
    return (total > 0) & (total <= most)


def _measure_waves(pictures: SmallPictures) -> Float32[np.ndarray, "n w"]:
    rgb = _average(pictures.astype(np.float32), THUMB)
    gray = rgb @ LUMA
    rows, columns = np.mgrid[:THUMB, :THUMB]
    planes = (
        (gray, LUMA_WAVES, 1.0),
        (rgb[..., 2] - gray, COLOR_WAVES, COLOR_WEIGHT),
        (rgb[..., 0] - gray, COLOR_WAVES, COLOR_WEIGHT),
    )
    waves = np.concatenate(
        [weight * (dctn(plane, axes=(1, 2), norm="ortho") * np.hypot(rows, columns))[:, _keep_waves(most)]
         for plane, most, weight in planes], axis=1,
    )  # fmt: skip
    return (waves / np.maximum(np.linalg.norm(waves, axis=1, keepdims=True), FLAT)).astype(np.float32)


def _average(images: np.ndarray, side: int) -> np.ndarray:
    """Means of areas: [n, size, size, ...] becomes [n, side, side, ...]."""
    n, size = images.shape[:2]
    return images.reshape(n, side, size // side, side, size // side, *images.shape[3:]).mean((2, 4))


def find_candidates(waves: Waves, report: Report = lambda done: None) -> Pairs:
    """Pairs by their cosine, for the mirrored picture too; `distance` is 1 - cosine."""
    starts = range(0, len(waves.even), BLOCK_ROWS)
    return _join(_in_threads(partial(_search_rows, waves), starts, report))


def _search_rows(waves: Waves, start: int) -> Pairs:
    """The candidates of `BLOCK_ROWS` pictures among those behind them."""
    found = [_search_block(waves, start, behind) for behind in range(start, len(waves.even), BLOCK_COLUMNS)]
    pairs = _join(found)
    pairs = pairs.at(np.lexsort((pairs.distance, pairs.first)))
    rank = np.arange(len(pairs.first)) - np.searchsorted(pairs.first, pairs.first)
    return pairs.at(np.flatnonzero(rank < CANDIDATES))


def _search_block(waves: Waves, start: int, behind: int) -> Pairs:
    rows, columns = slice(start, start + BLOCK_ROWS), slice(behind, behind + BLOCK_COLUMNS)
    cosine, turned = waves.even[rows] @ waves.even[columns].T, waves.odd[rows] @ waves.odd[columns].T
    # even + odd for the picture as it is, even - odd for its mirror image.
    cosine += np.abs(turned)
    hits = np.flatnonzero(cosine > LEAST_COSINE)
    first, second = np.divmod(hits, cosine.shape[1])
    hits = hits[first + start < second + behind]
    first, second = np.divmod(hits, cosine.shape[1])
    return Pairs(first + start, second + behind, turned.ravel()[hits] < 0, 1 - cosine.ravel()[hits])


def find_bound(pictures: SmallPictures, waves: Waves) -> float:
    """The distance of twins: 1, or a third of what two in a hundred pairs have that are no twins. These are a picture
    and its 11th to 15th nearest; for fewer pictures nothing is known."""
    n = len(pictures)
    if n <= NO_TWINS.stop:
        return 1.0
    asked = np.unique(np.linspace(0, n - 1, min(n, ASKED)).astype(int))
    turned = waves.odd[asked] @ waves.odd.T
    cosine = waves.even[asked] @ waves.even.T + np.abs(turned)
    # The picture itself is its nearest.
    others = np.argsort(-cosine, axis=1)[:, NO_TWINS.start + 1 : NO_TWINS.stop + 1]
    first = np.repeat(asked, others.shape[1])
    mirrored = np.take_along_axis(turned, others, axis=1).ravel() < 0
    alike = measure(pictures, Pairs(first, others.ravel(), mirrored, np.zeros(len(first), np.float32))).distance
    return float(np.clip(np.quantile(alike, 0.02) / 3, LEAST_BOUND, 1.0))


def choose_likely(pictures: SmallPictures, pairs: Pairs, most: int, report: Report = lambda done: None) -> Pairs:
    """The pairs that are alike at `COARSE` pixels a side, `most` of them; `distance` is 1 - correlation."""
    grays = [_average(pictures[i : i + EACH] @ LUMA, COARSE) for i in range(0, len(pictures), EACH)]
    small = np.concatenate(grays) if grays else np.zeros((0, COARSE, COARSE), np.float32)
    distance = _measure_parts(partial(_compare_coarse, small), pairs, report)
    likely = np.argsort(distance, kind="stable")[:most]
    return pairs._replace(distance=distance).at(likely[distance[likely] < 1 - LEAST_COARSE])


def measure(pictures: SmallPictures, pairs: Pairs, report: Report = lambda done: None) -> Pairs:
    """Pairs with their distances: the worst of what `PIXELS` bounds, divided by the bounds."""
    return pairs._replace(distance=_measure_parts(partial(_compare, pictures), pairs, report))


def _measure_parts(compare: Callable[[Pairs], np.ndarray], pairs: Pairs, report: Report) -> Float32[np.ndarray, " p"]:
    starts = range(0, len(pairs.first), EACH)
    parts = _in_threads(lambda start: compare(pairs.at(np.arange(start, min(start + EACH, len(pairs.first))))),
                        starts, report)  # fmt: skip
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _in_threads(compute: Callable[[int], Any], starts: range, report: Report) -> Iterator[Any]:
    """What `compute` returns, in order. Products are small: one thread of BLAS for each is faster than several."""
    with threadpool_limits(1), ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        for done, result in enumerate(pool.map(compute, starts), 1):
            yield result
            report(done / len(starts))


def _join(parts: "Iterator[Pairs] | list[Pairs]") -> Pairs:
    none = np.zeros(0, int)
    empty = Pairs(none, none, np.zeros(0, bool), np.zeros(0, np.float32))
    return Pairs(*map(np.concatenate, zip(empty, *parts, strict=True)))


def _take(pictures: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures of each pair in float32, the first one mirrored where that makes it like the second."""
    first = pictures[pairs.first].astype(np.float32)
    first[pairs.mirrored] = first[pairs.mirrored, :, ::-1]
    return first, pictures[pairs.second].astype(np.float32)


def _compare_coarse(grays: np.ndarray, pairs: Pairs) -> Float32[np.ndarray, " p"]:
    first, second = _take(grays, pairs)
    return 1 - align(first, second, np.tile(STAY, (len(first), 1)), STEPS[0])[1]


# The scale and the shift along each axis: rows, then columns.
STAY = np.array([1, 0, 1, 0], np.float32)


def align(
    first: Float32[np.ndarray, "p s s"], second: Float32[np.ndarray, "p s s"], place: Float32[np.ndarray, "p 4"], n: int
) -> tuple[Float32[np.ndarray, "p 4"], Float32[np.ndarray, " p"]]:
    """Where each gray picture lies in the second one after `n` steps from `place`, and the correlation there."""
    side = first.shape[1]
    bounds = np.array([FURTHEST_SCALE, FURTHEST_SHIFT * side] * 2, np.float32)
    for _ in range(n):
        products = _multiply(first, second, place)
        slope = products[:, :5, :5] + np.eye(5, dtype=np.float32) * (1 + 1e-5 * _trace(products))
        solved = np.linalg.solve(slope, products[:, :5, 5:])[..., 0]
        contrast = solved[:, :1]
        # A picture that is hardly like the other one stays where it is.
        step = np.where(np.abs(contrast) < 0.3, 0, solved[:, 1:] / np.where(contrast == 0, 1, contrast))
        place = (STAY + np.clip(place + step - STAY, -bounds, bounds)).astype(np.float32)
    products = _multiply(first, second, place)
    return place, products[:, 0, 5] / np.sqrt(products[:, 0, 0] * products[:, 5, 5] + side**2)


def _trace(products: np.ndarray) -> np.ndarray:
    return np.trace(products[:, :5, :5], axis1=1, axis2=2)[:, None, None]


def _multiply(first: np.ndarray, second: np.ndarray, place: np.ndarray) -> Float32[np.ndarray, "p 6 6"]:
    """The products of what a step is a regression on: the picture at its place, what changes with a scale and a shift
    of its rows and columns, and the other picture. All are centred over where both are."""
    n, side = first.shape[:2]
    warped, there = warp(first[..., None], place)
    warped, away = warped[..., 0], np.arange(side, dtype=np.float32) - (side - 1) / 2
    columns = np.zeros((n, 6, side, side), np.float32)
    columns[:, 0], columns[:, 5] = warped, second
    columns[:, 2, 1:-1] = (warped[:, 2:] - warped[:, :-2]) / 2
    columns[:, 4, :, 1:-1] = (warped[:, :, 2:] - warped[:, :, :-2]) / 2
    columns[:, 1], columns[:, 3] = columns[:, 2] * away[:, None], columns[:, 4] * away
    flat, mask = columns.reshape(n, 6, -1), there.reshape(n, 1, -1)
    flat *= mask
    flat -= flat.sum(2, keepdims=True) / mask.sum(2, keepdims=True)
    flat *= mask
    return flat @ flat.transpose(0, 2, 1)


def warp(images: Float32[np.ndarray, "p s s c"], place: Float32[np.ndarray, "p 4"]) -> tuple[np.ndarray, np.ndarray]:
    """Images scaled and shifted along their axes, bilinearly, and 1 where there is something, else 0 [p, s, s, 1]."""
    n, side, _, channels = images.shape
    (rows, above), (columns, beside) = (_interpolate(place[:, i : i + 2], side) for i in (0, 2))
    moved = (rows @ images.reshape(n, side, -1)).reshape(n, side, side, channels)
    moved = (columns[:, None] @ moved) if channels > 1 else (moved[..., 0] @ columns.transpose(0, 2, 1))[..., None]
    return moved, (above[:, :, None] & beside[:, None]).astype(np.float32)[..., None]


def _interpolate(place: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights of pixels [p, to, from] along an axis, and whether they are within the picture [p, to]."""
    pixels = np.arange(side, dtype=np.float32)
    middle = np.float32((side - 1) / 2)
    wanted = middle + (pixels - middle) * place[:, :1] + place[:, 1:]
    weights = np.maximum(0, 1 - np.abs(wanted[:, :, None] - pixels))
    return weights, (wanted >= -0.01) & (wanted <= side - 0.99)


def _compare(pictures: SmallPictures, pairs: Pairs) -> Float32[np.ndarray, " p"]:
    """`measure` of some pairs."""
    first, second = map(_soften, _take(pictures, pairs))
    grays = first @ LUMA, second @ LUMA
    place, _ = align(_average(grays[0], COARSE), _average(grays[1], COARSE), np.tile(STAY, (len(first), 1)), STEPS[0])
    place, _ = align(grays[0], grays[1], place * np.array([1, 2, 1, 2], np.float32), STEPS[1])
    moved, there = warp(first, place)
    # A picture whose bright parts were cut off at white shows nothing of the other: the better one of both directions.
    return np.minimum(_judge(moved, second, there), _judge(second, moved, there)).astype(np.float32)


def _judge(source: np.ndarray, target: np.ndarray, there: np.ndarray) -> Float32[np.ndarray, " p"]:
    """How far a picture is from being made of another one by contrast and brightness alone: 1 is the bound."""
    made = _fit_contrast(source, target, there)
    pixels, variance = _correlate(made, target, there, 1.0)
    inside = there.copy()
    inside[:, :RIM], inside[:, -RIM:], inside[:, :, :RIM], inside[:, :, -RIM:] = 0, 0, 0, 0
    details, _ = _correlate(made - _blur(made, ROUGH), target - _blur(target, ROUGH), inside, NOISE)
    squares = _sum_parts(((made - target) ** 2 * there).mean(3)) / (_sum_parts(there[..., 0]) + 1)
    part = squares.max((1, 2)) / (variance + 1)
    both = ((1 - pixels) / PIXELS + (1 - details) / DETAILS) / 2
    return np.maximum.reduce([(1 - pixels) / PIXELS, both, part / PART])


def _fit_contrast(source: np.ndarray, target: np.ndarray, there: np.ndarray) -> np.ndarray:
    """`source` with the contrast of `target`, and the brightness of each of its colors. What would be beyond black or
    white is cut off, and does not count for the fit."""
    mask = there
    for _ in range(2):
        total = mask.sum((1, 2), keepdims=True) + 1e-6
        middle, wanted = ((x * mask).sum((1, 2), keepdims=True) / total for x in (source, target))
        centred = (source - middle) * mask
        slope = _total(centred * (target - wanted)) / (_total(centred**2) + 1)
        made = slope * (source - middle) + wanted
        mask = there * ((made > 2) & (made < 253))
    return np.clip(made, 0, 255)


def _total(x: np.ndarray) -> np.ndarray:
    return x.sum((1, 2, 3), keepdims=True)


def _correlate(one: np.ndarray, other: np.ndarray, mask: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """The correlation of pictures where the mask is 1, as if both had `noise` of their own, and the variance of the
    second."""
    total = mask.sum((1, 2), keepdims=True)
    a, b = ((x - (x * mask).sum((1, 2), keepdims=True) / total) * mask for x in (one, other))
    ab, aa, bb = (_total(x * y).ravel() / (3 * total.ravel()) for x, y in ((a, b), (a, a), (b, b)))
    return ab / np.sqrt((aa + noise) * (bb + noise)), bb


def _sum_parts(x: Float32[np.ndarray, "p s s"]) -> Float32[np.ndarray, "p 4 4"]:
    return _average(x, 4) * (x.shape[1] // 4) ** 2


def _soften(images: np.ndarray) -> np.ndarray:
    """Images without their finest details, and with colors as coarse as JPEG keeps them."""
    gray = (images @ LUMA)[..., None]
    return _blur(gray, FINE) + _blur(images - gray, ROUGH)


def _blur(images: np.ndarray, width: float) -> np.ndarray:
    across = gaussian_filter1d(images, width, axis=1, mode="nearest")
    return gaussian_filter1d(across, width, axis=2, mode="nearest")


def group_twins(n: int, pairs: Pairs, alike: Callable[[Pairs], np.ndarray] | None = None) -> Int[np.ndarray, " n"]:
    """A number for each of `n` pictures, equal for pictures of one group: twins, and twins of twins.

    With `alike`, which measures pairs, a chain is no group: where fewer than half of the pictures are within `CHAINED`
    of the one with the most twins, that one and its twins are a group, and the others are looked at again.
    """
    groups = _connect(n, pairs)
    if alike is None:
        return groups
    sizes = np.bincount(groups, minlength=n)
    for group in np.flatnonzero(sizes > 2):
        members = np.flatnonzero(groups == group)
        groups[members] = n + group * n + members[_split(members, pairs, alike)]
    return np.unique(groups, return_inverse=True)[1]


def _connect(n: int, pairs: Pairs) -> Int[np.ndarray, " n"]:
    graph = coo_matrix((np.ones(len(pairs.first), bool), (pairs.first, pairs.second)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(int)


def _split(members: np.ndarray, pairs: Pairs, alike: Callable[[Pairs], np.ndarray]) -> Int[np.ndarray, " m"]:
    """For each of the sorted `members` of a component, the place of the first one of its group."""
    own = pairs.at(np.flatnonzero(np.isin(pairs.first, members)))
    own = own._replace(first=np.searchsorted(members, own.first), second=np.searchsorted(members, own.second))
    names, left = np.zeros(len(members), int), np.arange(len(members))
    while len(left):
        inside = own.at(np.flatnonzero(np.isin(own.first, left) & np.isin(own.second, left)))
        parts = _connect(len(members), inside)
        part = left[parts[left] == parts[left[0]]]
        group = part if len(part) < 3 else _choose_group(part, inside, members, alike)
        names[group] = group[0]
        left = np.setdiff1d(left, group)
    return names


def _choose_group(
    part: np.ndarray, pairs: Pairs, members: np.ndarray, alike: Callable[[Pairs], np.ndarray]
) -> Int[np.ndarray, " g"]:
    """`part`, or the picture with the most twins in it and these, if most others are not alike."""
    ends = np.concatenate([pairs.first, pairs.second])
    hub = part[np.argmax([(ends == place).sum() for place in part])]
    others = np.setdiff1d(part, [hub])
    asked = Pairs(np.repeat(members[hub], 2 * len(others)), np.tile(members[others], 2),
                  np.repeat([False, True], len(others)), np.zeros(2 * len(others), np.float32))  # fmt: skip
    near = alike(asked).reshape(2, -1).min(0) <= CHAINED
    twins = np.concatenate([pairs.second[pairs.first == hub], pairs.first[pairs.second == hub], [hub]])
    return part if near.mean() >= 0.5 else np.intersect1d(part, twins)


def list_twins(pairs: Pairs, named: Named) -> list[Finding]:
    """What pairs of twins are to a person, one row for a picture and kind, with its nearest twin:

    - `leak`: a picture that is in another split too. The row is that of the picture which is not in train.
    - `contradiction`: both pictures of a pair under two classes.
    - `exact_twin`, `near_twin`: in one split and class, the second picture.

    Pictures with equal pixels are leaks and contradictions alike, though pairs name the first one of them alone.
    """
    copies = _find_copies(pairs, named)
    rows: dict[tuple[str, str, str], Finding] = {}
    for first, second, distance in sorted(_list_ends(pairs, copies), key=lambda ends: ends[2]):
        for kind, about, other in _name_kinds(first, second, distance, named):
            label, suggested = named.labels[about], named.labels[other] if kind == "contradiction" else ""
            row = Finding(named.ids[about], named.splits[about], kind, 1 - distance / 2, label, suggested, "",
                          named.ids[other])  # fmt: skip
            rows.setdefault((row.split, row.file, kind), row)
    for first, *others in (places for alike in copies.values() for places in alike.values()):
        for kind in ("leak", "contradiction"):
            if its := rows.get((named.splits[first], named.ids[first], kind)):
                for file in (named.ids[place] for place in others):
                    rows.setdefault((its.split, file, kind), replace(its, file=file))
    return sorted(rows.values(), key=lambda row: -row.score)


# The places of pictures with equal pixels by split and class, by the first of all these.
EqualPictures = dict[int, dict[tuple[str, str], list[int]]]


def _find_copies(pairs: Pairs, named: Named) -> EqualPictures:
    copies: EqualPictures = {}
    exact = pairs.at(np.flatnonzero(pairs.distance == 0))
    for head, copy in zip(exact.first.tolist(), exact.second.tolist(), strict=True):
        alike = copies.setdefault(head, {(named.splits[head], named.labels[head]): [head]})
        alike.setdefault((named.splits[copy], named.labels[copy]), []).append(copy)
    return copies


def _list_ends(pairs: Pairs, copies: EqualPictures) -> Iterator[tuple[int, int, float]]:
    """The ends and the distance of each pair and, where copies of an end are in another split or class, of what these
    have in common."""
    ends = list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.distance.tolist(), strict=True))
    yield from ends
    for first, second, distance in [*(each for each in ends if each[2]), *((head, head, 0.0) for head in copies)]:
        one, other = ([alike[0] for alike in copies.get(end, {}).values()] or [end] for end in (first, second))
        yield from ((*sorted(both), distance) for both in product(one, other) if both[0] != both[1])


def _name_kinds(first: int, second: int, distance: float, named: Named) -> list[tuple[str, int, int]]:
    """The kinds of finding of a pair, each with the picture that it is about and the other one."""
    apart = named.splits[first] != named.splits[second]
    differ = named.labels[first] != named.labels[second]
    about, other = (first, second) if apart and named.splits[second] == "train" else (second, first)
    twin = "near_twin" if distance else "exact_twin"
    found = [("leak", about, other)] * apart + [(twin, second, first)] * (not apart and not differ)
    return found + [("contradiction", first, second), ("contradiction", second, first)] * differ
