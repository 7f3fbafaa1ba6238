"""What can be measured of a picture that is not its content: of its file, from the header alone, and of its pixels."""

import os
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, UInt8

from tljax.check.result import Report
from tljax.check.twins import LUMA
from tljax.data.decoding import ORIENTATION, Encoded, open_picture
from tljax.data.image_source import CHUNK

# EXIF's tags: the camera's maker, the last change, and the part that has when the picture was taken. TIFF has the first
# two itself.
MAKER, CHANGED, EXIF_PART, TAKEN = 0x010F, 0x0132, 0x8769, 0x9003
# Orientations that exchange width and height.
SIDEWAYS = (5, 6, 7, 8)
# The most bytes of EXIF that are read: those that a JPEG can hold. Each of its tags may name all of them.
MOST_EXIF = 2**16
# The most characters of a maker's name.
LONGEST_MAKER = 40
DAY = re.compile(r"\s*(\d{4})[:./-](\d\d)[:./-](\d\d)")

# The pixels that are measured at a time: they fit the processor's cache.
MEASURED_AT_ONCE = 2**17
# Sharpness is measured in so many parts along each axis; a gradient of `FAINT` (squared gray levels) is no edge.
SHARP_PARTS, FAINT = 4, 4.0
# A line is part of a border if so many of its pixels are this near to the border's color: in brightness, and in how far
# red and blue are from it (levels). JPEG blurs the color of a border of two pixels by as much.
BORDER_PIXELS, BORDER_LEVELS = 0.9, (20, 60)
# Behind a border, less of a line than this is near to its color. What a class has in common may be found with half of
# the levels, which a thing on a plain ground passes more often.
LEFT_BEHIND = 0.2
# What takes less than this part of a picture is a thing on a plain ground.
LEAST_INSIDE = 0.25
# A picture is gray if so many of its pixels have channels this near to each other.
GRAY_PIXELS, GRAY_LEVELS = 0.995, 6


class FileFacts(NamedTuple):
    """What the files of pictures say. What is not known is NaN, or empty.

    Width and height (pixels) are those of the picture as it is shown: EXIF's orientation is applied.
    """

    width: Float64[np.ndarray, " n"]
    height: Float64[np.ndarray, " n"]
    bytes: Float64[np.ndarray, " n"]
    day: Float64[np.ndarray, " n"]
    """When it was taken or, where that is not said, changed last: `date.toordinal`."""
    format: tuple[str, ...]
    mode: tuple[str, ...]
    """As Pillow names what is stored: L, RGB, P, CMYK."""
    maker: tuple[str, ...]
    """That of the camera, as EXIF has it."""

    @property
    def aspect(self) -> Float64[np.ndarray, " n"]:
        """Width by height."""
        return self.width / self.height


class Header(NamedTuple):
    """`FileFacts` of a picture."""

    width: float = np.nan
    height: float = np.nan
    bytes: float = np.nan
    day: float = np.nan
    format: str = ""
    mode: str = ""
    maker: str = ""


def measure_files(fetched: Iterable[bytes | Path]) -> FileFacts:
    """What files say, one after the other; a broken one leaves blanks. Pixels are not decoded."""
    with warnings.catch_warnings():
        # Pillow warns of tags that it cannot read.
        warnings.simplefilter("ignore")
        headers = [read_header(encoded) for encoded in fetched]
    width, height, size, day = np.array([header[:4] for header in headers], np.float64).reshape(-1, 4).T
    words = ([str(header[place]) for header in headers] for place in (4, 5, 6))
    return FileFacts(width, height, size, day, *map(tuple, words))


def read_header(encoded: bytes | Path) -> Header:
    """What a file says; blanks where it is broken."""
    header = Header()
    # Pillow raises all kinds of errors for damaged files.
    with suppress(Exception):
        header = Header(bytes=len(encoded) if isinstance(encoded, bytes) else os.stat(encoded).st_size)
        with open_picture(encoded) as image:
            header = header._replace(width=image.width, height=image.height, format=image.format or "", mode=image.mode)
            header = _add_tags(header, image)
    return header


