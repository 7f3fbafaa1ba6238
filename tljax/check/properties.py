"""What can be measured of a picture that is not its content: of its file, from the header alone, and of its pixels."""

import os
import re
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, UInt8

from tljax.data.decoding import ORIENTATION, TURNS, Encoded, open_picture
from tljax.data.image_source import CHUNK

# EXIF's tags: the camera's maker, the last change, and the part that has when the picture was taken. TIFF has the first
# two itself.
MAKER, CHANGED, EXIF_PART, TAKEN = 0x010F, 0x0132, 0x8769, 0x9003
# The most bytes of EXIF that are read: those that a JPEG can hold. Each of its tags may name all of them.
MOST_EXIF = 2**16
# The most characters of a maker's name.
LONGEST_MAKER = 40
DAY = re.compile(r"\s*(\d{4})[:./-](\d\d)[:./-](\d\d)")

# The weights of red, green and blue in brightness (ITU-R BT.601).
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
# The pixels that are measured at a time: they fit the processor's cache.
PIXELS_AT_ONCE = 2**17
# Sharpness is measured in so many parts along each axis; a gradient of `FAINT` (squared gray levels) is no edge.
SHARP_PARTS, FAINT = 4, 4.0
# A line is part of a border if so many of its pixels are this near to the border's color, in each of three channels.
# JPEG at 32 pixels blurs a border of two by as much.
BORDER_PIXELS, BORDER_LEVELS = 0.95, 28
# Behind a border, less of a line than this is of its color.
LEFT_BEHIND = 0.3
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
    if image.format != "TIFF" and TURNS.get(tags.get(ORIENTATION, 1), 0) > 3:
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
    border: Float32[np.ndarray, " n"]
    """The part of the picture that is a border of one color, laid around it or along two of its edges."""
    plain: Bool[np.ndarray, " n"]
    """Whether all edges, or two opposite ones, are of one color: that of a border, or of a plain ground."""
    edge_color: UInt8[np.ndarray, "n 3"]
    """That color; black where there is none."""
    gray: Bool[np.ndarray, " n"]
    """Whether the channels are equal."""


