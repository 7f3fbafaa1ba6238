"""JAX's compilation cache, and the return of the memory that compilation took."""

import ctypes
import hashlib
import platform
import sys
from functools import cache as once
from pathlib import Path
from typing import Any

import jax
import jaxlib

from tljax.storage import cache

# Compilations that take less leave too little freed memory to be worth a trim.
TRIM_SECONDS = 0.5


@once
def set_up() -> None:
    """Makes JAX keep compiled programs, and give back the memory that compiling took. To be called before anything is
    compiled; a second call in a process does nothing."""
    keep_programs()
    give_back_memory()


def keep_programs() -> None:
    """Switches JAX's compilation cache on, in the user's cache folder; a folder that JAX has been given already stays.

    JAX does not check for which kind of processor a CPU program was compiled, so each kind has its own folder.
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
    """Makes glibc return freed memory to the system after every compilation longer than `TRIM_SECONDS`.

    Otherwise glibc keeps the memory that the compiler has freed: 0.5 GB after the training step of ResNet50. Without
    glibc this does nothing.
    """
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def after(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and duration_secs > TRIM_SECONDS:
            trim(0)

    if trim is not None:
        jax.monitoring.register_event_duration_secs_listener(after)
