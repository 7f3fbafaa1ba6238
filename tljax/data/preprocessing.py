"""From pictures to the network's input: pure functions, their constants passed as arguments."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num


class Preprocessing(NamedTuple):
    """How a set of weights wants its input: `(channels(x) * scale - mean) / std`, pixels 0..255 in RGB."""

    channels: Literal["rgb", "bgr"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Means of the ImageNet training set in the order of the channels, as in the Caffe models from which Keras's ResNet50
# preprocessing comes (keras.applications.resnet.preprocess_input).
CAFFE = Preprocessing("bgr", 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
# torchvision's and timm's constants for ImageNet.
TORCH = Preprocessing("rgb", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What goes with each of `resnet.VARIANTS`.
OF_VARIANT = {"v1": CAFFE, "v1.5": TORCH}


def preprocess(images: Num[Array, "n h w 3"], preprocessing: Preprocessing) -> Float[Array, "n h w 3"]:
    """Normalizes RGB pixels 0..255; integers become float32, floating point keeps its type."""
    # Turned around before they get larger.
    x = images[..., ::-1] if preprocessing.channels == "bgr" else images
    x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
    mean, std = (jnp.asarray(v, x.dtype).reshape(1, 1, 1, 3) for v in (preprocessing.mean, preprocessing.std))
    return (x * jnp.asarray(preprocessing.scale, x.dtype) - mean) / std


def resize(images: Num[Array, "n h w 3"], size: int) -> Num[Array, "n size size 3"]:
    """Bilinear with half-pixel centres and without antialiasing, as tf.image.resize; the identity at `size`."""
    n, height, width, channels = images.shape
    if (height, width) == (size, size):
        return images
    x = images if jnp.issubdtype(images.dtype, jnp.floating) else images.astype(jnp.float32)
    return jax.image.resize(x, (n, size, size, channels), "bilinear", antialias=False)
