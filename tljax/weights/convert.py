"""Converts weights of other frameworks: renames their arrays to this network's leaves, and refuses a partial match."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from tljax.networks.architectures import NETWORKS, Architecture

Arrays = Mapping[str, np.ndarray]

_KERAS_LEAVES = {
    "kernel": "params/{}/kernel",
    "bias": "params/{}/bias",
    "gamma": "params/{}/scale",
    "beta": "params/{}/bias",
    "moving_mean": "batch_stats/{}/mean",
    "moving_variance": "batch_stats/{}/var",
}
_KERAS_HEADS = ("predictions", "probs")


def from_keras(arrays: Arrays) -> dict[str, np.ndarray]:
    """Renames arrays such as `conv2_block1_1_conv/kernel` or `conv1_bn/gamma:0` to this network's paths.

    The head is `predictions` or, in the official file, `probs`. A name that Keras's ResNets do not have stays as it
    is, so that `match_leaves` reports it.
    """
    return {_keras_path(name.removesuffix(":0")): array for name, array in arrays.items()}


def _keras_path(name: str) -> str:
    # Some files repeat the layer's name: conv1_conv/conv1_conv/kernel.
    *layers, leaf = name.split("/")
    if not layers or len(set(layers)) > 1 or leaf not in _KERAS_LEAVES:
        return name
    if layers[0] in _KERAS_HEADS:
        return _KERAS_LEAVES[leaf].format("head")
    match = re.fullmatch(r"(conv1|conv\d_block\d+)_((?:\d_)?(?:conv|bn))", layers[0])
    return _KERAS_LEAVES[leaf].format("/".join(match.groups())) if match else name


def keras_layers(architecture: Architecture) -> tuple[str, ...]:
    """Names of the layers with weights of Keras's network, in the order of `model.layers`.

    In a stage's first block the shortcut (number 0) comes between the second and the third convolution.
    """
    first = ("1_conv", "1_bn", "2_conv", "2_bn", "0_conv", "3_conv", "0_bn", "3_bn")
    others = tuple(part for part in first if not part.startswith("0"))
    names = ["conv1_conv", "conv1_bn"]
    for unit in architecture.units[1:-1]:
        names += [f"{unit}_{part}" for part in (first if unit.endswith("_block1") else others)]
    return (*names, "predictions")


def from_keras_counters(arrays: Arrays, architecture: Architecture) -> dict[str, np.ndarray]:
    """Renames arrays of a Keras 3 `.weights.h5` to this network's paths.

    A name such as `layers/conv2d_7/vars/0` has the layer's class, a counter per class in the order of `model.layers`,
    and the position of the variable in its layer. A name that fits no layer stays, so that `match_leaves` reports it.
    """
    names = keras_counters(architecture)
    return from_keras({names.get(name, name): array for name, array in arrays.items()})


def keras_leaves(layer: str) -> tuple[str, ...]:
    """Names of the arrays of a layer of Keras's, in its order."""
    return ("gamma", "beta", "moving_mean", "moving_variance") if layer.endswith("_bn") else ("kernel", "bias")


def keras_counters(architecture: Architecture) -> dict[str, str]:
    """The name of each array in a `.weights.h5`, such as `layers/conv2d_7/vars/0`, and the one it has by its layer,
    such as `conv2_block2_1_conv/kernel`."""
    names, counts = {}, Counter[str]()
    for layer in keras_layers(architecture):
        kind = next(kind for end, kind in _KERAS_CLASSES.items() if layer.endswith(end))
        number = f"_{counts[kind]}" if counts[kind] else ""
        counts[kind] += 1
        for i, leaf in enumerate(keras_leaves(layer)):
            names[f"layers/{kind}{number}/vars/{i}"] = f"{layer}/{leaf}"
    return names


# Keras's class of a layer, by the end of its name.
_KERAS_CLASSES = {"_conv": "conv2d", "_bn": "batch_normalization", "predictions": "dense"}


_TORCH_BN_LEAVES = {
    "weight": "params/{}/scale",
    "bias": "params/{}/bias",
    "running_mean": "batch_stats/{}/mean",
    "running_var": "batch_stats/{}/var",
}


def from_torch(arrays: Arrays) -> dict[str, np.ndarray]:
    """Renames and transposes torchvision's or timm's `layer1.0.conv1.weight` (OIHW) to this network's paths (HWIO).

    `num_batches_tracked` counters have no counterpart and are left out. Other unknown names stay, so that
    `match_leaves` reports them.
    """
    converted = {}
    for name, array in arrays.items():
        if not name.endswith(".num_batches_tracked"):
            path = _torch_path(name)
            converted[path] = _to_channels_last(array) if path.endswith("/kernel") else array
    return converted


def _to_channels_last(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _torch_path(name: str) -> str:
    if match := re.fullmatch(r"fc\.(weight|bias)", name):
        return "params/head/kernel" if match[1] == "weight" else "params/head/bias"
    if match := re.fullmatch(r"(?:layer(\d)\.(\d+)\.)?(conv|bn|downsample\.)(\d?)\.(\w+)", name):
        stage, block, part, number, leaf = match.groups()
        if stage is None:
            unit, kind = ("conv1", part) if (part, number) in (("conv", "1"), ("bn", "1")) else (None, "")
        else:
            unit = f"conv{int(stage) + 1}_block{int(block) + 1}"
            kind = {"downsample.0": "0_conv", "downsample.1": "0_bn"}.get(part + number, f"{number}_{part}")
        if unit and kind.endswith("conv") and leaf in ("weight", "bias"):
            return f"params/{unit}/{kind}/{'kernel' if leaf == 'weight' else 'bias'}"
        if unit and kind.endswith("bn") and leaf in _TORCH_BN_LEAVES:
            return _TORCH_BN_LEAVES[leaf].format(f"{unit}/{kind}")
    return name


def to_keras(leaves: Arrays) -> dict[str, np.ndarray]:
    """This network's leaves by Keras's names, such as `conv2_block1_1_conv/kernel`; the head is `predictions`. The
    inverse of `from_keras`."""
    return {_keras_name(path): array for path, array in leaves.items()}


_KERAS_BN_NAMES = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}