def _add_tags(header: Header, image: Any) -> Header:
    tags = _read_tags(image)
    # Pillow gives the size of a TIFF as its orientation says.
    if image.format != "TIFF" and tags.get(ORIENTATION) in SIDEWAYS:
        header = header._replace(width=header.height, height=header.width)
    header = header._replace(maker=_clean(tags.get(MAKER)), day=_read_day(tags.get(CHANGED)))
    # A TIFF's tags are no EXIF, and have no parts.
    taken = tags.get_ifd(EXIF_PART).get(TAKEN) if hasattr(tags, "get_ifd") else None
    return header if np.isnan(_read_day(taken)) else header._replace(day=_read_day(taken))


def _read_tags(image: Any) -> Any:
    from PIL import Image

    if image.format == "TIFF":
        return image.tag_v2
    if any(len(image.info.get(name) or "") > MOST_EXIF for name in ("exif", "Raw profile type exif")):
        return {}
    # A PNG's own `getexif` decodes the pixels, in search of tags behind them.
    return Image.Image.getexif(image)


def _clean(value: object) -> str:
    """A maker's name; nothing if it is no text."""
    text = value if isinstance(value, str) else ""
    return " ".join(text.replace("\0", " ").split())[:LONGEST_MAKER]


def _read_day(value: object) -> float:
    """The day of EXIF's date, such as `2019:05:03 10:20:30`; NaN if it is none."""
    found = DAY.match(value) if isinstance(value, str) else None
    with suppress(ValueError):
        return float(date(*map(int, found.groups())).toordinal()) if found else np.nan
    return np.nan


class PixelFacts(NamedTuple):
    """What pixels show. Brightness is in gray levels, 0 to 255."""

    brightness: Float32[np.ndarray, " n"]
    """The mean."""
    low: Float32[np.ndarray, " n"]
    """The 5th percentile."""
    high: Float32[np.ndarray, " n"]
    """The 99th percentile."""
    spread: Float32[np.ndarray, " n"]
    """The largest standard deviation of a channel (gray levels): the contrast, 0 for one color."""
    sharpness: Float32[np.ndarray, " n"]
    """`measure_sharpness`."""
    detail: Float32[np.ndarray, " n"]
    """How much neighbors differ, in the mean (gray levels)."""
    border: Float32[np.ndarray, " n"]
    """The part of the picture that is a border of one color, laid around it or along two of its edges."""
    framed: Bool[np.ndarray, " n"]
    """Whether there may be one: the picture behind it may have much of its color."""
    edges: UInt8[np.ndarray, " n"]
    """How many edges are of one color, that of a border or of a plain ground: all 4, 2 opposite ones, or 0."""
    edge_color: UInt8[np.ndarray, "n 3"]
    """That color; black where there is none."""
    gray: Bool[np.ndarray, " n"]
    """Whether the channels are equal."""


def hide_borders(pixels: PixelFacts) -> PixelFacts:
    """The facts as if no picture had a border: `data.fit=pad` makes some."""
    return pixels._replace(
        border=np.zeros_like(pixels.border), framed=np.zeros_like(pixels.framed), edges=np.zeros_like(pixels.edges)
    )


