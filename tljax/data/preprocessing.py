"""Turns images into the network's input: pure functions, which get their constants as arguments."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class Preprocessing(NamedTuple):
    """The input that a set of weights expects: `(channels(x) * scale - mean) / std` of RGB pixels `x`, 0..255.

    `mean` and `std` are in the order of `channels`.
    """

    channels: Literal["rgb", "bgr"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Channel means of the ImageNet training set in BGR order, as in the Caffe models from which Keras's ResNet50
# preprocessing comes (keras.applications.resnet.preprocess_input).
CAFFE = Preprocessing("bgr", 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
# torchvision's and timm's constants for ImageNet.
TORCH = Preprocessing("rgb", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The preprocessing of each of `architectures.VARIANTS`.
OF_VARIANT = {"v1": CAFFE, "v1.5": TORCH}


def preprocess(images: Num[Array, "n h w 3"], preprocessing: Preprocessing) -> Float[Array, "n h w 3"]:
    """Normalizes RGB pixels 0..255; integers become float32, floating point keeps its dtype."""
    # The channels are reversed before the cast to float32, while they are small.
    x = images[..., ::-1] if preprocessing.channels == "bgr" else images
    x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
    mean, std = (jnp.asarray(v, x.dtype).reshape(1, 1, 1, 3) for v in (preprocessing.mean, preprocessing.std))
    return (x * jnp.asarray(preprocessing.scale, x.dtype) - mean) / std


class Resizing(NamedTuple):
    """How images of any size become square inputs for weights as they are. The defaults are tf.image.resize's."""

    crop: float = 1.0
    """The share of the resized image's side that is kept, its centre."""
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    """Whether an image that is made smaller is smoothed first, as Pillow does it."""


AS_KERAS = Resizing()

# jax.image's names of the interpolations.
_METHODS = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic", "lanczos": "lanczos3"}


def resize(images: Num[Array, "n h w 3"], size: int, resizing: Resizing = AS_KERAS) -> Num[Array, "n size size 3"]:
    """Resizes to the side `size / resizing.crop` and keeps the centre of the side `size`; half-pixel centres. Integers
    that are resized become float32.

    Images that have the right side already are not resized. timm's transforms do the same with Pillow, which rounds to
    whole grey levels in between.
    """
    side = int(size / resizing.crop)
    n, height, width, channels = images.shape
    x = images
    if (height, width) != (side, side):
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
        method = _METHODS[resizing.interpolation]
        x = jax.image.resize(x, (n, side, side, channels), method, antialias=resizing.antialias)
        # Cubic curves overshoot; a picture's pixels cannot.
        x = x if method in ("nearest", "linear") else jnp.clip(x, 0, 255)
    start = round((side - size) / 2)
    return x[:, start : start + size, start : start + size]
