"""Loads source weights from the name `imagenet`, a weight file of Keras or PyTorch, the folder of an earlier run, or a
repository of the Hugging Face Hub."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from tljax.data.decoding import USUAL_FIT, Fit
from tljax.data.layouts import join_names
from tljax.data.names import find_near_path
from tljax.data.preprocessing import AS_KERAS, OF_VARIANT, Interpolation, Preprocessing, Resizing
from tljax.networks.architectures import (
    DEFAULT_NETWORK,
    NETWORKS,
    VARIANTS,
    Architecture,
    find_architecture,
    name_architecture,
)
from tljax.networks.resnet import ResNet, abstract_variables
from tljax.runs import readers
from tljax.runs.checkpoints import FOLDER, Meta
from tljax.runs.learned import Learned, find_learned
from tljax.runs.saved_values import WEIGHTS_KEYS, check_kept
from tljax.runs.workdir import is_at_work
from tljax.storage.downloads import download, find_download
from tljax.text import printable
from tljax.trees import Tree, flatten, unflatten
from tljax.weights import convert, foreign, hub, imagenet, untrusted

# Keras's own ImageNet weights: top-1 74.9% (ResNet50), 76.4% (101), 76.6% (152); https://keras.io/api/applications.
IMAGENET = "imagenet"
KERAS_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/{}_weights_tf_dim_ordering_tf_kernels.h5"
)


# What paths of our variables begin with.
OURS = ("params/", "batch_stats/")


class Weights(NamedTuple):
    """Weights, and all that is needed to use them."""

    name: str
    """The weights' name in messages."""
    leaves: dict[str, np.ndarray]
    """Arrays by path, such as `params/conv1/conv/kernel`; `convert.match_leaves` makes them float32."""
    variant: str
    """Key of `architectures.VARIANTS`."""
    preprocessing: Preprocessing
    input_size: int
    """Side in pixels of the images that the head was trained on."""
    labels: tuple[imagenet.Label, ...]
    """The class of each output of the head; empty without a head."""
    architecture: Architecture
    hidden: tuple[int, ...] = ()
    """Sizes of the hidden layers in a run's head."""
    history: tuple[dict[str, Any], ...] = ()
    """The metrics of all epochs if the source is a run, with those of the run that it continued; else empty."""
    is_run: bool = False
    in_training: bool = False
    """Whether a run was at work in the source's folder as it was read."""
    best_checkpoint: int = 0
    """The number of the checkpoint that a run's weights come from."""
    fit: Fit = USUAL_FIT
    """How pictures became square in the run."""
    resizing: Resizing = AS_KERAS
    """How zero_shot makes inputs of images."""
    notes: tuple[str, ...] = ()
    """What a reader should know of how the file was read."""
    learned: Learned | None = None
    """What a run's weights have learned from; None if that is not known."""

    @property
    def pictures(self) -> dict[str, Any]:
        """The settings of the data that say what a run's pictures became."""
        return {"image_size": self.input_size, "fit": self.fit}


def load_weights(
    pretrained: str, network: str | None = None, variant: str | None = None, setting: str = "config.pretrained"
) -> Weights:
    """Loads weights by the name `imagenet`, from a file or the folder of a run, or from OWNER/NAME@REVISION of the
    Hugging Face Hub; messages call that `setting`. What is here comes before what the hub has.

    For `imagenet`, `network` chooses the file (None: ResNet50).

    Raises:
      ValueError: if `pretrained` cannot be read as weights, or if the weights have another network or variant than
        `network` and `variant` (None: any).
      FileNotFoundError: if a file is missing, or cannot be downloaded.
      OSError: if the hub does not give it.
    """
    path = Path(pretrained).expanduser()
    if pretrained == IMAGENET:
        name = network or DEFAULT_NETWORK
        weights = _read_file(_download_keras(name, setting), pretrained, setting)
    elif path.is_dir():
        weights = _read_run(path, setting)
    elif path.is_file():
        weights = _read_file(path, pretrained, setting)
    elif hub.is_hub_name(pretrained):
        weights = _read_hub(pretrained, setting)
    else:
        near = f"; write {IMAGENET} in small letters" if pretrained.lower() == IMAGENET else _ask_near(path, "; {}")
        raise FileNotFoundError(f"{setting}={pretrained!r} is neither a file, nor a folder, nor {IMAGENET}{near}")
    _check_network(weights, network, variant)
    return weights


def _ask_near(path: Path, form: str) -> str:
    """What is here and has nearly that path, as a question within `form`; empty if there is nothing."""
    near = find_near_path(path)
    return form.format(f"did you mean {near}?") if near else ""


