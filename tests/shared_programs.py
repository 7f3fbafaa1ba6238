"""Programs of equal runs, made once in a process.

Tracing takes most of a tiny run, and each run traces what it compiles anew. The programs depend on nothing but the
arguments that they are found by here.
"""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from tljax.devices.mesh import whole
from tljax.stages import assembly, programs, train
from tljax.training.inference import Inference

MODES = "jax_disable_most_optimizations", "jax_enable_x64"
_MADE: dict[Hashable, Any] = {}


def share(patch: pytest.MonkeyPatch) -> None:
    """Lets all runs find the programs of equal ones, and the first weights."""
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


def compile_programs(setup, variables, steps, plain=programs.compile_programs, **settings):
    # The place of the weights alone is not part of a program.
    config, rest = repr(replace(setup.config, pretrained=None)), setup[1:]
    leaves, tree = jax.tree.flatten(variables)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    make = lambda: plain(setup, variables, steps, **settings)  # noqa: E731
    return once(make, config, rest, tree, shapes, steps, *sorted(settings.items()))


def program(self, function, plain=Inference.program):
    about = function.func, function.args, *sorted(function.keywords.items())
    return once(lambda: plain(self, function), self.model, self.preprocessing, self.mesh, about)


def initialize(setup, source, class_names, key, plain=programs.initialize):
    if source is not None:
        return plain(setup, source, class_names, key)
    drawn = once(
        # The caller gives their memory away.
        lambda: jax.tree.map(np.asarray, plain(setup, source, class_names, key)),
        setup.model, setup.config.zero_init_residual, jax.random.key_data(key).tobytes(),
    )  # fmt: skip
    return jax.device_put(drawn, whole(setup.mesh))
