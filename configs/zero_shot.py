"""The network as it is: ImageNet's 1000 classes on 1,000 test images of CIFAR-10, resized to 224x224.

python main.py --config configs/zero_shot.py --workdir runs/zero_shot
"""

from tljax.config import Config


def get_config() -> Config:
    return Config(stage="zero_shot", pretrained="imagenet", batch_size=32)
