"""Settings of every test: implicit promotion of dtypes and ranks is an error, and Keras, the peer, runs on JAX."""

import os
import tempfile
from importlib import metadata

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes most of the tests' time. XLA's older way of making loops, without fusion emitters, compiles faster and
# does not change what a function means. XLA ends the process at a flag that it does not know, so only jaxlib 0.10 gets
# it. A caller's XLA_FLAGS are dropped: a number of devices in them would reach the scripts that set their own.
older = metadata.version("jaxlib").startswith("0.10.")
os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false" if older else ""

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# XLA's optimizations do not change what a function means, either. Tests that compare with peers or measure rounding run
# what users run: they use the fixture `optimized` and jit's `compiler_options=AS_USERS`.
AS_USERS = {"xla_cpu_use_fusion_emitters": True} if older else {}
jax.config.update("jax_disable_most_optimizations", True)

# Many tests use the same tiny networks, so the same programs: with a compilation cache a session compiles each once.
# The cache is a temporary folder, so that nothing is read from or left in the user's cache. The workers of pytest-xdist
# inherit the name of the programs' folder from the process that starts and outlives them.
_cache = tempfile.TemporaryDirectory()
os.environ["TLJAX_CACHE_DIR"] = os.path.join(_cache.name, "tljax")
jax.config.update("jax_compilation_cache_dir", os.environ.setdefault("TLJAX_TEST_PROGRAMS", _cache.name))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture
def optimized():
    """Turns XLA's optimizations on for a test, as users have them."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
