"""Digests of files: an unchanged file is not read again, a changed one is, whatever its size and times say."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tljax.storage import cache, file_index
from tljax.storage.file_index import FileIndex, digest_bytes, open_index

DISK = 2**24
FULL = SimpleNamespace(free=0)


@pytest.fixture
def files(tmp_path, monkeypatch) -> list[str]:
    """Paths of three files; they count as old, though they were made just now."""
    monkeypatch.setenv("TLJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(file_index, "TICK", 0)
    paths = [tmp_path / f"{name}.bmp" for name in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    return list(map(str, paths))


def digest(paths: list[str], disk_bytes: int = DISK) -> np.ndarray:
    with open_index("pictures", disk_bytes) as index:
        return index.complete(index.look_up(paths), "reading").digests


def list_known(paths: list[str], disk_bytes: int = DISK) -> list[bool]:
    with open_index("pictures", disk_bytes) as index:
        return index.look_up(paths).known.tolist()


def edit(path: str) -> None:
    """Changes a file, but not its size, its inode and the time of its last change."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)


def test_an_unchanged_file_is_not_read_again_and_an_edited_one_is(files):
    first = digest(files)
    np.testing.assert_array_equal(first, [digest_bytes(Path(path).read_bytes()) for path in files])
    assert list_known(files) == [True] * 3
    edit(files[1])
    assert list_known(files) == [True, False, True]
    again = digest(files)
    assert (again != first).any(axis=1).tolist() == [False, True, False]
    assert list_known(files) == [True] * 3


def test_a_file_with_the_place_of_another_is_read(files):
    digest(files)
    os.replace(files[0], files[1])
    assert list_known(files[1:]) == [False, True]


def test_a_file_that_may_change_within_the_tick_is_read_again(files, monkeypatch):
    monkeypatch.setattr(file_index, "TICK", 10**12)
    digest(files)
    assert list_known(files) == [False] * 3


def test_without_room_on_the_disk_all_is_read(files):
    np.testing.assert_array_equal(digest(files, 0), digest(files))
    assert list_known(files, 0) == [False] * 3


def test_rows_of_other_files_stay_and_those_of_files_that_are_gone_do_not(files):
    digest(files[:2])
    digest(files[2:])
    assert list_known(files) == [True] * 3
    os.unlink(files[0])
    edit(files[1])
    digest(files[1:])
    found = cache.find({"what": "digests of the files of pictures", "index": 1})
    assert found is not None and [Path(p).name for p in found["paths"].tobytes().decode().split("\0")[:-1]] == [
        "b.bmp",
        "c.bmp",
    ]


def test_what_was_read_before_an_error_is_kept(files):
    with pytest.raises(ValueError, match="broken"), open_index("pictures", DISK) as index:
        index.complete(index.look_up(files), "reading")
        raise ValueError("broken")
    assert list_known(files) == [True] * 3


def test_a_file_that_cannot_be_read_has_no_digest(files, monkeypatch):
    monkeypatch.setattr(file_index, "_digest_file", lambda path: None if path == files[0] else digest_bytes(b"x"))
    with open_index("pictures", DISK) as index:
        found = index.complete(index.look_up(files), "reading")
    assert found.known.tolist() == [False, True, True] and not found.digests[0].any()


def test_a_damaged_index_is_made_again(files, capsys):
    digest(files)
    (array,) = cache.folder("arrays").glob("*/digests.npy")
    array.write_bytes(array.read_bytes()[:-1] + b"?")
    np.testing.assert_array_equal(digest(files), [digest_bytes(Path(path).read_bytes()) for path in files])
    assert "damaged" in capsys.readouterr().out
    assert list_known(files) == [True] * 3


@pytest.mark.parametrize("name", ["paths", "stamps", "digests"])
def test_an_index_that_somebody_edited_is_made_again(files, name):
    digest(files)
    about = {"what": "digests of the files of pictures", "index": 1}
    found = {key: np.array(array) for key, array in (cache.find(about) or {}).items()}
    for edited in (found[name][:-1], found[name].astype(np.float32), None):
        with cache.build(about, {}, DISK) as kept:
            kept |= found | ({name: edited} if edited is not None else {})
            if edited is None:
                del kept[name]
        np.testing.assert_array_equal(digest(files), [digest_bytes(Path(path).read_bytes()) for path in files])
    assert list_known(files) == [True] * 3


def test_a_full_disk_is_said_and_nothing_else(files, monkeypatch, capsys):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: FULL)
    np.testing.assert_array_equal(digest(files), [digest_bytes(Path(path).read_bytes()) for path in files])
    assert "no space left" in capsys.readouterr().out


def test_several_runs_at_once_leave_an_index_that_can_be_read(files):
    indexes = [FileIndex({"what": "digests of the files of pictures", "index": 1}, DISK) for _ in range(8)]
    for index in indexes:
        index.complete(index.look_up(files), "reading")
    threads = [threading.Thread(target=index.save) for index in indexes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list_known(files) == [True] * 3


SAVING = """import sys
from tljax.storage import file_index
file_index.TICK = 0
while True:
    with file_index.open_index("pictures", 2**24) as index:
        index.complete(index.look_up(sys.argv[1:]), "reading")
        index._changed = True
    print(flush=True)
"""


def test_a_kill_while_it_is_kept_leaves_the_index_before_or_none(files, capsys):
    rng = np.random.default_rng(0)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", SAVING, *files], stdout=subprocess.PIPE) as saving:
            assert saving.stdout is not None and saving.stdout.readline() == b"\n"
            time.sleep(rng.uniform(0, 0.03))
            saving.kill()
        np.testing.assert_array_equal(digest(files), [digest_bytes(Path(path).read_bytes()) for path in files])
    # What is kept next removes what is half-written.
    edit(files[0])
    digest(files)
    assert list_known(files) == [True] * 3
    assert "damaged" not in capsys.readouterr().out
    # A kill just after a folder is made leaves it empty.
    assert all(not any(path.iterdir()) for path in cache.folder("arrays").glob("*-*"))
