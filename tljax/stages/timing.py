"""How fast this machine is with the stages of a recipe: what they would compile and compute is timed for a while."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import ShapeDtypeStruct

from tljax.config import Config, Data, Lesson
from tljax.data.augmentation import find_kept_side
from tljax.data.batches import Examples, draw_order, place_examples
from tljax.data.datasets import Extent, choose_pictures
from tljax.devices.mesh import by_row, make_mesh, own_rows, put, round_up, whole
from tljax.devices.processes import max_over_processes
from tljax.networks.resnet import abstract_variables
from tljax.stages.programs import Programs, Setup, compile_prefix, compile_programs, initialize, make_setup
from tljax.training import features
from tljax.training.epochs import next_size
from tljax.trees import Tree
from tljax.weights.pretrained import Weights

# What is timed is called this often at least, and no more often than that. A dispatch of steps is one call.
LEAST_CALLS, MOST_CALLS = 2, 10
# Pictures that are read to time that.
PICTURES = 32
# Side of the matrices whose product is timed.
SIDE = 1024


class Rates(NamedTuple):
    """Seconds and bytes on this machine, of the stage that trains unless said otherwise."""

    reading: float
    """To read and decode a picture."""
    frozen: float
    """For the frozen units of one image, and for the other units but the head, in the pass of a solved head."""
    rest: float
    training: float
    """For a step of each kind."""
    evaluation: float
    placing: float
    """To lay all examples out as the steps read them."""
    compiling: float
    """For all that the run compiles."""
    multiplying: float
    """For a billion additions and multiplications of a solved head."""
    features: int
    """Features that a solved head reads."""
    weights: float
    """Bytes of all weights, and of all that a checkpoint holds."""
    state: float
    activations: float | None
    """Bytes of the activations of an image, where they are computed once; None if the frozen units run in every step,
    or if there are none."""


class Timed(NamedTuple):
    """The median of the seconds of several calls, and how much longer the first one took."""

    seconds: float
    compiling: float


def measure_rates(lesson: Lesson, source: Weights | None, extent: Extent, seconds: float) -> Rates:
    """How long the stages of `lesson` take for pictures of this `extent` with the network of `source`. What is timed
    takes about so many `seconds`, without what is compiled.

    Images are black and weights any, since the time depends on neither. Where the activations of all images cannot be
    kept, the frozen units run in each of the steps.
    """
    config = list_configs(lesson)[-1]
    setup = make_setup(replace(config, epochs=draw_epochs()), source, extent.classes, make_mesh())
    variables = make_variables(setup, source)
    size = count_bytes(variables)
    reading = time_reading(lesson, extent)
    frozen, rest = Timed(0.0, 0.0), Timed(0.0, 0.0)
    shape, once = shape_images(setup, extent), False
    if setup.cut.split(variables)[0]["params"]:
        frozen, rest, few = time_units(lesson, source, extent, variables, seconds / 6)
        if once := can_keep(config, extent, few):
            shape = ShapeDtypeStruct(few.shape[1:], few.dtype)
    began = time.perf_counter()
    training = place_some(setup, shape, extent.images, (config.data.views or 1) if once else 1)
    validation = place_some(setup, shape, extent.validation)
    placing = time.perf_counter() - began
    programs = compile_programs(setup, variables, training.steps, from_activations=once)
    step, evaluation, state_bytes = time_steps(programs, variables, training, validation, seconds / 3)
    return Rates(
        reading=reading,
        frozen=frozen.seconds,
        rest=rest.seconds,
        training=step.seconds,
        evaluation=evaluation.seconds,
        placing=placing,
        compiling=2 * frozen.compiling + rest.compiling + step.compiling + 2 * evaluation.compiling,
        multiplying=time_multiplying(),
        features=setup.model.architecture.features,
        weights=size,
        state=state_bytes,
        activations=float(np.prod(shape.shape)) * shape.dtype.itemsize if once else None,
    )


def list_configs(lesson: Lesson) -> list[Config]:
    """The stages of a recipe's lesson as configs. All of them have the lesson's weights, and the network of the
    first."""
    configs = [lesson.config(name, lesson.pretrained) for name in lesson.stages]
    return [replace(config, head=replace(config.head, at=configs[0].head.at)) for config in configs]


def make_variables(setup: Setup, source: Weights | None) -> Tree:
    """Variables of the network: zeros in place of those of a `source`; without one those that a run draws, so that it
    finds the compiled program that does."""
    if source is None:
        variables = initialize(setup, None, (), jax.random.key(0))
    else:
        variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_variables(setup.model))
    return put(variables, whole(setup.mesh))


def draw_epochs() -> int:
    """A number of epochs that nobody chooses. It is a part of the compiled step, so that no compiled step is found in
    the cache: the run will have to compile, too."""
    return 10**6 + time.time_ns() % 10**6


@contextmanager
def keeping_no_programs() -> Iterator[None]:
    """A block that adds no compiled program to the cache."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    jax.config.update(name, 1e9)
    try:
        yield
    finally:
        jax.config.update(name, before)


def time_reading(lesson: Lesson, extent: Extent) -> float:
    """Seconds in which a picture is read and decoded."""
    side = find_kept_side(lesson.data, extent.side)
    encoded = choose_pictures(lesson.data, side, PICTURES)
    # The first one opens what the others only read.
    encoded.decode(np.arange(1))
    began = time.perf_counter()
    encoded.decode(np.arange(len(encoded)), digests=True)
    return (time.perf_counter() - began) / len(encoded)


