"""What is found of pictures' properties: in random data, in CIFAR-10 and digits, and of a planted border.

    python benchmarks/shortcuts.py --data-dir DIR [--seed 0] [--sets 200]

DIR is TFDS's data_dir with CIFAR-10. It prints

- in how many of `--sets` random data sets a shortcut is found: 20 to 2,000 pictures, 2 to 100 classes, even or uneven
  ones, 11 properties of numbers and words, all of them unrelated to the classes;
- which kinds of odd pictures and which shortcuts are found in CIFAR-10 (as JPEGs) and in scikit-learn's digits;
- what is found where 60% of the airplanes have a border of two pixels in a color, for six colors;
- what it costs: seconds of processors and the most memory; digits have 28 pixels a side.

About two minutes.
"""

import argparse
import io
import resource
from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from tljax.check.odd import list_odd
from tljax.check.properties import FileFacts, PixelFacts, measure_files, measure_pixels
from tljax.check.shortcuts import Labeled, find_shortcuts, list_properties
from tljax.check.twins import Named
from tljax.config import Data
from tljax.data import datasets

COLORS = {
    "red": (200, 30, 60), "green": (20, 160, 40), "black": (0, 0, 0), "white": (255, 255, 255), "gray": (128, 128, 128),
    "blue": (30, 60, 200),
}  # fmt: skip
WIDTH, PART = 2, 0.6


def draw_labels(rng: np.random.Generator) -> np.ndarray:
    """Classes of a random data set, even or uneven ones."""
    n, n_classes = int(2 ** rng.uniform(np.log2(20), np.log2(2000))), int(2 ** rng.uniform(1, np.log2(100)))
    parts = rng.dirichlet(np.full(n_classes, rng.choice([0.2, 1.0, 1e6])))
    return rng.choice(n_classes, n, p=parts)