def measure_pixels(
    images: UInt8[np.ndarray, "n size size 3"] | Encoded, report: Callable[[float], None] = lambda done: None
) -> PixelFacts:
    """Reads pictures in parts. Broken ones are as `images` has it: an error, or black.

    Raises:
      BrokenPictures: if images cannot be read.
    """
    each = max(1, PIXELS_AT_ONCE // images.shape[1] ** 2)
    none = _measure_part(np.zeros((1, 3, 3, 3), np.uint8))
    parts = [PixelFacts(*(column[:0] for column in none))]
    for start in range(0, len(images), CHUNK):
        part = images[np.arange(start, min(start + CHUNK, len(images)))]
        parts += [_measure_part(part[place : place + each]) for place in range(0, len(part), each)]
        report(min(1.0, (start + CHUNK) / len(images)))
    return PixelFacts(*map(np.concatenate, zip(*parts, strict=True)))


def _measure_part(images: UInt8[np.ndarray, "n size size 3"]) -> PixelFacts:
    planes = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
    gray = np.tensordot(BRIGHTNESS, planes.astype(np.float32), 1)
    low, high = _find_percentiles(gray, (0.05, 0.99))
    border = _measure_border(images)
    return PixelFacts(
        brightness=gray.mean((1, 2)),
        low=low,
        high=high,
        spread=_measure_spread(planes),
        sharpness=measure_sharpness(gray),
        border=border.part,
        plain=border.plain,
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


def measure_sharpness(gray: Float32[np.ndarray, "n h w"]) -> Float32[np.ndarray, " n"]:
    """The mean square of the Laplacian by that of the gradient: about 0.2 for a picture blurred with a standard
    deviation of three pixels, and 2 to 4 for photographs.

    The variance of the Laplacian alone (Pech-Pacheco et al. 2000; cleanvision has it of edges) is low for everything
    that has few edges, such as skies. Its ratio to the gradient is the square of a spatial frequency, whatever the
    contrast. Each of 4 x 4 parts counts by its gradient; where that is faint, the ratio is that of noise.
    """
    inner = gray[:, 1:-1, 1:-1]
    up, down, left, right = gray[:, :-2, 1:-1], gray[:, 2:, 1:-1], gray[:, 1:-1, :-2], gray[:, 1:-1, 2:]
    laplacian = _average_parts((up + down + left + right - 4 * inner) ** 2)
    gradient = _average_parts(((right - left) ** 2 + (down - up) ** 2) / 4)
    ratio = laplacian / (gradient + FAINT)
    return (ratio * gradient).sum(1) / (gradient.sum(1) + 1)


def _average_parts(x: Float32[np.ndarray, "n h w"]) -> Float32[np.ndarray, "n p"]:
    """Means of `SHARP_PARTS` x `SHARP_PARTS` parts, or of the pixels of a smaller picture."""
    starts = [np.unique(np.arange(SHARP_PARTS) * side // SHARP_PARTS) for side in x.shape[1:]]
    sums = np.add.reduceat(np.add.reduceat(x, starts[0], axis=1), starts[1], axis=2)
    sizes = [np.diff([*start, side]) for start, side in zip(starts, x.shape[1:], strict=True)]
    return (sums / np.multiply.outer(*sizes).astype(np.float32)).reshape(len(x), -1)


class Border(NamedTuple):
    """The part of each picture that is border, the color of its edges, and whether they are of one color."""

    part: Float32[np.ndarray, " n"]
    color: UInt8[np.ndarray, "n 3"]
    plain: Bool[np.ndarray, " n"]


def _measure_border(images: UInt8[np.ndarray, "n size size 3"]) -> Border:
    """The border of each picture, which is at two opposite edges or at all of them."""
    colors, plain = _look_at_edges(images)
    has = _find_edges(colors, plain)
    there = np.flatnonzero(has.any(1))
    part, color = np.zeros(len(images), np.float32), np.zeros((len(images), 3), np.uint8)
    weights = has[there, :, None].astype(np.float32)
    chosen = (colors[there] * weights).sum(1) / weights.sum(1)
    color[there] = chosen.round()
    part[there] = _measure_inside(images[there], chosen, has[there])
    return Border(part, color, np.any(has, axis=1))


def _look_at_edges(
    images: UInt8[np.ndarray, "n s s 3"],
) -> tuple[Float32[np.ndarray, "n 4 3"], Bool[np.ndarray, "n 4"]]:
    """The color of the edges (top, bottom, left, right), and which of them are of one color."""
    edges = np.stack([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1).astype(np.float32)
    colors = np.median(edges, axis=2)
    near = (np.abs(edges - colors[:, :, None]) <= BORDER_LEVELS).all(3)
    return colors, near.mean(2) >= BORDER_PIXELS


def _find_edges(colors: Float32[np.ndarray, "n 4 3"], plain: Bool[np.ndarray, "n 4"]) -> Bool[np.ndarray, "n 4"]:
    """Which edges are border: both of a pair that are of one color, or all four."""

    def are_one(places: list[int]) -> Bool[np.ndarray, " n"]:
        return plain[:, places].all(1) & (np.ptp(colors[:, places], axis=1) <= BORDER_LEVELS).all(1)

    rows, columns = are_one([0, 1]), are_one([2, 3])
    # Of two pairs in two colors, the first is taken.
    columns &= ~rows | are_one([0, 1, 2, 3])
    return np.stack([rows, rows, columns, columns], 1)


def _measure_inside(
    images: UInt8[np.ndarray, "m s s 3"], color: Float32[np.ndarray, "m 3"], has: Bool[np.ndarray, "m 4"]
) -> Float32[np.ndarray, " m"]:
    """The part of each picture that its border takes at the edges where it `has` one; 0 where the picture begins
    slowly, as a thing on a plain ground does."""
    low, high = (
        np.clip(color + levels, 0, 255).astype(np.uint8)[:, None, None] for levels in (-BORDER_LEVELS, BORDER_LEVELS)
    )
    near = ((images >= low) & (images <= high)).all(3)
    sides = [
        _measure_side(lines) for lines in (near, near[:, ::-1], *(near.transpose(0, 2, 1)[:, ::d] for d in (1, -1)))
    ]
    depths, behind = (np.stack(column, 1) * has for column in zip(*sides, strict=True))
    side = images.shape[1]
    inside = np.maximum(side - depths[:, :2].sum(1), 0) * np.maximum(side - depths[:, 2:].sum(1), 0)
    sharp = behind.max(1, initial=0) < LEFT_BEHIND
    return np.where(sharp, 1 - inside / side**2, 0).astype(np.float32)


def _measure_side(near: Bool[np.ndarray, "m s s"]) -> tuple[Int[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """How many lines are border before the first that is not, and how much of the second line behind them is of the
    border's color: the first may be blurred."""
    shares = near.mean(2)
    lines = shares >= BORDER_PIXELS
    depths = np.where(lines.all(1), lines.shape[1], np.argmin(lines, axis=1))
    second = np.minimum(depths + 1, lines.shape[1] - 1)
    return depths, np.take_along_axis(shares, second[:, None], 1)[:, 0]