def _download_keras(network: str, setting: str) -> Path:
    try:
        return download(KERAS_URL.format(network), NETWORKS[network].keras_md5)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{_do_without(setting)}") from error


def has_imagenet(network: str = DEFAULT_NETWORK) -> bool:
    """Whether the weights of `imagenet` are on this disk; nothing is downloaded."""
    try:
        return find_download(KERAS_URL.format(network), NETWORKS[network].keras_md5) is not None
    except OSError:
        return False


def _do_without(setting: str) -> str:
    """How to train where no weights can be had; empty for who does not train."""
    return (
        "; or train without weights: --config recipe --config.pretrained=None" if setting.startswith("config") else ""
    )


def _check_network(weights: Weights, network: str | None, variant: str | None) -> None:
    wanted = "leave it out, or take other weights"
    if network is not None and not weights.architecture.begins_as(find_architecture(network)):
        found = name_architecture(weights.architecture)
        raise ValueError(f"config.network={network!r}, but {weights.name} is {found}; {wanted}")
    if variant not in (None, weights.variant):
        raise ValueError(f"config.variant={variant!r}, but {weights.name} is {weights.variant}; {wanted}")


def load_into(
    variables: dict[str, Any], weights: Weights, class_names: tuple[str, ...], *, keep_head: bool
) -> dict[str, Any]:
    """`variables` with every leaf replaced by that of `weights`; the head's leaves only with `keep_head`. Units that
    `variables` does not have are left out, which a printed line says.

    Raises:
      ValueError: if leaves are missing, left over or have another shape, or if a kept head was trained on other classes
        than `class_names`.
    """
    trained_on = tuple(name for _, name in weights.labels)
    if keep_head and trained_on != class_names:
        raise ValueError(describe_other_classes(weights.name, trained_on, class_names))
    new = () if keep_head else ("params/head/",)
    unread = tuple(unit for unit in weights.architecture.units if unit not in variables["params"])
    if unread:
        print(
            f"{weights.name}: left out, since the head reads what {unread[0]} would read: {join_names(unread, most=20)}"
        )
    # A new head takes the place of whatever layers stand behind the network's averages.
    others = [] if keep_head else [p for p, a in weights.leaves.items() if not p.startswith(OURS) and a.ndim <= 2]
    if others:
        print(printable(f"{weights.name}: left out, since the head is new: {', '.join(sorted(others))}"))
    ignored = (*new, *others, *(f"{kind}{unit}/" for kind in OURS for unit in unread))
    merged = convert.match_leaves(flatten(variables), weights.leaves, name=weights.name, new=new, ignored=ignored)
    return unflatten(merged)


def restore(weights: Weights) -> tuple[ResNet, Tree]:
    """The network of `weights`, and its variables (float32).

    Raises:
      ValueError: if it has no head, or they do not fit.
    """
    if not weights.labels:
        raise ValueError(f"{weights.name} has no head, so it tells no classes: give a run that trained one")
    network = ResNet(len(weights.labels), VARIANTS[weights.variant], weights.architecture, weights.hidden)
    leaves = convert.match_leaves(flatten(abstract_variables(network)), weights.leaves, name=weights.name)
    return network, unflatten(leaves)


def describe_other_classes(name: str, trained_on: tuple[str, ...], class_names: tuple[str, ...]) -> str:
    """That the head of the weights `name` was trained on other classes than the data has, and what to type."""
    wanted = f"--config feature_extraction --config.pretrained={shlex.quote(name)} trains a new one"
    if set(trained_on) <= set(class_names):
        wanted = f"take these with --config.data.classes {shlex.join(trained_on)}"
    return (
        f"{name} was trained on the classes {join_names(trained_on)}, the data has {join_names(class_names)}, and "
        f"fine_tune keeps the head: {wanted}"
    )


def _read_file(path: Path, name: str, setting: str) -> Weights:
    if path.suffix.lower() not in untrusted.ENDINGS:
        raise ValueError(
            f"{setting}={name!r}: weights are read from {', '.join(untrusted.ENDINGS)} files; "
            "a .pth or .pt file is a pickle, which can run code: convert it with safetensors.torch.save_file"
        )
    try:
        arrays, names = untrusted.read(path)
    except ValueError as error:
        raise ValueError(f"{setting}={name!r}: {error}") from error
    kind = convert.KINDS[names]
    arrays, prefix = foreign.strip_prefix(arrays, kind.first)
    if other := foreign.name_model(arrays):
        raise ValueError(
            f"{setting}={name!r} is {other}, which tljax does not have; it has {', '.join(NETWORKS)} as Keras "
            "and torchvision define them"
        )
    leaves, architecture = convert.recognize_network(arrays, kind)
    return Weights(
        name=name,
        leaves=leaves,
        variant=kind.variant,
        preprocessing=OF_VARIANT[kind.variant],
        input_size=224,
        labels=_head_labels(leaves),
        architecture=architecture,
        notes=(f"its names begin with {prefix!r}, which is left out",) if prefix else (),
    )


