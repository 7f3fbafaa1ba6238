"""ResNets of bottleneck blocks, as Flax modules. `architectures.py` has their names, sizes and variants.

One class, `ResNet`, covers both published variants: Keras's (v1: a stage's stride is on its first 1x1 convolution,
convolutions have a bias) and torchvision's (v1.5: the stride is on the 3x3 convolution, no biases).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from tljax.networks.architectures import DEFAULT_VARIANT, RESNET50, VARIANTS, Architecture, Variant
from tljax.networks.kernels.channels import spread
from tljax.networks.kernels.convolution import convolution
from tljax.networks.kernels.normalization import normalize
from tljax.networks.kernels.pooling import max_pool


class Convolution(nn.Module):
    """A convolution with symmetric zero padding; kernels are initialized glorot-uniform, as in Keras."""

    features: int
    size: int = 1
    stride: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n oh ow f"]:
        """Applies the convolution. With `train` the bias is left out: a BatchNorm in training mode follows.

        That BatchNorm subtracts the batch's mean, and the bias with it. So the bias only moves the running mean, and
        its gradient is zero; a computed one would be rounding error alone, which Adam turns into steps. Adding it would
        cost a pass over the activations.
        """
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape).astype(x.dtype)
        x = convolution(x, kernel, stride=self.stride, padding=self.size // 2)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x if train else x + spread(bias.astype(x.dtype), x.shape)
        return x


class BatchNorm(nn.BatchNorm):
    """Flax's BatchNorm over the last axis, with scale and bias. It computes in the parameters' dtype and returns `x`'s.

    Inference mode is Keras's formula: one multiplication and one addition per value, whose gradients a CPU sums fast
    (`spread`). In training mode the rows where `mask` [n] is true count in the statistics (None: all rows). `bias` is
    that of the convolution before, which has not been added; it belongs to the running mean.
    """

    def __call__(
        self,
        x: Array,
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
        bias: Array | float = 0.0,
    ) -> Array:
        if self.is_initializing():
            y: Array = super().__call__(x, use_running_average)
            return y
        params: Any = self.variables["params"]
        stats: Any = self.variables["batch_stats"]
        if not use_running_average:
            y, batch = normalize(x, params["scale"], params["bias"], mask, self.epsilon)
            for name, new in {"mean": batch.mean + bias, "var": batch.var}.items():
                self.put_variable("batch_stats", name, self.momentum * stats[name] + (1 - self.momentum) * new)
            return y
        scale = params["scale"] / jnp.sqrt(stats["var"] + self.epsilon)
        wide = x.astype(scale.dtype)
        y = wide * spread(scale, x.shape) + spread(params["bias"] - stats["mean"] * scale, x.shape)
        return y.astype(x.dtype)


def _convolve(conv: Convolution, variant: Variant, x: Array, train: bool, mask: Array | None) -> Array:
    """`conv` and the BatchNorm that follows it, if it has not been folded."""
    x = conv(x, train)
    if not variant.batch_norm:
        return x
    assert conv.name
    name = conv.name.removesuffix("conv") + "bn"
    bn = BatchNorm(momentum=variant.bn_momentum, epsilon=variant.bn_epsilon, name=name)
    bias = conv.variables["params"].get("bias", 0.0) if train else 0.0
    return bn(x, not train, mask=mask, bias=bias)


class Stem(nn.Module):
    """The unit `conv1`: 7x7 convolution with stride 2, BatchNorm, ReLU, 3x3 max-pool with stride 2."""

    width: int
    variant: Variant

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        train = train and self.variant.batch_norm
        conv = Convolution(self.width, size=7, stride=2, use_bias=self.variant.conv_bias, name="conv")
        return max_pool(nn.relu(_convolve(conv, self.variant, x, train, mask)))


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, the last with four times the features.

    Its layers have Keras's numbers: 1, 2 and 3 on the main path, 0 on the shortcut. With `project` the shortcut is a
    1x1 convolution.
    """

    features: int
    project: bool
    variant: Variant

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None, stride: int, keep: int) -> Array:
        """Runs the block with `stride`, and computes only every `keep`-th row and column of its output."""
        v = self.variant
        train = train and v.batch_norm
        stride_1, stride_2 = (1, stride) if v.stride_on_3x3 else (stride, 1)
        # In a folded block the shortcut's convolution is part of the last one, which saves a sum of two large arrays.
        joined = self.project and not v.batch_norm
        if self.project and not joined:
            project = Convolution(4 * self.features, stride=stride * keep, use_bias=v.conv_bias, name="0_conv")
            shortcut = _convolve(project, v, x, train, mask)
        else:
            shortcut = x[:, :: stride * keep, :: stride * keep]
        first = Convolution(self.features, stride=stride_1, use_bias=v.conv_bias, name="1_conv")
        x = nn.relu(_convolve(first, v, x, train, mask))
        middle = Convolution(self.features, size=3, stride=stride_2 * keep, use_bias=v.conv_bias, name="2_conv")
        x = nn.relu(_convolve(middle, v, x, train, mask))
        last = Convolution(4 * self.features, use_bias=v.conv_bias, name="3_conv")
        if joined:
            return nn.relu(last(jnp.concatenate([x, shortcut], axis=-1), train))
        return nn.relu(shortcut + _convolve(last, v, x, train, mask))


