"""Few labelled pictures: a head that is solved from them, then a careful fine-tuning of the last blocks.

    python main.py --config configs/few_labels.py --workdir runs/mine --config.data.name=folder:PICTURES

The solved head takes one pass through the network and no training. docs/few_labels.md says what to expect of both, and
the report whether fine_tune was better; with few validation pictures it cannot tell. To let the head read earlier, give
both stages an earlier place:
--config.stages.feature_extraction.head.at=conv5_block1 --config.stages.fine_tune.cut=conv4_block4
"""

from tljax.config import Head, Lesson, Optimizer, Stage


def get_config() -> Lesson:
    stages = {
        "feature_extraction": Stage("feature_extraction", head=Head(init="ridge"), epochs=0),
        "fine_tune": Stage(
            "fine_tune", cut="conv5_block1", epochs=20, batch_size=32, optimizer=Optimizer(learning_rate=1e-5)
        ),
    }
    return Lesson(pretrained="imagenet", stages=stages)
