"""Programs of equal runs, made once in a process.

Tracing takes most of a tiny run, and each run traces anew what it compiles. Here programs are found by all that they
are made of, and made of nothing else.
"""

from collections.abc import Callable, Hashable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from tljax.config import Config
from tljax.devices.mesh import whole
from tljax.stages import assembly, programs, train
from tljax.training.inference import Inference

# The settings that `compile_programs` gets, beside those in `settings_of_programs`. If it reads another one, every run
# fails until that is named here.
READ = "optimizer", "compute", "batch_norm", "head", "label_smoothing"
MODES = "jax_disable_most_optimizations", "jax_enable_x64"
_MADE: dict[Hashable, Any] = {}


def share(patch: pytest.MonkeyPatch) -> None:
    """Lets all runs find the programs of equal ones, and their first weights."""
    patch.setattr(assembly, "compile_programs", compile_programs)
    patch.setattr(train, "initialize", initialize)
    patch.setattr(Inference, "program", program)


def forget() -> None:
    """The next runs make programs of their own."""
    _MADE.clear()


def once(make: Callable[[], Any], *key: Hashable) -> Any:
    key = make.__qualname__, *(jax.config.values[name] for name in MODES), *key
    if key not in _MADE:
        _MADE[key] = make()
    return _MADE[key]


def compile_programs(setup, variables, steps, *, from_activations, plain=programs.compile_programs, **settings):
    setup = setup._replace(config=settings_of_programs(setup.config, from_activations))
    leaves, tree = jax.tree.flatten(variables)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    about = repr(setup.config), setup[1:], tree, shapes, steps, from_activations, *sorted(settings.items())
    return once(lambda: plain(setup, variables, steps, from_activations=from_activations, **settings), *about)


def settings_of_programs(config: Config, from_activations: bool) -> SimpleNamespace:
    scheduled = config.optimizer.schedule != "constant" or config.optimizer.warmup_epochs
    found = {name: deepcopy(getattr(config, name)) for name in READ} | {"epochs": config.epochs if scheduled else 1}
    return SimpleNamespace(**found if from_activations else found | {"data": deepcopy(config.data)})


def program(self, function, plain=Inference.program):
    about = function.func, function.args, *sorted(function.keywords.items())
    return once(lambda: plain(self, function), self.model, self.preprocessing, self.mesh, about)


def initialize(setup, source, class_names, key, plain=programs.initialize):
    if source is not None:
        return plain(setup, source, class_names, key)
    # The caller gives their memory away.
    draw = lambda: jax.tree.map(np.asarray, plain(setup, None, class_names, key))  # noqa: E731
    drawn = once(draw, setup.model, setup.config.zero_init_residual, jax.random.key_data(key).tobytes())
    return jax.device_put(drawn, whole(setup.mesh))
