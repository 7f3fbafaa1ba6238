"""What a study's answer loses, and what a recipe's place gains, on tasks that were not looked at while they were built.

    python benchmarks/regret.py --data-dir DIR --out FOLDER --cifar10 RUN --digits RUN

RUN is a run that learned some classes of CIFAR-10, or of scikit-learn's digits. Three tasks: the other classes of
CIFAR-10, the other digits, and kinds of photographs (`photographs.py`), which start from the weights of the CIFAR-10
run. A study (`--config how_deep`) with 20 labels a class chooses on one part of the validation pictures, and all its
candidates are then measured on the other part, and so is what a recipe makes of the same pictures. With 50 labels a
class it is said what twice as many would bring, and a head of 100 shows whether that holds. Each of three draws has
other pictures to learn from. A last table compares solved heads at the place that a recipe chooses with those at the
end of the network. Runs that are finished are found again. Some two hours on two cores. It writes `regret.json` into
the folder.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import photographs
from probe import Measured, Pool, choose, describe, draw_rows, judge, list_unknown, measure, read_places, solve_places
from protocol import output_folder

import tljax
from tljax.config import Data, HowDeep, Recipe
from tljax.data import datasets
from tljax.data.digits import open_digits
from tljax.report.printed import align
from tljax.runs.files import read_json
from tljax.runs.workdir import ANSWER, CONFIG
from tljax.stages.candidates import list_seeds
from tljax.stages.rules import choose_augmentation
from tljax.startup import as_on_the_command_line
from tljax.training.learning_curve import Doubled, Labelled, find_curve, measure_growth
from tljax.training.ridge import solve_head

DRAWS, LABELS, MANY = 3, 20, 50
# Twice `MANY` labels of five classes are few: views are chosen as for a recipe of so many pictures.
FEW_PICTURES = 500
# How often labels are drawn for solved heads, by labels a class, from those of each draw.
PLACE_DRAWS = {5: 15, 20: 10, 50: 5}
# What people do: the last stage is fine-tuned.
HABIT = "fine_tune_conv5_block1"
SHORT = {"solved_head": "solved head", HABIT: "conv5", "fine_tune_conv4_block1": "conv4", "fine_tune_all": "all"}
# A photograph is what its tiles, NAME_0.png and so on, have before the number.
TILES = "([^/]+)_[0-9]+"
# How many digits of a class are learned from, chosen on and measured on.
DIGITS = {"train": 2 * MANY, "validation": 30, "test": 44}


class Task(NamedTuple):
    """Pictures to learn from and to choose on, the split of the same data that chooses nothing, and source weights."""

    name: str
    source: str
    data: Data
    unseen: str


class Regret(NamedTuple):
    """A study: accuracies by candidate on the pictures that chose and on the others, and what was chosen."""

    task: str
    draw: int
    chosen: str
    choosing: dict[str, float]
    unseen: dict[str, float]

    def loss(self, name: str) -> float:
        """What a candidate loses on the unseen pictures against the best on these."""
        return max(self.unseen.values()) - self.unseen[name]


class Recipes(NamedTuple):
    """Where a recipe's head reads, and the accuracy on the unseen pictures of what it delivers, and of the same head
    and fine-tuning at the end of the network."""

    task: str
    draw: int
    place: str
    recipe: float
    at_the_end: float


class Foretold(NamedTuple):
    """What twice as many labels were said to bring to a head at a place, and what they brought on unseen pictures."""

    task: str
    draw: int
    place: str
    said: Doubled | None
    """None where no curve was found."""
    without: str
    before: float
    after: float


def list_tasks(flags: argparse.Namespace, draw: int) -> Iterator[Task]:
    """The tasks of a draw. Folders of pictures are made where they lack."""
    known = {"name": "cifar10", "dir": flags.data_dir, "classes": list_unknown(flags.cifar10), "seed": draw}
    yield Task("CIFAR-10", flags.cifar10, Data(**known, validation_split="test[:20%]"), "test[20%:]")
    makers = {"digits": (flags.digits, write_digits, None), "photographs": (flags.cifar10, write_photographs, TILES)}
    for name, (source, write, group) in makers.items():
        folder = flags.out / "pictures" / f"{name}_{draw}"
        if not folder.exists():
            write(folder, draw, source)
        yield Task(name, source, Data(name=f"folder:{folder}", seed=draw, image_size=32, group=group), "test")


def write_photographs(folder: Path, draw: int, source: str) -> None:
    photographs.write_folder(folder, draw)


def write_digits(folder: Path, draw: int, source: str) -> None:
    """Writes the digits that the `source` does not know, drawn into three splits."""
    digits, rng = open_digits(whole=True), np.random.default_rng(draw)
    labels, _ = digits.describe("train", np.arange(digits.sizes["train"]))
    for name in list_unknown(source):
        rows = rng.permutation(np.flatnonzero(labels == int(name)))
        for split, number in DIGITS.items():
            own, rows = rows[:number], rows[number:]
            (folder / split / name).mkdir(parents=True)
            for row, file in zip(own, digits.fetch("train", own), strict=True):
                assert isinstance(file, bytes), "the digits are no files"
                (folder / split / name / f"{row}.png").write_bytes(file)


def run_study(task: Task, draw: int, flags: argparse.Namespace, unseen: datasets.Split) -> Regret:
    """Runs the study of a task, or finds it, and measures its candidates on the unseen pictures."""
    folder = flags.out / f"{task.name}_{draw}"
    data = replace(task.data, labels_per_class=LABELS)
    tljax.train(HowDeep(pretrained=task.source, seed=draw, data=data, time_limit=flags.minutes), folder)
    answer, stages = read_json(folder / ANSWER), read_json(folder / CONFIG)["stages"]
    seeds = list_seeds([row["name"] for row in answer["candidates"]], stages)
    measured = {name: [measure_run(folder / each, unseen) for each in runs] for name, runs in seeds.items()}
    return Regret(
        task.name,
        draw,
        answer["chosen"],
        {row["name"]: row["accuracy"] for row in answer["candidates"]},
        {name: float(np.mean(accuracies)) for name, accuracies in measured.items()},
    )


def load_unseen(task: Task) -> datasets.Split:
    unseen = datasets.load_dataset(replace(task.data, validation_split=task.unseen), seed=0, training=False).validation
    assert unseen is not None
    return unseen


def measure_run(run: Path, unseen: datasets.Split) -> float:
    logits = tljax.load(run)(np.asarray(unseen.images))
    return float(np.mean(logits.argmax(axis=1) == unseen.labels))


def run_recipe(task: Task, study: Regret, flags: argparse.Namespace, unseen: datasets.Split) -> Recipes:
    """Runs the recipe of a task whose `study` has run, or finds it."""
    folder = flags.out / f"recipe_{task.name}_{study.draw}"
    data = replace(task.data, labels_per_class=LABELS)
    summaries = tljax.train(Recipe(pretrained=task.source, seed=study.draw, data=data), folder)
    place = read_json(folder / CONFIG)["stages"]["feature_extraction"]["head"]["at"]
    delivered = measure_run(folder / list(summaries)[-1], unseen)
    return Recipes(task.name, study.draw, place, delivered, study.unseen.get(HABIT, float("nan")))


class Look(NamedTuple):
    """A task with twice `MANY` labels a class: what each place reads of them and of the unseen pictures, and what it
    reads of those to choose on."""

    pool: Pool
    choosing: dict[str, Labelled]


def look_at(task: Task) -> Look:
    data = replace(task.data, labels_per_class=2 * MANY, **choose_augmentation({}, FEW_PICTURES).settings)
    found, dataset = read_places(task.source, data)
    elsewhere, others = read_places(task.source, replace(data, validation_split=task.unseen))
    assert dataset.train is not None and dataset.validation is not None and others.validation is not None
    views = {unit: np.stack(each) for unit, each in found["train"].by_unit.items()}
    unseen = {unit: each[0] for unit, each in elsewhere["validation"].by_unit.items()}
    own = dataset.validation
    choosing = {unit: Labelled(each[0], own.labels, own.groups) for unit, each in found["validation"].by_unit.items()}
    return Look(Pool(views, dataset.train.labels, unseen, others.validation.labels, dataset.train.groups), choosing)


def look_ahead(task: Task, draw: int, look: Look) -> Foretold:
    """What is said from `MANY` labels a class, and what a head of twice as many shows."""
    views, labels, unseen, unseen_labels, groups = look.pool
    classes = int(labels.max()) + 1
    rows = draw_rows(labels, MANY, np.random.default_rng(draw))
    place = choose(solve_places(views, labels, rows, groups), labels[rows])
    train = Labelled(views[place][0], labels, groups)
    curve = find_curve(measure_growth(train.take(rows), look.choosing[place], classes))
    heads = [solve_head(*some[:2], classes, groups=some.groups) for some in (train.take(rows), train)]
    before, after = (judge(head, unseen[place], unseen_labels) for head in heads)
    return Foretold(task.name, draw, place, curve.twice, curve.without, before, after)


def list_regrets(found: Sequence[Regret]) -> str:
    """A Markdown table with a row for each study: accuracies of the candidates on the unseen pictures, and by how much
    the answer, the candidate that was best on the pictures that chose, and the habit are below the best of these."""
    names = list(dict.fromkeys(name for one in found for name in one.unseen))
    rows = [
        ("task", "draw", *(SHORT.get(name, name) for name in names), "answer", "loses", "the best then", "the habit")
    ]
    for one in found:
        cells = [f"{one.unseen[name]:.3f}" if name in one.unseen else "-" for name in names]
        best = max(one.choosing, key=lambda name: one.choosing[name])
        lost = [f"{one.loss(name):.3f}" if name in one.unseen else "-" for name in (one.chosen, best, HABIT)]
        rows.append((one.task, str(one.draw), *cells, SHORT.get(one.chosen, one.chosen), *lost))
    return align(rows)


def list_foretold(found: Sequence[Foretold]) -> str:
    """A Markdown table with a row for each curve."""
    rows = [("task", "draw", "place", f"accuracy with {MANY}", "said of twice as many", "true", "within")]
    for one in found:
        true, said, within = one.after - one.before, f"nothing ({one.without})", "-"
        if one.said is not None:
            said = f"{one.said.value:+.3f} ({one.said.low:+.3f} to {one.said.high:+.3f})"
            within = "yes" if one.said.low <= true <= one.said.high else "no"
        rows.append((one.task, str(one.draw), one.place, f"{one.before:.3f}", said, f"{true:+.3f}", within))
    return align(rows)


def list_recipes(found: Sequence[Recipes]) -> str:
    """A Markdown table with a row for each recipe."""
    head = ("task", "draw", "its head reads at", "what it delivers", "at the end of the network", "more")
    numbers = [(one.recipe, one.at_the_end) for one in found]
    cells = [(f"{ours:.3f}", f"{theirs:.3f}", f"{ours - theirs:+.3f}") for ours, theirs in numbers]
    return align([head, *((one.task, str(one.draw), one.place, *row) for one, row in zip(found, cells, strict=True))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="TFDS's data_dir with CIFAR-10")
    parser.add_argument("--out", required=True, type=output_folder, help="folder of the results")
    parser.add_argument("--cifar10", required=True, help="a run that learned some classes of CIFAR-10")
    parser.add_argument("--digits", required=True, help="a run that learned some of scikit-learn's digits")
    parser.add_argument("--minutes", type=float, default=8, help="time limit of a study (default: %(default)s)")
    flags = parser.parse_args()
    found: dict[str, list[Any]] = {"studies": [], "recipes": [], "twice": []}
    heads: dict[str, list[Measured]] = {}
    for draw in range(DRAWS):
        for task in list_tasks(flags, draw):
            with as_on_the_command_line():
                look = look_at(task)
            found["twice"].append(look_ahead(task, draw, look))
            sizes = [(labels, number) for labels, draws in PLACE_DRAWS.items() for number in range(draws)]
            # Two of the eight views that a recipe takes, as in `probe.py`: four times as fast.
            pool = look.pool._replace(train={unit: views[:2] for unit, views in look.pool.train.items()})
            heads.setdefault(task.name, []).extend(measure(pool, labels, number) for labels, number in sizes)
            unseen = load_unseen(task)
            study = run_study(task, draw, flags, unseen)
            found["studies"].append(study)
            found["recipes"].append(run_recipe(task, study, flags, unseen))
            print(
                "",
                list_regrets(found["studies"]),
                list_recipes(found["recipes"]),
                list_foretold(found["twice"]),
                sep="\n\n",
                flush=True,
            )
            rows = {name: [one._asdict() for one in each] for name, each in (found | heads).items()}
            (flags.out / "regret.json").write_text(json.dumps(rows, indent=1))
    for name, measured in heads.items():
        print(f"\n{name}, solved heads:\n\n{describe(sorted(measured, key=lambda one: one.labels))}")


if __name__ == "__main__":
    main()
