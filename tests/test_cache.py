"""Cached arrays are found again whole or not at all, and never take more room than they may."""

import errno
import json
import stat
from pathlib import Path

import numpy as np
import pytest
from jax import ShapeDtypeStruct

from tljax.storage import cache

SHAPES = {"x": ShapeDtypeStruct((100, 10), np.float32)}
SIZE = 4000


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(name: str, disk_bytes: int = 2**20, value: float = 1.0):
    with cache.build({"what": name}, SHAPES, disk_bytes) as arrays:
        arrays["x"][:] = value
        arrays["names"] = np.array(["a", "b"])
    return arrays


def test_arrays_are_found_again_under_the_same_description():
    assert cache.find({"what": "a"}) is None
    made, found = make("a"), cache.find({"what": "a"})
    for name in ("x", "names"):
        np.testing.assert_array_equal(made[name], found[name])
        assert made[name].dtype == found[name].dtype
    assert cache.find({"what": "b"}) is None
    assert cache.find({"what": "a", "size": 1}) is None
    cache.forget({"what": "a"})
    assert cache.find({"what": "a"}) is None


def test_nobody_else_can_enter(folder):
    make("a")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", ["flip", "truncate", "no file", "no about", "half an about", "other type"])
def test_a_damaged_entry_is_not_found_and_made_again(folder, damage, capsys):
    make("a")
    (entry,) = (folder / "arrays").iterdir()
    path = entry / "x.npy"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-777] ^= 4
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-1])
    elif damage == "no file":
        path.unlink()
    elif damage == "no about":
        (entry / "about.json").unlink()
    elif damage == "half an about":
        (entry / "about.json").write_text((entry / "about.json").read_text()[:20])
    else:
        path.write_bytes(content.replace(b"<f4", b"<i4"))
    assert cache.find({"what": "a"}) is None
    assert "the cached a in" in capsys.readouterr().out
    assert not entry.exists()
    make("a")
    assert cache.find({"what": "a"}) is not None


def test_a_failure_leaves_nothing(folder):
    with pytest.raises(RuntimeError), cache.build({"what": "a"}, SHAPES, 2**20) as arrays:
        arrays["x"][:] = 1
        raise RuntimeError
    assert not list((folder / "arrays").iterdir())


def test_what_was_unused_longest_goes_first(folder):
    import os

    for age, name in enumerate("cba"):
        make(name)
        newest = max((folder / "arrays").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (age, age))
    assert cache.find({"what": "c"}) is not None  # the oldest, but just used
    make("d", disk_bytes=3 * (SIZE + 1500))
    assert [cache.find({"what": name}) is not None for name in "abcd"] == [True, False, True, True]


@pytest.mark.parametrize("disk_bytes", [0, SIZE - 1])
def test_without_room_arrays_are_in_memory_alone(folder, disk_bytes, capsys):
    arrays = make("big", disk_bytes=disk_bytes)
    assert arrays["x"].sum() == 1000
    assert cache.find({"what": "big"}) is None
    assert ("big are not kept: " in capsys.readouterr().out) == (disk_bytes > 0)


def test_a_folder_that_cannot_be_made_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert make("a")["x"].sum() == 1000
    assert "a are not kept: " in capsys.readouterr().out
    assert cache.find({"what": "a"}) is None


def test_a_user_without_a_home_or_rights_goes_on_without_a_cache(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TLJAX_CACHE_DIR")
    monkeypatch.setattr("pooch.os_cache", lambda name: "~/.cache/tljax")
    assert make("a")["x"].sum() == 1000
    assert "a are not kept: this user has no home folder; TLJAX_CACHE_DIR names a folder" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pooch.os_cache", lambda name: "/.cache/tljax")
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert make("a")["x"].sum() == 1000
    assert "/.cache/tljax: Permission denied; TLJAX_CACHE_DIR names another cache folder" in capsys.readouterr().out


def test_a_full_disk_is_said(monkeypatch, capsys):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**26})())
    assert make("a")["x"].sum() == 1000
    assert "a are not kept: " in capsys.readouterr().out


def test_about_is_kept_for_people(folder):
    make("a")
    (entry,) = (folder / "arrays").iterdir()
    assert json.loads((entry / "about.json").read_text())["what"] == "a"
