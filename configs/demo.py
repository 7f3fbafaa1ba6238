"""What a pretrained network is worth where labels are few, on scikit-learn's handwritten digits; nothing to download.

    python main.py --config configs/demo.py --workdir runs/demo

Two to three minutes on two cores; the README has the table. The source weights are made first, from scratch, on the
digits 0 to 4 with all their labels. The stages then learn 5 to 9 from five labelled pictures of each: the network as it
is, a head that is solved on what conv4_block4 reads, fine-tuning from there, and training from scratch. From scratch
has so few epochs that all of it stays short.
"""

from tljax.config import Data, Head, Lesson, Optimizer, Stage


def get_config() -> Lesson:
    tuned = Optimizer(learning_rate=1e-4)
    stages = {
        "source": Stage("from_scratch", cut="conv1", epochs=6, batch_size=32),
        "zero_shot": Stage("zero_shot", batch_size=32),
        "feature_extraction": Stage("feature_extraction", head=Head("conv4_block4", "ridge"), epochs=0, batch_size=32),
        "fine_tune": Stage("fine_tune", cut="conv4_block1", epochs=10, batch_size=5, optimizer=tuned),
        "from_scratch": Stage("from_scratch", cut="conv1", epochs=30, patience=30, batch_size=5),
    }
    return Lesson(
        source_classes=("0", "1", "2", "3", "4"),
        data=Data(name="digits", classes=("5", "6", "7", "8", "9"), labels_per_class=5),
        stages=stages,
    )
