"""The pixels that `decode` gives, and decoding at once, on demand and in processes."""

import io
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pictures import save
from PIL import Image

from tljax.config import Data
from tljax.data import datasets, prefetch
from tljax.data.decoding import (
    ORIENTATION,
    PHOTOMETRIC,
    Encoded,
    decode,
    is_read_anew,
    read_picture,
    scale_values,
    to_rgb,
)
from tljax.data.prefetch import PIECE, read_ahead


def halves(left: int, right: int, mode: str, size: tuple[int, int] = (8, 8)) -> Image.Image:
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def test_decode_turns_a_photograph_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.jpg", halves(255, 0, "L", (32, 32)), exif=exif, quality=100)
    decoded = decode(path, 32)
    # A picture with orientation 6 is shown a quarter turn clockwise: the left half becomes the upper one.
    assert decoded[:12].min() > 240
    assert decoded[20:].max() < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(tmp_path, orientation):
    """Pillow turns it while it loads it, and turns no other format."""
    pixels = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    expected = to_rgb(Image.open(save(tmp_path / "x.png", pixels, exif=exif)))
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate"):
        path = save(tmp_path / "x.tif", pixels, tiffinfo={ORIENTATION: orientation}, compression=compression)
        loaded = Image.open(path)
        loaded.load()
        for read in (read_picture(path)[0], to_rgb(Image.open(path)), to_rgb(loaded), to_rgb(loaded.copy())):
            assert read.size == expected.size
            assert read.tobytes() == expected.tobytes()
        assert is_read_anew(path) == (orientation > 1)


def white_is_zero(path: Path) -> Path:
    """The TIFF at `path`, with its photometric interpretation changed."""
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [start + 2 + 12 * i for i in range(count)]
    (entry,) = [at for at in entries if struct.unpack_from("<H", data, at)[0] == PHOTOMETRIC]
    struct.pack_into("<H", data, entry + 8, 0)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("dtype", "largest", "anew"), [("uint8", 255, False), ("uint16", 65535, True), ("float32", 1, True)]
)
def test_a_tiff_whose_white_is_zero_is_inverted_once(tmp_path, dtype, largest, anew):
    values = (np.array([[0, 51, 255]]) / 255 * largest).astype(dtype)
    path = white_is_zero(save(tmp_path / "x.tif", Image.fromarray(values)))
    for read in (read_picture(path)[0], to_rgb(Image.open(path))):
        assert np.asarray(read)[0, :, 0].tolist() == [255, 204, 0]
    assert is_read_anew(path) == anew


def test_decode_gives_bytes_and_files_the_same_pixels(tmp_path):
    path = save(
        tmp_path / "random.png", Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8))
    )
    decoded = decode(path, 9)
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(path)))
    np.testing.assert_array_equal(decode(path.read_bytes(), 9), decoded)


def test_decode_repeats_gray(tmp_path):
    decoded = decode(save(tmp_path / "gray.png", halves(10, 200, "L")), 8)
    assert decoded.dtype == np.uint8
    assert decoded[0, 0].tolist() == [10, 10, 10]
    assert decoded[0, 7].tolist() == [200, 200, 200]


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_decode_scales_16_bits(tmp_path, extension):
    gray = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    decoded = decode(save(tmp_path / f"deep.{extension}", Image.fromarray(gray)), 2)
    assert decoded[..., 0].tolist() == [[0, 100], [200, 255]]


def test_decode_puts_alpha_on_white(tmp_path):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (4, 0, 8, 8))
    decoded = decode(save(tmp_path / "alpha.png", image), 8)
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[0, 7].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("transparency", "expected"), [(None, [9, 8, 7]), (1, [255, 255, 255])])
def test_decode_looks_colors_up_in_the_palette(tmp_path, transparency, expected):
    image = halves(0, 1, "P")
    image.putpalette([50, 60, 70, 9, 8, 7])
    settings = {} if transparency is None else {"transparency": transparency}
    decoded = decode(save(tmp_path / "palette.png", image, **settings), 8)
    assert decoded[0, 0].tolist() == [50, 60, 70]
    assert decoded[0, 7].tolist() == expected


