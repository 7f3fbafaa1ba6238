"""The network of a run, its cut, and its compiled programs.

A run calls these programs with arrays and the preflight with shapes, so both compile the same.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from tljax.config import Config
from tljax.data.augmentation import View, compose, make_view, show_draws, show_views
from tljax.data.preprocessing import OF_VARIANT, Preprocessing
from tljax.devices.environment import describe_devices
from tljax.devices.mesh import compute_dtype, whole
from tljax.networks.architectures import DEFAULT_VARIANT, VARIANTS, find_architecture, name_architecture
from tljax.networks.cut import Cut, find_cut, find_head
from tljax.networks.resnet import ResNet, abstract_variables, compute_type, describe_network, fold, start_as_shortcuts
from tljax.report import printed
from tljax.report.printed import Printed
from tljax.training import steps
from tljax.training.features import Prefix, RunAverages
from tljax.training.inference import average_units, contribute_to, run_prefix, start_inference
from tljax.training.metrics import Targets
from tljax.training.optimizers import Schedule, make_optimization, whole_outside
from tljax.training.regularization import soften
from tljax.training.state import TrainState, create_state, find_shardings
from tljax.trees import Tree
from tljax.weights.pretrained import Weights, load_into

# Options of XLA on CPUs.
UNOPTIMIZED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Setup(NamedTuple):
    """The network of a run, its cut, and the devices that it runs on."""

    config: Config
    model: ResNet
    preprocessing: Preprocessing
    cut: Cut
    mesh: Mesh

    @property
    def network(self) -> str:
        """What a user calls the network, such as `resnet50 v1`."""
        return f"{name_architecture(self.model.architecture)} {describe_network(self.model)['variant']}"


def make_setup(config: Config, source: Weights | None, classes: int, mesh: Mesh) -> Setup:
    """The network of the weights `source` or, without them, the one that `config` names.

    Raises:
      ValueError: if there is no such network, or `config.head.at` or `config.cut` is none of its units.
    """
    if source is None:
        variant, architecture = config.variant or DEFAULT_VARIANT, find_architecture(config.network)
        preprocessing = OF_VARIANT[variant]
    else:
        variant, preprocessing, architecture = source.variant, source.preprocessing, source.architecture
    architecture = find_head(config.head.at, architecture)
    dtype = compute_dtype(mesh, config.compute.precision)
    hidden = source.hidden if source and config.keeps_head else config.head.hidden
    model = ResNet(classes, VARIANTS[variant], architecture, hidden, dtype=dtype)
    cut = Cut(model.units, None) if config.stage == "zero_shot" else find_cut(config.cut, architecture)
    return Setup(config, model, preprocessing, cut, mesh)


def describe_setup(setup: Setup, variables: Tree, before: Printed | None = None) -> str:
    """The network, what it runs on, and the table of its units, for a reader; where that was printed `before`, only
    what differs. Only the shapes of `variables` count."""
    about = variables, setup.cut, setup.config.batch_norm
    units = printed.network_summary(*about) if before is None else printed.summary_again(*about, before)
    return f"{setup.network} on {describe_devices()}\n{units}"


def initialize(setup: Setup, source: Weights | None, class_names: tuple[str, ...], key: jax.Array) -> Tree:
    """The variables that training starts from: those of `source`, with a new head unless the stage is fine_tune, or
    random ones without a source.

    Raises:
      ValueError: if the weights do not fit the network.
    """
    model = setup.model
    if source is None:

        def draw(key: jax.Array, image: jax.Array) -> Tree:
            drawn: Any = model.init(key, image)
            return start_as_shortcuts(drawn) if setup.config.zero_init_residual else drawn

        variables: Tree = jax.jit(draw, out_shardings=whole(setup.mesh))(key, np.zeros((1, 32, 32, 3), np.float32))
        return variables
    target = abstract_variables(model)
    averages = np.zeros((1, model.architecture.features), np.float32)
    head = jax.jit(partial(model.init, start="head", method="suffix"))(key, averages)
    target = target | {"params": target["params"] | head["params"]}
    return load_into(target, source, class_names, keep_head=setup.config.stage == "fine_tune")


def compile_prefix(setup: Setup, variables: Tree, digests: dict[str, str]) -> Prefix:
    """The frozen prefix as `features.compute` runs it; `digests` are those of its leaves."""
    model, preprocessing = setup.model, setup.preprocessing
    inference = start_inference(model, preprocessing, setup.cut.split(variables)[0], setup.mesh)

    @cache
    def run(start: str | None, end: str) -> Callable[[Any], Any]:
        return partial(inference.program(partial(run_prefix, end=end, start=start)), inference.folded)

    about = {
        "network": model.architecture._asdict() | model.variant._asdict(),
        "preprocessing": preprocessing._asdict(),
        "compute": compute_type(model),
    }

    @cache
    def run_averages(units: tuple[str, ...]) -> RunAverages:
        return partial(inference.program(partial(average_units, units=units)), inference.folded)

    return Prefix(run, digests, about, run_averages)


def compile_view(setup: Setup) -> Callable[[int], View]:
    """number -> the program that makes this view of training images, given with their rows in the split."""
    data, seed = setup.config.data, setup.config.seed
    return lambda number: jax.jit(make_view(data.augmentations, number, seed))


def compile_quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """The program of a function that runs once on a few images, so that compiling takes the longest: on two cores, the
    maps of ResNet50 at 64 pixels take 5 s this way, 8 s with all of the compiler's optimizations."""
    return jax.jit(function, compiler_options=UNOPTIMIZED if jax.default_backend() == "cpu" else None)


