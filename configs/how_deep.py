"""How much of a pretrained network to train, measured on your pictures: a head alone, the last units, all, or anew.

    python main.py --config configs/how_deep.py --workdir runs/depth --config.data.name=folder:PICTURES

A solved head is tried at every unit, then at most five candidates are trained, the best two three times; the answer,
with its evidence and its price, is in report.md, and docs/how_deep.md says how to read it. --config.time_limit=60
leaves out what does not fit into 60 minutes on this machine.
"""

from tljax.config import HowDeep


def get_config() -> HowDeep:
    return HowDeep(pretrained="imagenet")
