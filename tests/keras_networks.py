"""Keras's ResNets of any depth, by Keras's own builder."""

from typing import Any

import keras
import numpy as np
from keras.src.applications.resnet import ResNet, stack_residual_blocks_v1

from tljax.networks.architectures import NETWORKS, Architecture


def find_network(name: str) -> tuple[Any, Architecture]:
    """`name` is one of Keras's, such as `ResNet50`, or the blocks of its stages, such as `1-2-1-1`: the function that
    builds it, and our row for it."""
    if name.lower() in NETWORKS:
        return getattr(keras.applications, name), NETWORKS[name.lower()].architecture
    stage_sizes = tuple(map(int, name.split("-")))

    def stack(x: Any) -> Any:
        for i, size in enumerate(stage_sizes):
            x = stack_residual_blocks_v1(x, 64 * 2**i, size, stride1=1 if i == 0 else 2, name=f"conv{i + 2}")
        return x

    def build(**settings: Any) -> keras.Model:
        return ResNet(stack, False, True, weights_name="made_up", **settings)

    return build, Architecture(stage_sizes)


def randomize(model: keras.Model, seed: int) -> None:
    """Draws BatchNorms and biases at random and keeps the initial kernels, so that no BatchNorm is an identity."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, var = (rng.uniform(low, high, layer.gamma.shape) for low, high in
                                      ((0.5, 1.5), (-0.2, 0.2), (-0.5, 0.5), (0.5, 1.5)))  # fmt: skip
            # Without it, the sum over fifty blocks would make the logits so large that the softmax has a single class.
            share = 0.3 if layer.name.endswith("_3_bn") else 1
            layer.set_weights([share * gamma, share * beta, mean, var])
        elif layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
