"""The jobs with Keras on TensorFlow, with XLA (`--jit`) or without it (`--no-jit`).

BatchNorm is in inference mode in every job but one. That needs a subclassed model: in a functional one, Keras 3.15
overrides `base(inputs, training=False)` with the outer model's training=True while it trains.
"""

import os
from collections.abc import Callable
from functools import partial

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import protocol
import tensorflow as tf
from protocol import Arrays, Request, Stopwatch


class Network(keras.Model):
    """ResNet50 from pixels to logits; the layers before the unit `cut` are frozen.

    With `batch_norm` the others normalize with the batch's statistics while it trains.
    """

    def __init__(self, size: int, classes: int, cut: str, batch_norm: bool) -> None:
        super().__init__()
        self.base = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(size, size, 3))
        frozen = cut != "conv1"
        for layer in self.base.layers:
            frozen = frozen and not layer.name.startswith(cut)
            layer.trainable = not frozen
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.dense = keras.layers.Dense(classes)
        self.batch_norm = batch_norm

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = keras.applications.resnet.preprocess_input(keras.ops.cast(images, "float32"))
        return self.dense(self.pool(self.base(x, training=training and self.batch_norm)))


class Times(keras.callbacks.Callback):
    """Passes Keras's events on to the stopwatch. Keras calls `on_epoch_end` after the evaluation."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self.stopwatch = stopwatch

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.stopwatch.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.stopwatch.end_step()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.stopwatch.end_epoch()


class KerasWorker:
    jobs = frozenset({"forward_224", "forward_32", *protocol.STEP_CUTS, *protocol.JOB_CUTS})

    def __init__(self, arrays: Arrays, jit: bool) -> None:
        self.arrays, self.jit = arrays, jit

    def prepare(self, job: str) -> tuple[Callable[[], object], int]:
        """Builds a job from the `*_on_batch` methods.

        They run the same compiled functions as `predict` and `fit`, but set up no data pipeline at every call.
        """
        arrays = self.arrays
        if job == "forward_224":
            model = self._build(224, protocol.LARGE_CLASSES, "head")
            batches = protocol.repeat_batches(protocol.LARGE_BATCH, arrays["large_images"])
            return lambda: model.predict_on_batch(*next(batches)), protocol.LARGE_BATCH
        if job == "forward_32":
            model = self._build(32, protocol.CLASSES, "head")
            batches = protocol.repeat_batches(protocol.BATCH, arrays["train_images"])
            return lambda: model.predict_on_batch(*next(batches)), protocol.BATCH
        model = self._build(32, protocol.CLASSES, protocol.STEP_CUTS[job], job == protocol.BATCH_NORM_JOB)
        batches = protocol.repeat_batches(protocol.BATCH, arrays["train_images"], arrays["train_labels"])
        return lambda: model.train_on_batch(*next(batches)), protocol.BATCH

    def run(self, job: str, request: Request, stopwatch: Stopwatch) -> None:
        images, labels, val_images, val_labels = protocol.take_rows(self.arrays, request)
        model = self._build(32, protocol.CLASSES, protocol.JOB_CUTS[job])
        model.fit(
            images,
            labels,
            batch_size=protocol.BATCH,
            epochs=request["epochs"],
            validation_data=(val_images, val_labels),
            callbacks=[Times(stopwatch)],
            verbose=0,
        )

    def _build(self, size: int, classes: int, cut: str, batch_norm: bool = False) -> Network:
        keras.backend.clear_session()
        model = Network(size, classes, cut, batch_norm)
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=self.jit,
        )
        return model


if __name__ == "__main__":
    flags = protocol.arguments(__doc__, ("jit", "no-jit"))
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__, "numpy": np.__version__}
    protocol.serve(partial(KerasWorker, jit=flags.setting == "jit"), flags.arrays, versions)