def time_units(
    lesson: Lesson, source: Weights | None, extent: Extent, variables: Tree, seconds: float
) -> tuple[Timed, Timed, ShapeDtypeStruct]:
    """Seconds of the pass of the first stage, for one image: up to the cut of the last stage, and from there on; and
    the activations of a few images there."""
    first, last = (
        make_setup(config, source, extent.classes, make_mesh())
        for config in (list_configs(lesson)[0], list_configs(lesson)[-1])
    )
    prefix, mesh = compile_prefix(first, variables, {}), first.mesh
    size = round_up(min(features.batch_size(first.config.batch_size, extent.side, mesh), extent.images), mesh.size)
    rows = len(own_rows(mesh, size, size))
    images = put(np.zeros((rows, extent.side, extent.side, 3), np.uint8), by_row(mesh), size)
    at, end = last.cut.position, first.cut.position
    frozen = time_calls(partial(prefix.run(None, at), images), seconds)
    activations = prefix.run(None, at)(images)
    rest = Timed(0.0, 0.0) if at == end else time_calls(partial(prefix.run(at, end), activations), seconds)
    few = ShapeDtypeStruct(activations.shape, activations.dtype)
    return Timed(frozen.seconds / size, frozen.compiling), Timed(rest.seconds / size, rest.compiling), few


def shape_images(setup: Setup, extent: Extent) -> ShapeDtypeStruct:
    """An image as a step reads it."""
    side = find_kept_side(setup.config.data, extent.side)
    return ShapeDtypeStruct((side, side, 3), np.uint8)


def can_keep(config: Config, extent: Extent, few: ShapeDtypeStruct) -> bool:
    """Whether the activations of all images are computed once; `few` are those of a few."""
    return features.find_obstacle(config.data, config.cache, count_passes(extent, config.data), few) is None


def count_passes(extent: Extent, data: Data) -> int:
    """The images that go through the frozen units, where each view does once."""
    return features.count_passes(extent.images, extent.validation + extent.test, data.views)


def place_some(setup: Setup, shape: ShapeDtypeStruct, number: int, views: int = 1) -> Examples:
    """So many examples of this `shape`, all zeros, laid out as a run would have them."""
    config, mesh = setup.config, setup.mesh
    rows = len(own_rows(mesh, config.batch_size, number))
    images = np.broadcast_to(np.zeros(shape.shape, shape.dtype), (rows, *shape.shape))
    labels, memory = np.zeros(rows, np.int32), config.cache.memory_bytes
    arrays = images if views == 1 else (images,) * views
    return place_examples(arrays, labels, number, config.batch_size, memory, mesh)


def time_steps(
    programs: Programs, variables: Tree, training: Examples, validation: Examples, seconds: float
) -> tuple[Timed, Timed, int]:
    """Seconds of a training step and of an evaluation step, and the bytes of a state. The `variables` are gone
    afterwards."""
    state, zero, key = programs.create(variables), np.int32(0), jax.random.key(0)
    with keeping_no_programs():
        began = time.perf_counter()
        state, _ = jax.block_until_ready(programs.train(state, training.blank(), zero, zero, key))
        compiled = time.perf_counter() - began
    began = time.perf_counter()
    jax.block_until_ready(programs.evaluate(state, validation.blank(), zero, zero))
    evaluating = time.perf_counter() - began
    order = partial(draw_order, len(training), training.batch_size, seed=0, views=training.views)
    train = time_passes(
        lambda carry, *chunk: programs.train(carry, *chunk, key)[0], state, training, lambda n: order(epoch=n), seconds
    )
    state = train[1]
    evaluate = time_passes(
        lambda _, *chunk: programs.evaluate(state, *chunk), None, validation, lambda _: None, seconds
    )
    return Timed(train[0], compiled), Timed(evaluate[0], evaluating), count_bytes(state)


def time_passes(
    step: Callable[..., Any], carry: Any, examples: Examples, order: Callable[[int], Any], seconds: float
) -> tuple[float, Any]:
    """The median of the seconds of a step in passes over `examples`, and the last carry. Steps are dispatched together
    as in an epoch, since the first of a dispatch is slower than others."""
    laps: list[float] = []
    calls, began, size = 0, time.perf_counter(), 1
    for chunk, start in (pair for number in count(1) for pair in examples.chunks(order(number))):
        while start < int(chunk.steps):
            stop, lap = min(start + size, int(chunk.steps)), time.perf_counter()
            carry = jax.block_until_ready(step(carry, chunk, np.int32(start), np.int32(stop)))
            took = time.perf_counter() - lap
            calls, laps = calls + 1, [*laps, *[took / (stop - start)] * (stop - start)]
            size, start = max_over_processes(next_size(size, took)), stop
            ended = calls >= MOST_CALLS or (calls >= LEAST_CALLS and time.perf_counter() - began >= seconds)
            if max_over_processes(ended):
                return median(laps), carry
    raise AssertionError("passes do not end")


def time_calls(call: Callable[[], Any], seconds: float) -> Timed:
    """Times `call()`, after a first one, for about so many `seconds`."""
    first = time_once(call)
    laps = [time_once(call) for _ in range(LEAST_CALLS)]
    while len(laps) < MOST_CALLS and not max_over_processes(sum(laps) >= seconds):
        laps.append(time_once(call))
    return Timed(median(laps), max(0.0, first - median(laps)))


def time_once(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def time_multiplying() -> float:
    """Seconds of a billion additions and multiplications of float64 numbers in NumPy."""
    matrix = np.ones((SIDE, SIDE))
    return time_calls(lambda: matrix @ matrix, 0.0).seconds * 1e9 / (2 * SIDE**3)


def count_bytes(tree: Tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
