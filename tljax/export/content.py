"""What an export takes along: a trained network with all that its answers need."""

import json
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from tljax.data.preprocessing import Preprocessing
from tljax.networks.architectures import name_architecture
from tljax.networks.resnet import ResNet, describe_network
from tljax.trees import Row, Tree

# Images as an export gets them, RGB.
Squares = UInt8[np.ndarray, "n size size 3"]


def to_json(row: Row) -> bytes:
    """A row as indented JSON in UTF-8: the content of a file beside an export."""
    return (json.dumps(row, indent=2, ensure_ascii=False) + "\n").encode()


def name_network(network: ResNet) -> str:
    """Its architecture, variant and hidden layers, for a reader."""
    hidden = f", hidden layers {', '.join(map(str, network.hidden))}" if network.hidden else ""
    return f"{name_architecture(network.architecture)} ({describe_network(network)['variant']}{hidden})"


class Content(NamedTuple):
    """A trained network in float32, and what a program needs to use it."""

    network: ResNet
    variables: Tree
    """Parameters and running statistics, arrays of NumPy."""
    preprocessing: Preprocessing
    image_size: int
    """Side of the square images in pixels."""
    class_names: tuple[str, ...]
    temperature: float
    """What logits are divided by before the softmax."""
    batch_size: int
    """Images at a time, where a format fixes their number."""
    about: Row
    """All of this but the variables, and more, as JSON, for the file's metadata."""

    @property
    def metadata(self) -> dict[str, str]:
        """`about` as text by name: what is no text is JSON."""
        return {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in self.about.items()}
