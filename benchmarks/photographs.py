"""Photographs that come with Python packages, cut into tiles: a data set that `pip install` alone brings.

    pip install --no-deps scikit-image==0.26.0 foolbox==3.3.4 gradio==6.31.0 thumbor==7.8.0 ultralytics==8.4.190
    python benchmarks/photographs.py --out FOLDER --seed 0

scikit-learn and matplotlib bring one more each, and tljax needs them anyway. No package is imported: only its files are
read. Each photograph's licence is that of its package, or what the package says of it.

The classes are animals, persons, and what people have made (buildings, vehicles and other things), of 8 to 15
photographs each. A picture of the data set is a square tile of a photograph, and shows a part of the subject. All tiles
of a photograph are in one split: they are more alike than those of two photographs of one class.
"""

import argparse
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

# The releases whose files these are. Others may have moved them.
PACKAGES = "scikit-image==0.26.0 foolbox==3.3.4 gradio==6.31.0 thumbor==7.8.0 ultralytics==8.4.190"
# Pixels a side of a tile, and how many a photograph is cut into at least.
SIDE, TILES = 48, 30
# Tiles of each class.
COUNTS = {"train": 120, "validation": 60, "test": 60}

# Left, top, right, bottom as fractions of the width and the height.
Box = tuple[float, float, float, float]
WHOLE: Box = (0, 0, 1, 1)


class Photograph(NamedTuple):
    """A file of a package, the class of what it shows, and where in it that is."""

    label: str
    name: str
    package: str
    path: str
    box: Box = WHOLE


GRADIO, SKIMAGE, THUMBOR = "gradio/media_assets/images", "skimage/data", "thumbor/fixtures/filters"
FOOLBOX, ULTRALYTICS = "foolbox/data/imagenet", "ultralytics/assets"
PHOTOGRAPHS = (
    Photograph("animal", "beetle", "foolbox", f"{FOOLBOX}_19_305.jpg", (0.22, 0.2, 0.82, 0.9)),
    Photograph("animal", "bug", "foolbox", f"{FOOLBOX}_18_317.jpg", (0.25, 0.15, 0.75, 0.92)),
    Photograph("animal", "cat", "scikit-image", f"{SKIMAGE}/chelsea.png", (0.05, 0, 0.95, 1)),
    Photograph("animal", "cheetah", "gradio", f"{GRADIO}/cheetah1.jpg", (0.04, 0.08, 0.96, 1)),
    Photograph("animal", "dalmatian", "foolbox", f"{FOOLBOX}_16_251.jpg", (0, 0, 1, 0.75)),
    Photograph("animal", "dog", "foolbox", f"{FOOLBOX}_00_243.jpg", (0.18, 0.1, 0.62, 0.9)),
    Photograph("animal", "eagle", "foolbox", f"{FOOLBOX}_17_22.jpg", (0, 0.22, 1, 0.7)),
    Photograph("animal", "geese", "foolbox", f"{FOOLBOX}_15_99.jpg", (0, 0.1, 0.68, 1)),
    Photograph("animal", "lion", "gradio", f"{GRADIO}/lion.jpg", (0, 0, 1, 0.85)),
    Photograph("made", "bus", "ultralytics", f"{ULTRALYTICS}/bus.jpg", (0.03, 0.2, 0.98, 0.47)),
    Photograph("made", "cannon", "foolbox", f"{FOOLBOX}_13_471.jpg", (0, 0.12, 0.95, 0.95)),
    Photograph("made", "cap", "foolbox", f"{FOOLBOX}_09_455.jpg", (0.08, 0.15, 0.92, 0.92)),
    Photograph("made", "car", "foolbox", f"{FOOLBOX}_07_609.jpg", (0.08, 0.28, 1, 0.78)),
    Photograph("made", "chairs", "foolbox", f"{FOOLBOX}_01_559.jpg", (0, 0.03, 1, 1)),
    Photograph("made", "cottage", "foolbox", f"{FOOLBOX}_05_853.jpg", (0, 0.1, 1, 0.48)),
    Photograph("made", "cup", "scikit-image", f"{SKIMAGE}/coffee.png", (0.1, 0, 0.82, 1)),
    Photograph("made", "drum", "foolbox", f"{FOOLBOX}_10_541.jpg", (0.1, 0.08, 0.92, 0.9)),
    Photograph("made", "jeep", "foolbox", f"{FOOLBOX}_06_609.jpg", (0.18, 0.25, 0.85, 0.68)),
    Photograph("made", "motorcycle", "scikit-image", f"{SKIMAGE}/motorcycle_left.png", (0.1, 0.22, 0.92, 0.92)),
    Photograph("made", "temple", "scikit-learn", "sklearn/datasets/images/china.jpg", (0.12, 0.08, 0.6, 0.92)),
    Photograph("made", "tents", "foolbox", f"{FOOLBOX}_08_915.jpg", (0.1, 0.4, 1, 1)),
    Photograph("made", "tower", "gradio", f"{GRADIO}/tower.jpg", (0.25, 0.15, 0.8, 1)),
    Photograph("made", "wall", "scikit-image", f"{SKIMAGE}/brick.png"),
    Photograph("made", "window", "foolbox", f"{FOOLBOX}_12_741.jpg", (0.02, 0.05, 0.98, 1)),
    Photograph("person", "admiral", "matplotlib", "matplotlib/mpl-data/sample_data/grace_hopper.jpg", (0.03, 0, 1, 1)),
    Photograph("person", "astronaut", "scikit-image", f"{SKIMAGE}/astronaut.png", (0.05, 0, 0.7, 1)),
    Photograph(
        "person", "beard", "thumbor", f"{THUMBOR}/Giunchedi%2C_Filippo_January_2015_01.jpg", (0.34, 0.1, 0.64, 0.7)
    ),
    Photograph("person", "cameraman", "scikit-image", f"{SKIMAGE}/camera.png", (0.05, 0.1, 0.6, 0.9)),
    Photograph("person", "coaches", "ultralytics", f"{ULTRALYTICS}/zidane.jpg", (0.12, 0.05, 0.9, 1)),
    Photograph("person", "curls", "thumbor", f"{THUMBOR}/800px-Katherine_Maher.jpg", (0.25, 0.05, 0.78, 1)),
    Photograph("person", "glasses", "thumbor", f"{THUMBOR}/800px-Christophe_Henner_-_June_2016.jpg", (0.05, 0, 0.6, 1)),
    Photograph("person", "shirt", "thumbor", f"{THUMBOR}/800px-Guido-portrait-2014.jpg", (0.25, 0, 0.75, 1)),
)


