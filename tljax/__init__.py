"""Transfer learning for image classification with ResNets in JAX and Flax.

`tljax.train(config, workdir)` runs a `tljax.Config`, and `tljax.load(workdir)` gives the trained network as an object.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tljax.config import Config
    from tljax.model import load
    from tljax.stages.from_config import train

__all__ = ["Config", "load", "train"]

# Each is imported when it is first asked for: `import tljax` alone takes no time, and no GPU's memory.
_FOUND_IN = {
    "Config": ("tljax.config", "Config"),
    "load": ("tljax.model", "load"),
    "train": ("tljax.stages.from_config", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _FOUND_IN:
        raise AttributeError(f"module 'tljax' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _FOUND_IN[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
