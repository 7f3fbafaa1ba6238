"""How many epochs of a recipe fit into a time limit: the sum of all that its run takes, from what was timed before."""

import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from tljax.config import Config, Data, Lesson, Recipe
from tljax.data.datasets import Extent
from tljax.devices.processes import max_over_processes
from tljax.runs import journal
from tljax.stages.rules import Limit
from tljax.stages.timing import Rates, count_passes, list_configs, measure_rates
from tljax.training import ridge
from tljax.weights.pretrained import Weights

# Share of a time limit that is timed for at most, and the share that is kept back: nobody else may use the machine
# meanwhile, and much of what is summed up is an estimate.
TIMED, KEPT_BACK = 0.1, 0.1
# What is suggested must fit into this share of the limit, since it is not timed itself.
SURE = 0.9
# Seconds that the smallest checkpoint takes, and bytes that are written in a second, digests included: 280 MB in 2 to 3
# seconds on a shared machine.
LEAST, WRITTEN = 0.3, 1e8
# Seconds of a stage for figures, calibration and the report; and how often all weights are read or their digests taken
# in it, at the rate `WRITTEN`.
FIGURES, READ = 4.0, 3
# With smaller images or batches this share of the pass of an image stays, and of a step the seconds for its update, in
# which so many bytes of the state are read and written in a second. Measured on two cores: an image of 32 pixels took
# 0.014 of one of 224, and a step of 128 of them 0.012.
STAYS, UPDATED = 0.05, 1e9
# More epochs than any rule chooses.
MOST_EPOCHS = 10**6
# Fewer pictures of a class than these are not suggested: with a few less a recipe does not fine-tune.
LEAST_PICTURES = 30
# The side of images that is suggested is a multiple of this.
SIDES = 32

# Gives the stages for data of some extent; they may train for an epoch.
Choose = Callable[[Extent], Lesson]


class Sum(NamedTuple):
    """What a run takes: whole seconds of each part, what is kept back included, and seconds of an epoch."""

    limit: float
    parts: Mapping[str, int]
    epoch: float

    @property
    def left(self) -> float:
        """Seconds for epochs."""
        return round(self.limit - sum(self.parts.values()), 1)

    @property
    def epochs(self) -> int:
        return math.floor(min(self.left / self.epoch, MOST_EPOCHS))

    @property
    def shortest(self) -> float:
        """Seconds of the run with one epoch, if nothing is late."""
        return sum(self.parts.values()) - self.parts["kept back"] + self.epoch

    def __str__(self) -> str:
        parts = " - ".join(f"{seconds} s {what}" for what, seconds in self.parts.items() if seconds)
        return f"{self.limit:g} s - {parts} = {self.left:g} s, an epoch takes {self.epoch:g} s"


def find_limit(
    recipe: Recipe, lesson: Lesson, source: Weights | None, extent: Extent, began: float, choose: Choose
) -> Limit:
    """The number of epochs of the last stage of `lesson` that fit into the time limit. If none does, printed lines say
    what would fit. `began` is when the run was started, in the seconds of `time.perf_counter`."""
    assert recipe.time_limit is not None, "it is asked for a limit"
    limit, until = 60 * recipe.time_limit, time.perf_counter()
    print(f"timing the steps of {list_configs(lesson)[-1].stage}; compiling takes a minute or two ...", flush=True)
    rates = measure_rates(lesson, source, extent, TIMED * limit)
    spent = {"until the timing": until - began, "timing and its compiling": time.perf_counter() - until}
    found = agree(add_up(rates, extent, lesson, limit, spent))
    name = f"config.time_limit={recipe.time_limit:g} minutes"
    if found.epochs < 1:
        print(f"WARNING {name} is too short for one epoch: {found}")
        print(say_instead(rates, extent, lesson, found))
        print("\n".join(f"- this would fit: {each}" for each in suggest(rates, extent, lesson, found, choose)))
    return Limit(max(found.epochs, 0), f"{name}: {found}")


def say_instead(rates: Rates, extent: Extent, lesson: Lesson, found: Sum) -> str:
    """A line about what the run does where not one epoch fits, as `rules.choose_stages` chooses."""
    if len(lesson.stages) == 1:
        return f"it runs one epoch all the same, which takes about {found.shortest:.0f} s in all"
    seconds = solve_alone(rates, extent, lesson.data, found) + list_spent(found)["timing and its compiling"]
    return (
        f"so it solves a head and does not fine-tune: about {seconds:.0f} s in all; with one epoch of fine-tuning it "
        f"would be about {found.shortest:.0f} s"
    )