def test_decode_converts_cmyk(tmp_path):
    decoded = decode(save(tmp_path / "print.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100), 8)
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() < 6


@pytest.mark.parametrize("upright", [False, True])
def test_decode_resizes_the_short_side_and_crops_the_centre(tmp_path, upright):
    size = (16, 48) if upright else (48, 16)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
    small = image.resize((size[0] // 2, size[1] // 2), Image.Resampling.BILINEAR)
    expected = small.crop((0, 8, 8, 16) if upright else (8, 0, 16, 8))
    decoded = decode(save(tmp_path / "long.png", image), 8)
    assert np.abs(decoded.astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_becomes_square_as_the_setting_says(tmp_path, fit):
    image = Image.new("RGB", (32, 16), (200, 0, 0))
    image.paste((0, 0, 200), (0, 0, 8, 16))
    decoded = decode(save(tmp_path / "wide.png", image), 16, fit)
    if fit == "crop":
        assert (decoded == [200, 0, 0]).all()
    elif fit == "pad":
        assert (decoded[:4] == 0).all() and (decoded[12:] == 0).all() and (decoded[5:11, :3, 2] == 200).all()
    else:
        assert (decoded[:, :3] == [0, 0, 200]).all() and (decoded[:, 5:] == [200, 0, 0]).all()
    for name in ("train/a", "train/b", "val/a", "val/b"):
        save(tmp_path / "pictures" / name / "0.png", image)
    config = Data(name=f"folder:{tmp_path / 'pictures'}", image_size=16, fit=fit)
    for memory in (2**20, 0):
        np.testing.assert_array_equal(
            datasets.load_dataset(config, seed=0, memory_bytes=memory).train.images[np.arange(1)], [decoded]
        )


def test_a_float_picture_from_0_to_1_is_read_and_another_is_refused(tmp_path):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    decoded = decode(save(tmp_path / "unit.tif", Image.fromarray(values)), 8)
    np.testing.assert_array_equal(decoded[..., 1], (values * 255).round())
    for wrong, said in ((values * 300, "float values from 0 to 300"), (values - 0.5, "float values from -0.5 to 0.5")):
        with pytest.raises(ValueError, match=f"{said}, of which only 0 to 1 are sure"):
            decode(save(tmp_path / "wrong.tif", Image.fromarray(wrong)), 8)


def test_values_whose_range_is_not_sure_are_refused():
    deep = np.array([[0, 4095]], np.uint16)
    assert scale_values(deep, "I;16", 12).tolist() == [[0, 255]]
    assert scale_values(deep * 16, "I;16", 16).tolist() == [[0, 255]]
    assert scale_values(deep * 0, "I;16", 16).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="16-bit values up to 4095 only, which may be 12-bit ones"):
        scale_values(deep, "I;16", 16)
    with pytest.raises(ValueError, match="32-bit values from 0 to 4095, whose range is not known"):
        scale_values(deep.astype(np.int32), "I", 32)


def test_odd_tags_beside_the_orientation_are_nobody_s_business(tmp_path):
    """A resolution that is written as text."""
    entries = struct.pack("<HHII", 0x112, 3, 1, 6) + struct.pack("<HHII", 0x11A, 2, 8, 38)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0) + b"72.0\0\0\0\0"
    image = halves(10, 200, "RGB")
    plain = decode(save(tmp_path / "plain.jpg", image, quality=100), 8)
    turned = decode(save(tmp_path / "turned.jpg", image, quality=100, exif=exif), 8)
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_a_png_with_a_large_profile_is_read(tmp_path):
    decoded = decode(save(tmp_path / "profile.png", halves(10, 200, "RGB"), icc_profile=bytes(3_000_000)), 8)
    assert decoded[0, 7].tolist() == [200, 0, 0]


def test_broken_pictures_are_named_together(tmp_path):
    for i in range(14):
        save(tmp_path / "train" / "ab"[i % 2] / f"{i:02d}.png", Image.new("RGB", (8, 8)))
    save(tmp_path / "val" / "a" / "0.png", Image.new("RGB", (8, 8)))
    for i in range(12):
        (tmp_path / "train" / "ab"[i % 2] / f"{i:02d}.png").write_bytes(b"<html>")
    with pytest.raises(
        ValueError, match=r"^12 images cannot be read: train/a/00.png .* and 2 others: replace or .*data.broken=skip$"
    ):
        read(tmp_path, memory_bytes=2**20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(2 * PIECE + 6):
        save(folder / "train" / "ab"[i % 2] / f"{i}.png", Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)))
    save(folder / "val" / "a" / "0.png", Image.new("RGB", (8, 8)))
    save(folder / "val" / "b" / "0.png", Image.new("RGB", (8, 8)))
    return folder


def read(folder, memory_bytes: int) -> datasets.Split:
    return datasets.load_dataset(Data(name=f"folder:{folder}", image_size=8), seed=0, memory_bytes=memory_bytes).train


def test_what_does_not_fit_is_decoded_when_it_is_asked_for(folder):
    whole = read(folder, memory_bytes=70 * 192)
    asked = read(folder, memory_bytes=70 * 192 - 1)
    assert isinstance(whole.images, np.ndarray) and isinstance(asked.images, Encoded)
    assert (asked.images.shape, asked.images.nbytes) == (whole.images.shape, whole.images.nbytes)
    assert asked.ids == whole.ids and asked.labels.tolist() == whole.labels.tolist()
    for places in (np.arange(70), np.array([[3, 69], [3, 0]]), np.empty(0, int)):
        np.testing.assert_array_equal(asked.images[places], whole.images[places])


def test_processes_decode_in_the_order_of_the_places(folder):
    whole, asked = read(folder, memory_bytes=2**20).images, read(folder, memory_bytes=0).images
    shuffled = np.random.default_rng(0).permutation(70)
    places = [shuffled[:40].reshape(4, 10), shuffled[40:], np.array([5])]
    for chosen, images in zip(places, read_ahead(asked, places), strict=True):
        np.testing.assert_array_equal(images, whole[chosen])


@pytest.mark.parametrize(("free", "workers"), [(2**40, 5), (3 * 100 * 2 + 1, 2), (299, 0)])
def test_only_as_many_processes_decode_as_there_is_shared_memory_for(monkeypatch, free, workers):
    monkeypatch.setattr(prefetch, "free_shared_memory", lambda: free)
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert prefetch.count_workers(100, 20) == workers
    assert prefetch.count_workers(100, 1) == min(workers, 1)


def test_without_shared_memory_this_process_decodes_and_says_so(folder, monkeypatch, capsys):
    whole, asked = read(folder, memory_bytes=2**20).images, read(folder, memory_bytes=0).images
    monkeypatch.setattr(prefetch, "free_shared_memory", lambda: 1000)
    places = [np.arange(40).reshape(4, 10), np.array([5])]
    for chosen, images in zip(places, read_ahead(asked, places), strict=True):
        np.testing.assert_array_equal(images, whole[chosen])
    assert "images are decoded in this one, which is slower" in capsys.readouterr().out


def test_a_damaged_image_is_named_by_the_process_that_decodes_it(tmp_path):
    for name in ("train/a/0.png", "train/b/0.png", "val/a/0.png", "val/b/0.png"):
        save(tmp_path / name, Image.new("RGB", (8, 8)))
    (tmp_path / "train/b/0.png").write_bytes(b"no picture")
    images = read(tmp_path, memory_bytes=0).images
    with pytest.raises(ValueError, match=r"train/b/0\.png is no readable image"):
        list(read_ahead(images, [np.arange(2)]))


def encode_jpeg(**settings) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((40, 48)).save(file, "JPEG", **settings)
    return file.getvalue()


@pytest.mark.parametrize("settings", [{}, {"quality": 95}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_may_lack_its_end_marker_and_nothing_else(settings):
    whole = encode_jpeg(**settings)
    pixels, _ = read_picture(whole)
    read = {}
    for missing in (*range(30), len(whole) // 4, len(whole) // 2):
        with suppress(Exception):
            read[missing] = read_picture(whole[: len(whole) - missing])
    assert {missing: finished for missing, (_, finished) in read.items()} == {0: True, 1: False, 2: False}
    assert all(found.tobytes() == pixels.tobytes() for found, _ in read.values())


def test_a_jpeg_without_end_marker_is_read_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(encode_jpeg())
    (tmp_path / "data" / "a" / "1.jpg").write_bytes(encode_jpeg()[:-2])
    config = Data(name=f"folder:{tmp_path / 'data'}", image_size=32)
    for _ in ("decoded", "found in the cache"):
        (warning,) = datasets.load_dataset(config, seed=0, disk_bytes=2**20).description["warnings"]
        assert "1 JPEGs lack their end marker and are read, since no row is missing: a/1.jpg" in warning


def test_a_script_without_a_main_guard_runs_once_and_an_error_leaves_no_warning_of_leaked_memory(folder, tmp_path):
    (tmp_path / "script.py").write_text(f"""
import sys
print("runs", flush=True)
from pathlib import Path
import numpy as np
from tljax.data.decoding import Encoded
from tljax.data.prefetch import read_ahead
files = sorted(Path({str(folder)!r}).rglob("*.png"))
names = tuple(map(str, range(400)))
images = Encoded(lambda rows: [files[i % len(files)] for i in rows], np.arange(400), names, 32, "")
for part in read_ahead(images, list(np.arange(400).reshape(20, 20))):
    kept = part
    sys.exit("stopped")
""")
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (1, "runs\n", "stopped\n")
