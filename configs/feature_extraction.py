"""A new head on the frozen ImageNet network, CIFAR-10.

python main.py --config configs/feature_extraction.py --workdir runs/feature_extraction
"""

from tljax.config import Config


def get_config() -> Config:
    return Config(stage="feature_extraction", pretrained="imagenet", cut="head", epochs=10)
