"""A program of the command line keeps the memory that it frees."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from tljax.cli import main
if sys.argv[1] == "command line":
    main(["--version"])
import jax, jax.numpy as jnp

def work(x):
    return jax.lax.optimization_barrier(x * 2).sum()

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
run, x = jax.jit(work), jnp.ones(2**24)
run(x).block_until_ready()
before = faults()
run(x).block_until_ready()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries decide this by themselves")
def test_working_memory_is_not_taken_anew_for_every_program():
    def count_page_faults(who: str) -> int:
        output = subprocess.run([sys.executable, "-c", SCRIPT, who], check=True, capture_output=True, text=True).stdout
        return int(output.split()[-1])

    # The program works on 64 MB, which are 16,384 pages.
    assert count_page_faults("library") > 10_000
    assert count_page_faults("command line") < 1_000
