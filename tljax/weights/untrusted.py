"""Reads the arrays of weight files that cannot be trusted.

HDF5 is a large library that a bad file can break. So a separate process, which runs this module as a script, reads the
weight file with limits on memory and time. It returns plain arrays, or one line that says what is wrong.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

FileArrays = dict[str, np.ndarray]

# Limit for a file, and for all of its arrays together. ResNet50 takes 98 MiB; a head for more classes and numbers of
# 8 bytes make it a few times larger.
MOST_BYTES = 2**30
# Limits for the number of arrays and groups, and for a name with its path: ResNet152 has 932 arrays in torchvision's
# file, and no name of more than 100 letters. The header of a .safetensors file has the names and some notes.
MOST_OBJECTS, MOST_LETTERS, MOST_HEADER = 20_000, 1000, 2**24
# Limits of the process that reads: bytes of address space, and seconds.
MEMORY = 2**32
SECONDS = 120
# HDF5's built-in filters by their ids. For any other filter, HDF5 would look for a plugin library and load it.
FILTERS = {"deflate": 1, "shuffle": 2, "fletcher32": 3}
# Limit for an array's size over its compressed size: zeros shrink to a thousandth, trained weights hardly at all.
MOST_COMPRESSED = 100


# The endings of files that are read, in small or capital letters.
ENDINGS = (".h5", ".hdf5", ".keras", ".safetensors")


def read(path: Path) -> tuple[FileArrays, str]:
    """The arrays by name of a file with one of `ENDINGS`, and their naming scheme: `keras`, `keras_counters`, `torch`.

    Raises:
      ValueError: in one line, if the file cannot be read, or holds what no weight file needs: links, arrays that lie in
        other files or are composed of others, compression by plugins, arrays larger than the file's data for them.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "arrays.npz"
        environment = os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", __file__, str(path), str(target)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{path} is no readable {path.suffix} file: reading takes too long") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            reason = lines[-1][:300] if lines and done.returncode == 1 else f"it breaks its reader ({done.returncode})"
            raise ValueError(f"{path} is no readable {path.suffix} file: {reason}")
        kind, *names = json.loads(done.stdout)
        with np.load(target, allow_pickle=False) as arrays:
            return {name: arrays[f"arr_{i}"] for i, name in enumerate(names)}, kind


def _read_safetensors(path: Path) -> tuple[FileArrays, str]:
    # This import registers bfloat16 with NumPy.
    import ml_dtypes  # noqa: F401
    from safetensors.numpy import load_file

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        _refuse_more(length, MOST_HEADER, "its header takes {:,} bytes")
        names = json.loads(file.read(length))
    _refuse_more(len(names), MOST_OBJECTS, "it has {:,} arrays")
    _refuse_more(max(map(len, names), default=0), MOST_LETTERS, "a name in it has {:,} letters")
    return load_file(path), "torch"


def _refuse_more(found: int, most: int, what: str) -> None:
    if found > most:
        raise ValueError(f"{what.format(found)}; {most:,} at most are read")


def _read_keras(path: Path) -> tuple[FileArrays, str]:
    """The weights in a `.keras` file, which is a zip archive. Nothing else in it is read."""
    import io
    import zipfile

    with zipfile.ZipFile(path) as archive:
        if "model.weights.h5" not in archive.namelist():
            raise ValueError("there is no model.weights.h5 in it")
        if archive.getinfo("model.weights.h5").file_size > MOST_BYTES:
            raise ValueError(f"its weights take more than {MOST_BYTES / 2**30:g} GiB")
        with archive.open("model.weights.h5") as file:
            return _read_h5(io.BytesIO(file.read(MOST_BYTES)))


def _read_h5(path: Any) -> tuple[FileArrays, str]:
    import h5py

    with h5py.File(path) as file:
        arrays: FileArrays = {}
        root = _get(file, "model_weights") if "model_weights" in file else file
        _collect(root, "", arrays, seen=set(), room=[MOST_BYTES])
        if "layer_names" in root.attrs:
            names = list(islice(_list_weights(root), MOST_OBJECTS + 1))
            _refuse_more(len(names), MOST_OBJECTS, "its layers name {:,} weights, or more")
            return {name: arrays[path] for path, name in names}, "keras"
        if "layers" in root:
            # Optimizers' states are no weights.
            return {
                name: array for name, array in arrays.items() if not name.startswith("optimizer/")
            }, "keras_counters"
    raise ValueError("neither of Keras's two layouts of weights is in it")


