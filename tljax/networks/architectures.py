"""The ResNets by their names: depth and width, units, published variants. Nothing here computes, or needs JAX.

A network is an ordered tuple of named units, and can be cut before any of them.
"""

from typing import NamedTuple

import numpy as np


class Architecture(NamedTuple):
    """Depth and width of a network."""

    stage_sizes: tuple[int, ...]
    """Number of blocks in each stage."""
    width: int = 64
    """Number of features of the stem and of the first stage's 3x3 convolutions; each later stage doubles it."""

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units, input to output. They are also the top-level keys of the parameters."""
        blocks = (
            f"conv{stage}_block{block}"
            for stage, size in enumerate(self.stage_sizes, start=2)
            for block in range(1, size + 1)
        )
        return ("conv1", *blocks, "head")

    @property
    def features(self) -> int:
        """Number of features that the head reads."""
        return 4 * self.width * 2 ** (len(self.stage_sizes) - 1) if self.stage_sizes else self.width

    def map_side(self, side: int) -> int:
        """The side of the last map, of which the head reads the average, for images of this `side`."""
        # The stem halves it twice, each stage but the first once.
        for _ in range(2 + max(0, len(self.stage_sizes) - 1)):
            side = -(-side // 2)
        return side

    @property
    def keras_layer_starts(self) -> dict[int, str]:
        """The unit that starts at each layer index of `model.layers` in Keras's headless network.

        The stem has 7 layers, the input layer included. A block has 10 layers; the first block of a stage has 2 more,
        on the shortcut. The head's index is the number of layers, one past the last.
        """
        layers = [7] + [12 if block == 0 else 10 for size in self.stage_sizes for block in range(size)]
        return dict(zip(map(int, np.cumsum([0, *layers])), self.units, strict=True))

    def end_before(self, unit: str) -> "Architecture":
        """The shorter network without `unit` and the units after it: its head reads what `unit` would read, averaged
        over all positions."""
        left = self.units.index(unit) - 1
        sizes = []
        for size in self.stage_sizes:
            sizes.append(min(size, left))
            left -= sizes[-1]
        return self._replace(stage_sizes=tuple(size for size in sizes if size))

    def begins_as(self, other: "Architecture") -> bool:
        """Whether this is the network `other`, or one that `end_before` makes of it."""
        blocks = self.units[:-1]
        return self.width == other.width and blocks == other.units[: len(blocks)]


class Network(NamedTuple):
    """A published ResNet."""

    architecture: Architecture
    keras_md5: str
    """MD5 of Keras's file of ImageNet weights with the head (`keras.applications.resnet.WEIGHTS_HASHES`, first)."""


# The keys are the values of `config.network`. All else about a network follows from its row: names of units and of
# other frameworks' arrays, Keras's layer indices, numbers of parameters, and the official weights file.
NETWORKS = {
    "resnet50": Network(Architecture((3, 4, 6, 3)), "2cb95161c43110f7111970584f804107"),
    "resnet101": Network(Architecture((3, 4, 23, 3)), "f1aeb4b969a6efcfb50fad2f0c20cfc5"),
    "resnet152": Network(Architecture((3, 8, 36, 3)), "100835be76be38e30d865e96f2aaae62"),
}
# The network and variant of a run whose config names none, if there are no source weights to take them from.
DEFAULT_NETWORK, DEFAULT_VARIANT = "resnet50", "v1"
RESNET50 = NETWORKS["resnet50"].architecture


def find_architecture(name: str | None) -> Architecture:
    """Returns the architecture for a value of `config.network`; ResNet50's for None.

    Raises:
      ValueError: if `NETWORKS` has no such name; the message lists the names.
    """
    name = DEFAULT_NETWORK if name is None else name
    if name not in NETWORKS:
        raise ValueError(f"config.network={name!r} is none of {', '.join(NETWORKS)}")
    return NETWORKS[name].architecture


def name_architecture(architecture: Architecture) -> str:
    """The architecture's name in `NETWORKS` or, if it has none, a description such as "resnet50 up to conv4_block3"."""
    names = [name for name, network in NETWORKS.items() if network.architecture == architecture]
    longer = [name for name, network in NETWORKS.items() if architecture.begins_as(network.architecture)]
    if not names and longer:
        return f"{longer[0]} up to {architecture.units[-2]}"
    blocks = "-".join(map(str, architecture.stage_sizes))
    return names[0] if names else f"a ResNet with {blocks} blocks and {architecture.width} features"


class Variant(NamedTuple):
    """The differences between the published ResNets of the same depth."""

    stride_on_3x3: bool
    """True: a stage's first block halves the resolution in its 3x3 convolution (v1.5); False: in its first 1x1 (v1)."""
    conv_bias: bool
    bn_epsilon: float
    bn_momentum: float
    """Fraction of the old running statistics that a training step keeps; PyTorch's `momentum` is 1 minus this."""
    batch_norm: bool = True
    """False if `fold` has merged the BatchNorms into the convolutions before them."""


VARIANTS = {
    "v1": Variant(stride_on_3x3=False, conv_bias=True, bn_epsilon=1.001e-5, bn_momentum=0.99),
    "v1.5": Variant(stride_on_3x3=True, conv_bias=False, bn_epsilon=1e-5, bn_momentum=0.9),
}


def count_multiplications(architecture: Architecture, variant: Variant, side: int) -> dict[str, int]:
    """How many multiplications the units before each unit take for an image of this `side`, by the unit's name. Each
    position counts, also where only every second one is read later."""
    side, width = -(-side // 2), architecture.width
    total, inputs = 7 * 7 * 3 * width * side**2, width
    side, counts = -(-side // 2), {}
    for unit in architecture.units[1:-1]:
        counts[unit] = total
        stage, block = (int(number) for number in unit.removeprefix("conv").split("_block"))
        before, features = side, width * 2 ** (stage - 2)
        if block == 1 and stage > 2:
            side = -(-side // 2)
        first = before if variant.stride_on_3x3 else side
        project = 4 * inputs * features * side**2 if block == 1 else 0
        total += inputs * features * first**2 + (9 + 4) * features**2 * side**2 + project
        inputs = 4 * features
    return counts | {"head": total}
