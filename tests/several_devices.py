"""Trains a tiny network on DEVICES CPU devices in each of PROCESSES processes and prints the results as JSON.

    python tests/several_devices.py FOLDER DEVICES inference|training PROCESSES PROCESS_ID PORT

The last state is left in FOLDER as a checkpoint. It is a process of its own because JAX sets the number of devices for
a whole process.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax

FOLDER = Path(sys.argv[1])
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
jax.config.update("jax_disable_most_optimizations", True)

import numpy as np

BATCH_NORM = sys.argv[3]
PROCESSES, PROCESS_ID, PORT = map(int, sys.argv[4:])

from tiny_runs import TINY

from tljax.config import Compute, Config, Head, Optimizer
from tljax.data import batches
from tljax.data.datasets import Dataset, Split
from tljax.data.preprocessing import CAFFE
from tljax.devices import mesh, processes, tpu
from tljax.networks.cut import Cut
from tljax.networks.resnet import ResNet, describe_network
from tljax.runs import checkpoints
from tljax.stages.programs import Setup, compile_programs
from tljax.stages.solve import put_head, solve
from tljax.training import epochs
from tljax.trees import digest_leaves

BATCH, TRAIN, VALIDATION = 16, 70, 37
if PROCESSES > 1:
    processes.join(f"localhost:{PORT}", PROCESSES, PROCESS_ID)
    # The leader's choice is shorter than that of others.
    assert processes.as_leader({"chosen": "ä" * (1 + PROCESS_ID)}) == {"chosen": "ä"}
# Neighbours in the mesh belong to different processes, as may happen on a TPU slice.
DEVICES = mesh.make_mesh(np.array(jax.devices()).reshape(PROCESSES, -1).T.ravel().tolist())
MODEL = ResNet(3, architecture=TINY)
CUT = Cut(MODEL.units, "conv5_block1")
rng = np.random.default_rng(0)


def make_examples(n: int, views: int = 1) -> tuple[batches.Examples, batches.Examples]:
    """The same `n` examples twice: kept on the devices, and streamed to them. The second view is the negative."""
    images, labels = rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(0, 3, n, np.int32)
    own = mesh.own_rows(DEVICES, BATCH, n)
    seen = (images[own], 255 - images[own])[:views]
    kept, streamed = (
        batches.place_examples(seen if views > 1 else seen[0], labels[own], n, BATCH, memory, DEVICES)
        for memory in (views * images.nbytes, 0)
    )
    assert isinstance(kept.images, jax.Array) and not isinstance(streamed.images, jax.Array)
    return kept, streamed


def held(tree: Any) -> int:
    """Bytes of `tree` on this process's first device."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def exchanged(chunk: batches.Chunk) -> dict[str, Any]:
    """The collectives, by kind, that the devices run to take a batch from `chunk`."""
    return tpu.count_collectives(jax.jit(lambda chunk: chunk.batch(0)).lower(chunk).compile().as_text())


training, validation = make_examples(TRAIN), make_examples(VALIDATION)[0]
viewed = make_examples(TRAIN, views=2)
variables = jax.jit(MODEL.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
# With BatchNorm in training mode, views, and all else that a training may have.
TRAINING = Config(
    batch_norm="training",
    label_smoothing=0.1,
    epochs=4,
    head=Head(dropout=0.3),
    optimizer=Optimizer("adamw", schedule="cosine", weight_decay=0.1, clip_norm=1.0, layer_decay=0.8, ema_decay=0.5),
)
config, examples, weights = {
    "inference": (Config(), training, None),
    "training": (TRAINING, viewed, (1.0, 2.0, 0.5)),
}[BATCH_NORM]
config.cut, config.compute = "conv5_block1", Compute(shard_optimizer=True)
setup = Setup(config, MODEL, CAFFE, CUT, DEVICES)
programs = compile_programs(setup, variables, training[0].steps, from_activations=False, class_weights=weights)
state = programs.create(mesh.put(variables, mesh.whole(DEVICES)))
losses, val_losses = [], []
for epoch in range(4):
    # Examples are kept on the devices in one epoch and streamed in the next.
    order = batches.draw_order(TRAIN, BATCH, seed=0, epoch=epoch, views=examples[0].views)
    ((chunk, _),) = examples[epoch % 2].chunks(order)
    for step in range(training[0].steps):
        state, sums = programs.train(state, chunk, np.int32(step), np.int32(step + 1), key=jax.random.key(0))
        losses.append(float(sums.loss[step] / sums.examples[step]))
    evaluation = epochs.evaluate(state, validation, programs.evaluate)
    val_losses.append(evaluation.means["loss"])
report = {
    "losses": losses,
    "val_losses": val_losses,
    "evaluated": len(evaluation.predicted),
    "predicted": evaluation.predicted.tolist(),
    "image_bytes": held(training[0].images),
    "exchanged": [exchanged(some[0].blank()) for some in (training, viewed)],
    "optimizer_bytes": held(state.opt_state),
    "parameter_bytes": held(state.variables),
}
# A head that is solved from features of which each process has its own.
own = mesh.own_rows(DEVICES, BATCH, TRAIN)
features, labels = rng.normal(size=(TRAIN, 9)).astype(np.float32), rng.integers(0, 3, TRAIN, np.int32)
# Names of files may be no text in UTF-8.
names = tuple("caf\udce9" * (row % 3) + f"{row}.jpg" for row in range(TRAIN))
own_names = tuple(names[row] for row in own)
split = Split(features[own], labels[own], own_names, own, TRAIN, np.zeros((len(own), 4), np.uint32))
report["ids_gathered"] = split.all_ids() == names
solution = solve(Dataset(("a", "b", "c"), 32, split, None, None, {}), features[own])
head = put_head(state, solution.head, setup).variables["params"]["head"]
report["solved"] = np.asarray(head["kernel"]).tolist(), np.asarray(head["bias"]).tolist()

with checkpoints.open_checkpoints(FOLDER, own=True) as kept:
    frozen = CUT.digest(state.variables)
    kept.keep_frozen(state.variables, CUT, frozen)
    kept.save(1, state, CUT, frozen, {"cut": CUT.start, "network": describe_network(MODEL), "best": 1})
print(json.dumps(report | {"digest": digest_leaves(state.variables)}))
