"""What compiling leaves in memory goes back to the system."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, jax
from tljax import programs

trimmed = []
class Libc:
    def malloc_trim(self, pad):
        trimmed.append(pad)
programs.ctypes.CDLL = lambda name: Libc()
programs.give_back_memory()
jax.jit(lambda x: x + 1)(1.0)
assert not trimmed, "after a short compilation"
programs.TRIM_SECONDS = 0
jax.jit(lambda x: x + 2)(1.0)
assert trimmed, "after a long one"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_the_allocator_is_trimmed_after_long_compilations():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
