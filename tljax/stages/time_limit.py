"""How many epochs fit into a time limit: a few steps of the stage that trains are timed on this machine."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.config import Config, Recipe
from tljax.data.augmentation import find_kept_side
from tljax.data.batches import draw_order
from tljax.data.datasets import Dataset, Extent, Split
from tljax.devices.mesh import make_mesh, own_rows
from tljax.devices.processes import max_over_processes
from tljax.stages.assembly import Assembly, assemble
from tljax.stages.programs import Setup, initialize, make_setup
from tljax.stages.rules import Limit
from tljax.training import features
from tljax.weights.pretrained import Weights, load_weights

# Steps that are timed.
TIMED = 2
# Share of a time limit that is planned with: reading data, the evaluation at the end and the figures take the rest.
PLANNED = 0.9
# Seconds that the smallest checkpoint takes, and bytes that are written in a second, digests included: 280 MB in 2 to 3
# seconds on a shared machine.
LEAST, WRITTEN = 0.3, 1e8
# More epochs than any rule chooses.
MOST_EPOCHS = 10**6
# More memory than any machine has, GiB: what is timed is on the devices.
ANY_MEMORY = 2**20


class Rates(NamedTuple):
    """Seconds on this machine: for compiling, for the frozen units of one image, for a step of each kind, and for a
    checkpoint."""

    compiling: float
    frozen: float
    training: float
    evaluation: float
    checkpoint: float


class Pace(NamedTuple):
    """Seconds of a run on this machine."""

    once: float
    """For what happens once: the frozen units, compiling."""
    epoch: float

    def __str__(self) -> str:
        return f"{self.once:.0f} s once and {self.epoch:.1f} s an epoch, as measured"


def find_limit(recipe: Recipe, config: Config, extent: Extent, minutes: float) -> Limit:
    """The number of epochs of the stage `config` that fit into `minutes`; one if none does."""
    print(f"timing {TIMED} steps of {config.stage}; compiling them takes a minute or two ...", flush=True)
    began = time.perf_counter()
    source = load_weights(recipe.pretrained, recipe.network, recipe.variant) if recipe.pretrained else None
    pace = find_pace(measure_rates(config, source, extent), extent, config)
    left = PLANNED * 60 * minutes - (time.perf_counter() - began) - pace.once
    # Every process takes the number of the slowest.
    fit = -max_over_processes(-math.floor(min(left / pace.epoch, MOST_EPOCHS)))
    if fit < 1:
        print(f"WARNING config.time_limit={minutes:g} minutes is too short for one epoch: the run takes longer")
    return Limit(max(fit, 1), f"config.time_limit={minutes:g} minutes: {pace}")


def find_pace(rates: Rates, extent: Extent, config: Config) -> Pace:
    """The pace of the stage `config` on data of this `extent`: every view of an image goes through the frozen units
    once, and an epoch is a pass of training, an evaluation and a checkpoint."""
    passes = features.count_passes(extent.images, extent.validation, config.data.views)
    training, evaluation = (math.ceil(images / config.batch_size) for images in (extent.images, extent.validation))
    return Pace(
        rates.compiling + passes * rates.frozen,
        training * rates.training + evaluation * rates.evaluation + rates.checkpoint,
    )


def measure_rates(config: Config, source: Weights | None, extent: Extent) -> Rates:
    """How long the stage `config` takes for images of this `extent` with the network of `source`.

    A few steps are timed on random images with random weights, since the time depends on neither. Where the activations
    of all images cannot be kept, the frozen units run in each of the steps.
    """
    passes = features.count_passes(extent.images, extent.validation, config.data.views)
    obstacle = partial(features.find_obstacle, config.data, config.cache, passes)
    setup = make_setup(for_timing(config), source, extent.classes, make_mesh())
    variables = initialize(setup, None, (), jax.random.key(0))
    dataset = draw_dataset(setup, extent)

    began = time.perf_counter()
    made = assemble(setup, variables, dataset, obstacle)
    frozen = time_frozen_units(made, time.perf_counter() - began)
    count, steps = len(made.training), (np.int32(0), np.int32(TIMED))
    ((chunk, _),) = made.training.chunks(draw_order(count, made.training.batch_size, seed=0, epoch=1))
    training = call_twice(lambda state: made.train_steps(state, chunk, *steps)[0], made.programs.create(made.variables))
    state = training.result
    evaluation = call_twice(lambda _: made.programs.evaluate(state, chunk, *steps), None)

    return Rates(
        sum(timed.compiling for timed in (frozen, training, evaluation)),
        frozen.seconds / count,
        training.seconds / TIMED,
        evaluation.seconds / TIMED,
        LEAST + sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / WRITTEN,
    )


def for_timing(config: Config) -> Config:
    """`config` for a few random images: they stay on the devices, none are kept on the disk, and they have one view,
    which takes as long as each of several."""
    data = replace(config.data, views=None if config.data.views is None else 1)
    return replace(config, data=data, cache=replace(config.cache, memory_gib=ANY_MEMORY, disk_gib=0))


def draw_dataset(setup: Setup, extent: Extent) -> Dataset:
    """Random images with random labels, as many as `TIMED` steps take."""
    config, rng = setup.config, np.random.default_rng(0)
    count, side = TIMED * config.batch_size, find_kept_side(config.data, extent.side)
    rows = own_rows(setup.mesh, config.batch_size, count)
    images = rng.integers(0, 256, (len(rows), side, side, 3), np.uint8)
    labels, digests = rng.integers(0, extent.classes, len(rows)).astype(np.int32), np.zeros((len(rows), 4), np.uint32)
    split = Split(images, labels, (), rows, count, digests)
    return Dataset((), extent.side, split, None, None, {})


class Timed(NamedTuple):
    """The second of two calls: its seconds, how much longer the first one took, and what it returned."""

    seconds: float
    compiling: float
    result: Any


def time_frozen_units(made: Assembly, first: float) -> Timed:
    """The pass of the frozen units, if there is one, after one within the `first` seconds."""
    if made.over is None:
        return Timed(0.0, 0.0, None)
    began = time.perf_counter()
    features.compute(made.over)
    seconds = time.perf_counter() - began
    return Timed(seconds, max(0.0, first - seconds), None)


def call_twice(call: Callable[[Any], Any], argument: Any) -> Timed:
    """Times `call(call(argument))`."""
    times = [time.perf_counter()]
    for _ in range(2):
        argument = jax.block_until_ready(call(argument))
        times.append(time.perf_counter())
    first, second = np.diff(times).tolist()
    return Timed(second, max(0.0, first - second), argument)
