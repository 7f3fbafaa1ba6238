"""Gradual unfreezing: a new head, then fine-tuning from ever earlier blocks, each time more slowly.

    python main.py --config configs/gradual.py --workdir runs/mine --config.data.name=folder:PICTURES

Each stage starts from the best epoch of the one before it, with a fresh optimizer. What it leaves frozen is computed
once, and proved unchanged at its end. `report.md` has a row for each stage: it shows which of them still helped.
"""

from tljax.config import Lesson, Optimizer, Stage


def get_config() -> Lesson:
    def fine_tune(cut: str, learning_rate: float) -> Stage:
        return Stage("fine_tune", cut=cut, epochs=10, patience=3, optimizer=Optimizer(learning_rate=learning_rate))

    stages = {
        "head": Stage("feature_extraction"),
        "from_conv5": fine_tune("conv5_block1", 1e-4),
        "from_conv4": fine_tune("conv4_block1", 3e-5),
        "from_conv3": fine_tune("conv3_block1", 1e-5),
    }
    return Lesson(pretrained="imagenet", stages=stages)
