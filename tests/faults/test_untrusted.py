"""Weight files and images from untrusted sources: one line says what is wrong, nothing is run, memory is bounded.

The long form takes a thousand weight files and two hundred images: `pytest tests/faults/test_untrusted.py -m long -s`
"""

import io
import json
import pickle
import random
import resource
import struct
import time
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from safetensors.numpy import save_file

from tljax.data.decoding import MOST_PIXELS, Encoded
from tljax.weights import pretrained
from tljax.weights.untrusted import MOST_BYTES, MOST_OBJECTS

SHAPE = (7, 7, 3, 64)


class Payload:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_h5(path: Path, fill=None, **settings) -> Path:
    """Writes a file with one layer, as Keras does.

    `fill(group, name)` makes the kernel; without it, the kernel is all ones, and h5py stores it with `settings`.
    """
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1_conv"]
        group = file.create_group("conv1_conv")
        group.attrs["weight_names"] = [b"conv1_conv/kernel:0"]
        inner = group.create_group("conv1_conv")
        if fill is None:
            inner.create_dataset("kernel:0", data=np.ones(SHAPE, np.float32), **settings)
        else:
            fill(inner, "kernel:0")
    return path


def write_safetensors(path: Path, header: dict | bytes, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def virtual(folder: Path):
    def fill(group, name):
        write_h5(folder / "other.h5")
        layout = h5py.VirtualLayout(SHAPE, np.float32)
        layout[:] = h5py.VirtualSource(folder / "other.h5", "conv1_conv/conv1_conv/kernel:0", SHAPE)
        group.create_virtual_dataset(name, layout)

    return fill


def external(folder: Path):
    def fill(group, name):
        (folder / "secret").write_bytes(bytes(int(np.prod(SHAPE)) * 4))
        group.create_dataset(name, SHAPE, np.float32, external=[(folder / "secret", 0, h5py.h5f.UNLIMITED)])

    return fill


def soft_link(group, name):
    group.file["elsewhere"] = np.ones(SHAPE, np.float32)
    group[name] = h5py.SoftLink("/elsewhere")


def external_link(folder: Path):
    def fill(group, name):
        write_h5(folder / "other.h5")
        group[name] = h5py.ExternalLink(folder / "other.h5", "conv1_conv/conv1_conv/kernel:0")

    return fill


def circle(group, name):
    group[name] = group


def bomb(group, name):
    group.create_dataset(name, (2**20, 2**20), np.float32, chunks=(1024, 1024))


def packed_bomb(group, name):
    group.create_dataset(name, data=np.zeros((2**24,), np.float32), chunks=(2**24,), compression="gzip")


def many(group, name):
    for i in range(30):
        group.create_dataset(f"{i}", data=np.zeros((1,)), shape=(1,))
    group.create_dataset(name, (MOST_BYTES // 4 + 1,), np.float32)


def crowd(group, name):
    space = h5py.h5s.create_simple((0,))
    for i in range(MOST_OBJECTS):
        h5py.h5d.create(group.id, f"{i}".encode(), h5py.h5t.NATIVE_FLOAT, space).close()


def deep(group, name):
    for _ in range(600):
        group = group.create_group("a")


def long(group, name):
    group.create_dataset("x" * 60_000, data=np.ones(SHAPE, np.float32))


def write_many_layers(path: Path) -> Path:
    """A file of some kilobytes whose layers name 400 million weights."""
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["layer_names"] = np.array([b"a"] * 20_000)
        file.create_group("a").attrs["weight_names"] = np.array([b"x"] * 20_000)
        file["a/x"] = np.ones(1, np.float32)
    return path


def pack(path: Path, h5: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(h5, "model.weights.h5")
    return path


def plugin(group, name):
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((7, 7, 3, 64))
    settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple(SHAPE), settings)


def crafted(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files made to do harm, each with a part of the message that it must lead to."""
    ones = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    files = {
        "virtual": (write_h5(folder / "virtual.h5", virtual(folder)), "composed of others"),
        "external": (write_h5(folder / "external.h5", external(folder)), "lies outside"),
        "soft link": (write_h5(folder / "soft.h5", soft_link), "a link to somewhere else"),
        "external link": (write_h5(folder / "link.h5", external_link(folder)), "a link to somewhere else"),
        "circle": (write_h5(folder / "circle.h5", circle), "is there twice"),
        "bomb": (write_h5(folder / "bomb.h5", bomb), "larger than what the file holds"),
        "packed bomb": (write_h5(folder / "packed.h5", packed_bomb), "larger than what the file holds"),
        "many": (write_h5(folder / "many.h5", many), "larger than what the file holds"),
        "plugin": (write_h5(folder / "plugin.h5", plugin), "compressed by a plugin"),
        "header": (write_safetensors(folder / "header.safetensors", {}, length=2**62), "eader"),
        "overlap": (
            write_safetensors(folder / "overlap.safetensors", {"a": ones, "b": ones}, bytes(8)),
            "no readable .safetensors file",
        ),
        "beyond": (
            write_safetensors(folder / "beyond.safetensors", {"a": ones | {"data_offsets": [0, 2**40]}}, bytes(8)),
            "no readable .safetensors file",
        ),
        "shape": (
            write_safetensors(folder / "shape.safetensors", {"a": ones | {"shape": [2**62, 2**62]}}, bytes(8)),
            "no readable .safetensors file",
        ),
        "deep": (
            write_safetensors(folder / "deep.safetensors", b'{"a":' + b"[" * 10**6),
            "no readable .safetensors file",
        ),
    }
    h5 = write_h5(folder / "crowd.h5", crowd)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    files |= {
        "crowd .h5": (h5, "it has 20,002 arrays and groups"),
        "crowd .keras": (pack(folder / "crowd.keras", h5), "it has 20,002 arrays and groups"),
        "crowd .safetensors": (
            write_safetensors(folder / "crowd.safetensors", {f"{i}": empty for i in range(200_000)}),
            "it has 200,000 arrays; 20,000 at most",
        ),
        "deep .h5": (write_h5(folder / "deep.h5", deep), "letters; 1,000 at most"),
        "long .h5": (write_h5(folder / "long.h5", long), "letters; 1,000 at most"),
        "long .safetensors": (
            write_safetensors(folder / "long.safetensors", {"x" * 10**6: ones}, bytes(8)),
            "a name in it has 1,000,000 letters",
        ),
        "large header": (
            write_safetensors(folder / "large.safetensors", b" " * (2**24 + 1)),
            "its header takes 16,777,217 bytes",
        ),
        "many layers": (write_many_layers(folder / "layers.h5"), "its layers name 20,001 weights, or more"),
    }
    for suffix, said in ((".h5", "no readable"), (".safetensors", "no readable"), (".pth", "is a pickle")):
        path = folder / f"pickle{suffix}"
        path.write_bytes(pickle.dumps(Payload(folder / "was run")))
        files[f"pickle{suffix}"] = path, said
    return files


def refuse(path: Path) -> str:
    """The message that refuses a weight file; empty if it is read."""
    try:
        pretrained.load_weights(str(path))
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("settings", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True}])
def test_what_keras_may_write_is_read(tmp_path, settings):
    assert not refuse(write_h5(tmp_path / "good.h5", **settings))


def test_files_made_to_do_harm(tmp_path):
    for name, (path, said) in crafted(tmp_path).items():
        found = refuse(path)
        assert said in found and str(path) in found and "\n" not in found and len(found) < 600, (name, found)
    assert not (tmp_path / "was run").exists()


def test_a_file_that_breaks_its_reader_is_named(tmp_path, monkeypatch):
    from tljax.weights import untrusted

    monkeypatch.setattr(untrusted, "SECONDS", 0.01)
    assert "reading takes too long" in refuse(write_h5(tmp_path / "good.h5"))


def mutate(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    way = rng.randrange(4)
    if way == 0:
        del changed[rng.randrange(len(changed)) :]
    elif way == 1:
        # Only in the first bytes, which hold the structure: flips in the numbers would change nothing but weights.
        for _ in range(rng.randrange(1, 20)):
            changed[rng.randrange(min(len(changed), 6000))] ^= 1 << rng.randrange(8)
    elif way == 2:
        start = rng.randrange(min(len(changed), 6000))
        changed[start : start + 8] = rng.choice([b"\xff" * 8, bytes(8), struct.pack("<Q", 2**62), rng.randbytes(8)])
    else:
        start, length = rng.randrange(len(changed)), rng.randrange(1, 200)
        changed[start:start] = rng.randbytes(length)
    return bytes(changed)


def base_files(folder: Path) -> list[Path]:
    save_file({"conv1.weight": np.ones((64, 3, 7, 7), np.float32)}, folder / "good.safetensors")
    with h5py.File(folder / "good.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.ones(SHAPE, np.float32)
    return [
        write_h5(folder / "good.h5"),
        write_h5(folder / "packed.h5", compression="gzip", chunks=SHAPE),
        folder / "good.weights.h5",
        folder / "good.safetensors",
    ]


def take_weights(folder: Path, count: int) -> Counter:
    rng, found = random.Random(0), Counter()
    good = [(path, path.read_bytes()) for path in base_files(folder)]
    for i in range(count):
        path, content = good[i % len(good)]
        bad = folder / f"bad_{i}_{path.name}"
        bad.write_bytes(mutate(content, rng))
        said = refuse(bad)
        assert "\n" not in said and (not said or str(bad) in said), said
        found["refused" if said else "read"] += 1
        found["its reader broke"] += "it breaks its reader" in said or "takes too long" in said
        bad.unlink()
    return found


def test_malformed_weights(tmp_path):
    found = take_weights(tmp_path, 12)
    assert found["refused"] > 4


@pytest.mark.long
def test_a_thousand_malformed_weights(tmp_path):
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, time.monotonic()
    found = take_weights(tmp_path, 1000)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"\n{dict(found)} in {time.monotonic() - started:.0f} s; largest reader {max(before, most) / 2**10:.0f} MiB")
    assert found["refused"] + found["read"] == 1000


def encode(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def decode_all(encoded: list[bytes]) -> list[str]:
    """The message that refuses each image; empty if it is decoded."""
    ids = tuple(f"image {i}" for i in range(len(encoded)))
    images = Encoded(lambda rows: [encoded[i] for i in rows], np.arange(len(encoded)), ids, 32, "")
    found = []
    for i in range(len(encoded)):
        try:
            images[np.array([i])]
            found.append("")
        except ValueError as error:
            found.append(str(error))
    return found


def huge_png(width: int, height: int) -> bytes:
    """A small file whose header says that it holds `width` x `height` pixels."""
    small = bytearray(encode(Image.new("RGB", (8, 8)), "PNG"))
    small[16:24] = struct.pack(">II", width, height)
    small[29:33] = struct.pack(">I", __import__("zlib").crc32(bytes(small[12:29])))
    return bytes(small)


def test_images_made_to_do_harm(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 2**27, zip=True)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(" + bytes(str(tmp_path / "was run"), "ascii")
    found = decode_all(
        [
            huge_png(2**31 - 1, 2**31 - 1),
            huge_png(MOST_PIXELS // 1000 + 1, 1000),
            encode(Image.new("L", (8, 8)), "PNG", pnginfo=text),
            postscript + b") (w) file closefile\n%%EOF",
            pickle.dumps(Payload(tmp_path / "was run")),
        ]
    )
    assert all(said.startswith(f"image {i} is no readable image (") for i, said in enumerate(found)), found
    assert all("\n" not in said and len(said) < 400 for said in found)
    assert "pixels" in found[0] and "more than 100,000,000" in found[1]
    assert not (tmp_path / "was run").exists()


def take_images(count: int) -> Counter:
    rng = random.Random(0)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8))
    good = [encode(noise, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")]
    found = decode_all([mutate(good[i % len(good)], rng) for i in range(count)])
    assert all("\n" not in said and len(said) < 400 for said in found)
    return Counter("refused" if said else "decoded" for said in found)


@pytest.mark.parametrize("count", [60, pytest.param(200, marks=pytest.mark.long)])
def test_malformed_images(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = take_images(count)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"\n{dict(found)}; memory grew by {grown / 2**10:.0f} MiB at most")
    assert found["refused"] > count / 4
    assert grown < 2**20
