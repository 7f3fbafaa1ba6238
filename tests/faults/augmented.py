"""A tiny network from scratch on augmented digits."""

from tljax.config import Config, Data


def get_config() -> Config:
    data = Data(name="digits", classes=("5", "6", "7"), max_images=100, augment="flip_crop")
    settings = {"stage": "from_scratch", "cut": "conv1", "batch_norm": "training", "network": "tiny"}
    return Config(data=data, batch_size=8, epochs=6, **settings)