def _read_hub(name: str, setting: str) -> Weights:
    here = f"no file or folder here{_ask_near(Path(name), ' ({})')}"
    print(f"{name} is {here}, {hub.describe_search(name)}", flush=True)
    try:
        architecture, settings = hub.fetch_config(name)
        if architecture not in NETWORKS:
            raise ValueError(f"it is a {architecture}, which tljax does not have; it has {', '.join(NETWORKS)}")
        inputs = _read_inputs(settings)
        file = hub.fetch_weights(name)
    except hub.Unreachable as error:
        advice = f": {error.advice}{_do_without(setting)}" if here.endswith("here") else ""
        raise FileNotFoundError(f"{setting}={name!r}, which is {here}: {error}{advice}") from error
    except (ValueError, OSError) as error:
        raise type(error)(f"{setting}={name!r}, which is {here}: {error}") from error
    return _read_file(file, name, setting)._replace(**inputs)


def _read_inputs(settings: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Weights` that timm's settings of the input give.

    Raises:
      ValueError: if a setting is none that timm has.
    """
    try:
        _, height, width = settings["input_size"]
        mean, std = ([float(value) for value in settings[name]] for name in ("mean", "std"))
        crop, interpolation = float(settings.get("crop_pct", 0.875)), settings.get("interpolation", "bicubic")
        sizes = height == width and isinstance(height, int) and 32 <= height <= 4096
        values = len(mean) == len(std) == 3 and min(std) > 0 and bool(np.all(np.abs(mean + std) < 1e3))
        if not (sizes and values and 0.1 <= crop <= 1 and interpolation in get_args(Interpolation)):
            raise ValueError("a value is out of range")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"its {hub.TIMM_CONFIG} does not describe an input ({type(error).__name__}: {error})"
        ) from error
    return {
        "preprocessing": Preprocessing("rgb", 1 / 255, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])),
        "input_size": height,
        "resizing": Resizing(crop, interpolation, antialias=True),
    }


def _head_labels(leaves: dict[str, np.ndarray]) -> tuple[imagenet.Label, ...]:
    bias = leaves.get("params/head/bias", np.empty(0))
    labels = imagenet.labels()
    return labels if bias.size == len(labels) else tuple((None, f"output_{i}") for i in range(bias.size))


def _read_run(folder: Path, setting: str) -> Weights:
    stages = sorted(path.parent for path in folder.glob(f"*/{FOLDER}") if path.is_dir())
    if stages:
        choices = ", ".join(map(str, stages))
        raise ValueError(f"{setting}={str(folder)!r} holds several runs; take one of them: {choices}")
    # Asked before: what a run writes after the read is later than these weights.
    in_training = bool(is_at_work(folder))
    variables, meta = readers.read_run(folder)
    learned, note = find_learned(folder)
    check_kept(meta, WEIGHTS_KEYS, folder)
    return Weights(
        name=str(folder),
        leaves={path: np.asarray(leaf) for path, leaf in flatten(variables).items()},
        variant=meta["network"]["variant"],
        preprocessing=Preprocessing(**{k: _tuple(meta["preprocessing"][k]) for k in Preprocessing._fields}),
        input_size=meta["image_size"],
        labels=tuple((None, name) for name in meta["class_names"]),
        architecture=Architecture(tuple(meta["network"]["stage_sizes"]), meta["network"]["width"]),
        hidden=tuple(meta["network"].get("hidden", ())),
        history=tuple(meta["history"]),
        is_run=True,
        in_training=in_training,
        best_checkpoint=meta["best"],
        fit=meta["fit"],
        notes=((_describe_newest(meta),) if in_training else ()) + ((note,) if note else ()),
        learned=learned,
    )


def _describe_newest(meta: Meta) -> str:
    """Which weights there are of a run that is in training; `meta` is that of its newest checkpoint."""
    epoch = meta["stopper"]["best_epoch"]
    which = f"epoch {epoch}, the best so far" if epoch else "its solved head"
    return f"it is in training: these are the weights of {which}; later ones may come"


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
