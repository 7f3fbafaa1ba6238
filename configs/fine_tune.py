"""The last stage of blocks and the head of a feature_extraction run, trained on with a tenth of its learning rate.

python main.py --config configs/fine_tune.py --config.pretrained=runs/feature_extraction --workdir runs/fine_tune

The Keras lesson that this follows: lowest val_loss 0.9075 at the 2nd epoch, accuracy 0.7247 at the 7th, the last.
"""

from tljax.config import Config, Optimizer


def get_config() -> Config:
    return Config(stage="fine_tune", cut="conv5_block1", epochs=40, optimizer=Optimizer(learning_rate=1e-4))
