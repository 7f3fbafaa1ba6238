"""Programs that are found again, and what compiling leaves in memory."""

import os
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
programs.TRIM_SECONDS = float("inf")
jax.jit(lambda x: x + 1)(1.0)
assert not trimmed, "after a short compilation"
programs.TRIM_SECONDS = 0
jax.jit(lambda x: x + 2)(1.0)
assert trimmed, "after a long one"
"""


LOWERING = """
import hashlib, jax, jax.numpy as jnp
from functools import partial
from tljax import steps
from tljax.checkpoint import abstract_variables
from tljax.config import Adam
from tljax.optim import partitioned_adam
from tljax.preprocess import CAFFE
from tljax.resnet import ResNet

model, tx = ResNet(3, stage_sizes=(1, 1, 1, 1), width=4), partitioned_adam(Adam(), "conv2_block1")
variables = abstract_variables(model)
embed = partial(steps.embed_images, model=model, cut="conv2_block1", preprocessing=CAFFE)
settings = {"model": model, "tx": tx, "cut": "conv2_block1", "embed": embed, "train_batch_norm": False}
state = jax.eval_shape(partial(steps.create_state, tx=tx, cut="conv2_block1"), **variables)
batch = {"image": jnp.zeros((4, 32, 32, 3)), "label": jnp.zeros(4, jnp.int32), "mask": jnp.ones(4, bool)}
text = jax.jit(partial(steps.train_step, **settings)).lower(state, batch, jax.random.key(0)).as_text()
print(hashlib.sha256(text.encode()).hexdigest())
"""


def test_a_program_is_the_same_in_every_process():
    """Else it would never be found again."""
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
