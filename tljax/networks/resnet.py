"""ResNets of bottleneck blocks as ordered tuples of named units, which can be cut before any of them.

Both published variants are fields of one network: Keras's (v1: the stride of a stage sits on the first 1x1
convolution, convolutions have a bias) and torchvision's (v1.5: the stride sits on the 3x3, no biases).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from tljax.networks.kernels.channels import spread
from tljax.networks.kernels.convolution import convolution
from tljax.networks.kernels.pooling import max_pool


class Architecture(NamedTuple):
    """How deep and how wide a network is."""

    stage_sizes: tuple[int, ...]
    """Blocks of each stage; the training steps want four stages."""
    width: int = 64
    """Features of the stem and of the first stage's inner convolutions."""

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units, input to output; also the top-level keys of the parameters."""
        blocks = (
            f"conv{stage}_block{block}"
            for stage, size in enumerate(self.stage_sizes, start=2)
            for block in range(1, size + 1)
        )
        return ("conv1", *blocks, "head")

    @property
    def keras_layer_starts(self) -> dict[int, str]:
        """Index of the first layer of each unit in `model.layers` of Keras's headless network, an input layer first.

        A stem has 7 layers; a block has 10, and its stage's first block 2 more on the shortcut. The head starts after
        the last layer.
        """
        layers = [7] + [12 if block == 0 else 10 for size in self.stage_sizes for block in range(size)]
        return dict(zip(map(int, np.cumsum([0, *layers])), self.units, strict=True))


class Network(NamedTuple):
    """A published ResNet."""

    architecture: Architecture
    keras_md5: str
    """MD5 of Keras's file of ImageNet weights (`keras.applications.resnet.WEIGHTS_HASHES`)."""


# By the name that `config.network` has. Names of units and of other frameworks' arrays, Keras's layer indices, numbers
# of parameters and the official file all follow from a row.
NETWORKS = {
    "resnet50": Network(Architecture((3, 4, 6, 3)), "2cb95161c43110f7111970584f804107"),
    "resnet101": Network(Architecture((3, 4, 23, 3)), "f1aeb4b969a6efcfb50fad2f0c20cfc5"),
    "resnet152": Network(Architecture((3, 8, 36, 3)), "100835be76be38e30d865e96f2aaae62"),
}
# What None means where there are no source weights.
DEFAULT_NETWORK, DEFAULT_VARIANT = "resnet50", "v1"
RESNET50 = NETWORKS["resnet50"].architecture


def find_architecture(name: str | None) -> Architecture:
    """The row that `config.network` names; None: ResNet50's.

    Raises:
      ValueError: with the names that there are.
    """
    if (name or DEFAULT_NETWORK) not in NETWORKS:
        raise ValueError(f"config.network={name!r} is none of {', '.join(NETWORKS)}")
    return NETWORKS[name or DEFAULT_NETWORK].architecture


def name_architecture(architecture: Architecture) -> str:
    """The name of its row or, where it has none, what it is."""
    names = [name for name, network in NETWORKS.items() if network.architecture == architecture]
    blocks = "-".join(map(str, architecture.stage_sizes))
    return names[0] if names else f"a ResNet with {blocks} blocks and {architecture.width} features"


class Variant(NamedTuple):
    """What differs between the published ResNets of one depth."""

    stride_on_3x3: bool
    """Where a stage's first block halves the resolution: on its 3x3 convolution (v1.5) or its first 1x1 (v1)."""
    conv_bias: bool
    bn_epsilon: float
    bn_momentum: float
    """Share of the old running statistics that a training step keeps."""
    batch_norm: bool = True
    """False where the convolutions do what the BatchNorms behind them did (`fold`)."""


VARIANTS = {
    "v1": Variant(stride_on_3x3=False, conv_bias=True, bn_epsilon=1.001e-5, bn_momentum=0.99),
    "v1.5": Variant(stride_on_3x3=True, conv_bias=False, bn_epsilon=1e-5, bn_momentum=0.9),
}


