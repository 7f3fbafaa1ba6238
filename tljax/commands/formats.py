"""The formats of an export: how each file is made, and how it answers."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from tljax.commands.model import make_model
from tljax.data.preprocessing import OF_VARIANT
from tljax.devices.mesh import make_mesh
from tljax.export import keras_files, onnx_graph, torch_files
from tljax.export.content import Content, to_json
from tljax.networks.resnet import NETWORKS, VARIANTS, fold
from tljax.training import calibration
from tljax.training.inference import predict_logits
from tljax.weights.pretrained import load_weights

Pictures = UInt8[np.ndarray, "n size size 3"]
Probabilities = Float[np.ndarray, "n classes"]


class Format(NamedTuple):
    """A kind of file."""

    name: str
    ending: str
    build: Callable[[Content], bytes]
    answer: Callable[[Path, Content, Pictures], Probabilities]
    """(file, content, pictures) -> the probabilities that the file gives."""
    describe: Callable[[Content], bytes]
    """What the file beside it holds: the metadata, for programs that do not find it in the file."""
    config: str | None = None
    """The name of the file beside it. None: that of the file with `.json` behind it."""
    has_metadata: bool = False
    """Whether the file itself has the metadata too."""
    has_batch_size: bool = False
    """Whether it takes a fixed number of pictures at a time."""
    needs: tuple[str, ...] = ()
    """Modules of the extra `onnx`."""
    variant: str | None = None
    """That of the published networks whose weights it holds, with one dense layer as their head. None: it holds any
    network of ours."""
    whose: str = ""
    """Who published them."""

    def beside(self, name: str) -> str:
        """The name of the file beside a file of this `name`."""
        return self.config or f"{name}.json"

    @property
    def is_calibrated(self) -> bool:
        """Whether its probabilities are softmax(logits / temperature), and not softmax(logits)."""
        return self.variant is None


def find_format(out: str, name: str | None) -> Format:
    """The format by the ending of the file `out` or, if it has none of theirs, by its `name`.

    Raises:
      ValueError: if there is neither, if they contradict each other, or if what writes the format is not installed.
    """
    fitting = [form for form in FORMATS if out.endswith(form.ending)]
    named = [form for form in FORMATS if form.name == name]
    if not fitting + named:
        endings = ", ".join(f"{form.ending} ({form.name})" for form in FORMATS)
        raise ValueError(f"OUT={out!r}: no format has this ending; the endings are {endings}, or --format says which")
    form = max(fitting or named, key=lambda form: len(form.ending))
    if named and named != [form]:
        raise ValueError(f"{out}: this ending is that of {form.name}, not of {name}, which is {named[0].ending}")
    if missing := [module for module in form.needs if find_spec(module) is None]:
        names = " and ".join(missing)
        raise ValueError(f"{out} cannot be written and checked without {names}: pip install {' '.join(missing)}")
    return form


def why_not(form: Format, content: Content) -> str:
    """What of the network the format cannot hold, for a reader; empty if it can hold all."""
    if form.variant is None:
        return ""
    network, other = content.network, f"{form.whose} has {form.variant} alone; .onnx holds it"
    if network.variant != VARIANTS[form.variant]:
        return f"the run is {content.about['network']}, and {other}"
    if network.hidden:
        return f"its head has hidden layers {network.hidden}, and {form.whose} has one dense layer; .onnx holds them"
    if network.architecture not in [row.architecture for row in NETWORKS.values()]:
        return f"the run is {content.about['network']}, which {form.whose} does not have; .onnx holds it"
    if content.preprocessing.channels != OF_VARIANT[form.variant].channels:
        return f"its input is {content.preprocessing.channels}, and that of {form.whose} is not; .onnx holds it"
    return ""


def build_onnx(content: Content) -> bytes:
    data: bytes = onnx_graph.build(content).SerializeToString()
    return data


def run_onnx(file: Path, content: Content, pictures: Pictures) -> Probabilities:
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    probabilities: Probabilities = session.run(["probabilities"], {"images": pictures})[0]
    return probabilities


def read_back(file: Path, content: Content, pictures: Pictures) -> Probabilities:
    """What tljax itself reads from a weight file."""
    weights = load_weights(str(file), setting="OUT")._replace(
        input_size=content.image_size, preprocessing=content.preprocessing
    )
    model = make_model(weights, file, make_mesh(jax.devices("cpu")[:1]))
    return calibration.softmax(model(pictures), content.temperature)


def build_program(content: Content) -> bytes:
    """The network with its weights as a StableHLO program: `jax.export.deserialize` runs it without tljax."""
    folded = jax.tree.map(np.asarray, fold(content.network, content.variables))
    read = partial(predict_logits, model=content.network, preprocessing=content.preprocessing, mirror=False)
    side = content.image_size

    def answer(images: jax.Array) -> jax.Array:
        return jax.nn.softmax(read(folded, images) / content.temperature)

    images = jax.ShapeDtypeStruct((content.batch_size, side, side, 3), np.uint8)
    program = jax.export.export(jax.jit(answer), platforms=("cpu", "cuda", "tpu"))(images)
    return bytes(program.serialize())


def run_program(file: Path, content: Content, pictures: Pictures) -> Probabilities:
    program, size = jax.export.deserialize(bytearray(file.read_bytes())), content.batch_size
    padded = np.concatenate([pictures, np.zeros((-len(pictures) % size, *pictures.shape[1:]), np.uint8)])
    with jax.default_device(jax.devices("cpu")[0]):
        parts = [np.asarray(program.call(padded[i : i + size])) for i in range(0, len(padded), size)]
    return np.concatenate(parts)[: len(pictures)]


def describe(content: Content) -> bytes:
    return to_json(content.about)


FORMATS = (
    Format("onnx", ".onnx", build_onnx, run_onnx, describe, has_metadata=True, needs=("onnx", "onnxruntime")),
    Format("keras", ".weights.h5", keras_files.build, read_back, describe, variant="v1", whose="Keras"),
    Format("keras-legacy", ".h5", keras_files.build_legacy, read_back, describe, variant="v1", whose="Keras"),
    Format(
        "torch",
        ".safetensors",
        torch_files.build,
        read_back,
        torch_files.describe,
        config=torch_files.CONFIG,
        has_metadata=True,
        variant="v1.5",
        whose="torchvision",
    ),
    Format("stablehlo", ".stablehlo", build_program, run_program, describe, has_batch_size=True),
)
