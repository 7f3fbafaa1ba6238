"""A recipe from scratch for a tiny network, with fewer epochs than its rules would choose."""

from tljax.config import Data, Recipe
from tljax.stages import rules


def get_config() -> Recipe:
    rules.EPOCHS = (6, 6)
    return Recipe(data=Data("digits", classes=("5", "6", "7"), max_images=100, augment="auto"), network="tiny")