def compile_variants(setup: Setup, count: int, key: jax.Array, *, from_activations: bool) -> View:
    """The program that makes at most `count` variants of training images, [n variants h w 3]: the views that
    activations were computed of or, without activations, the images as they are and as steps with this `key` change
    them."""
    data = setup.config.data
    if from_activations:
        return compile_quickly(show_views(data.augmentations, min(count, data.views or 1), setup.config.seed))
    return compile_quickly(show_draws(data.augmentations, count - 1, key, setup.model.num_classes))


def compile_maps(setup: Setup, start: str | None) -> Callable[[Tree, Any, Any], jax.Array]:
    """The program (variables, images or activations at `start`, labels) -> what `contribute_to` returns. The variables
    are those of all units that it runs."""

    def contribute(variables: Tree, x: jax.Array, labels: jax.Array) -> jax.Array:
        model, preprocessing = setup.model, setup.preprocessing
        return contribute_to(fold(model, variables), x, labels, model=model, preprocessing=preprocessing, start=start)

    return compile_quickly(contribute)


class Programs(NamedTuple):
    """The programs of a training stage. Each is compiled at its first call."""

    shapes: TrainState
    """The shapes and types of a state."""
    shardings: TrainState
    """How each array of a state is laid out on the devices."""
    create: Callable[[Tree], TrainState]
    """variables -> the first state. It reuses their memory: they are gone afterwards."""
    create_beside: Callable[[Tree], TrainState]
    """variables -> the first state. The variables stay."""
    train: Callable[..., Any]
    """`steps.train_steps`: (state, chunk, start, stop, key) -> (state, sums)"""
    evaluate: Callable[..., Any]
    """`steps.eval_steps`: (state, chunk, start, stop) -> (sums, logits)"""
    learning_rate: Schedule
    """Number of steps before -> the learning rate of the next step."""


def make_soften(config: Config, classes: int, class_weights: tuple[float, ...] | None) -> Callable[[Targets], Targets]:
    """What makes the targets of the training loss: those of the examples, unless the config asks for more."""
    if not config.label_smoothing and class_weights is None:
        return lambda targets: targets
    return partial(soften, classes=classes, smoothing=config.label_smoothing, weights=class_weights)


def compile_programs(
    setup: Setup,
    variables: Tree,
    steps_of_epoch: int,
    *,
    from_activations: bool,
    class_weights: tuple[float, ...] | None = None,
) -> Programs:
    """The programs of a training stage. `variables` are those of the whole network, arrays or shapes.

    Batches hold activations at the cut if `from_activations`, else images.
    """
    config, model, preprocessing, cut, mesh = setup
    tx, learning_rate = make_optimization(config.optimizer, cut, config.epochs, steps_of_epoch)
    create = partial(create_state, tx=tx, cut=cut, averages=config.optimizer.ema_decay > 0)
    shapes = jax.eval_shape(create, variables)
    shardings = find_shardings(shapes, mesh, config.compute.shard_optimizer)
    # Activations are those of images that have been changed already.
    augment = compose(() if from_activations else config.data.augmentations)
    embed = partial(steps.embed_images, model=model, cut=cut, preprocessing=preprocessing)
    procedure = steps.Procedure(
        model=model,
        cut=cut,
        tx=whole_outside(tx, whole(mesh)) if config.compute.shard_optimizer else tx,
        augment=lambda batch, key: augment(batch, key, model.num_classes),
        embed=steps.pass_activations if from_activations else embed,
        train_batch_norm=config.batch_norm == "training",
        soften=make_soften(config, model.num_classes, class_weights),
        dropout=config.head.dropout,
        ema_decay=config.optimizer.ema_decay,
    )
    train = partial(steps.train_steps, procedure=procedure)
    evaluate = partial(steps.eval_steps, procedure=procedure)
    return Programs(
        shapes,
        shardings,
        create=jax.jit(create, out_shardings=shardings, donate_argnums=0),
        create_beside=jax.jit(create, out_shardings=shardings),
        train=jax.jit(train, donate_argnums=0, out_shardings=(shardings, whole(mesh))),
        evaluate=jax.jit(evaluate, out_shardings=whole(mesh)),
        learning_rate=learning_rate,
    )
