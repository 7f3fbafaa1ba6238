"""A StableHLO program with the weights in it, which runs where JAX is, without tljax."""

from functools import partial
from pathlib import Path

import jax
import numpy as np

from tljax.export.content import Content, Squares
from tljax.networks.resnet import fold
from tljax.training.calibration import Probabilities
from tljax.training.inference import predict_logits


def build(content: Content) -> bytes:
    """The file `*.stablehlo`, which `jax.export.deserialize` reads: it runs on CPUs, CUDA and TPUs."""
    folded = jax.tree.map(np.asarray, fold(content.network, content.variables))
    read = partial(predict_logits, model=content.network, preprocessing=content.preprocessing, mirror=False)
    side = content.image_size

    def answer(images: jax.Array) -> jax.Array:
        return jax.nn.softmax(read(folded, images) / content.temperature)

    images = jax.ShapeDtypeStruct((content.batch_size, side, side, 3), np.uint8)
    program = jax.export.export(jax.jit(answer), platforms=("cpu", "cuda", "tpu"))(images)
    return bytes(program.serialize())


def answer(file: Path, content: Content, images: Squares) -> Probabilities:
    """The probabilities [n, classes] that a file gives for `images`, in batches of its size."""
    program, size = jax.export.deserialize(bytearray(file.read_bytes())), content.batch_size
    padded = np.concatenate([images, np.zeros((-len(images) % size, *images.shape[1:]), np.uint8)])
    with jax.default_device(jax.devices("cpu")[0]):
        parts = [np.asarray(program.call(padded[i : i + size])) for i in range(0, len(padded), size)]
    return np.concatenate(parts)[: len(images)]
