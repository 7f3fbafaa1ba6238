"""Few labelled pictures: a head that is solved from them, then a careful fine-tuning of the last blocks.

    python main.py --config configs/few_labels.py --workdir runs/mine --config.data.name=folder:PICTURES

Begin with `recipe`: it solves a head too, from several views of each picture, and fine-tunes from 20 pictures a class
on. This lesson always fine-tunes, to see whether it helps; with few validation pictures its report cannot tell.
docs/few_labels.md says what to expect. To let the head read earlier, give both stages an earlier place:
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
