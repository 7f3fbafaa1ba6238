"""Compiled programs are found again in the cache, and memory that compiling took is given back."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, jax
from tljax.storage import compilation

trimmed = []
class Libc:
    def malloc_trim(self, pad):
        trimmed.append(pad)
compilation.ctypes.CDLL = lambda name: Libc()
compilation.give_back_memory()
compilation.TRIM_SECONDS = float("inf")
jax.jit(lambda x: x + 1)(1.0)
assert not trimmed, "after a short compilation"
compilation.TRIM_SECONDS = 0
jax.jit(lambda x: x + 2)(1.0)
assert trimmed, "after a long one"
"""


LOWERING = """
import hashlib, jax
from functools import partial
from tljax.networks.architectures import Architecture
from tljax.networks.resnet import ResNet, abstract_variables, fold

model = ResNet(3, architecture=Architecture((1, 1, 1, 1), 4))
text = jax.jit(partial(fold, model)).lower(abstract_variables(model)).as_text()
print(hashlib.sha256(text.encode()).hexdigest())
"""


def test_a_program_is_the_same_in_every_process():
    """Otherwise it would never be found in the compilation cache."""
    texts = [
        subprocess.run(
            [sys.executable, "-c", LOWERING], env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_the_allocator_is_trimmed_after_long_compilations():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
