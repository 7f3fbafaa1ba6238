"""The head of a tiny network on a few digits; `--config.pretrained` must name the folder of the network."""

from tljax.config import Config, Data


def get_config() -> Config:
    data = Data(name="digits", classes=("5", "6", "7"), max_images=100)
    return Config(stage="feature_extraction", pretrained="", batch_size=8, epochs=6, data=data)
