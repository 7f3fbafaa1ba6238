"""Weight files of other people's models: prefixes of their names, and what a file holds that is no network of ours."""

import re
from collections.abc import Callable

import numpy as np

from tljax.networks.architectures import NETWORKS
from tljax.weights.convert import Arrays


def strip_prefix(arrays: Arrays, first: str) -> tuple[dict[str, np.ndarray], str]:
    """Removes the prefix that a wrapper has put before a network's names, such as `module.` or `backbone.`.

    `first` is the name of the network's first array. Names without the prefix stay as they are. Returns the arrays and
    the prefix, which is empty if there is none.
    """
    names = [name.removesuffix(":0") for name in arrays]
    prefixes = [name.removesuffix(first) for name in names if name.endswith(first)]
    prefix = min((p for p in prefixes if not p or p[-1] in "./"), key=len, default="")
    return {name.removeprefix(prefix): array for name, array in arrays.items()}, prefix


def _first_shape(arrays: Arrays, name: str, axis: int, default: int) -> int:
    return arrays[name].shape[axis] if name in arrays and arrays[name].ndim > axis else default


def _widths() -> set[int]:
    return {network.architecture.width for network in NETWORKS.values()}


# What is told apart by names, and by shapes where the names are the same. The first that fits is named.
_KINDS: tuple[tuple[str, Callable[[Arrays, str], object]], ...] = (
    ("a vision transformer", lambda arrays, names: re.search(r"patch_embed|cls_token|class_embedding", names)),
    ("a ResNet V2, with BatchNorm before its convolutions", lambda arrays, names: "preact" in names),
    ("a ResNet with a stem of several convolutions", lambda arrays, names: re.search(r"^conv1\.0\.", names, re.M)),
    ("a ResNet with squeeze-and-excitation", lambda arrays, names: re.search(r"\.se\.|\.se_module\.", names)),
    (
        "a ResNet of basic blocks (18 or 34 layers)",
        lambda arrays, names: "layer1.0.conv2.weight" in arrays and "layer1.0.conv3.weight" not in arrays,
    ),
    (
        "a ResNet with GroupNorm",
        lambda arrays, names: "layer1.0.conv1.weight" in arrays and "running_mean" not in names,
    ),
    (
        "a ResNeXt",
        lambda arrays, names: (
            _first_shape(arrays, "layer1.0.conv2.weight", 1, 1) < _first_shape(arrays, "layer1.0.conv2.weight", 0, 1)
        ),
    ),
    (
        "a ResNet of another width",
        lambda arrays, names: _first_shape(arrays, "layer1.0.conv1.weight", 0, 64) not in _widths(),
    ),
)


def name_model(arrays: Arrays) -> str | None:
    """What model a file holds, by its names and shapes, if it is a known one that is no network of ours. Else None."""
    names = "\n".join(arrays)
    return next((what for what, fits in _KINDS if fits(arrays, names)), None)
