"""Weight files that Keras's ResNets load, in its two layouts. The dense head is `predictions`."""

import io

import h5py
import numpy as np

from tljax.export.content import Content
from tljax.trees import flatten
from tljax.weights.convert import keras_counters, keras_layers, keras_leaves, to_keras


def build(content: Content) -> bytes:
    """The file `*.weights.h5` of Keras 3: arrays by the classes of their layers and counters."""
    arrays, counters = _arrays(content), keras_counters(content.network.architecture)
    file = io.BytesIO()
    with h5py.File(file, "w") as group:
        for name, by_layer in counters.items():
            group[name] = arrays[by_layer]
    return file.getvalue()


def build_legacy(content: Content) -> bytes:
    """The older file `*.h5`: arrays by the names of their layers, as in Keras's official weights."""
    arrays, layers = _arrays(content), keras_layers(content.network.architecture)
    file = io.BytesIO()
    with h5py.File(file, "w") as group:
        group.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer in layers:
            names = [f"{layer}/{leaf}:0" for leaf in keras_leaves(layer)]
            group.create_group(layer).attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                group[f"{layer}/{name}"] = arrays[name.removesuffix(":0")]
    return file.getvalue()


def _arrays(content: Content) -> dict[str, np.ndarray]:
    return to_keras({path: np.asarray(leaf) for path, leaf in flatten(content.variables).items()})
