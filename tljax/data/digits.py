"""scikit-learn's handwritten digits. They come with the package: nothing is downloaded."""

import io
from pathlib import Path

import numpy as np

from tljax.data.image_source import SMALLEST_SIZE, ImageSource, Rows
from tljax.data.splits import stratify


def open_digits(whole: bool = False) -> ImageSource:
    """The digits as an image source, with the splits train and val of `stratify`; with `whole`, all are train."""
    import sklearn.datasets
    from PIL import Image

    digits = sklearn.datasets.load_digits()
    # The pixels are counts from 0 to 16.
    images = (digits.images * (255 / 16)).round().astype(np.uint8)
    splits = {"train": np.arange(len(images))} if whole else stratify(digits.target)

    def encode(image: np.ndarray) -> bytes:
        png = io.BytesIO()
        Image.fromarray(image).save(png, "png")
        return png.getvalue()

    def describe(split: str, rows: Rows) -> tuple[np.ndarray, list[str]]:
        chosen = splits[split][rows]
        return digits.target[chosen], [f"digits_{i:05d}" for i in chosen]

    def fetch(split: str, rows: Rows) -> list[bytes]:
        return [encode(images[i]) for i in splits[split][rows]]

    names = tuple(str(name) for name in digits.target_names)
    sizes = {split: len(rows) for split, rows in splits.items()}
    file = Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"
    return ImageSource(names, SMALLEST_SIZE, sizes, describe, fetch, lambda _: [file])
