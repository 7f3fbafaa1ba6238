"""Makes and loads folders of pictures in one color, for the tests of data sets."""

from pathlib import Path

from PIL import Image

from tljax.config import Data
from tljax.data import datasets

COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def save(path: Path, image: Image.Image, **settings) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **settings)
    return path


def make_folder(folder: Path, counts: dict[str, int]) -> Path:
    """Saves `counts[name]` pictures in each subfolder `name`, in the color that the last part of the name gives."""
    for name, count in counts.items():
        for i in range(count):
            save(folder / name / f"{i}.png", Image.new("RGB", (8, 8), COLORS[Path(name).name]))
    return folder


def load_folder(folder: Path, *, seed: int = 0, training: bool = True, **settings) -> datasets.Dataset:
    config = Data(name=f"folder:{folder}", **{"image_size": 8, **settings})
    return datasets.load_dataset(config, seed=seed, training=training)
