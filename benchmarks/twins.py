"""Which twins are found: planted ones in CIFAR-10, and its own.

    python benchmarks/twins.py --data-dir DIR [--seed 0] [--out FOLDER]

DIR is TFDS's data_dir with CIFAR-10. 50,000 training and 10,000 test pictures are written as JPEGs into a folder of
splits and classes, and with them 100 twins of each kind of training pictures, among the test pictures: the same file,
encoded again (quality 40 to 90), mirrored, resized (20 to 64 pixels), cropped by two pixels (on each side, or in all
along each axis), brighter (by 1.2 to 1.5). The seed draws all of that. The folder is read as a run reads it.

It prints the recall of each kind, what else is found, and what it costs: seconds of processors beside reading, and the
most memory. CIFAR-10's own twins are counted without the planted pictures. With `--out`, sheets.png there has 100 of
these pairs, drawn with the seed, beside their distances. About two minutes.
"""

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from tljax.check.twins import Named, Pairs, find_twins, group_twins, list_twins, measure, sketch
from tljax.config import Data
from tljax.data import datasets
from tljax.data.datasets import Split

EACH, SHOWN, COLUMNS = 100, 100, 10
SIDES = (20, 24, 28, 40, 48, 64)


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.5:
        return image.crop((2, 2, 30, 30))
    left, top = rng.integers(0, 3, 2).tolist()
    return image.crop((left, top, left + 30, top + 30))


# What a twin is made by, and the qualities that it is saved in.
CHANGES: dict[str, tuple[Callable[[Image.Image, np.random.Generator], Image.Image], tuple[int, int]]] = {
    "encoded again": (lambda image, rng: image, (40, 90)),
    "mirrored": (lambda image, rng: ImageOps.mirror(image), (70, 95)),
    "resized": (lambda image, rng: image.resize((int(rng.choice(SIDES)),) * 2, Image.Resampling.BICUBIC), (70, 95)),
    "cropped": (crop, (70, 95)),
    "brighter": (lambda image, rng: ImageEnhance.Brightness(image).enhance(rng.uniform(1.2, 1.5)), (70, 95)),
}


def encode(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def write_split(folder: Path, split: Split, classes: tuple[str, ...]) -> None:
    for image, name, label in zip(split.images[:], split.ids, split.labels, strict=True):
        path = folder / classes[label] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(Image.fromarray(image), 95))


def plant(folder: Path, seed: int) -> dict[str, tuple[str, str]]:
    """Writes twins of files of train into test; for the name of each, its kind and the name of the other one."""
    rng = np.random.default_rng(seed)
    files = sorted((folder / "train").rglob("*.jpg"))
    chosen = iter(rng.choice(len(files), EACH * (len(CHANGES) + 1), replace=False))
    planted = {}
    for kind in ["the same file", *CHANGES]:
        for number in range(EACH):
            source = files[next(chosen)]
            name = f"planted_{kind.replace(' ', '_')}_{number:03d}.jpg"
            path = folder / "test" / source.parent.name / name
            path.write_bytes(change(source, kind, rng))
            planted[name] = (kind, source.name)
    return planted


def change(source: Path, kind: str, rng: np.random.Generator) -> bytes:
    if kind not in CHANGES:
        return source.read_bytes()
    make, qualities = CHANGES[kind]
    with Image.open(source) as image:
        return encode(make(image, rng), int(rng.integers(*qualities)))


def name_pairs(pairs: Pairs, ids: list[str]) -> set[tuple[str, str]]:
    names = [Path(name).name for name in ids]
    return {
        (names[one], names[other])
        for ends in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
        for one, other in (ends, ends[::-1])
    }


def draw(pictures: np.ndarray, pairs: Pairs, path: Path) -> None:
    """A sheet of pairs: the first one is mirrored where it is found so."""
    side, room = 64, 14
    rows = -(-len(pairs.first) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (2 * side + 8), rows * (side + room)), "white")
    canvas = ImageDraw.Draw(sheet)
    for place, (first, second, mirrored, distance) in enumerate(zip(*pairs, strict=True)):
        x, y = place % COLUMNS * (2 * side + 8), place // COLUMNS * (side + room)
        one = pictures[first][:, ::-1] if mirrored else pictures[first]
        for beside, image in enumerate((one, pictures[second])):
            sheet.paste(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), 0), (x + beside * side, y))
        canvas.text((x, y + side), f"{distance:.2f}", fill="black")
    sheet.save(path)


def measure_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def report_own(pairs: Pairs, named: Named, pictures: np.ndarray) -> None:
    """What is found in CIFAR-10 itself."""
    rows = list_twins(pairs, named)
    groups = group_twins(len(named.ids), pairs, lambda asked: measure(pictures, asked).distance)
    sizes = np.bincount(groups)
    print(f"CIFAR-10's own: {len(pairs.first)} pairs, {(pairs.distance == 0).sum()} of them of equal pixels")
    for kind in ("leak", "exact_twin", "near_twin", "contradiction"):
        print(f"  {kind}: {sum(row.kind == kind for row in rows)} pictures")
    print(f"  groups: {(sizes > 1).sum()} of {sizes[sizes > 1].sum()} pictures, the largest of {sizes.max()}")


def report_planted(found: set[tuple[str, str]], planted: dict[str, tuple[str, str]]) -> None:
    for kind in ["the same file", *CHANGES]:
        names = [name for name, (its_kind, _) in planted.items() if its_kind == kind]
        print(f"  {kind}: {sum((name, planted[name][1]) in found for name in names)} of {len(names)}")


def join(splits: Iterable[Split], attribute: str) -> list:
    return [value for split in splits for value in getattr(split, attribute)]


def main(data_dir: str, seed: int, out: Path | None) -> None:
    source = datasets.load_dataset(Data(name="cifar10", dir=data_dir), seed=0)
    assert source.train and source.validation
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_split(folder / "train", source.train, source.class_names)
        write_split(folder / "test", source.validation, source.class_names)
        planted = plant(folder, seed)
        config = Data(name=f"folder:{folder}", image_size=32, validation_split="test")
        splits = datasets.load_dataset(config, seed=0).splits
    ids, labels = join(splits.values(), "ids"), join(splits.values(), "labels")
    names = [name for name, split in splits.items() for _ in split.ids]
    images = np.concatenate([split.images[:] for split in splits.values()])
    before, clock = measure_seconds(), time.perf_counter()
    sketches = sketch(images)
    pairs = find_twins(sketches)
    spent, waited = measure_seconds() - before, time.perf_counter() - clock
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(ids)} pictures: {spent:.0f} s of processors, {waited:.0f} s, at most {memory:.2f} GB")
    report_planted(name_pairs(pairs, ids), planted)
    new = np.array([Path(name).name in planted for name in ids])
    own = pairs.at(np.flatnonzero(~new[pairs.first] & ~new[pairs.second]))
    report_own(own, Named(ids, names, [source.class_names[label] for label in labels]), sketches.pictures)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        shown = np.sort(np.random.default_rng(seed).choice(len(own.first), SHOWN, replace=False))
        draw(sketches.pictures, own.at(shown), out / "sheets.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="TFDS's data_dir with CIFAR-10")
    parser.add_argument("--seed", type=int, default=0, help="draws the planted twins (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a folder for a sheet of 100 pairs")
    arguments = parser.parse_args()
    main(arguments.data_dir, arguments.seed, arguments.out)
