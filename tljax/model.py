"""A trained network as a Python object: pictures of any kind in, logits, labels, features or maps out."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from tljax.data.decoding import Fit, describe_error, make_square, read_picture, to_rgb
from tljax.devices.mesh import by_row, compute_dtype, make_mesh, put, whole
from tljax.networks.resnet import compute_type
from tljax.runs.learned import Learned
from tljax.runs.reference import REFERENCE, Reference, find_difference, read_reference
from tljax.startup import in_float32
from tljax.training import calibration, inference
from tljax.training.inference import Inference, start_inference
from tljax.trees import digest_leaves
from tljax.weights.pretrained import Weights, load_weights, restore

# The most pixels and the most pictures of a batch per device. A CPU multiplies matrices in blocks of rows, 12 at a time
# with AVX2, and rounds the rows that are left over otherwise: with 256 pictures the last four of a small network differ
# in the last bits from the same pictures elsewhere in the batch.
BATCH_PIXELS, BATCH_IMAGES = 2**20, 240

Square = UInt8[np.ndarray, "size size 3"]


class Prediction(NamedTuple):
    """The answer to one picture."""

    label: str
    probability: float
    top: list[tuple[str, float]]
    """The most probable labels with their probabilities, the most probable first."""
    set: list[str] | None
    """The labels that together have the right one with the coverage asked for, the most probable first; None if no
    coverage was asked for."""


class Explanation(NamedTuple):
    """Where in a picture a logit comes from: it is `contributions.sum() + bias`."""

    label: str
    contributions: Float[np.ndarray, "h w"]
    bias: float


@dataclass(frozen=True, repr=False)
class Model:
    """A trained network with its classes, its preprocessing and its calibration. `load` makes it.

    Pictures are paths of files, pictures of Pillow, or uint8 arrays [h, w, 3] of any size, one or a list of them, or a
    uint8 array [n, h, w, 3]. They are made square as in training.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: int
    fit: Fit
    reference: Reference | None
    """What the run kept of its own predictions; None if there is nothing."""
    _inference: Inference
    unchecked: str = ""
    """Why there is no reference."""
    learned: Learned | None = None
    """What a run's weights have learned from; None if that is not known, as of weights from a file."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the weights: how they were read, or that their run is in training."""

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {len(self.class_names)} classes, {self.image_size} pixels)"

    def __call__(self, images: Any, *, tta: bool = False) -> Float[np.ndarray, "n classes"]:
        """The logits (float32) of pictures. With `tta`, test-time augmentation, the mean of those of each picture and
        its mirror image.

        Raises:
          ValueError: if a picture is none, or cannot be read.
        """
        return self._map(self._mirrored if tta else self._plain, self.squares(images))

    def predict(
        self, images: Any, *, top: int = 5, coverage: float | None = None, tta: bool = False
    ) -> list[Prediction]:
        """The labels of pictures. Probabilities are softmax(logits / temperature).

        With `coverage`, such as 0.95, each answer has a set of labels that has the right one so often, for pictures
        like those of training.

        Raises:
          ValueError: if a picture is none or cannot be read, `top` is below 1, or that coverage cannot be promised, as
            with `tta`.
        """
        refuse_mirrored_sets(coverage, tta)
        return self.answer(self(images, tta=tta), top=top, coverage=coverage)

    def features(self, images: Any, *, at: str = "head") -> Float[np.ndarray, "n c"]:
        """What the unit `at` reads of pictures, averaged over its positions (float32).

        Raises:
          ValueError: if a picture is none or cannot be read, or `at` is no unit.
        """
        units = self._inference.model.units
        if at not in units[1:]:
            raise ValueError(f"at={at!r}: features are what one of these units reads: {', '.join(units[1:])}")
        return self._map(self._averages(at), self.squares(images))

    def explain(self, images: Any, *, label: str | Sequence[str] | None = None, tta: bool = False) -> list[Explanation]:
        """Where in each picture the logit of a label comes from: what every position of the last map adds to it.

        `label` is the name of a class for all pictures, or a list with one for each. None takes the most probable label
        of each picture. With `tta`, the logit is the mean over each picture and its mirror image, as in `predict`.

        Raises:
          ValueError: if a picture is none or cannot be read, if `label` is no class, or if there are no maps.
        """
        if why := self.why_no_maps:
            raise ValueError(f"{self.name}: {why}")
        maps = self._map(self._contributions(tta), self.squares(images))
        bias = np.asarray(self._inference.folded["params"]["head"]["bias"])
        logits = maps.sum(axis=(1, 2)) + bias
        labels = [label] * len(maps) if isinstance(label, str) else label
        if labels is not None and (unknown := set(labels) - set(self.class_names)):
            raise ValueError(f"label={min(unknown)!r} is none of {', '.join(self.class_names)}")
        chosen = logits.argmax(axis=1) if labels is None else [self.class_names.index(name) for name in labels]
        return [
            Explanation(self.class_names[k], one[..., k], float(bias[k])) for one, k in zip(maps, chosen, strict=True)
        ]

    @property
    def why_no_maps(self) -> str:
        """Why nothing can be explained; empty if it can."""
        if self._inference.model.hidden:
            return "its head has hidden layers, so a logit is no sum over positions: there is no map"
        if self.positions == (1, 1):
            return f"at {self.image_size} pixels the last map has one position: there is no map"
        return ""

    @property
    def positions(self) -> tuple[int, int]:
        """Height and width of the last map."""
        side = self._inference.model.architecture.map_side(self.image_size)
        return side, side

    @property
    def digest(self) -> str:
        """A digest of all weights."""
        return hashlib.sha256(json.dumps(digest_leaves(self._inference.folded)).encode()).hexdigest()

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities."""
        return 1.0 if self.reference is None else self.reference.temperature

    @property
    def batch_size(self) -> int:
        """The number of pictures that the network always gets at a time, so that no picture changes the answer to
        another."""
        devices = self._inference.mesh.size
        return min(BATCH_IMAGES, max(1, BATCH_PIXELS // self.image_size**2)) * devices

    def answer(
        self, logits: Float[np.ndarray, "n classes"], *, top: int = 5, coverage: float | None = None
    ) -> list[Prediction]:
        """The answers that logits stand for. The arguments are those of `predict`.

        Raises:
          ValueError: if `top` is below 1, or the run cannot promise that coverage.
        """
        if top < 1:
            raise ValueError(f"top={top}: an answer has one label at least")
        probabilities = calibration.softmax(logits, self.temperature)
        sets = None if coverage is None else calibration.choose_sets(probabilities, self.find_threshold(coverage))
        answers = []
        for i, row in enumerate(probabilities):
            order = np.argsort(-row, kind="stable")
            named = [(self.class_names[k], float(row[k])) for k in order[:top]]
            chosen = None if sets is None else [self.class_names[k] for k in order if sets[i, k]]
            answers.append(Prediction(self.class_names[order[0]], float(row[order[0]]), named, chosen))
        return answers

    def find_threshold(self, coverage: float) -> float:
        """The probability from which on a label is in the set of a picture.

        Raises:
          ValueError: if the run cannot promise that coverage.
        """
        if self.reference is None:
            raise ValueError(f"no coverage can be promised: {self.unchecked}")
        return calibration.find_threshold(self.reference.scores, coverage)

    def squares(self, images: Any) -> UInt8[np.ndarray, "n size size 3"]:
        """Pictures as the network gets them.

        Raises:
          ValueError: if a picture is none, or cannot be read.
        """
        many = images if isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4 else [images]
        found = [self.square(image) for image in many]
        return np.stack(found) if found else np.zeros((0, self.image_size, self.image_size, 3), np.uint8)

    def square(self, image: Any) -> Square:
        """One picture as the network gets it.

        Raises:
          ValueError: if it is none, or cannot be read.
        """
        from PIL import Image

        if isinstance(image, (str, Path)):
            refuse_other_files(image)
            rgb = _read(lambda: read_picture(Path(image))[0], str(image))
        elif isinstance(image, Image.Image):
            rgb = _read(lambda: to_rgb(image), "a picture of Pillow")
        else:
            pixels = np.asarray(image)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
                raise ValueError(
                    f"a picture is a path, a picture of Pillow, or a uint8 array [height, width, 3] of RGB pixels, not "
                    f"{type(image).__name__} of {pixels.dtype} {list(pixels.shape)}"
                )
            rgb = Image.fromarray(pixels)
        return make_square(rgb, self.image_size, self.fit)

    def start(self, squares: Iterable[Square], *, tta: bool = False) -> jax.Array:
        """Starts to compute the logits of at most `batch_size` squares, and does not wait: the devices work while the
        caller does something else. The result has `batch_size` rows; those behind the squares' are of no picture."""
        return self._start(self._mirrored if tta else self._plain, squares)

    def _map(self, run: Callable[..., Any], squares: UInt8[np.ndarray, "n size size 3"]) -> np.ndarray:
        """`run` on squares, batch by batch."""
        starts = range(0, max(len(squares), 1), self.batch_size)
        parts = [squares[start : start + self.batch_size] for start in starts]
        return np.concatenate([np.asarray(self._start(run, part))[: len(part)] for part in parts])

    @in_float32()
    def _start(self, run: Callable[..., Any], squares: Iterable[Square]) -> jax.Array:
        """Starts `run` on one batch, which black pictures fill up."""
        size, mesh = self.image_size, self._inference.mesh
        batch = np.zeros((self.batch_size, size, size, 3), np.uint8)
        for row, square in zip(batch, squares, strict=False):
            row[:] = square
        outputs: jax.Array = run(self._inference.folded, put(batch, by_row(mesh), self.batch_size))
        return outputs

    @cached_property
    def _plain(self) -> Callable[..., Any]:
        return self._inference.program(partial(inference.predict_logits, mirror=False))

    @cached_property
    def _mirrored(self) -> Callable[..., Any]:
        return self._inference.program(partial(inference.predict_logits, mirror=True))

    @cached_property
    def _averages(self) -> Callable[[str], Callable[..., Any]]:
        return cache(lambda at: self._inference.program(partial(inference.average_activations, at=at)))

    @cached_property
    def _contributions(self) -> Callable[[bool], Callable[..., Any]]:
        return cache(lambda tta: self._inference.program(partial(inference.contributions, mirror=tta)))


