"""Keras's ResNets of any depth, by Keras's own builder."""

from typing import Any

import keras
from keras.src.applications.resnet import ResNet, stack_residual_blocks_v1

from tljax.networks.resnet import NETWORKS, Architecture


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