class Dense(nn.Module):
    """A dense layer, initialized as in Keras."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return jnp.dot(x, kernel, precision=lax.Precision.HIGHEST) + bias.reshape(1, -1)


class DenseHead(Dense):
    """The unit `head`: a dense layer whose outputs are the logits, and before it perhaps hidden ones with ReLU."""

    hidden: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Array, noise: Sequence[Array] = ()) -> Array:
        """Logits of the averages `x` [n features]. `noise` multiplies the inputs of each layer, if there is any."""
        for i, size in enumerate(self.hidden):
            x = nn.relu(Dense(size, name=f"hidden_{i + 1}")(x * noise[i] if noise else x))
        return super().__call__(x * noise[-1] if noise else x)


class ResNet(nn.Module):
    """A network of any architecture and variant; Keras's ResNet50 by default.

    `apply` needs only the variables of the units that it runs. So the variables before and after a cut can be stored
    and differentiated separately.
    """

    num_classes: int
    variant: Variant = VARIANTS[DEFAULT_VARIANT]
    architecture: Architecture = RESNET50
    hidden: tuple[int, ...] = ()
    """Sizes of the hidden layers in the head."""
    folded_units: tuple[str, ...] = ()
    """Names of the units that run without BatchNorm, on the variables that `fold` returns."""
    dtype: Any = None
    """The dtype in which the stem and the blocks compute; None: the dtype of their input. Parameters, running
    statistics, the global average pooling and the head are not affected."""

    def setup(self) -> None:
        without = self.variant._replace(batch_norm=False, conv_bias=True)
        variants = {name: without if name in self.folded_units else self.variant for name in self.units}
        stage_sizes, width = self.architecture
        self.conv1 = Stem(width, variants["conv1"])
        for i, size in enumerate(stage_sizes):
            for j in range(size):
                name = f"conv{i + 2}_block{j + 1}"
                setattr(self, name, Bottleneck(width * 2**i, project=j == 0, variant=variants[name]))
        self.head = DenseHead(self.num_classes, self.hidden)

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units, input to output."""
        return self.architecture.units

    @property
    def head_inputs(self) -> tuple[int, ...]:
        """Numbers of inputs of the head's layers."""
        return (self.architecture.features, *self.hidden)

    @property
    def folded(self) -> "ResNet":
        """The same network with all units folded, to run on the variables that `fold` returns."""
        return self.clone(folded_units=self.units)

    def prefix(self, x: Float[Array, "n ..."], end: str, start: str = "conv1") -> Float[Array, "n ..."]:
        """Runs the units from `start` up to, but not including, `end`, with BatchNorm in inference mode.

        `x` are preprocessed images, or activations at `start`. Returns the activations that `end` reads. They are
        [n h w c] at a block; at the head they are averages over all positions, [n c]. A block that halves the
        resolution in v1 reads only every second row and column, so only these are computed.
        """
        return self._run(x, self.units[self.units.index(start) : self.units.index(end)], False, None)

    def suffix(
        self,
        x: Float[Array, "n ..."],
        start: str,
        train: bool = False,
        mask: Bool[Array, " n"] | None = None,
        noise: Sequence[Array] = (),
    ) -> Float[Array, "n classes"]:
        """Runs `start` and all units after it: activations at `start` -> logits.

        With `train`, BatchNorm normalizes with the statistics of the batch's rows where `mask` is true (None: all
        rows), and updates the running statistics; for that, call `apply` with `mutable=["batch_stats"]`. `noise` has an
        array for each layer of the head, which multiplies its inputs.
        """
        x = self._run(x, self.units[self.units.index(start) : -1], train, mask)
        return self.head(x, noise)

    def last_map(self, x: Float[Array, "n h w c"], start: str) -> Float[Array, "n h w c"]:
        """Runs `start` and all units up to the head, with BatchNorm in inference mode: activations at `start` -> those
        at all positions whose average the head reads."""
        return self._run(x, self.units[self.units.index(start) : -1], False, None, average=False)

    def averages(
        self, x: Float[Array, "n ..."], end: str, start: str = "conv1"
    ) -> tuple[Float[Array, "n ..."], dict[str, Float[Array, "n c"]]]:
        """Runs the units from `start` up to, but not including, `end`, with BatchNorm in inference mode: the map that
        `end` reads, or the head would average, and what a head would read before each unit that follows these, by its
        name.

        A head reads the average over all positions. So none is skipped here, though a block that halves the resolution
        in v1 reads only every second row and column.
        """
        found, last = {}, self.units.index(end)
        x = x if self.dtype is None else x.astype(self.dtype)
        for place in range(self.units.index(start), last):
            name = self.units[place]
            more = () if name == "conv1" else (2 if self._halves(name) else 1, 1)
            x = getattr(self, name)(x, False, None, *more)
            found[self.units[place + 1]] = _average(x)
        return x, found

    def __call__(self, x: Float[Array, "n h w 3"], train: bool = False) -> Float[Array, "n classes"]:
        """Runs the whole network: preprocessed images -> logits."""
        return self.suffix(x, self.units[0], train)

    def _run(self, x: Array, units: tuple[str, ...], train: bool, mask: Array | None, average: bool = True) -> Array:
        if self.dtype is not None and units and units[0] != "head":
            x = x.astype(self.dtype)
        for name in units:
            unit = getattr(self, name)
            if name == "conv1":
                x = unit(x, train, mask)
            else:
                # If `before` is not in `units`, it ran in the frozen prefix, in inference mode whatever `train` is.
                before = self.units[self.units.index(name) - 1]
                stride = 2 if self._halves(name) and not self._hoists(before, train and before in units) else 1
                x = unit(x, train, mask, stride, 2 if self._hoists(name, train) else 1)
            if name == self.units[-2] and average:
                x = _average(x)
        return x

    def _halves(self, name: str) -> bool:
        return name.endswith("_block1") and not name.startswith("conv2_")

    def _hoists(self, name: str, train: bool) -> bool:
        """Whether block `name` computes only every second row and column, because the next block reads no others.

        In v1 the first block of a stage reads its input with stride 2 on both of its paths. In v1.5 its first 1x1
        convolution reads all positions. With `train` all positions count in the batch statistics, so none is skipped.
        """
        following = self.units[self.units.index(name) + 1]
        return self._halves(following) and not self.variant.stride_on_3x3 and not train


