"""What `main.py check` finds of what was planted in CIFAR-10.

    python benchmarks/check.py --data-dir DIR --out FOLDER [--seed 0] [--run RUN]

DIR is TFDS's data_dir with CIFAR-10. 50,000 training and 10,000 test pictures are written as JPEGs into FOLDER/data, a
folder of splits and classes. Planted are, by the seed: 500 twins of training pictures in test (the same file, encoded
again, mirrored, resized, cropped by two pixels), 500 training pictures in the folder of another class, 50 broken files
(cut off, empty, text, zeros), and a border of one color, two pixels wide, in 60% of the pictures of one class. Then
`check` looks at it, as on the command line, and leaves FOLDER/check; `--run` is its.

It prints what the check prints, and how much of each kind it found. labels.py measures the ranking of labels.
"""

import argparse
import json
import resource
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from twins import CHANGES, change, encode, write_split

from tljax import cli
from tljax.check.findings import Finding, read_findings
from tljax.config import Data
from tljax.data import datasets

TWINS, FLIPPED, BROKEN, BORDERED, WIDTH = 500, 500, 50, 0.6, 2
KINDS = ("the same file", *(kind for kind in CHANGES if kind != "brighter"))


def plant(folder: Path, seed: int) -> dict:
    """Plants everything, and returns where: twins by their names, the classes of flipped pictures, broken ones, and the
    class with a border."""
    rng = np.random.default_rng(seed)
    files = sorted((folder / "train").rglob("*.jpg"))
    classes = sorted(path.name for path in (folder / "train").iterdir())
    bordered = str(rng.choice(classes))
    free = [path for path in files if path.parent.name != bordered]
    chosen = [free[i] for i in rng.permutation(len(free))[: TWINS + FLIPPED + BROKEN]]
    for path in sorted((folder / "train" / bordered).iterdir()) + sorted((folder / "test" / bordered).iterdir()):
        if rng.random() < BORDERED:
            draw_border(path)
    return {
        "twins": plant_twins(folder, chosen[:TWINS], rng),
        "flipped": flip(folder, chosen[TWINS : TWINS + FLIPPED], classes, rng),
        "broken": break_files(folder, chosen[TWINS + FLIPPED :], rng),
        "border": bordered,
    }


def plant_twins(folder: Path, sources: Sequence[Path], rng: np.random.Generator) -> dict[str, tuple[str, str]]:
    planted = {}
    for number, source in enumerate(sources):
        kind = KINDS[number % len(KINDS)]
        path = folder / "test" / source.parent.name / f"twin_{number:03d}.jpg"
        path.write_bytes(change(source, kind, rng))
        planted[name(folder, path)] = (kind, name(folder, source))
    return planted


def flip(folder: Path, paths: Sequence[Path], classes: Sequence[str], rng: np.random.Generator) -> dict[str, str]:
    flipped = {}
    for path in paths:
        wrong = str(rng.choice([its for its in classes if its != path.parent.name]))
        moved = folder / "train" / wrong / path.name
        path.rename(moved)
        flipped[name(folder, moved)] = path.parent.name
    return flipped


def break_files(folder: Path, paths: Sequence[Path], rng: np.random.Generator) -> list[str]:
    for number, path in enumerate(paths):
        content = path.read_bytes()
        cut = int(rng.integers(20, len(content) * 3 // 4))
        damaged = content[:cut], b"", b"no picture", content[:100] + bytes(len(content) - 100)
        path.write_bytes(damaged[number % 4])
    return [name(folder, path) for path in paths]


def draw_border(path: Path) -> None:
    with Image.open(path) as image:
        framed = image.convert("RGB")
    ImageDraw.Draw(framed).rectangle((0, 0, framed.width - 1, framed.height - 1), outline=(30, 90, 60), width=WIDTH)
    path.write_bytes(encode(framed, 95))


def name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def report(findings: Sequence[Finding], planted: dict) -> None:
    """Prints what was found of what was planted."""
    by_kind: dict[str, dict[str, Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, {})[finding.file] = finding
    leaks = by_kind.get("leak", {})
    for kind in KINDS:
        twins = {its: other for its, (how, other) in planted["twins"].items() if how == kind}
        right = sum(its in leaks and leaks[its].other == other for its, other in twins.items())
        found = sum(its in leaks for its in twins)
        print(f"twins, {kind}: {found} of {len(twins)} found, {right} beside the picture that they were made of")
    print(f"broken: {len(set(by_kind.get('broken', {})) & set(planted['broken']))} of {len(planted['broken'])}")
    report_labels(by_kind.get("label", {}), planted["flipped"])
    print(f"the border is in {planted['border']}")


def report_labels(found: dict[str, Finding], flipped: dict[str, str]) -> None:
    wrong = [finding for file, finding in found.items() if file in flipped]
    right = sum(finding.suggested == flipped[finding.file] for finding in wrong)
    print(
        f"labels: {len(found)} listed, {len(wrong)} of them of {len(flipped)} flipped ones, {right} with the right one"
    )


def main(data_dir: str, out: Path, seed: int, run: str | None) -> None:
    folder = out / "data"
    if not folder.exists():
        source = datasets.load_dataset(Data(name="cifar10", dir=data_dir), seed=0)
        assert source.train and source.validation
        part = out / "data.part"
        shutil.rmtree(part, ignore_errors=True)
        write_split(part / "train", source.train, source.class_names)
        write_split(part / "test", source.validation, source.class_names)
        (out / "planted.json").write_text(json.dumps(plant(part, seed)))
        part.rename(folder)
    planted = json.loads((out / "planted.json").read_text())
    before, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    arguments = ["--run", run] if run else []
    cli.main(["check", str(folder), "--out", str(out / "check"), "--config.data.image_size", "32", *arguments])
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(f"{seconds:.0f} s of processors, {time.perf_counter() - clock:.0f} s, at most {used.ru_maxrss / 1e6:.2f} GB")
    report(read_findings(out / "check" / "check.csv"), planted)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="TFDS's data_dir with CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is used again if the data is in it")
    parser.add_argument("--seed", type=int, default=0, help="draws what is planted (default: %(default)s)")
    parser.add_argument("--run", help="the run, weight file or imagenet whose features are used")
    arguments = parser.parse_args()
    main(arguments.data_dir, arguments.out, arguments.seed, arguments.run)
