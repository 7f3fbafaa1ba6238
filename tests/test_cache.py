"""Cached arrays are found again whole or not at all, and never take more room than they may."""

import errno
import json
import os
import shutil
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


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_can_enter(folder):
    make("a")
    cache.folder("programs/x")
    made = [folder, folder / "arrays", folder / "programs", folder / "programs" / "x"]
    assert [mode_of(path) for path in made] == [0o700] * 4


def test_a_folder_that_was_there_keeps_its_rights_and_what_lies_in_it_does_not(folder):
    """Others may use the folder too. `arrays` may come from a version that gave it the usual rights."""
    (folder / "arrays").mkdir(parents=True)
    (folder / "arrays").chmod(0o777)
    folder.chmod(0o2775)
    make("a")
    assert mode_of(folder) == 0o2775 and mode_of(folder / "arrays") == 0o700
    assert cache.find({"what": "a"}) is not None


def test_a_folder_of_somebody_else_is_said(folder, monkeypatch, capsys):
    def refuse(path, mode):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    assert make("a")["x"].sum() == 1000
    said = f"a are not kept: {folder}/arrays: Operation not permitted; TLJAX_CACHE_DIR names another cache folder\n"
    assert capsys.readouterr().out == said
    assert cache.find({"what": "a"}) is None
    cache.forget({"what": "a"})


def test_a_file_beside_the_entries_is_in_nobodys_way(folder):
    cache.folder("arrays").joinpath(".DS_Store").touch()
    make("a")
    assert cache.find({"what": "a"}) is not None


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


def change(**values):
    """What an entry's description becomes if somebody edits `values` in it."""
    return lambda about: about | values


def without(*names):
    return lambda about: {name: value for name, value in about.items() if name not in names}


def with_list(edit):
    return lambda about: about | {"sha256": edit(about["sha256"])}


@pytest.mark.parametrize(
    "edit",
    [
        lambda about: [],
        lambda about: 5,
        change(sha256=[]),
        change(sha256=None),
        change(sha256="x"),
        change(what="b"),
        change(size=1),
        without("what"),
        without("sha256"),
        with_list(without("names")),
        # As an entry of an older version, it lists an array less than it has.
        lambda about: without("sha256_of_list")(with_list(without("names"))(about)),
        with_list(lambda kept: {f"../{name}": digest for name, digest in kept.items()}),
        lambda about: without("sha256_of_list")(with_list(change(**{"../x": "x"}))(about)),
        with_list(change(x=5)),
        change(sha256_of_list=[]),
    ],
)
def test_an_edited_about_is_made_again(folder, edit, capsys):
    make("a")
    (entry,) = (folder / "arrays").iterdir()
    (entry / "about.json").write_text(json.dumps(edit(json.loads((entry / "about.json").read_text()))))
    assert cache.find({"what": "a"}) is None
    said = capsys.readouterr().out
    assert said.startswith(f"the cached a in {entry} are damaged (") and said.count("\n") == 1
    make("a")
    assert cache.find({"what": "a"}).keys() == {"x", "names"}


@pytest.mark.parametrize("damage", ["pipe", "nested", "file"])
def test_what_is_no_description_at_all_is_made_again(folder, damage, capsys):
    make("a")
    (entry,) = (folder / "arrays").iterdir()
    (entry / "about.json").unlink()
    if damage == "pipe":
        os.mkfifo(entry / "about.json")
    elif damage == "nested":
        (entry / "about.json").write_text("[" * 100_000)
    else:
        shutil.rmtree(entry)
        entry.write_text("")
    assert cache.find({"what": "a"}) is None
    assert "the cached a in" in capsys.readouterr().out
    make("a")
    assert cache.find({"what": "a"}) is not None


def test_an_entry_without_a_digest_of_its_list_is_found(folder):
    """Earlier versions wrote such entries."""
    make("a")
    (entry,) = (folder / "arrays").iterdir()
    about = json.loads((entry / "about.json").read_text())
    (entry / "about.json").write_text(json.dumps(without("sha256_of_list")(about)))
    assert cache.find({"what": "a"}).keys() == {"x", "names"}


def test_a_failure_leaves_nothing(folder):
    with pytest.raises(RuntimeError), cache.build({"what": "a"}, SHAPES, 2**20) as arrays:
        arrays["x"][:] = 1
        raise RuntimeError
    assert not list((folder / "arrays").iterdir())


def test_what_was_unused_longest_goes_first(folder):
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


def test_an_entry_that_another_run_replaces_is_not_called_damaged(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path))
    about = {"what": "numbers"}

    def keep() -> None:
        with cache.build(about, {}, 2**20) as kept:
            kept["numbers"] = np.arange(3)

    keep()
    load = np.load

    def load_late(*arguments, **settings):
        keep()
        return load(*arguments, **settings)

    monkeypatch.setattr(cache.np, "load", load_late)
    found = cache.find(about)
    monkeypatch.undo()
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path))
    assert found is None or found["numbers"].tolist() == [0, 1, 2]
    assert cache.find(about) is not None and "damaged" not in capsys.readouterr().out