def measure_pixels(
    images: UInt8[np.ndarray, "n size size 3"] | Encoded, report: Report = lambda done: None
) -> PixelFacts:
    """Reads pictures in parts. Broken ones are as `images` has it: an error, or black.

    Raises:
      BrokenPictures: if images cannot be read.
    """
    each = max(1, MEASURED_AT_ONCE // images.shape[1] ** 2)
    none = _measure_part(np.zeros((1, 3, 3, 3), np.uint8))
    parts = [PixelFacts(*(column[:0] for column in none))]
    for start in range(0, len(images), CHUNK):
        part = images[np.arange(start, min(start + CHUNK, len(images)))]
        parts += [_measure_part(part[place : place + each]) for place in range(0, len(part), each)]
        report(min(1.0, (start + CHUNK) / len(images)))
    return PixelFacts(*map(np.concatenate, zip(*parts, strict=True)))


def _measure_part(images: UInt8[np.ndarray, "n size size 3"]) -> PixelFacts:
    planes = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
    gray = np.tensordot(LUMA, planes.astype(np.float32), 1)
    low, high = _find_percentiles(gray, (0.05, 0.99))
    sharpness, detail = measure_sharpness(gray)
    border = _measure_border(images)
    return PixelFacts(
        brightness=gray.mean((1, 2)),
        low=low,
        high=high,
        spread=_measure_spread(planes),
        sharpness=sharpness,
        detail=detail,
        border=border.part,
        framed=border.framed,
        edges=border.edges,
        edge_color=border.color,
        gray=_is_gray(planes),
    )


def _find_percentiles(gray: Float32[np.ndarray, "n h w"], parts: tuple[float, ...]) -> Float32[np.ndarray, "p n"]:
    """The gray level (whole numbers) that so many of the pixels do not exceed."""
    n, pixels = len(gray), gray[0].size
    levels = gray.reshape(n, -1).astype(np.int64) + 256 * np.arange(n)[:, None]
    below = np.bincount(levels.ravel(), minlength=256 * n).reshape(n, 256).cumsum(1)
    return np.array([(below < part * pixels).sum(1) for part in parts], np.float32)


def _measure_spread(planes: UInt8[np.ndarray, "3 n h w"]) -> Float32[np.ndarray, " n"]:
    flat = planes.reshape(*planes.shape[:2], -1).astype(np.float32)
    flat -= flat.mean(2, keepdims=True)
    return np.sqrt(np.einsum("cnp,cnp->cn", flat, flat) / flat.shape[2]).max(0)


def _is_gray(planes: UInt8[np.ndarray, "3 n h w"]) -> Bool[np.ndarray, " n"]:
    red, green, blue = planes.reshape(3, planes.shape[1], -1)
    range_ = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return (range_ <= GRAY_LEVELS).mean(1) >= GRAY_PIXELS


def measure_sharpness(
    gray: Float32[np.ndarray, "n h w"],
) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """The sharpness of each picture, and its detail: the mean of what neighbors differ by.

    Sharpness is the mean square of the Laplacian by that of the gradient: about 0.2 for a picture blurred with a
    standard deviation of three pixels, and 2 to 4 for photographs.

    The variance of the Laplacian alone (Pech-Pacheco et al. 2000; cleanvision has it of edges) is low for everything
    that has few edges, such as skies. Its ratio to the gradient is the square of a spatial frequency, whatever the
    contrast. Each of 4 x 4 parts counts by its gradient; where that is faint, the ratio is that of noise.
    """
    inner = gray[:, 1:-1, 1:-1]
    up, down, left, right = gray[:, :-2, 1:-1], gray[:, 2:, 1:-1], gray[:, 1:-1, :-2], gray[:, 1:-1, 2:]
    laplacian = _average_parts((up + down + left + right - 4 * inner) ** 2)
    across, along = right - left, down - up
    gradient = _average_parts((across**2 + along**2) / 4)
    ratio = laplacian / (gradient + FAINT)
    detail = (abs(across) + abs(along)).mean((1, 2)) / 4
    return (ratio * gradient).sum(1) / (gradient.sum(1) + 1), detail


def _average_parts(x: Float32[np.ndarray, "n h w"]) -> Float32[np.ndarray, "n p"]:
    """Means of `SHARP_PARTS` x `SHARP_PARTS` parts, or of the pixels of a smaller picture."""
    starts = [np.unique(np.arange(SHARP_PARTS) * side // SHARP_PARTS) for side in x.shape[1:]]
    sums = np.add.reduceat(np.add.reduceat(x, starts[0], axis=1), starts[1], axis=2)
    sizes = [np.diff([*start, side]) for start, side in zip(starts, x.shape[1:], strict=True)]
    return (sums / np.multiply.outer(*sizes).astype(np.float32)).reshape(len(x), -1)


class Border(NamedTuple):
    """The part of each picture that is border, whether it may have one, the color of its edges, and how many of them
    (0, 2 or 4) are of it."""

    part: Float32[np.ndarray, " n"]
    framed: Bool[np.ndarray, " n"]
    color: UInt8[np.ndarray, "n 3"]
    edges: UInt8[np.ndarray, " n"]


def _measure_border(images: UInt8[np.ndarray, "n size size 3"]) -> Border:
    """The border of each picture, which is at two opposite edges or at all of them."""
    colors, plain = _look_at_edges(images)
    has = _find_edges(colors, plain)
    there = np.flatnonzero(has.any(1))
    part, color = np.zeros(len(images), np.float32), np.zeros((len(images), 3), np.uint8)
    framed = np.zeros(len(images), bool)
    weights = has[there, :, None].astype(np.float32)
    chosen = (colors[there] * weights).sum(1) / weights.sum(1)
    color[there] = chosen.round()
    part[there], framed[there] = _measure_inside(images[there], chosen, has[there])
    return Border(part, framed, color, has.sum(1, dtype=np.uint8))


def _look_at_edges(
    images: UInt8[np.ndarray, "n s s 3"],
) -> tuple[Float32[np.ndarray, "n 4 3"], Bool[np.ndarray, "n 4"]]:
    """The color of the edges (top, bottom, left, right), and which of them are of one color."""
    edges = np.stack([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1).astype(np.float32)
    colors = np.median(edges, axis=2)
    return colors, _are_near(edges, colors[:, :, None]).mean(2) >= BORDER_PIXELS


def _are_near(
    pixels: Float32[np.ndarray, "... 3"], colors: Float32[np.ndarray, "... 3"], part: float = 1
) -> np.ndarray:
    """Whether colors differ by no more than a part of `BORDER_LEVELS`, bool [...]."""
    difference = pixels - colors
    brightness = difference @ LUMA
    red, blue = difference[..., 0] - brightness, difference[..., 2] - brightness
    light, colorful = (levels * part for levels in BORDER_LEVELS)
    return (abs(brightness) <= light) & (abs(red) <= colorful) & (abs(blue) <= colorful)


def _find_edges(colors: Float32[np.ndarray, "n 4 3"], plain: Bool[np.ndarray, "n 4"]) -> Bool[np.ndarray, "n 4"]:
    """Which edges are border: both of a pair that are of one color, or all four."""

    def are_one(one: int, other: int) -> Bool[np.ndarray, " n"]:
        return plain[:, one] & plain[:, other] & _are_near(colors[:, one], colors[:, other])

    rows, columns = are_one(0, 1), are_one(2, 3)
    # The first of two pairs in two colors is taken.
    columns &= ~rows | _are_near(colors[:, 0], colors[:, 2])
    return np.stack([rows, rows, columns, columns], 1)


def _measure_inside(
    images: UInt8[np.ndarray, "m s s 3"], color: Float32[np.ndarray, "m 3"], has: Bool[np.ndarray, "m 4"]
) -> tuple[Float32[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """`Border.part` and `framed`, for a border at the edges where a picture `has` one. There is none where the picture
    begins slowly, as a thing on a plain ground does."""
    pixels, side = images.astype(np.float32), images.shape[1]
    near, nearer = (_list_sides(_are_near(pixels, color[:, None, None], part)) for part in (1.0, 0.5))
    depths = np.stack([_count_lines(lines.mean(2) >= BORDER_PIXELS) for lines in near], 1) * has
    border = depths[:, :2].sum(1), depths[:, 2:].sum(1)
    inside = np.maximum(side - border[0], 0) * np.maximum(side - border[1], 0)
    sharp, framed = (
        np.all([~has[:, edge] | (_look_behind(sides[edge], depths[:, edge], border[1 - edge // 2]) < LEFT_BEHIND)
                for edge in range(4)], axis=0) for sides in (near, nearer)
    )  # fmt: skip
    enough = inside >= LEAST_INSIDE * side**2
    return np.where(sharp & enough, 1 - inside / side**2, 0).astype(np.float32), framed & enough


def _look_behind(
    lines: Bool[np.ndarray, "m s s"], depth: Int[np.ndarray, " m"], ends: Int[np.ndarray, " m"]
) -> Float64[np.ndarray, " m"]:
    """How much of the second line behind an edge's border is of its color, but for its `ends`, which are border. The
    first line may be blurred."""
    side = lines.shape[2]
    second = lines[np.arange(len(lines)), np.minimum(depth + 1, side - 1)].sum(1)
    return np.maximum(second - ends, 0) / np.maximum(side - ends, 1)


def _list_sides(pixels: Bool[np.ndarray, "m s s"]) -> list[Bool[np.ndarray, "m s s"]]:
    """Pictures as lines from each edge on: top, bottom, left, right."""
    turned = pixels.transpose(0, 2, 1)
    return [pixels, pixels[:, ::-1], turned, turned[:, ::-1]]


def _count_lines(lines: Bool[np.ndarray, "m s"]) -> Int[np.ndarray, " m"]:
    """How many lines are border before the first that is not."""
    return np.where(lines.all(1), lines.shape[1], np.argmin(lines, axis=1))
