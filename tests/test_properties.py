"""Facts of pictures: what a header says, with hostile ones, and what pixels show."""

import io
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageFilter, TiffImagePlugin, WebPImagePlugin
from scipy.ndimage import laplace
from sklearn.datasets import load_sample_images

from tljax.check.properties import Header, measure_files, measure_pixels, read_header
from tljax.data.decoding import Encoded, read_picture

TALL = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def encode(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def make_exif(orientation: int = 1, **texts: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, tag in (("maker", 0x010F), ("changed", 0x0132)):
        if name in texts:
            exif[tag] = texts[name]
    if "taken" in texts:
        exif.get_ifd(0x8769)[0x9003] = texts["taken"]
    return exif


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """48 parts of two photographs, 64 pixels a side."""
    parts = [photo[y : y + 96, x : x + 96] for photo in load_sample_images().images
             for y in range(0, 330, 96) for x in range(0, 540, 96)]  # fmt: skip
    return np.array([np.asarray(Image.fromarray(part).resize((64, 64), Image.Resampling.BOX)) for part in parts])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_header_has_size_format_maker_and_day(kind):
    exif = make_exif(maker="Canon \0", changed="2019:05:03 10:20:30")
    content = encode(TALL, kind, exif=exif)
    wanted = Header(30, 20, len(content), date(2019, 5, 3).toordinal(), kind, "RGB", "Canon")
    assert read_header(content) == wanted


def test_the_day_is_that_on_which_the_picture_was_taken():
    exif = make_exif(changed="2019:05:03 10:20:30", taken="2018:01:02 03:04:05")
    assert read_header(encode(TALL, "JPEG", exif=exif)).day == date(2018, 1, 2).toordinal()


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "2019:13:45", "    :  :  ", "yesterday", ""])
def test_a_day_that_is_none_is_blank(text):
    header = read_header(encode(TALL, "JPEG", exif=make_exif(changed=text)))
    assert np.isnan(header.day) and header.width == 30


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_picture_as_it_is_shown(kind, orientation):
    content = encode(TALL, kind, exif=make_exif(orientation))
    header = read_header(content)
    assert (header.width, header.height) == read_picture(content)[0].size


@pytest.mark.parametrize("mode, kind", [("L", "PNG"), ("P", "GIF"), ("1", "PNG"), ("CMYK", "JPEG"), ("RGBA", "PNG")])
def test_the_mode_is_the_stored_one(mode, kind):
    assert read_header(encode(TALL.convert(mode), kind)).mode == mode


def test_broken_files_are_blanks_in_their_place(tmp_path):
    (tmp_path / "whole.png").write_bytes(encode(TALL, "PNG"))
    facts = measure_files([b"", tmp_path / "gone.jpg", b"\xff\xd8\xff\xe0 no picture", tmp_path / "whole.png"])
    assert np.isnan(facts.width[:3]).all() and facts.width[3] == 30 and facts.aspect[3] == 1.5
    assert facts.bytes[[0, 2, 3]].tolist() == [0, 15, (tmp_path / "whole.png").stat().st_size]
    assert np.isnan(facts.bytes[1]) and facts.format == ("", "", "", "PNG")
    assert measure_files([]).width.shape == (0,) and measure_files([]).maker == ()


def test_a_header_is_read_where_pixels_are_missing():
    content = encode(TALL, "PNG")
    assert read_header(content[:60]).width == 30


def test_fuzzed_headers_neither_crash_nor_hang(capfd):
    rng = np.random.default_rng(0)
    exif = make_exif(6, maker="Canon", changed="2019:05:03 10:20:30", taken="2018:01:02 03:04:05")
    seeds = [encode(TALL, kind, exif=exif) for kind in FORMATS]
    values = np.array([0, 1, 8, 2**31 - 1, 2**32 - 1], np.uint32)
    fuzzed = []
    for content in seeds * 100:
        changed = bytearray(content)
        for place in rng.integers(0, min(len(content), 500) - 4, 4).tolist():
            changed[place : place + 4] = rng.choice(values).tobytes()
        fuzzed.append(bytes(changed))
    facts = measure_files(fuzzed)
    assert 0 < np.isnan(facts.width).sum() < 400 and (facts.bytes > 0).all()


def test_a_block_that_no_jpeg_could_hold_is_not_read():
    """Each of 60,000 tags could name all of it, to be copied."""
    exif = make_exif(maker="Canon")
    assert read_header(encode(TALL, "PNG", exif=exif)).maker == "Canon"
    exif[0x010E] = "x" * 70_000
    assert read_header(encode(TALL, "PNG", exif=exif)).maker == ""


def test_pixels_are_not_decoded(monkeypatch):
    contents = [encode(TALL, kind) for kind in FORMATS]
    calls: list[object] = []
    for plugin in (ImageFile.ImageFile, TiffImagePlugin.TiffImageFile, WebPImagePlugin.WebPImageFile):
        monkeypatch.setattr(plugin, "load", calls.append)
    assert measure_files(contents).format == FORMATS and not calls


def measure_one(image: np.ndarray) -> dict:
    return {name: value[0] for name, value in measure_pixels(image[None])._asdict().items()}