def _keras_name(path: str) -> str:
    _, unit, *part, leaf = path.split("/")
    layer = "_".join((unit, *part)) if part else "predictions"
    return f"{layer}/{_KERAS_BN_NAMES[leaf] if layer.endswith('bn') else leaf}"


def to_torch(leaves: Arrays) -> dict[str, np.ndarray]:
    """This network's leaves by torchvision's names and in its layout (OIHW); the inverse of `from_torch`. The counters
    `num_batches_tracked` (int64) are 0, as in a new network: torchvision's have them, and nothing here reads them."""
    converted = {_torch_name(path): _to_channels_first(array) for path, array in leaves.items()}
    means = [name for name in converted if name.endswith(".running_mean")]
    return converted | {name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64) for name in means}


_TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var", "bias": "bias"}


def _torch_name(path: str) -> str:
    _, unit, *part, leaf = path.split("/")
    leaf = _TORCH_LEAVES[leaf]
    if unit == "head":
        return f"fc.{leaf}"
    if unit == "conv1":
        return f"{part[0]}1.{leaf}"
    number, layer = part[0].split("_")
    stage, block = map(int, re.findall(r"\d+", unit))
    name = f"{layer}{number}" if number != "0" else f"downsample.{0 if layer == 'conv' else 1}"
    return f"layer{stage - 1}.{block - 1}.{name}.{leaf}"


def _to_channels_first(array: np.ndarray) -> np.ndarray:
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
    return np.ascontiguousarray(array.transpose(order) if order else array)


class Kind(NamedTuple):
    """A naming scheme of weight files: how to convert its arrays, and the variant that its networks have."""

    convert: Callable[[Arrays, Architecture], dict[str, np.ndarray]]
    variant: str
    """Key of `architectures.VARIANTS`."""
    first: str
    """Name of the first array, by which a prefix of all names is found."""


# The keys are the names that `untrusted.read` returns.
KINDS = {
    "keras": Kind(lambda arrays, _: from_keras(arrays), "v1", "conv1_conv/kernel"),
    "keras_counters": Kind(from_keras_counters, "v1", "layers/conv2d/vars/0"),
    "torch": Kind(lambda arrays, _: from_torch(arrays), "v1.5", "conv1.weight"),
}


def recognize_network(arrays: Arrays, kind: Kind) -> tuple[dict[str, np.ndarray], Architecture]:
    """A file's arrays by this network's paths, and the architecture in `NETWORKS` that has their units.

    If no architecture has exactly these units, the nearest is returned, and `match_leaves` reports the differences.
    """

    def differences(found: tuple[dict[str, np.ndarray], Architecture]) -> int:
        leaves, architecture = found
        return len({path.split("/")[1] for path in leaves if "/" in path} ^ set(architecture.units))

    rows = [network.architecture for network in NETWORKS.values()]
    return min(((kind.convert(arrays, row), row) for row in rows), key=differences)


# The most lines of a message about leaves.
MOST_LINES = 10


def match_leaves(
    target: Arrays, source: Arrays, *, name: str, new: tuple[str, ...] = (), ignored: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """The leaves of `target` with the values of `source`, as float32; no leaf may be missing or left over.

    Leaves of `target` whose path starts with a prefix in `new` keep their own value; the others give only their shape.
    Arrays of `source` whose path starts with a prefix in `ignored` are not used. Messages call the source `name`.

    Raises:
      ValueError: with a line for every leaf that is missing (-) or left over (+), and two lines (- and +) for every
        leaf that has another shape or is not floating point, `MOST_LINES` at most; or if a value is not finite.
    """
    wanted = {path: leaf for path, leaf in target.items() if not path.startswith(new)} if new else dict(target)
    given = {path: leaf for path, leaf in source.items() if not path.startswith(ignored)} if ignored else dict(source)
    problems = []
    for path in sorted(wanted.keys() | given.keys()):
        want, have = (None if path not in leaves else tuple(leaves[path].shape) for leaves in (wanted, given))
        if want != have:
            problems += [f"  - {path} {want}"] * (want is not None) + [f"  + {path} {have}"] * (have is not None)
        elif not np.issubdtype(given[path].dtype, np.floating) and given[path].dtype.name != "bfloat16":
            problems += [f"  - {path} floating point", f"  + {path} {given[path].dtype}"]
    if problems:
        more = [f"  and {len(problems) - MOST_LINES} more lines"] * (len(problems) > MOST_LINES)
        lines = "\n".join([*problems[:MOST_LINES], *more])
        raise ValueError(f"{name} does not fit the network (- wanted, + found):\n{lines}")
    matched = {path: np.asarray(given.get(path, leaf), np.float32) for path, leaf in target.items()}
    for path in wanted:
        if not np.isfinite(matched[path]).all():
            raise ValueError(f"{name}: {path} holds values that are not finite; the file is damaged, take another")
    return matched
