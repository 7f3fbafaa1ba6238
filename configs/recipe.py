"""All settings chosen for you, from the number of pictures and classes; with their reasons.

    python main.py --config configs/recipe.py --workdir runs/mine --config.data.name=folder:PICTURES

It transfers from the ImageNet weights; with --config.pretrained=None it trains from scratch. --config.time_limit=30
chooses as many epochs as fit into 30 minutes on this machine. The stages that it became are in config.json and
recipe.json, and a run that goes on keeps them.
"""

from tljax.config import Recipe


def get_config() -> Recipe:
    return Recipe(pretrained="imagenet")