def agree(found: Sum) -> Sum:
    """The sum of the slowest process in each part."""
    parts = {what: max_over_processes(seconds) for what, seconds in found.parts.items()}
    return found._replace(parts=parts, epoch=max_over_processes(round(10 * found.epoch)) / 10)


def add_up(rates: Rates, extent: Extent, lesson: Lesson, limit: float, spent: Mapping[str, float]) -> Sum:
    """What the run of `lesson` takes on data of this `extent`, all parts rounded up to whole seconds. `spent` are the
    seconds of what is over, by what it was."""
    config = list_configs(lesson)[-1]
    seconds = {
        **spent,
        "compiling": rates.compiling,
        "reading pictures": rates.reading * count_pictures(extent) + rates.placing,
        **(sum_transfer(rates, extent, config) if len(lesson.stages) > 1 else {}),
        "evaluation and figures at the end": finish_seconds(rates, extent, config),
        "first and last checkpoint": 2 * save_seconds(rates.state) + save_seconds(rates.weights),
        "kept back": KEPT_BACK * limit,
    }
    return Sum(limit, {what: math.ceil(each) for what, each in seconds.items()}, epoch_seconds(rates, extent, config))


def sum_transfer(rates: Rates, extent: Extent, config: Config) -> dict[str, float]:
    """Seconds of what comes before the stage `config`: the frozen units over all pictures, and the solved head."""
    data, disk = config.data, config.cache.disk_bytes
    passes = count_passes(extent, data)
    # What is kept in memory alone is computed in each of the two stages.
    again = rates.activations is not None and passes * rates.activations > disk
    return {
        "frozen units": passes * rates.frozen * (2 if again else 1),
        "solved head": solve_seconds(rates, extent, data),
    }


def solve_seconds(rates: Rates, extent: Extent, data: Data) -> float:
    """Seconds of the stage that solves a head, without the units before the cut of the next one."""
    products = ridge.count_products(extent.images, rates.features, extent.classes, data.views or 1)
    writing = stage_seconds(rates) + save_seconds(rates.weights)
    return count_passes(extent, data) * rates.rest + products / 1e9 * rates.multiplying + writing


def finish_seconds(rates: Rates, extent: Extent, config: Config) -> float:
    """Seconds of the last stage around its epochs: weights, proof, evaluation of its best epoch, figures."""
    steps = count_steps(extent.validation, config) + count_steps(extent.test, config)
    return steps * rates.evaluation + stage_seconds(rates)


def stage_seconds(rates: Rates) -> float:
    return FIGURES + READ * rates.weights / WRITTEN


def save_seconds(size: float) -> float:
    """Seconds in which a checkpoint of so many bytes is written."""
    return LEAST + size / WRITTEN


def epoch_seconds(rates: Rates, extent: Extent, config: Config) -> float:
    """Seconds of an epoch: training, evaluation, and its share of the checkpoints; rounded up to a tenth."""
    seconds = count_steps(extent.images, config) * rates.training
    seconds += count_steps(extent.validation, config) * rates.evaluation
    if rates.activations is None and are_decoded_anew(extent, config):
        seconds += (extent.images + extent.validation) * rates.reading
    return math.ceil(10 * (seconds + share_of_saving(seconds, save_seconds(rates.state)))) / 10


def are_decoded_anew(extent: Extent, config: Config) -> bool:
    """Whether images are decoded in every epoch, since they fit neither into memory nor on the disk."""
    return extent.images * extent.side**2 * 3 > max(config.cache.memory_bytes, config.cache.disk_bytes)


def share_of_saving(epoch: float, checkpoint: float) -> float:
    """Seconds for checkpoints in an epoch of so many seconds: there is one in `journal.SAVE_SECONDS` at most, and
    the best epoch's beside it."""
    return min(checkpoint, epoch / journal.SAVE_SECONDS * 2 * checkpoint)


def count_steps(images: int, config: Config) -> int:
    return math.ceil(images / config.batch_size)


def count_pictures(extent: Extent) -> int:
    return extent.images + extent.validation + extent.test