def refuse_mirrored_sets(coverage: float | None, tta: bool) -> None:
    """Raises ValueError for sets of labels of the mean over mirror images: their threshold comes from probabilities of
    plain pictures. Sets for 0.9 would hold the right label 0.82 times."""
    if tta and coverage is not None:
        raise ValueError(
            f"coverage {coverage:g} with mirror images (--tta): sets of labels are fitted on pictures as they are, and "
            "would hold less than they promise; leave one of the two out"
        )


def refuse_other_files(path: str | Path) -> None:
    """Raises ValueError if a path is no regular file: a pipe or a device could be read without end."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return
        what = "it is no regular file"
    except (OSError, ValueError) as error:
        what = "there is no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read ({error})"
    raise ValueError(f"{path} is no readable image: {what}")


def _read(read: Callable[[], Any], name: str) -> Any:
    """The result of `read`.

    Raises:
      ValueError: if it raises anything: Pillow's decoders raise all kinds of errors for damaged files.
    """
    try:
        return read()
    except Exception as error:
        raise ValueError(f"{name} is no readable image ({describe_error(error)})") from error


@in_float32()
def load(run: str | Path) -> Model:
    """The network of a run that trained, of a stage of a lesson, or of weights: `imagenet`, a file, or a model of the
    Hugging Face Hub.

    What the run kept of its own predictions is computed again first: a machine or a library that gives other answers
    is not used.

    Raises:
      ValueError: if `run` cannot be read, has no head, or gives other answers here than when it was trained.
      FileNotFoundError: if it is not there.
      OSError: if the hub does not give it.
    """
    return make_model(load_weights(str(run), setting="RUN"), Path(run), make_mesh())


@in_float32()
def make_model(weights: Weights, run: Path, mesh: Mesh) -> Model:
    """The network of `weights`, which come from `run`, on the devices of `mesh`.

    Raises:
      ValueError: as `load`.
    """
    network, variables = restore(weights)
    network = network.clone(dtype=compute_dtype(mesh, "auto"))
    runner = start_inference(network, weights.preprocessing, put(variables, whole(mesh)), mesh)
    reference, unchecked = find_reference(weights, run)
    about = weights.name, name_classes(weights), weights.input_size, weights.fit
    model = Model(*about, reference, runner, unchecked, weights.learned, weights.notes)
    if reference is not None:
        check(model, reference)
    return model


def find_reference(weights: Weights, run: Path) -> tuple[Reference | None, str]:
    """The reference of a run; without one the reason, for a reader.

    Raises:
      ValueError: if it is damaged.
    """
    if not weights.is_run:
        return None, f"{weights.name} is a file of weights, which keeps no logits to compare with, and no calibration"
    found = read_reference(run)
    if found is None:
        why = "it is in training" if weights.in_training else "it has not ended, or is a run of tljax 0.1.0"
        return None, f"{run} keeps no {REFERENCE}: {why}"
    if found.best != weights.best_checkpoint:
        now = "is in training" if weights.in_training else "has not ended"
        return None, f"{run} went on after its {REFERENCE} was written, and {now}"
    return found, ""


def name_classes(weights: Weights) -> tuple[str, ...]:
    """The names of the classes, each only once: ImageNet has two cranes, which their WordNet numbers tell apart."""
    names = [name for _, name in weights.labels]
    return tuple(f"{name} ({number})" if names.count(name) > 1 else name for number, name in weights.labels)


def check(model: Model, reference: Reference) -> None:
    """Computes the pictures of a run's reference again.

    Raises:
      ValueError: if their logits are not those that the run had.
    """
    if reference.images.shape[1:] != (model.image_size, model.image_size, 3):
        raise ValueError(
            f"{model.name}: its reference has pictures of {reference.images.shape[1:]}; it is another run's"
        )
    compute = compute_type(model._inference.model)
    if difference := find_difference(reference, model(reference.images), compute):
        raise ValueError(
            f"{model.name}: this machine or its libraries compute other logits than the run had for its own pictures "
            f"({difference}): nothing is predicted. environment.jsonl there says what it ran on"
        )
