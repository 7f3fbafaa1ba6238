"""All four stages on scikit-learn's handwritten digits; no network, no weights to download.

    python main.py --config configs/demo.py --workdir runs/demo

Three minutes on two cores; the README has the table. The source weights are made first, from scratch, on the digits 0
to 4; the stages then transfer them to 5 to 9.
"""

from tljax.config import Data, Lesson


def get_config() -> Lesson:
    config = Lesson(
        source_classes=("0", "1", "2", "3", "4"),
        data=Data(name="digits", classes=("5", "6", "7", "8", "9")),
    )
    for stage in config.stages.values():
        stage.batch_size, stage.epochs = 32, 6
    config.stages["feature_extraction"].epochs = config.stages["fine_tune"].epochs = 12
    return config