class Convolution(nn.Module):
    """A convolution with symmetric zero padding; kernels start glorot-uniform as Keras's do."""

    features: int
    size: int = 1
    stride: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n oh ow f"]:
        """With `train` a BatchNorm follows that subtracts the batch's mean, the bias with it. It gets no gradient: that
        would be rounding alone, which Adam makes steps of, and a pass over the map."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape).astype(x.dtype)
        x = convolution(x, kernel, stride=self.stride, padding=self.size // 2)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + spread((lax.stop_gradient(bias) if train else bias).astype(x.dtype), x.shape)
        return x


class BatchNorm(nn.BatchNorm):
    """Flax's over the last axis with scale and bias; in inference mode by Keras's formula, whose gradients a CPU adds
    up fast. It computes in the type of the parameters and gives that of `x`."""

    def __call__(self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None) -> Array:
        narrow = x.dtype.itemsize < 4
        if self.is_initializing() or not (use_running_average or narrow):
            y: Array = super().__call__(x.astype(self.param_dtype) if narrow else x, use_running_average, mask=mask)
            return y.astype(x.dtype)
        params: Any = self.variables["params"]
        stats: Any = self.variables["batch_stats"]
        if not use_running_average:
            running, stats = stats, _batch_statistics(x.astype(self.param_dtype), mask)
            for name, new in stats.items():
                self.put_variable("batch_stats", name, self.momentum * running[name] + (1 - self.momentum) * new)
        scale = params["scale"] / jnp.sqrt(stats["var"] + self.epsilon)
        wide = x.astype(scale.dtype)
        y = wide * spread(scale, x.shape) + spread(params["bias"] - stats["mean"] * scale, x.shape)
        return y.astype(x.dtype)


def _batch_statistics(x: Array, mask: Array | None) -> dict[str, Array]:
    """Mean and variance of each feature. By sums of `x` and its squares, so that a backward pass needs `x` alone, which
    is there in its narrow type; what is lost by the difference is little beside what that type has lost already."""
    mean, square = (jnp.mean(values, axis=(0, 1, 2), where=mask) for values in (x, jnp.square(x)))
    return {"mean": mean, "var": jnp.maximum(square - jnp.square(mean), 0)}


def _normalize(variant: Variant, name: str, x: Array, train: bool, mask: Array | None) -> Array:
    if not variant.batch_norm:
        return x
    bn = BatchNorm(momentum=variant.bn_momentum, epsilon=variant.bn_epsilon, use_fast_variance=False, name=name)
    return bn(x, not train, mask=None if mask is None else mask.reshape(-1, 1, 1, 1))


class Stem(nn.Module):
    """The unit `conv1`: 7x7 convolution with stride 2, BatchNorm, ReLU, 3x3 max-pool with stride 2."""

    width: int
    variant: Variant

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        train = train and self.variant.batch_norm
        x = Convolution(self.width, size=7, stride=2, use_bias=self.variant.conv_bias, name="conv")(x, train)
        return max_pool(nn.relu(_normalize(self.variant, "bn", x, train, mask)))


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, the last with four times the features.

    Its parts have the names that Keras gives them: 1, 2 and 3 along the path, 0 on the shortcut.
    """

    features: int
    project: bool
    variant: Variant

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None, stride: int, keep: int) -> Array:
        """`stride` is the block's own; of what it then gives, every `keep`-th row and column is computed."""
        v = self.variant
        train = train and v.batch_norm
        stride_1, stride_2 = (1, stride) if v.stride_on_3x3 else (stride, 1)
        # Folded, the shortcut's convolution is a part of the last one: no sum of two large arrays.
        joined = self.project and not v.batch_norm
        if self.project and not joined:
            project = Convolution(4 * self.features, stride=stride * keep, use_bias=v.conv_bias, name="0_conv")
            shortcut = _normalize(v, "0_bn", project(x, train), train, mask)
        else:
            shortcut = x[:, :: stride * keep, :: stride * keep]
        x = Convolution(self.features, stride=stride_1, use_bias=v.conv_bias, name="1_conv")(x, train)
        x = nn.relu(_normalize(v, "1_bn", x, train, mask))
        x = Convolution(self.features, size=3, stride=stride_2 * keep, use_bias=v.conv_bias, name="2_conv")(x, train)
        x = nn.relu(_normalize(v, "2_bn", x, train, mask))
        last = Convolution(4 * self.features, use_bias=v.conv_bias, name="3_conv")
        if joined:
            return nn.relu(last(jnp.concatenate([x, shortcut], axis=-1), train))
        return nn.relu(shortcut + _normalize(v, "3_bn", last(x, train), train, mask))


