"""The whole network from random weights, CIFAR-10.

python main.py --config configs/from_scratch.py --workdir runs/from_scratch
"""

from tljax.config import Config


def get_config() -> Config:
    return Config(stage="from_scratch", cut="conv1", epochs=30)
