"""The formats of an export: how each file is made, and how it answers."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, get_args

from tljax.data.decoding import Fit
from tljax.data.preprocessing import OF_VARIANT, Preprocessing
from tljax.export import keras_files, onnx_graph, stablehlo, torch_files
from tljax.export.content import Content, Squares, name_network, to_json
from tljax.export.endings import EXPORT_ENDINGS
from tljax.networks.architectures import NETWORKS, VARIANTS
from tljax.networks.resnet import ResNet
from tljax.training.calibration import Probabilities
from tljax.weights.hub import TIMM_CONFIG


class Format(NamedTuple):
    """A kind of file."""

    name: str
    """One of `EXPORT_ENDINGS`."""
    build: Callable[[Content], bytes]
    answer: Callable[[Path, Content, Squares], Probabilities] | None
    """(file, content, images) -> the probabilities that the file gives. None: it holds weights alone, and answers when
    tljax reads it as such."""
    describe: Callable[[Content], bytes]
    """What the file beside it holds: the metadata, for programs that do not find it in the file."""
    config: str | None = None
    """The name of the file beside it. None: that of the file with `.json` behind it."""
    has_metadata: bool = False
    """Whether the file itself has the metadata too."""
    has_batch_size: bool = False
    """Whether it takes a fixed number of images at a time."""
    needs: tuple[str, ...] = ()
    """Modules that write it and run it."""
    variant: str | None = None
    """That of the published networks whose weights it holds, with one dense layer as their head. None: it holds any
    network of ours."""
    whose: str = ""
    """Who published them."""
    fits: tuple[Fit, ...] = get_args(Fit)
    """The ways in which the file beside it can say that pictures become square."""
    prepare: Callable[[Any, Fit, int], Any] | None = None
    """(picture of Pillow, fit, side) -> the square that a library makes of it by the file beside it. None: none reads
    that, and a program does what the metadata says."""
    preparer: str = ""
    """The library."""

    @property
    def ending(self) -> str:
        return EXPORT_ENDINGS[self.name]

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


def why_not(form: Format, network: ResNet, preprocessing: Preprocessing, fit: Fit) -> str:
    """What of a network and its pictures the format cannot hold, for a reader; empty if it can hold all."""
    if form.variant is None:
        return ""
    name, other = name_network(network), f"{form.whose} has {form.variant} alone; .onnx holds it"
    if network.variant != VARIANTS[form.variant]:
        return f"the run is {name}, and {other}"
    if network.hidden:
        return f"its head has hidden layers {network.hidden}, and {form.whose} has one dense layer; .onnx holds them"
    if network.architecture not in [row.architecture for row in NETWORKS.values()]:
        return f"the run is {name}, which {form.whose} does not have; .onnx holds it"
    # timm's file has room for other means; Keras has its own.
    theirs = OF_VARIANT[form.variant]
    told = theirs._replace(mean=preprocessing.mean, std=preprocessing.std) if form.config else theirs
    if preprocessing != told:
        return f"its input is {tuple(preprocessing)}, and that of {form.whose} is {tuple(theirs)}; .onnx holds it"
    if fit not in form.fits:
        return f"the run has data.fit={fit}, which pads with black, and timm would pad with its mean color; use .onnx"
    return ""


def describe(content: Content) -> bytes:
    return to_json(content.about)


FORMATS = (
    Format("onnx", onnx_graph.build, onnx_graph.answer, describe, has_metadata=True, needs=("onnx", "onnxruntime")),
    Format("keras", keras_files.build, None, describe, variant="v1", whose="Keras"),
    Format("keras-legacy", keras_files.build_legacy, None, describe, variant="v1", whose="Keras"),
    Format(
        "torch",
        torch_files.build,
        None,
        torch_files.describe,
        config=TIMM_CONFIG,
        has_metadata=True,
        variant="v1.5",
        whose="torchvision",
        fits=tuple(torch_files.CROP_MODES),
        prepare=torch_files.prepare,
        preparer="timm",
    ),
    Format(
        "stablehlo",
        stablehlo.build,
        stablehlo.answer,
        describe,
        has_batch_size=True,
        needs=("flatbuffers",),
    ),
)