def find_photograph(photograph: Photograph) -> Path:
    """Its file. Raises SystemExit with what to install if the package or the file is not there."""
    try:
        path = Path(str(distribution(photograph.package).locate_file(photograph.path)))
    except PackageNotFoundError:
        raise SystemExit(f"{photograph.package} is not installed: pip install --no-deps {PACKAGES}") from None
    if not path.is_file():
        raise SystemExit(f"{photograph.package} has no {photograph.path}: pip install --no-deps {PACKAGES}")
    return path


def crop(picture: Image.Image, box: Box) -> Image.Image:
    """The part of the `picture` in the `box`."""
    width, height = picture.size
    left, top, right, bottom = box
    return picture.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def choose_side(width: int, height: int, tiles: int) -> int:
    """Pixels a side of the largest squares of which at least so many fit in rows and columns."""
    return next(side for side in range(min(width, height), 0, -1) if (width // side) * (height // side) >= tiles)


def cut(picture: Image.Image, tiles: int, side: int) -> list[Image.Image]:
    """At least so many squares of the `picture`, row by row, each scaled to `side` pixels. None overlaps another one.
    What is left at the right and at the bottom is in none."""
    width, height = picture.size
    own = choose_side(width, height, tiles)
    corners = [(x * own, y * own) for y in range(height // own) for x in range(width // own)]
    squares = (picture.crop((left, top, left + own, top + own)) for left, top in corners)
    return [square.resize((side, side), Image.Resampling.LANCZOS) for square in squares]


def split_photographs(photographs: list[Photograph], rng: np.random.Generator) -> dict[str, list[Photograph]]:
    """The photographs of one class by split, drawn at random: a quarter to validate on and a quarter to test on,
    rounded down."""
    drawn = [photographs[i] for i in rng.permutation(len(photographs))]
    share = len(drawn) // 4
    return {"validation": drawn[:share], "test": drawn[share : 2 * share], "train": drawn[2 * share :]}


def share_out(total: int, shares: int) -> list[int]:
    """Whole numbers that add up to the `total` and differ by one at most."""
    return [total // shares + (i < total % shares) for i in range(shares)]


def draw_tiles(photograph: Photograph, count: int, rng: np.random.Generator) -> Iterator[tuple[str, Image.Image]]:
    """So many tiles of the `photograph`, with the names of their files."""
    with Image.open(find_photograph(photograph)) as picture:
        tiles = cut(crop(picture.convert("RGB"), photograph.box), TILES, SIDE)
    for i in sorted(rng.choice(len(tiles), count, replace=False)):
        yield f"{photograph.name}_{i}.png", tiles[i]


def draw_class(label: str, rng: np.random.Generator) -> Iterator[tuple[Path, Image.Image]]:
    """All tiles of a class, with the paths of their files in the folder."""
    by_split = split_photographs([one for one in PHOTOGRAPHS if one.label == label], rng)
    for split, photographs in by_split.items():
        for photograph, count in zip(photographs, share_out(COUNTS[split], len(photographs)), strict=True):
            for name, tile in draw_tiles(photograph, count, rng):
                yield Path(split, label, name), tile


def write_folder(out: Path, seed: int) -> None:
    """`out/SPLIT/CLASS/NAME_i.png` for each tile. The `seed` draws the split of the photographs, and the tiles. Raises
    FileExistsError if `out` is there."""
    rng = np.random.default_rng(seed)
    tiles = [tile for label in dict.fromkeys(one.label for one in PHOTOGRAPHS) for tile in draw_class(label, rng)]
    out.mkdir(parents=True)
    for path, tile in tiles:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        tile.save(out / path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="a new folder")
    parser.add_argument("--seed", type=int, default=0, help="draws which photographs are in which split")
    flags = parser.parse_args()
    try:
        write_folder(flags.out, flags.seed)
    except FileExistsError:
        raise SystemExit(f"--out: {flags.out} is there already; name a new folder") from None


if __name__ == "__main__":
    main()
