"""A weight file that torchvision's and timm's ResNets load, and timm's description of the model."""

from typing import Any

import numpy as np

from tljax.data.decoding import Fit
from tljax.export.content import Content, to_json
from tljax.networks.architectures import name_architecture
from tljax.trees import flatten
from tljax.weights.convert import to_torch


def build(content: Content) -> bytes:
    """The file `*.safetensors`: arrays by torchvision's names, with `content.metadata`."""
    from safetensors.numpy import save

    return save(
        to_torch({path: np.asarray(leaf) for path, leaf in flatten(content.variables).items()}), content.metadata
    )


def describe(content: Content) -> bytes:
    """The file `config.json` that timm reads beside it: `timm.create_model("local-dir:FOLDER", pretrained=True)`."""
    side, classes, preprocessing = content.image_size, len(content.class_names), content.preprocessing
    described: dict[str, Any] = {
        "architecture": name_architecture(content.network.architecture),
        "num_classes": classes,
        "num_features": content.network.architecture.features,
        "label_names": list(content.class_names),
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": CROP_MODES[content.about["fit"]],
            "mean": preprocessing.mean,
            "std": preprocessing.std,
            "num_classes": classes,
            "first_conv": "conv1",
            "classifier": "fc",
        },
        "tljax": content.about,
    }
    return to_json(described)


# timm's name of each way in which pictures become square; `squash` stretches. Its `border` pads with the mean color. A
# mean of zero would make it black, and another input of the rest: the network's own zeros stand for the mean.
CROP_MODES: dict[Fit, str] = {"crop": "center", "stretch": "squash"}


def prepare(picture: Any, fit: Fit, side: int) -> Any:
    """The square that timm makes of a picture of Pillow by `describe`, as `transforms_imagenet_eval` in its
    data/transforms_factory.py. To crop, torchvision's `Resize` and `CenterCrop` round to whole pixels, and tljax cuts
    between them."""
    from PIL import Image, ImageOps

    rgb, bilinear = ImageOps.exif_transpose(picture).convert("RGB"), Image.Resampling.BILINEAR
    if CROP_MODES[fit] == "squash":
        return rgb.resize((side, side), bilinear)
    width, height = (int(side * length / min(rgb.size)) for length in rgb.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return rgb.resize((width, height), bilinear).crop((left, top, left + side, top + side))
