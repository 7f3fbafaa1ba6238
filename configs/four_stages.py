"""All four stages on CIFAR-10 with the ImageNet weights; a folder a stage and a table at the end.

    python main.py --config configs/four_stages.py --workdir runs/cifar10

One stage's settings are `--config.stages.fine_tune.epochs=2`; the data is shared, `--config.data.dir=DIR`.
"""

from tljax.config import Lesson


def get_config() -> Lesson:
    config = Lesson(pretrained="imagenet")
    config.stages["zero_shot"].batch_size = 32  # at 224x224
    return config