def draw_properties(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random properties: continuous ones, few and many whole numbers, some unknown, words of even and uneven shares."""
    sizes = rng.choice([224, 256, 300, 333, 375, 500, 640], n)
    words = np.array(["none", "Canon", "Nikon", "Sony", "Apple"], object)
    days = np.where(rng.random(n) < 0.5, np.nan, rng.integers(730000, 738000, n).astype(float))
    return {
        "width": sizes.astype(float),
        "height": rng.choice(sizes, n).astype(float),
        "aspect": rng.lognormal(0, 0.3, n),
        "bytes": rng.lognormal(10, 1, n).round(),
        "format": words[rng.choice(2, n, p=[0.97, 0.03])],
        "mode": words[rng.choice(3, n, p=[0.9, 0.08, 0.02])],
        "gray or color": words[rng.choice(2, n)],
        "brightness": rng.normal(120, 40, n),
        "border color": words[rng.choice(5, n, p=[0.9, 0.05, 0.03, 0.01, 0.01])],
        "EXIF maker": words[rng.choice(5, n)],
        "EXIF date": days,
    }


def count_false_alarms(sets: int, rng: np.random.Generator) -> tuple[int, int]:
    """In how many random data sets something is found, and how many shortcuts in all."""
    counts = []
    for _ in range(sets):
        labels = draw_labels(rng)
        names = [str(label) for label in range(labels.max() + 1)]
        ids = [str(place) for place in range(len(labels))]
        counts.append(len(find_shortcuts(draw_properties(len(labels), rng), Labeled(ids, labels, names))))
    return sum(count > 0 for count in counts), sum(counts)


def encode(image: np.ndarray, kind: str, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, quality=quality)
    return file.getvalue()


def decode(files: list[bytes]) -> np.ndarray:
    return np.array([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])


def add_border(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    framed = np.empty_like(image)
    framed[:] = color
    framed[WIDTH:-WIDTH, WIDTH:-WIDTH] = image[WIDTH:-WIDTH, WIDTH:-WIDTH]
    return framed


def report(facts: tuple[FileFacts, PixelFacts], labels: np.ndarray, names: list[str]) -> None:
    """The odd pictures and the shortcuts of a data set."""
    ids = [str(place) for place in range(len(labels))]
    odd = list_odd(*facts, Named(ids, ["train"] * len(ids), [names[label] for label in labels]))
    print(f"  odd: {dict(Counter(finding.kind for finding in odd))}")
    shortcuts = find_shortcuts(list_properties(*facts), Labeled(ids, labels, names))
    for each in shortcuts:
        print(
            f"  {each.label}: {each.property} {each.rule}, {each.share:.2f} of it at {each.precision:.3f} {each.also}"
        )
    print(f"  {len(shortcuts)} shortcuts")


def plant(
    images: np.ndarray, labels: np.ndarray, rng: np.random.Generator, quality: int
) -> Iterator[tuple[str, list[int], list[bytes]]]:
    """For each color its name, the places of pictures that have its border, and these as JPEGs."""
    places = np.flatnonzero(labels == 0)
    for name, color in COLORS.items():
        chosen = rng.choice(places, round(PART * len(places)), replace=False).tolist()
        yield name, chosen, [encode(add_border(images[place], color), "JPEG", quality) for place in chosen]


def measure_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def exchange(columns: tuple, places: list[int], others: tuple) -> list:
    """Columns with those of other pictures at `places`."""
    changed = []
    for column, other in zip(columns, others, strict=True):
        new = np.array(column, object if isinstance(column, tuple) else column.dtype)
        new[places] = other
        changed.append(tuple(new) if isinstance(column, tuple) else new)
    return changed


def main(data_dir: str, seed: int, sets: int) -> None:
    rng = np.random.default_rng(seed)
    with_any, number = count_false_alarms(sets, rng)
    print(f"random data: {with_any} of {sets} sets have a shortcut, {number} in all")
    for kind in ("PNG", "JPEG"):
        report_digits(kind)
    source = datasets.load_dataset(Data(name="cifar10", dir=data_dir), seed=0)
    assert source.train
    for quality in (95, 75):
        report_cifar((source.train.images[:], source.train.labels), list(source.class_names), quality, rng)
    measure_large()


def report_digits(kind: str) -> None:
    """Digits of 28 pixels, as MNIST has them."""
    digits = load_digits()
    images = [np.asarray(Image.fromarray((digit * 15.9).astype(np.uint8)).resize((28, 28))) for digit in digits.images]
    files = [encode(image, kind, 75) for image in images]
    print(f"digits as {kind}")
    report((measure_files(files), measure_pixels(decode(files))), digits.target, list(map(str, range(10))))


def report_cifar(
    pictures: tuple[np.ndarray, np.ndarray], names: list[str], quality: int, rng: np.random.Generator
) -> None:
    images, labels = pictures
    files = [encode(image, "JPEG", quality) for image in images]
    decoded, clock = decode(files), [measure_seconds()]
    headers = measure_files(files)
    clock.append(measure_seconds())
    pixels = measure_pixels(decoded)
    clock.append(measure_seconds())
    print(f"CIFAR-10, {len(files)} JPEGs of quality {quality}")
    report((headers, pixels), labels, names)
    clock.append(measure_seconds())
    print("  of processors: headers {:.1f} s, pixels {:.1f} s, findings {:.1f} s".format(*np.diff(clock)))
    for color, places, bordered in plant(images, labels, rng, quality):
        print(f"{PART:.0%} of {names[0]} with a border of {color}, quality {quality}")
        others = measure_files(bordered), measure_pixels(decode(bordered))
        facts = (exchange(one, places, other) for one, other in zip((headers, pixels), others, strict=True))
        report((FileFacts(*next(facts)), PixelFacts(*next(facts))), labels, names)


def measure_large() -> None:
    """The cost of 3,000 pictures of 224 pixels, and the most memory of all."""
    images = np.random.default_rng(0).integers(0, 256, (300, 224, 224, 3), dtype=np.uint8)
    before = measure_seconds()
    for _ in range(10):
        measure_pixels(images)
    spent, memory = measure_seconds() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"3,000 pictures of 224 pixels: {spent:.1f} s of processors; at most {memory:.2f} GB in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="TFDS's data_dir with CIFAR-10")
    parser.add_argument("--seed", type=int, default=0, help="draws all that is random (default: %(default)s)")
    parser.add_argument("--sets", type=int, default=200, help="random data sets (default: %(default)s)")
    arguments = parser.parse_args()
    main(arguments.data_dir, arguments.seed, arguments.sets)