class Head(nn.Module):
    """The unit `head`: a dense layer that gives logits."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (x.shape[-1], self.num_classes))
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,))
        return jnp.dot(x, kernel, precision=lax.Precision.HIGHEST) + bias.reshape(1, -1)


class ResNet(nn.Module):
    """A network of any row and variant; Keras's ResNet50 by default.

    `apply` needs the variables of those units only that it runs, so the halves on both sides of a cut can be held and
    differentiated apart.
    """

    num_classes: int
    variant: Variant = VARIANTS[DEFAULT_VARIANT]
    architecture: Architecture = RESNET50
    folded_units: tuple[str, ...] = ()
    """Units without BatchNorm, for the variables that `fold` gives."""
    dtype: Any = None
    """That in which the blocks compute, None: that of their input. Parameters and statistics, averages and the head
    keep their own."""

    def setup(self) -> None:
        without = self.variant._replace(batch_norm=False, conv_bias=True)
        variants = {name: without if name in self.folded_units else self.variant for name in self.units}
        stage_sizes, width = self.architecture
        self.conv1 = Stem(width, variants["conv1"])
        for i, size in enumerate(stage_sizes):
            for j in range(size):
                name = f"conv{i + 2}_block{j + 1}"
                setattr(self, name, Bottleneck(width * 2**i, project=j == 0, variant=variants[name]))
        self.head = Head(self.num_classes)

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units, input to output."""
        return self.architecture.units

    @property
    def folded(self) -> "ResNet":
        """The same network with all its units folded."""
        return self.clone(folded_units=self.units)

    def prefix(self, x: Float[Array, "n h w c"], end: str, start: str = "conv1") -> Float[Array, "n ..."]:
        """Runs the units from `start` to before `end`, BatchNorm in inference mode: preprocessed images, or
        activations at `start`, -> activations at `end`, as much of them as that unit reads: in v1 every second
        position where it halves the resolution [n h w c], for the head their averages [n c]."""
        return self._run(x, self.units[self.units.index(start) : self.units.index(end)], False, None)

    def suffix(
        self, x: Float[Array, "n ..."], start: str, train: bool = False, mask: Bool[Array, " n"] | None = None
    ) -> Float[Array, "n classes"]:
        """Runs `start` and everything after it: activations there -> logits.

        With `train` BatchNorm normalizes with the statistics of the batch's rows where `mask` is true, and updates
        the running ones (apply with `mutable=["batch_stats"]`).
        """
        return self._run(x, self.units[self.units.index(start) :], train, mask)

    def __call__(self, x: Float[Array, "n h w 3"], train: bool = False) -> Float[Array, "n classes"]:
        """The whole network: preprocessed images -> logits."""
        return self.suffix(x, self.units[0], train)

    def _run(self, x: Array, units: tuple[str, ...], train: bool, mask: Array | None) -> Array:
        if self.dtype is not None and units and units[0] != "head":
            x = x.astype(self.dtype)
        for name in units:
            unit = getattr(self, name)
            if name == "head":
                x = unit(x)
            elif name == "conv1":
                x = unit(x, train, mask)
            else:
                # What stands before these units is a frozen prefix, which never trains.
                before = self.units[self.units.index(name) - 1]
                stride = 2 if self._halves(name) and not self._hoists(before, train and before in units) else 1
                x = unit(x, train, mask, stride, 2 if self._hoists(name, train) else 1)
                if name == self.units[-2]:
                    x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32 if x.dtype.itemsize < 4 else x.dtype)
        return x

    def _halves(self, name: str) -> bool:
        return name.endswith("_block1") and not name.startswith("conv2_")

    def _hoists(self, name: str, train: bool) -> bool:
        """Whether a block computes every second row and column only, because the next one reads no others.

        In v1 the first block of a stage reads its input with stride 2 on both of its paths. Under batch statistics
        the positions that it skips count in the averages, so all must be there. In v1.5 its first 1x1 reads them all.
        """
        following = self.units[self.units.index(name) + 1]
        return self._halves(following) and not self.variant.stride_on_3x3 and not train