def suggest(rates: Rates, extent: Extent, lesson: Lesson, found: Sum, choose: Choose) -> Iterator[str]:
    """Flags with which an epoch, or a solved head alone, fits into the limit of the sum that was `found`; and a limit
    into which an epoch fits."""
    fewer = find_fewer(rates, extent, lesson, found, choose)
    smaller = find_smaller(rates, extent, lesson, found)
    for flag, value, one in (("max_images", *fewer), ("image_size", *smaller)):
        if one is not None:
            yield f"--config.data.{flag}={value} (about {one.shortest:.0f} s with an epoch of {one.epoch:g} s)"
    if len(lesson.stages) > 1:
        seconds = solve_alone(rates, extent, replace(lesson.data, views=None, augment="none"), found)
        if seconds <= SURE * found.limit:
            source = shlex.quote(str(lesson.pretrained))
            yield (
                f"a solved head alone, from each picture as it is (about {seconds:.0f} s): --config feature_extraction "
                f"--config.head.init=ridge --config.epochs=0 --config.pretrained={source} and no limit"
            )
    yield f"--config.time_limit={find_longer(found)} (minutes) for one epoch"


def find_longer(found: Sum) -> int:
    """The minutes of a limit into which an epoch fits. Its own timing may take longer, too."""
    return math.ceil((found.shortest - TIMED * found.limit) / (1 - KEPT_BACK - TIMED) / 60)


def find_fewer(rates: Rates, extent: Extent, lesson: Lesson, found: Sum, choose: Choose) -> tuple[int, Sum | None]:
    """The largest tried `data.max_images` with which an epoch fits, and the sum then; None if there is none."""
    batch, most = list_configs(lesson)[-1].batch_size, max(extent.images, extent.validation, extent.test)
    tried = (round_down(most * percent / 100) for percent in range(99, 0, -1))
    for images in (images for images in tried if images >= LEAST_PICTURES * extent.classes):
        few = take_images(extent, images)
        chosen = choose(few)
        one = fit(scale(rates, list_configs(chosen)[-1].batch_size / batch, 1.0), few, chosen, found)
        if one is not None and list(chosen.stages) == list(lesson.stages):
            return images, one
    return 0, None


def find_smaller(rates: Rates, extent: Extent, lesson: Lesson, found: Sum) -> tuple[int, Sum | None]:
    """The largest `data.image_size` with which an epoch fits, and the sum then; None if there is none."""
    for side in range((extent.side - 1) // SIDES * SIDES, 0, -SIDES):
        one = fit(scale(rates, 1.0, side / extent.side), extent._replace(side=side), lesson, found)
        if one is not None:
            return side, one
    return 0, None


def fit(rates: Rates, extent: Extent, lesson: Lesson, found: Sum) -> Sum | None:
    """The sum for other pictures than those of the sum that was `found`, if it surely has room for an epoch."""
    one = add_up(rates, extent, lesson, SURE * found.limit, list_spent(found))
    return one if one.epochs >= 1 else None


def list_spent(found: Sum) -> dict[str, float]:
    return {what: seconds for what, seconds in found.parts.items() if "timing" in what}


def take_images(extent: Extent, most: int) -> Extent:
    """The extent of the data with `data.max_images` of `most`; each class has its share."""
    counts = {name: min(getattr(extent, name), most) for name in ("images", "validation", "test")}
    by_class = tuple(count * counts["images"] // extent.images for count in extent.by_class)
    return extent._replace(**counts, by_class=by_class)


def round_down(number: float) -> int:
    """`number` with two digits that are not 0."""
    unit = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return int(number // unit * unit)


def scale(rates: Rates, batch: float, side: float) -> Rates:
    """What the rates are at most with batches of so many times the images, and images of so many times the side."""
    image, step = STAYS + (1 - STAYS) * side**2, min(1.0, batch * side**2)

    def shrink(seconds: float, updated: float) -> float:
        stays = min(seconds, updated / UPDATED)
        return stays + (seconds - stays) * step

    return rates._replace(
        frozen=rates.frozen * image,
        rest=rates.rest * image,
        training=shrink(rates.training, rates.state),
        evaluation=shrink(rates.evaluation, rates.weights),
        activations=None if rates.activations is None else rates.activations * side**2,
    )


def solve_alone(rates: Rates, extent: Extent, data: Data, found: Sum) -> float:
    """Seconds of a run that solves a head on the views of `data`, and trains nothing."""
    frozen = count_passes(extent, data) * rates.frozen
    computing = count_pictures(extent) * rates.reading + frozen + solve_seconds(rates, extent, data)
    return list_spent(found)["until the timing"] + rates.compiling + computing
