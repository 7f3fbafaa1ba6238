"""A study of a tiny network on a few digits, on views of each picture. `--config.pretrained` must name its folder."""

from tljax.config import Data, HowDeep
from tljax.stages import rules


def get_config() -> HowDeep:
    rules.TUNE_EPOCHS = rules.EPOCHS = (2, 2)
    data = Data(name="digits", classes=("5", "6", "7"), augment="flip,shift", views=2, labels_per_class=20)
    data.validation_split, data.test_split = "train[70%:]", "val"
    return HowDeep(pretrained="", data=data)
