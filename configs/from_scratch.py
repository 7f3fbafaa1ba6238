"""The whole network from random weights, CIFAR-10.

python main.py --config configs/from_scratch.py --workdir runs/from_scratch

The Keras lesson that this follows: lowest val_loss 0.9262 at epoch 7, accuracy 0.7018 at epoch 12, the last.
"""

from tljax.config import Config


def get_config() -> Config:
    return Config(stage="from_scratch", cut="conv1", epochs=30)