def _list_weights(root: Any) -> Iterator[tuple[str, str]]:
    """The path and the name of each weight in Keras's older layout, where each layer names its own."""
    layers = root.attrs["layer_names"]
    _refuse_more(len(layers), MOST_OBJECTS, "it names {:,} layers")
    for layer in map(_text, layers):
        for weight in map(_text, _get(root, layer).attrs["weight_names"]):
            _refuse_more(len(layer) + len(weight), MOST_LETTERS, "a name in it has {:,} letters")
            yield f"{layer}/{weight}", weight


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _get(group: Any, name: str) -> Any:
    """The member `name` (it may be a path) of a group. Refuses links: they can lead to other files."""
    import h5py

    for part in name.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{part!r} is missing, or a link to somewhere else")
        group = group[part]
    return group


def _collect(group: Any, path: str, arrays: FileArrays, *, seen: set[Any], room: list[int]) -> None:
    """Adds all arrays of numbers below `group` to `arrays`, by path.

    `room[0]` is the number of bytes that they may still take. `seen` has the addresses of the objects so far; an object
    that is there twice is refused.
    """
    import h5py

    # The number stands in the file; to list the names takes seconds where there are very many.
    _refuse_more(len(seen) + len(group), MOST_OBJECTS, "it has {:,} arrays and groups, or more")
    for name in group:
        _refuse_more(len(path) + len(name), MOST_LETTERS, "a name in it has {:,} letters")
        item = _get(group, name)
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            raise ValueError(f"{path}{name} is there twice")
        seen.add(address)
        if isinstance(item, h5py.Group):
            _collect(item, f"{path}{name}/", arrays, seen=seen, room=room)
        elif isinstance(item, h5py.Dataset) and (item.dtype.kind in "fiu" or item.dtype.str == "|V2"):
            room[0] -= _checked_size(item, f"{path}{name}")
            if room[0] < 0:
                raise ValueError(f"its arrays take more than {MOST_BYTES / 2**30:g} GiB")
            arrays[f"{path}{name}"] = _read_array(item)


def _read_array(dataset: Any) -> np.ndarray:
    """An array; HDF5 has no bfloat16, so Keras writes it as two bytes without a meaning."""
    if dataset.dtype.str != "|V2":
        array: np.ndarray = dataset[()]
        return array
    import ml_dtypes

    return np.asarray(dataset[()]).view(ml_dtypes.bfloat16)


def _checked_size(dataset: Any, name: str) -> int:
    """The size of an array in bytes. Refuses an array if the file itself does not hold all of it."""
    import h5py

    settings = dataset.id.get_create_plist()
    if settings.get_external_count() or settings.get_layout() == h5py.h5d.VIRTUAL:
        raise ValueError(f"{name} lies outside of the file, or is composed of others")
    filters = {settings.get_filter(i)[0] for i in range(settings.get_nfilters())}
    if not filters <= set(FILTERS.values()):
        raise ValueError(f"{name} is compressed by a plugin; use {', '.join(FILTERS)}, or nothing")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size() * (MOST_COMPRESSED if filters else 1)
    if size > stored:
        raise ValueError(f"{name} {dataset.shape} is larger than what the file holds of it")
    return size


def _main(path: Path, target: Path) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES / 2**30:g} GiB")
        readers = {".safetensors": _read_safetensors, ".keras": _read_keras}
        arrays, kind = readers.get(path.suffix.lower(), _read_h5)(path)
        # An .npz file cannot store bfloat16. Nothing is lost: a bfloat16 is the upper half of a float32.
        np.savez(target, *(a.astype(np.float32) if a.dtype.name == "bfloat16" else a for a in arrays.values()))
    # On damaged files, these libraries raise errors of many types.
    except Exception as error:
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        sys.exit(" ".join(text.split()) or type(error).__name__)
    print(json.dumps([kind, *arrays]))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
