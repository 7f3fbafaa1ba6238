"""What the programs of a config need on a TPU slice, by the TPU's own compiler; nothing runs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import ShapeDtypeStruct as Shape
from jax.sharding import Mesh

from tljax.config import SOURCE, Config
from tljax.data.augmentation import find_kept_side
from tljax.data.batches import Chunk, tiled_shape
from tljax.data.image_source import PHOTOGRAPH_SIZE
from tljax.devices import tpu
from tljax.devices.mesh import by_column, by_row, round_up, whole
from tljax.networks.architectures import DEFAULT_NETWORK, DEFAULT_VARIANT
from tljax.networks.resnet import abstract_variables, fold
from tljax.stages.programs import Setup, compile_programs, make_setup
from tljax.stages.stage import check_stage
from tljax.training import features
from tljax.training.inference import Inference, classify, run_prefix
from tljax.trees import Tree

# Image side and number of classes of the shipped configs' data: the preflight reads no data.
KNOWN = {"cifar10": (32, 10), "digits": (32, 10)}


class Planned(NamedTuple):
    """A program that a run would compile, the shapes of its arguments, and the number of images on one chip."""

    program: Callable[..., Any]
    arguments: tuple[Any, ...]
    images: int


def preflight(configs: Mapping[str, Config], topology: str, *, in_lesson: bool) -> None:
    """Compiles the programs of each stage for a slice such as `v5e:4x4` and prints what they need.

    Raises:
      ValueError: if a config cannot run there, or a program needs more memory than a chip has.
    """
    for name, config in configs.items():
        check_stage(config, 1, name if in_lesson else None)
    mesh, chip = tpu.topology_mesh(topology)
    for name, config in configs.items():
        check_stage(config, mesh.size, name if in_lesson else None)
    for name, config in configs.items():
        size, classes = KNOWN.get(config.data.name, (PHOTOGRAPH_SIZE, 1000))
        size, classes = config.data.image_size or size, len(config.data.classes) or classes
        if config.stage == "zero_shot" and SOURCE not in configs:
            size, classes = PHOTOGRAPH_SIZE, 1000
        network = f"{config.network or DEFAULT_NETWORK} {config.variant or DEFAULT_VARIANT}"
        print(f"\n== {name} on {topology}: {mesh.size} chips, {size} pixels, {classes} classes, {network}; not run")
        if config.pretrained is not None and None in (config.network, config.variant):
            print("weights are not read: --config.network and --config.variant say which network they are of")
        for what, planned in plan(config, size, classes, mesh).items():
            print(f"compiling {what} ...", flush=True)
            print(tpu.describe_program(what, tpu.compile_program(what, *planned, chip), chip), flush=True)


def plan(config: Config, image_size: int, classes: int, mesh: Mesh) -> dict[str, Planned]:
    """The programs of a stage, by name, as a run on `mesh` would compile them.

    Weights and data are not read, so three things are assumed: the network is the one that `config` names; the images
    or activations on the devices are one batch; and activations fit the limits of `config.cache`.
    """
    setup = make_setup(config, None, classes, mesh)
    variables = as_shapes(abstract_variables(setup.model), mesh)
    size = round_up(config.batch_size, mesh.size)
    evaluated: Any = Shape((size, image_size, image_size, 3), np.uint8, sharding=by_row(mesh))
    if config.stage == "zero_shot":
        return {"classify": plan_classify(setup, variables, evaluated)}
    side = find_kept_side(config.data, image_size)
    images: Any = Shape((size, side, side, 3), np.uint8, sharding=by_row(mesh))
    found = {}
    frozen = setup.cut.split(variables)[0]
    from_activations = bool(frozen["params"]) and features.why_in_every_step(config.data, config.cache) is None
    if from_activations:
        found["frozen units, once"], images = plan_prefix(setup, frozen, evaluated)
        evaluated = images
    return found | plan_steps(setup, variables, images, evaluated, from_activations)


def plan_classify(setup: Setup, variables: Tree, images: Shape) -> Planned:
    """The program of zero_shot: a batch of `images` [n, side, side, 3] gives probabilities and losses.

    A run resizes images to the side that its weights expect; here they have that side already.
    """
    inference = describe_inference(setup, variables)
    program = inference.program(partial(classify, size=images.shape[1]))
    labels = Shape(images.shape[:1], np.int32, sharding=by_row(setup.mesh))
    return Planned(program, (inference.folded, images, labels), len(images) // setup.mesh.size)


def plan_prefix(setup: Setup, frozen: Tree, images: Shape) -> tuple[Planned, Shape]:
    """The pass through the frozen units, and the shape of its activations for a batch of images."""
    config, mesh = setup.config, setup.mesh
    inference = describe_inference(setup, frozen)
    program = inference.program(partial(run_prefix, end=setup.cut.position, start=None))
    at_once = round_up(features.batch_size(config.batch_size, images.shape[1], mesh), mesh.size)
    few = Shape((at_once, *images.shape[1:]), images.dtype, sharding=by_row(mesh))
    planned = Planned(program, (inference.folded, few), at_once // mesh.size)
    return planned, jax.eval_shape(program, inference.folded, images)


def plan_steps(
    setup: Setup, variables: Tree, batch: Shape, evaluated: Shape, from_activations: bool
) -> dict[str, Planned]:
    """The training step and the evaluation step, each on a batch of images or activations."""
    mesh, size = setup.mesh, len(batch)
    # With one batch of data an epoch is one step.
    programs = compile_programs(setup, variables, 1, from_activations=from_activations)
    state = jax.tree.map(lambda x, s: Shape(x.shape, x.dtype, sharding=s), programs.shapes, programs.shardings)
    labels: Any = Shape((1, size), np.int32, sharding=by_column(mesh))
    scalar: Any = Shape((), np.int32, sharding=whole(mesh))

    def describe_chunk(batch: Shape) -> Chunk:
        tiles: Any = Shape((1, size, *tiled_shape(batch.shape[1:])), batch.dtype, sharding=by_column(mesh))
        return Chunk(tiles, labels, labels, scalar, batch.shape[1:], mesh)

    key = as_shapes(jax.random.key(0), mesh)
    training, evaluation = ((state, describe_chunk(rows), scalar, scalar) for rows in (batch, evaluated))
    return {
        "training step": Planned(programs.train, (*training, key), size // mesh.size),
        "evaluation step": Planned(programs.evaluate, evaluation, size // mesh.size),
    }


def describe_inference(setup: Setup, variables: Tree) -> Inference:
    """`start_inference` for shapes instead of arrays."""
    folded = jax.eval_shape(partial(fold, setup.model), variables)
    return Inference(setup.model, setup.preprocessing, as_shapes(folded, setup.mesh), setup.mesh)


def as_shapes(tree: Any, mesh: Mesh) -> Any:
    """The shapes of `tree`'s arrays, each replicated on every device."""
    return jax.tree.map(lambda x: Shape(x.shape, x.dtype, sharding=whole(mesh)), tree)