def test_brightness_is_luma_and_percentiles_are_of_pixels(photographs):
    facts = measure_pixels(photographs)
    luma = photographs @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(facts.brightness, luma.mean((1, 2)), atol=0.01)
    flat = np.floor(luma).reshape(len(luma), -1)
    np.testing.assert_allclose(facts.low, np.quantile(flat, 0.05, axis=1, method="inverted_cdf"), atol=1)
    np.testing.assert_allclose(facts.high, np.quantile(flat, 0.99, axis=1, method="inverted_cdf"), atol=1)
    np.testing.assert_allclose(facts.spread, photographs.std((1, 2)).max(1), rtol=1e-4)


def test_colors_of_equal_brightness_are_not_one_color():
    halves = np.zeros((16, 16, 3), np.uint8)
    halves[:8], halves[8:] = (130, 0, 0), (0, 66, 0)
    assert measure_one(halves)["spread"] > 30 and measure_one(halves[:8].repeat(2, 0))["spread"] == 0


def test_sharpness_is_lower_the_more_a_picture_is_blurred_whatever_its_contrast(photographs):
    blurred = [
        np.array([np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(width))) for photo in photographs])
        for width in (0, 1, 2, 3)
    ]
    medians = [np.median(measure_pixels(images).sharpness) for images in blurred]
    assert medians[0] > 2 and medians == sorted(medians, reverse=True) and medians[3] < 0.4
    # A fifth of the contrast: the variance of the Laplacian is that of a blurred picture, sharpness is not.
    faint = (photographs / 5 + 100).astype(np.uint8)
    variances = [np.median([laplace(image.mean(2)).var() for image in images]) for images in (faint, blurred[1])]
    assert variances[0] < variances[1]
    assert np.median(measure_pixels(faint).sharpness) > 0.7 * medians[0]


def frame(image: np.ndarray, width: int, color: tuple[int, int, int], sides: str = "all") -> np.ndarray:
    framed = image.copy()
    framed[:width] = framed[-width:] = color
    if sides == "all":
        framed[:, :width] = framed[:, -width:] = color
    return framed


@pytest.mark.parametrize("color", [(200, 30, 60), (0, 0, 0), (255, 255, 255), (20, 160, 40)])
@pytest.mark.parametrize("quality", [75, 95])
def test_a_border_of_two_pixels_is_seen_in_a_jpeg(photographs, color, quality):
    small = [Image.fromarray(photo).resize((32, 32), Image.Resampling.BOX) for photo in photographs]
    files = [encode(Image.fromarray(frame(np.asarray(image), 2, color)), "JPEG", quality=quality) for image in small]
    facts = measure_pixels(np.array([np.asarray(Image.open(io.BytesIO(file))) for file in files]))
    assert (facts.framed & (facts.edges == 4)).mean() > 0.7
    assert abs(np.median(facts.edge_color[facts.framed], axis=0) - color).max() < 16
    assert np.median(facts.border[facts.border > 0]) == pytest.approx(1 - 28**2 / 32**2, abs=0.12)


@pytest.mark.parametrize("sides, part", [("all", 1 - 40**2 / 64**2), ("rows", 24 / 64)])
def test_the_part_of_a_border_is_measured(photographs, sides, part):
    framed = np.array([frame(photo, 12, (0, 0, 0), sides) for photo in photographs[10:]])
    for images in (framed, framed.transpose(0, 2, 1, 3)):
        facts = measure_pixels(images)
        assert np.median(facts.border) == pytest.approx(part)
        assert set(facts.edges.tolist()) <= {2, 4} and np.median(facts.edges) == (4 if sides == "all" else 2)


def test_photographs_and_things_on_a_plain_ground_have_no_border(photographs):
    assert not measure_pixels(photographs).border.any()
    y, x = np.mgrid[:64, :64] - 31.5
    ball = np.where(np.hypot(y, x)[..., None] < 25, (200, 80, 40), (250, 250, 250)).astype(np.uint8)
    facts = measure_one(ball)
    assert (facts["border"], facts["framed"], facts["edges"]) == (0, False, 4)
    assert facts["edge_color"].tolist() == [250, 250, 250]


def test_a_colored_file_may_be_gray(photographs):
    gray = photographs.mean(3, keepdims=True).astype(np.uint8).repeat(3, 3)
    tinted = (gray * np.array([1, 0.9, 0.7])).astype(np.uint8)
    assert measure_pixels(gray).gray.all() and not measure_pixels(tinted).gray.any()


def test_pictures_are_read_in_parts(photographs, tmp_path, monkeypatch):
    paths = [tmp_path / f"{place}.png" for place in range(10)]
    for path, photo in zip(paths, photographs, strict=False):
        Image.fromarray(photo).save(path)

    def fetch(rows: np.ndarray) -> list[Path]:
        assert len(rows) <= 4
        return [paths[row] for row in rows]

    monkeypatch.setattr("tljax.check.properties.CHUNK", 4)
    done: list[float] = []
    read = measure_pixels(Encoded(fetch, np.arange(10), tuple(map(str, paths)), 64, ""), done.append)
    whole = measure_pixels(photographs[:10])
    assert all((one == other).all() for one, other in zip(read, whole, strict=True)) and len(read.gray) == 10
    assert done == sorted(done) and done[-1] == 1
    assert measure_pixels(photographs[:0]).border.shape == (0,)
