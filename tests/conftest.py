"""Strict types and ranks for every test, and Keras on JAX as the peer."""

import os
import tempfile
from importlib import metadata

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What a function means does not depend on how XLA compiles it, and compiling takes most of the time: less with its
# older way of making loops. XLA ends the process where it does not know a flag. A caller's number of devices is not for
# the scripts that set their own.
older = metadata.version("jaxlib").startswith("0.10.")
os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false" if older else ""

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Nor on how it optimizes. The tests against peers, and of rounding, run what users run: `optimized`, and jit's
# `compiler_options=AS_USERS`.
AS_USERS = {"xla_cpu_use_fusion_emitters": True} if older else {}
jax.config.update("jax_disable_most_optimizations", True)

# The tiny networks of many tests are the same programs: each is compiled once in a session. Nothing is read from or
# left in the user's cache.
_cache = tempfile.TemporaryDirectory()
os.environ["TLJAX_CACHE_DIR"] = os.path.join(_cache.name, "tljax")
jax.config.update("jax_compilation_cache_dir", _cache.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture
def optimized():
    """XLA's optimizations, as users have them."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
