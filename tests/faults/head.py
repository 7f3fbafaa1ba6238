"""The head of a tiny network on a few digits: it reads what the last block would read, and is solved before it is
trained, on three views of each picture. `--config.pretrained` must name the folder of the network."""

from tljax.config import Config, Data, Head


def get_config() -> Config:
    data = Data(name="digits", classes=("5", "6", "7"), max_images=100, augment="flip,shift", views=3)
    head = Head(at="conv5_block1", init="ridge")
    return Config(stage="feature_extraction", pretrained="", head=head, batch_size=8, epochs=6, data=data)
