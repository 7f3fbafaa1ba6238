"""Compiled programs: kept for later runs, and the memory that compiling took given back."""

import ctypes
import hashlib
import platform
import sys
from pathlib import Path
from typing import Any

import jax
import jaxlib

from tljax.storage import cache

# Of a compilation: shorter ones leave too little behind to look for it.
TRIM_SECONDS = 0.5


def set_up() -> None:
    """Both of what follows, once a process and before anything is compiled."""
    keep_programs()
    give_back_memory()


def keep_programs() -> None:
    """Lets JAX find what earlier runs compiled; where JAX was told of another folder, that stays.

    JAX does not ask for which kind of processor a CPU program was compiled: each kind has a folder.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    info = Path("/proc/cpuinfo")
    lines = set(info.read_text().splitlines() if info.exists() else [])
    marks = ("model name", "flags", "Features", "CPU part")
    kind = [jaxlib.__version__, platform.machine(), platform.processor()]
    kind += sorted(line for line in lines if line.startswith(marks))
    digest = hashlib.sha256("\n".join(kind).encode()).hexdigest()
    try:
        jax.config.update("jax_compilation_cache_dir", str(cache.folder(f"programs/{digest[:16]}")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    except OSError as error:
        print(f"compiled programs are not kept: {error}")


def give_back_memory() -> None:
    """After every longer compilation from now on, glibc returns to the system what the compiler has freed.

    By itself it holds on to it: 0.5 GB after the training step of ResNet50.
    """
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def after(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and duration_secs > TRIM_SECONDS:
            trim(0)

    if trim is not None:
        jax.monitoring.register_event_duration_secs_listener(after)