def _average(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32 if x.dtype.itemsize < 4 else x.dtype)


@cache
def abstract_variables(model: ResNet) -> dict[str, Any]:
    """Shapes and dtypes of the network's `params` and `batch_stats`; no arrays are computed."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.ShapeDtypeStruct((), jax.random.key(0).dtype), image)


def start_as_shortcuts(variables: dict[str, Any]) -> dict[str, Any]:
    """`variables` with which each block returns its shortcut alone, after ReLU: the scale of its last BatchNorm is 0
    (Goyal et al., arXiv:1706.02677, section 5.1; torchvision's `zero_init_residual`)."""

    def start(unit: dict[str, Any]) -> dict[str, Any]:
        last = unit.get("3_bn")
        return unit if last is None else unit | {"3_bn": last | {"scale": jnp.zeros_like(last["scale"])}}

    return variables | {"params": {name: start(unit) for name, unit in variables["params"].items()}}


def compute_type(model: ResNet) -> str:
    """The name of the dtype in which the stem and the blocks compute on float32 images."""
    return "float32" if model.dtype is None else np.dtype(model.dtype).name


def describe_network(model: ResNet) -> dict[str, Any]:
    """A JSON dict from which `build_network` builds `model` again, without its `dtype` and `folded_units`."""
    (variant,) = (name for name, row in VARIANTS.items() if row == model.variant)
    stage_sizes, width = model.architecture
    description = {
        "num_classes": model.num_classes,
        "variant": variant,
        "stage_sizes": list(stage_sizes),
        "width": width,
    }
    # Networks of earlier versions have no hidden layers, and do not say so.
    return description | ({"hidden": list(model.hidden)} if model.hidden else {})


def build_network(description: dict[str, Any]) -> ResNet:
    """Builds the network that `describe_network` has described."""
    return ResNet(
        num_classes=description["num_classes"],
        variant=VARIANTS[description["variant"]],
        architecture=Architecture(tuple(description["stage_sizes"]), description["width"]),
        hidden=tuple(description.get("hidden", ())),
    )


def fold(model: ResNet, variables: dict[str, Any], units: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns `variables` with the BatchNorms of `units` (None: all units) merged into their convolutions.

    With the result, `model.clone(folded_units=units)` computes the same as `model` in inference mode. The reason:
    `scale * (conv(x) + bias - mean) / sqrt(var + epsilon) + beta` is a convolution with another kernel and bias, and
    the sum of two 1x1 convolutions is one convolution over the concatenated features. Units that are missing from
    `variables` are missing from the result. Folded kernels have the dtype `model.dtype`; if that is None, their own.
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
    # In the order of `params`, not of a set: every process then traces the same program and finds it in JAX's cache.
    chosen = [unit for unit in params if units is None or unit in units]
    folded = {unit: fold_unit(params[unit], stats.get(unit, {})) for unit in chosen}
    return {"params": params | folded, "batch_stats": {unit: stats[unit] for unit in stats if unit not in chosen}}
