"""Decodes images from files and records when they are read, one by one or all of them."""

import io
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Num, UInt8, UInt32

from tljax.data.image_source import CHUNK, Rows
from tljax.data.layouts import join_names
from tljax.storage.file_index import Digests, digest_bytes

# Images decoded to at most this side (pixels) decode faster in one thread than in several, which would mostly wait for
# the interpreter (the GIL).
SMALL_SIZE = 64
# Formats that Pillow decodes by itself; for some of the others it starts programs.
READABLE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# The most pixels that a picture may have: each takes four bytes of memory while it is decoded.
MOST_PIXELS = 10**8
# How a picture becomes square; see `decode`.
Fit = Literal["crop", "pad", "stretch"]
USUAL_FIT: Fit = "crop"
# The most bytes of a PNG's color profile or text, unpacked. Pillow's own limit of 1 MiB refuses good pictures.
MOST_TEXT = 2**26
# What `complete_jpeg` puts behind a JPEG without end marker: these bytes, then the marker.
JPEG_FILLERS, JPEG_END = (b"", b"\x55" * 512, b"\xaa" * 512), b"\xff\xd9"
# EXIF's and TIFF's tags, and the turns of `PIL.Image.Transpose` by the value of the orientation.
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 0x0112, 258, 262, 0
TIFF_ENDINGS = (".tif", ".tiff")
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}

SKIP = "leave out what cannot be read: --config.data.broken=skip"


def decode(encoded: bytes | Path, size: int, fit: Fit = USUAL_FIT) -> UInt8[np.ndarray, "size size 3"]:
    """Decodes a picture to RGB and makes it a square of `size` pixels a side, resized bilinearly.

    `crop` takes the centre square, `pad` adds black borders to the shorter sides, `stretch` changes the proportions.

    A picture of exactly `size` x `size` keeps its pixels. `read_picture` says how pictures are read.

    Raises:
      ValueError: if the picture has more than `MOST_PIXELS` pixels, or values of an unknown range.
      Exception: whatever Pillow raises for a damaged file.
    """
    return make_square(read_picture(encoded)[0], size, fit)


def make_square(rgb: Any, size: int, fit: Fit) -> UInt8[np.ndarray, "size size 3"]:
    """A picture of Pillow as a square of `size` pixels a side; `decode` explains `fit`."""
    from PIL import Image, ImageOps

    if rgb.size != (size, size):
        square, bilinear = (size, size), Image.Resampling.BILINEAR
        fits: dict[Fit, Callable[..., Any]] = {
            "crop": ImageOps.fit,
            "pad": ImageOps.pad,
            "stretch": Image.Image.resize,
        }
        rgb = fits[fit](rgb, square, bilinear)
    return np.asarray(rgb)


def read_picture(encoded: bytes | Path) -> tuple[Any, bool]:
    """A picture in RGB, as Pillow's image, and whether its file is whole.

    A JPEG without end marker is read if no row is missing; then the second result is false.

    The EXIF orientation is applied, transparency is blended with white, and values of more than 8 bits are scaled to 8
    bits (`scale_values`).

    Raises:
      ValueError: if the picture has more than `MOST_PIXELS` pixels, or values of an unknown range.
      Exception: whatever Pillow raises for a damaged file.
    """
    try:
        return _open_rgb(encoded), True
    except OSError as error:
        completed = complete_jpeg(encoded) if "truncated" in str(error) else []
        if not completed:
            raise
        first, *others = map(_open_rgb, completed)
        # What follows the last row changes no pixel. Where a row is missing, it would be read as that row.
        if any(first.tobytes() != other.tobytes() for other in others):
            raise
        return first, False


def describe_error(error: Exception) -> str:
    """What a decoder says, in one line, without the file's name."""
    return re.sub(r" file ['<].*", " file", " ".join(f"{type(error).__name__}: {error}".split()))[:200]


def complete_jpeg(encoded: bytes | Path) -> list[bytes]:
    """A JPEG that ends too early, completed by each of `JPEG_FILLERS`; nothing for other formats."""
    content = encoded if isinstance(encoded, bytes) else encoded.read_bytes()
    # The first half of the end marker may be there.
    content = content.removesuffix(JPEG_END[:1])
    return [content + filler + JPEG_END for filler in JPEG_FILLERS] if content.startswith(b"\xff\xd8") else []


def _open_rgb(encoded: bytes | Path) -> Any:
    """`read_picture` for files that are whole."""
    with open_picture(encoded) as image:
        return to_rgb(image)


