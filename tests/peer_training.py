"""Trains the same network with Keras (on JAX) and with tljax, and prints both series of losses as JSON.

    python tests/peer_training.py ResNet50|ResNet101|ResNet152|1-2-1-1 STAGE float64|float32 STEPS

It is a process of its own because JAX and Keras set their precision for a whole process.
"""

import json
import os
import sys
from functools import partial

os.environ["KERAS_BACKEND"] = "jax"

import jax

name, stage, precision, count = *sys.argv[1:4], int(sys.argv[4])
jax.config.update("jax_enable_x64", precision == "float64")
# Until the training begins: a third of the time is compiling what makes Keras's network.
jax.config.update("jax_disable_most_optimizations", True)

import keras
import numpy as np
from keras.src.backend.common import dtypes
from keras_networks import find_network

from tljax import trees
from tljax.config import Optimizer
from tljax.data.augmentation import compose
from tljax.data.preprocessing import CAFFE
from tljax.networks.cut import Cut
from tljax.networks.resnet import ResNet
from tljax.training import steps
from tljax.training.optimizers import make_optimization
from tljax.training.state import create_state
from tljax.weights import convert

keras.config.set_floatx(precision)
if precision == "float64":
    # Keras promotes float64 with float32 to float32. So its BatchNorm and its means compute in float32 whatever floatx
    # says, a difference of 1e-7 from the first layer on. This makes them compute in float64, with the same formulas.
    narrow = dtypes.result_type
    wide = lambda *types: "float64" if "float64" in map(str, types) else narrow(*types)  # noqa: E731
    dtypes.result_type = keras.src.backend.result_type = wide
keras.utils.set_random_seed(0)
CUTS = {"feature_extraction": "head", "fine_tune": "conv5_block1", "from_scratch": "conv1"}
CUT, RATE, CLASSES, BATCH = CUTS[stage], 1e-4 if stage == "fine_tune" else 1e-3, 10, 8
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (count, BATCH, 32, 32, 3), np.uint8)
labels = rng.integers(0, CLASSES, (BATCH,)).astype(np.int32)
# The pictures of a class look alike, so that there is something to learn.
images = images // 2 + (labels[None, :, None, None, None] * 12).astype(np.uint8)

build, architecture = find_network(name)
base = build(weights=None, include_top=False, input_shape=(32, 32, 3))
for layer in base.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        shape = layer.gamma.shape
        ranges = ((0.8, 1.2), (-0.1, 0.1), (-0.2, 0.2), (0.8, 1.2))
        layer.set_weights([rng.uniform(low, high, shape) for low, high in ranges])
arrays = {f"{layer.name}/{weight.name}": np.asarray(weight) for layer in base.layers for weight in layer.weights}
starts = {unit: index for index, unit in architecture.keras_layer_starts.items()}
for layer in base.layers[: starts[CUT]]:
    layer.trainable = False


class Peer(keras.Model):
    """The network with BatchNorm in inference mode.

    That needs a subclassed model: in a functional one, Keras 3.15 overrides `base(inputs, training=False)` with the
    outer model's training=True while it trains.
    """

    def __init__(self):
        super().__init__()
        self.base, self.pool, self.dense = base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES)

    def call(self, x):
        return self.dense(self.pool(self.base(x, training=False)))


model = Peer()
model(np.zeros((1, 32, 32, 3), precision))
arrays |= {f"predictions/{weight.name}": np.asarray(weight) for weight in model.dense.weights}
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(RATE), loss)
jax.config.update("jax_disable_most_optimizations", False)
keras_losses = []
for batch in images:
    x = keras.applications.resnet.preprocess_input(batch.astype(precision))
    # Keras reports the mean loss since the last reset. With a reset after every step it is the loss of one step.
    keras_losses.append(float(model.train_on_batch(x, labels)))
    model.reset_metrics()

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
network = ResNet(CLASSES, architecture=architecture)
variables = trees.unflatten({k: jax.numpy.asarray(v) for k, v in convert.from_keras(arrays).items()})
cut = Cut(network.units, CUT)
tx, _ = make_optimization(Optimizer(learning_rate=RATE), cut, 1, count)
state = create_state(variables, tx, cut)
embed = partial(steps.embed_images, model=network, cut=cut, preprocessing=CAFFE)
procedure = steps.Procedure(network, cut, tx, partial(compose(()), classes=CLASSES), embed, train_batch_norm=False)
step = jax.jit(partial(steps.train_step, procedure=procedure))
losses = []
for batch in images:
    # Pixels have the precision of the comparison; preprocessing would turn uint8 into float32.
    inputs = {"image": batch.astype(precision), "label": labels, "mask": np.ones(BATCH, bool)}
    state, sums = step(state, inputs, jax.random.key(0))
    losses.append(float(sums.loss) / BATCH)
assert all(leaf.dtype == precision for leaf in jax.tree.leaves(state.variables["params"]))
print(json.dumps({"keras": keras_losses, "tljax": losses}))
