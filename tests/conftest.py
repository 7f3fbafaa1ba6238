"""Settings of every test: implicit promotion of dtypes and ranks is an error, and Keras, the peer, runs on JAX."""

import gc
import os
import tempfile
from importlib import metadata

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes most of the tests' time. XLA's older way of making loops, without fusion emitters, compiles faster and
# does not change what a function means. XLA ends the process at a flag that it does not know, so only jaxlib 0.10 gets
# it. A caller's XLA_FLAGS are dropped: a number of devices in them would reach the scripts that set their own.
older = metadata.version("jaxlib").startswith("0.10.")
# One thread compiles: the other core has tests of its own.
flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = flags if older else ""
# A program's operations do not say which lines of Python they come from.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

# XLA's optimizations do not change what a function means, either. Tests that compare with peers or measure rounding run
# what users run: they use the fixture `optimized` and jit's `compiler_options=AS_USERS`, or `as_users` in a process of
# their own.
AS_USERS = {"xla_cpu_use_fusion_emitters": True} if older else {}
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

# NumPy's threads wait for each other by spinning: beside a busy core, small matrices take fifty times as long.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# Many tests use the same tiny networks, so the same programs: with a compilation cache a session compiles each once.
# The cache is a temporary folder, so that nothing is read from or left in the user's cache. The workers of pytest-xdist
# and the processes that tests start inherit the name of the programs' folder from the process that outlives them.
_cache = tempfile.TemporaryDirectory()
os.environ["TLJAX_CACHE_DIR"] = os.path.join(_cache.name, "tljax")
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ.setdefault("TLJAX_TEST_PROGRAMS", _cache.name)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tracing makes many objects that live for long; looking through them all takes a tenth of the tests' time.
gc.set_threshold(50_000, 10, 10)


def as_users() -> dict[str, str]:
    """The environment of a process that compiles what users run."""
    ours = "XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"
    return {name: value for name, value in os.environ.items() if name not in ours}


def pytest_collection_modifyitems(items):
    """Two workers end together only if long files are not among the last, as these are by their names."""
    items.sort(key=lambda item: item.path.name not in ("test_train.py", "test_views.py"))


@pytest.fixture(scope="session", autouse=True)
def few_figures():
    """Runs in a test's own process draw no figures and leave no pages but in `tiny_runs.drawing`: these take a quarter
    of a tiny run."""
    from tiny_runs import FIGURES, NO_FIGURES, NO_PAGES, PAGES

    with pytest.MonkeyPatch.context() as patch:
        for module in FIGURES:
            patch.setattr(module, "figures", NO_FIGURES)
        for module in PAGES:
            patch.setattr(module, "run_page", NO_PAGES)
        yield


@pytest.fixture(scope="session", autouse=True)
def programs_made_once():
    """Runs in a test's own process share the programs that are equal: tracing takes most of a tiny run."""
    import shared_programs

    with pytest.MonkeyPatch.context() as patch:
        shared_programs.share(patch)
        yield


@pytest.fixture
def own_programs():
    """The runs of a test share no programs with those before."""
    import shared_programs

    shared_programs.forget()


@pytest.fixture
def decoding_here(monkeypatch):
    """Runs decode in their own process, as where there is no shared memory: others take a second each to start, in
    every pass. Their order and their images are those of test_decoding.py."""
    from tljax.data import prefetch

    monkeypatch.setattr(prefetch, "count_workers", lambda *_: 0)


@pytest.fixture
def optimized():
    """Turns XLA's optimizations on for a test, as users have them."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session", autouse=True)
def a_checkpoint_an_epoch():
    """Runs in a test's own process have a checkpoint of every epoch, since theirs take a moment."""
    from tljax.runs import journal

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "SAVE_SECONDS", 1e-9)
        yield