def open_picture(encoded: bytes | Path, formats: tuple[str, ...] = READABLE_FORMATS) -> Any:
    """A picture of Pillow whose pixels are not read yet.

    Raises:
      Exception: whatever Pillow raises for a damaged file.
    """
    from PIL import Image, PngImagePlugin

    PngImagePlugin.MAX_TEXT_CHUNK = MOST_TEXT
    # The limit is our own, in `to_rgb`: Pillow would warn of pictures that are read.
    Image.MAX_IMAGE_PIXELS = None
    return Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=formats)


def to_rgb(image: Any) -> Any:
    """A picture of Pillow in RGB, as `read_picture` says.

    Raises:
      ValueError: if it has more than `MOST_PIXELS` pixels, or values of an unknown range.
      Exception: whatever Pillow raises for a damaged file.
    """
    from PIL import Image

    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
    # Pillow turns a TIFF while it loads it, and takes the orientation away.
    image.load()
    # Pillow's `exif_transpose` rewrites all tags and fails on odd ones. Only the orientation counts here.
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    if _is_deep(image):
        gray = scale_values(np.asarray(image), image.mode, _bits(image))
        rgb = Image.fromarray(255 - gray if _is_white_zero(image) else gray).convert("RGB")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    else:
        rgb = image.convert("RGB")
    return rgb if turn is None else rgb.transpose(Image.Transpose(turn))


def scale_values(values: Num[np.ndarray, "h w"], mode: str, bits: int) -> UInt8[np.ndarray, "h w"]:
    """Gray values of more than eight bits as 0..255. `mode` is Pillow's, `bits` the number that the file states.

    Raises:
      ValueError: if the range of the values is not certain: the picture could come out black or white.
    """
    low, high = values.min(), values.max()
    wanted = "save it with 8 bits, or with 16 bits and their whole range"
    if mode == "F":
        if not (low >= 0 and high <= 1):
            raise ValueError(f"float values from {low:g} to {high:g}, of which only 0 to 1 are sure; {wanted}")
        largest = 1.0
    elif bits in (12, 14):
        largest = 2.0**bits - 1
    elif bits > 16:
        raise ValueError(f"{bits}-bit values from {low} to {high}, whose range is not known; {wanted}")
    elif 0 < high < 4096:
        raise ValueError(f"16-bit values up to {high} only, which may be 12-bit ones; {wanted}")
    else:
        largest = 65535.0
    return (values.astype(np.float64) * (255 / largest)).round().clip(0, 255).astype(np.uint8)


def is_read_anew(encoded: bytes | Path) -> bool:
    """Whether a picture is a TIFF that is read otherwise than by version 0.1.0, which turned it once more than its
    orientation says, or did not invert it."""
    try:
        with open_picture(encoded, ("TIFF",)) as image:
            return image.getexif().get(ORIENTATION, 1) in TURNS or (_is_deep(image) and _is_white_zero(image))
    # Pillow's decoders raise all kinds of errors for damaged files.
    except Exception:
        return False


def _is_deep(image: Any) -> bool:
    """Whether a picture of Pillow holds numbers of more than eight bits, which its `convert` would clip at 255."""
    return bool(image.mode.startswith("I") or image.mode == "F")


def _is_white_zero(image: Any) -> bool:
    """Whether the file states that white is zero. Pillow inverts values of at most eight bits, and no others."""
    return image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO


def _bits(image: Any) -> int:
    """Bits of a gray value, as a TIFF file states them; PNG has 16."""
    return int(image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0]) if image.format == "TIFF" else 16


class BrokenPictures(ValueError):
    """Pictures that cannot be read: `reasons` by name. The message has the first ten."""

    def __init__(self, reasons: dict[str, str]):
        self.reasons = reasons
        if len(reasons) == 1:
            ((name, reason),) = reasons.items()
            super().__init__(f"{name} is no readable image ({reason}): replace or remove it, or {SKIP}")
            return
        some = join_names((f"{name} ({reason})" for name, reason in sorted(reasons.items())), separator="; ")
        super().__init__(f"{len(reasons)} images cannot be read: {some}: replace or remove them, or {SKIP}")

    def __reduce__(self) -> Any:
        return type(self), (self.reasons,)


class Decoded(NamedTuple):
    """Decoded images, uint8 [..., size, size, 3]. Pictures that cannot be read are black: `broken` has the reasons by
    name. `unfinished` names the JPEGs that lack their end marker, but no row."""

    images: UInt8[np.ndarray, "... size size 3"]
    broken: dict[str, str]
    unfinished: list[str]
    digests: Digests
    """What `Encoded.decode` was asked for; zeros else."""

    def whole(self) -> UInt8[np.ndarray, "... size size 3"]:
        """The images.

        Raises:
          BrokenPictures: if one cannot be read.
        """
        if self.broken:
            raise BrokenPictures(self.broken)
        return self.images


