"""All four stages of a tiny network on a few digits, with BatchNorm in training mode in source and fine_tune."""

from tljax.config import Data, Lesson


def get_config() -> Lesson:
    data = Data(name="digits", classes=("5", "6", "7"), max_images=100)
    config = Lesson(source_classes=("0", "1", "2"), data=data, network="tiny")
    for stage in config.stages.values():
        stage.batch_size, stage.epochs, stage.patience = 8, 3, 3
    config.stages["source"].batch_norm = config.stages["fine_tune"].batch_norm = "training"
    return config
