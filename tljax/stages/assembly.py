"""What a stage trains with, put together: the network, its activations or images, and its programs.

The timing of a recipe and the preflight compile the same programs, for zeros and for shapes of arrays. They have few
images or none to compute, so they take from `programs.py` what they need.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import ShapeDtypeStruct

from tljax.config import Config
from tljax.data.batches import Examples, place_examples
from tljax.data.datasets import Dataset
from tljax.devices.mesh import put, whole
from tljax.networks.cut import Cut
from tljax.report import printed
from tljax.stages.programs import Programs, Setup, compile_prefix, compile_programs, compile_view
from tljax.training import features
from tljax.training.features import Inputs, Pass
from tljax.training.regularization import weigh
from tljax.trees import Tree

# Shape and dtype of the activations of a few images at the cut -> why they are not computed once, None if they are.
Obstacle = Callable[[ShapeDtypeStruct], str | None]


class Others(NamedTuple):
    """What a stage has to do with the other stages of its lesson."""

    cuts: tuple[Cut, ...] = ()
    """Those of later stages: their activations are computed in the same pass."""
    table: printed.Printed | None = None
    """The table of the units of the same network; None if that was not printed yet."""
    drawn: bool = False
    """Whether the lesson shows samples of its pictures."""


# A stage that is no part of a lesson.
ALONE = Others()


class Assembly(NamedTuple):
    """The network, what it starts from and reads, and its programs, which are compiled at their first call."""

    setup: Setup
    variables: Tree
    """Those that training starts from, on the devices. The first state takes their memory."""
    frozen: dict[str, str]
    """Digests of the frozen leaves by path."""
    over: Pass | None
    """The pass that gave the activations; None if the frozen units run in every step, if there are none, or if training
    has dropped it."""
    activations: dict[str, Any] | None
    """Those of each split at the cut, as `features.compute` returns them; None without a pass."""
    examples: dict[str, Examples]
    """Each split as the steps read it: its activations or, without them, its images."""
    programs: Programs

    @property
    def training(self) -> Examples:
        return self.examples["train"]

    @property
    def validation(self) -> Examples | None:
        return self.examples.get("validation")

    @property
    def train_steps(self) -> Callable[..., Any]:
        """(state, chunk, start, stop) -> (state, sums), with the draws of the run's seed."""
        return partial(self.programs.train, key=split_seed(self.setup.config.seed)[1])


def split_seed(seed: int) -> tuple[jax.Array, jax.Array]:
    """The keys of a run's initial weights, and of its steps."""
    init_key, step_key = jax.random.split(jax.random.key(seed))
    return init_key, step_key


def assemble(
    setup: Setup, variables: Tree, dataset: Dataset, obstacle: Obstacle, earlier_cuts: tuple[Cut, ...] = ()
) -> Assembly:
    """Puts together what trains the network of `setup` from `variables`, on the host or on the devices.

    If units are frozen and there is no `obstacle`, their activations of each split are computed here, or found in the
    cache; those at `earlier_cuts` on the way.

    Raises:
      ValueError: if the head is to be solved from activations, and there is an obstacle.
    """
    config, cut, mesh = setup.config, setup.cut, setup.mesh
    frozen = cut.digest(variables)
    variables = put(variables, whole(mesh))
    over = start_pass(setup, variables, frozen, dataset, obstacle, earlier_cuts) if frozen else None
    explain_activations(config, bool(frozen), over)
    activations = None if over is None else features.compute(over)
    examples = place_splits(setup, dataset, activations)
    programs = compile_programs(
        setup,
        variables,
        examples["train"].steps,
        from_activations=activations is not None,
        class_weights=weigh_classes(config, dataset),
    )
    return Assembly(setup, variables, frozen, over, activations, examples, programs)


def start_pass(
    setup: Setup,
    variables: Tree,
    frozen: dict[str, str],
    dataset: Dataset,
    obstacle: Obstacle,
    earlier_cuts: tuple[Cut, ...],
) -> Pass | None:
    """The pass of the frozen units over all images; None, with a printed reason, if there is an `obstacle`."""
    config, mesh, side = setup.config, setup.mesh, dataset.image_size
    prefix, cuts = compile_prefix(setup, variables, frozen), (*earlier_cuts, setup.cut)
    shapes = features.measure(prefix, cuts, side, mesh)
    if reason := obstacle(shapes[setup.cut.position]):
        print(f"the frozen units run in every step: {reason}")
        return None
    at_once = features.batch_size(config.batch_size, side, mesh)
    return Pass(prefix, cuts, shapes, list_inputs(setup, dataset), mesh, at_once, config.cache.disk_bytes)


def list_inputs(setup: Setup, dataset: Dataset) -> dict[str, tuple[Inputs, ...]]:
    """What the frozen units see of each split: its images and, of training images, their views if the config has
    some."""
    data, seed = setup.config.data, setup.config.seed
    viewed = dataset.train if data.views else None
    inputs: dict[str, tuple[Inputs, ...]] = {
        name: (features.as_they_are(split.images),) for name, split in dataset.splits.items() if split is not viewed
    }
    if viewed is not None:
        inputs["train"] = features.in_views(viewed.images, viewed.rows, data, seed, compile_view(setup))
    return inputs


def explain_activations(config: Config, is_frozen: bool, over: Pass | None) -> None:
    """Prints a line about `config.data.views`, if there are some.

    Raises:
      ValueError: if no activations are computed, but the head is to be solved from them.
    """
    several = (config.data.views or 1) > 1
    if several and over is not None:
        print(features.describe_views(config.data))
    elif several:
        why = "the frozen units run in every step" if is_frozen else "nothing is frozen"
        print(f"config.data.views is not used: {why}, and images change in every epoch")
    if over is None and config.head.init == "ridge":
        raise ValueError(
            "config.head.init=ridge solves the head from the averages of all images, which are too large for "
            "config.cache: raise memory_gib or disk_gib"
        )


def place_splits(setup: Setup, dataset: Dataset, activations: dict[str, Any] | None) -> dict[str, Examples]:
    """Each split as the steps read it: its activations or, without them, its images."""
    config = setup.config
    return {
        name: place_examples(
            split.images if activations is None else activations[name],
            split.labels,
            split.count,
            config.batch_size,
            config.cache.memory_bytes,
            setup.mesh,
        )
        for name, split in dataset.splits.items()
    }


def weigh_classes(config: Config, dataset: Dataset) -> tuple[float, ...] | None:
    """The weight of each class in the training loss, which a printed line says; None if all count as they are."""
    if config.class_weights == "none":
        return None
    counts = dataset.train_counts
    weights = weigh(config.class_weights, counts)
    if weights is not None:
        print(printed.class_weights_line(dict(zip(counts, weights, strict=True))))
    return weights