@dataclass(frozen=True)
class Encoded:
    """Images that are indexed like an array, uint8 [n, size, size, 3], and decoded whenever they are read."""

    fetch: Callable[[Rows], Sequence[bytes | Path]]
    """Rows of the split -> encoded images, as bytes or paths."""
    rows: Rows
    """The row of each image within the split."""
    ids: tuple[str, ...]
    size: int
    fingerprint: str
    """Digest that identifies these images in cache keys."""
    fit: Fit = "crop"

    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), self.size, self.size, 3

    @property
    def nbytes(self) -> int:
        """The size of all images, decoded."""
        return len(self) * self.size * self.size * 3

    def __getitem__(self, places: Int[np.ndarray, "..."]) -> UInt8[np.ndarray, "... size size 3"]:
        """The images at `places`, decoded; black for a place beyond the last image.

        Raises:
          BrokenPictures: if images cannot be read.
        """
        return self.decode(places).whole()

    def decode(self, places: Int[np.ndarray, "..."], threads: int | None = None, *, digests: bool = False) -> Decoded:
        """The images at `places`, decoded in `threads` threads; None for as many as pay. With `digests`, those of what
        was read too: the bytes of a picture's file or, where it is a record, its pixels."""
        threads = threads or (os.cpu_count() or 1 if self.size > SMALL_SIZE else 1)
        chosen = np.asarray(places).ravel()
        there = np.flatnonzero(chosen < len(self))
        encoded = self.fetch(self.rows[chosen[there]])
        decode_one = partial(self._decode_one, digests=digests)
        if threads == 1:
            results = list(map(decode_one, encoded))
        else:
            with ThreadPoolExecutor(threads) as pool:
                results = list(pool.map(decode_one, encoded))
        images = np.zeros((len(chosen), *self.shape[1:]), np.uint8)
        read = np.zeros((len(chosen), 4), np.uint32)
        decoded = Decoded(images.reshape(*np.shape(places), *self.shape[1:]), {}, [], read)
        for place, (image, note, digest) in zip(there, results, strict=True):
            if digest is not None:
                read[place] = digest
            name = self.ids[chosen[place]]
            if image is None:
                decoded.broken[name] = note
            else:
                images[place] = image
                decoded.unfinished.extend([name] if note else [])
        return decoded

    def _decode_one(
        self, encoded: bytes | Path, digests: bool
    ) -> tuple[np.ndarray | None, str, UInt32[np.ndarray, "4"] | None]:
        """The image of a picture, or None; what is wrong with the picture; and its digest."""
        digest = None
        try:
            if digests and isinstance(encoded, Path):
                encoded = encoded.read_bytes()
                digest = digest_bytes(encoded)
            rgb, whole = read_picture(encoded)
            if digests and digest is None:
                digest = digest_pixels(rgb)
            return make_square(rgb, self.size, self.fit), "" if whole else "no end marker", digest
        # Pillow's decoders raise all kinds of errors for damaged files.
        except Exception as error:
            return None, describe_error(error), digest


def digest_pixels(rgb: Any) -> UInt32[np.ndarray, "4"]:
    """A digest of the pixels of a picture of Pillow, which is in RGB."""
    return digest_bytes(f"{rgb.size}".encode() + rgb.tobytes())


class Findings(NamedTuple):
    """What decoding all images has shown: why some cannot be read, by id; the ids of JPEGs without end marker; and the
    digests of `Encoded.decode`."""

    broken: dict[str, str]
    unfinished: list[str]
    digests: Digests


def decode_all(encoded: Encoded, name: str, images: np.ndarray | None = None) -> Findings:
    """Decodes all images, into `images` if they are given, behind a progress bar."""
    from tqdm import tqdm

    broken: dict[str, str] = {}
    unfinished: list[str] = []
    digests = np.zeros((len(encoded), 4), np.uint32)
    with tqdm(total=len(encoded), desc=name, unit=" images", delay=1, leave=False, disable=None) as bar:
        for start in range(0, len(encoded), CHUNK):
            places = np.arange(start, min(start + CHUNK, len(encoded)))
            decoded = encoded.decode(places, digests=True)
            broken |= decoded.broken
            unfinished += decoded.unfinished
            digests[places] = decoded.digests
            if images is not None:
                images[places] = decoded.images
            bar.update(len(places))
    return Findings(broken, unfinished, digests)