@cache
def abstract_variables(model: ResNet) -> dict[str, Any]:
    """Shapes and types of the network's `params` and `batch_stats`, nothing computed."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.ShapeDtypeStruct((), jax.random.key(0).dtype), image)


def describe_network(model: ResNet) -> dict[str, Any]:
    """What `build_network` needs to make `model` again, as JSON."""
    (variant,) = (name for name, row in VARIANTS.items() if row == model.variant)
    stage_sizes, width = model.architecture
    return {
        "num_classes": model.num_classes,
        "variant": variant,
        "stage_sizes": list(stage_sizes),
        "width": width,
    }


def build_network(description: dict[str, Any]) -> ResNet:
    """Undoes `describe_network`."""
    return ResNet(
        num_classes=description["num_classes"],
        variant=VARIANTS[description["variant"]],
        architecture=Architecture(tuple(description["stage_sizes"]), description["width"]),
    )


def fold(model: ResNet, variables: dict[str, Any], units: Sequence[str] | None = None) -> dict[str, Any]:
    """The variables with which a network whose `folded_units` these are (None: all) does what `model` does in
    inference mode.

    `scale * (conv(x) + bias - mean) / sqrt(var + epsilon) + beta` is a convolution with another kernel and bias, and
    the sum of two 1x1 convolutions is one over the features of both. Units that `variables` do not have are not in the
    new ones. Kernels have the type that the network computes in.
    """

    def fold_unit(params: dict[str, Any], stats: dict[str, Any]) -> dict[str, Any]:
        folded = {name: leaves for name, leaves in params.items() if not name.endswith("bn")}
        for name, running in stats.items():
            conv_name = name.removesuffix("bn") + "conv"
            bn, conv = params[name], params[conv_name]
            scale = bn["scale"] / jnp.sqrt(running["var"] + model.variant.bn_epsilon)
            bias = (conv.get("bias", 0) - running["mean"]) * scale + bn["bias"]
            kernel = conv["kernel"] * spread(scale, conv["kernel"].shape)
            folded[conv_name] = {"kernel": kernel.astype(model.dtype or kernel.dtype), "bias": bias}
        if "0_conv" in folded:
            shortcut, last = folded.pop("0_conv"), folded["3_conv"]
            kernel = jnp.concatenate([last["kernel"], shortcut["kernel"]], axis=2)
            folded["3_conv"] = {"kernel": kernel, "bias": last["bias"] + shortcut["bias"]}
        return folded

    params, stats = variables["params"], variables["batch_stats"]
    # In the order of the units, not of a set: the program is then the same in every process, and found again.
    chosen = [unit for unit in params if units is None or unit in units]
    folded = {unit: fold_unit(params[unit], stats.get(unit, {})) for unit in chosen}
    return {"params": params | folded, "batch_stats": {unit: stats[unit] for unit in stats if unit not in chosen}}
