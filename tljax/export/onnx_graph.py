"""An ONNX graph: uint8 images in, probabilities out; BatchNorms are folded, and preprocessing is in it.

It is written by hand: it needs fourteen kinds of operators, and the converters from JAX (jax2onnx) trace what is made
for XLA.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from tljax.data.preprocessing import Preprocessing
from tljax.export.content import Content, Squares
from tljax.networks.architectures import Architecture
from tljax.networks.resnet import fold
from tljax.training.calibration import Probabilities
from tljax.trees import Tree

# Operators as of ONNX 1.12 (2022), which browsers and devices read too.
OPSET, IR_VERSION = 17, 8


class Graph:
    """Nodes and constants, in their order."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str | np.ndarray, name: str, **attributes: Any) -> str:
        """Adds a node, whose array inputs become constants. Returns its output, which has its name."""
        from onnx import helper, numpy_helper

        names = []
        for i, value in enumerate(inputs):
            if isinstance(value, np.ndarray):
                self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), f"{name}/{i}"))
                value = f"{name}/{i}"
            names.append(value)
        self.nodes.append(helper.make_node(operator, names, [name], name=f"node {name}", **attributes))
        return name


def build(content: Content) -> bytes:
    """The file `*.onnx`."""
    data: bytes = build_model(content).SerializeToString()
    return data


def answer(file: Path, content: Content, images: Squares) -> Probabilities:
    """The probabilities [n, classes] that onnxruntime gets from a file for `images`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    probabilities: Probabilities = session.run(["probabilities"], {"images": images})[0]
    return probabilities


def build_model(content: Content) -> Any:
    """The model (`onnx.ModelProto`) with the input `images` uint8 [n, side, side, 3], RGB, and the output
    `probabilities` float32 [n, classes]: softmax(logits / temperature). `content.metadata` is its own."""
    from onnx import TensorProto, helper

    network, side, graph = content.network, content.image_size, Graph()
    folded = jax.tree.map(np.asarray, fold(network, content.variables))["params"]
    x = _prepare(graph, content.preprocessing, "images")
    x = _convolve(graph, x, folded["conv1"]["conv"], stride=2, name="conv1/conv")
    x = graph.add("Relu", x, name="conv1/relu")
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], name="conv1/pool")
    for unit, stride in _strides(network.architecture).items():
        x = _add_block(graph, x, folded[unit], stride, unit, stride_on_3x3=network.variant.stride_on_3x3)
    x = graph.add("GlobalAveragePool", x, name="averages")
    x = graph.add("Flatten", x, name="features")
    x = _add_head(graph, x, folded["head"], len(network.hidden))
    x = graph.add("Div", x, np.float32(content.temperature).reshape(1), name="logits")
    graph.add("Softmax", x, axis=1, name="probabilities")

    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", side, side, 3])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(content.class_names)])
    made = helper.make_graph(graph.nodes, "tljax", [images], [output], initializer=graph.constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION, producer_name="tljax")
    helper.set_model_props(model, content.metadata)
    return model


def _strides(architecture: Architecture) -> dict[str, int]:
    """The stride of each block, by its unit: 2 where a stage begins, except for the first."""
    return {
        unit: 2 if unit.endswith("_block1") and not unit.startswith("conv2_") else 1
        for unit in architecture.units[1:-1]
    }


def _prepare(graph: Graph, preprocessing: Preprocessing, images: str) -> str:
    """The network's input [n, 3, side, side] in the order of its channels."""
    from onnx import TensorProto

    x = graph.add("Cast", images, to=TensorProto.FLOAT, name="pixels")
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2], name="channels_first")
    if preprocessing.channels == "bgr":
        x = graph.add("Gather", x, np.array([2, 1, 0]), axis=1, name="bgr")
    mean, std = (np.array(value, np.float32).reshape(1, 3, 1, 1) for value in (preprocessing.mean, preprocessing.std))
    if preprocessing.scale != 1:
        x = graph.add("Mul", x, np.float32(preprocessing.scale).reshape(1), name="scaled")
    x = graph.add("Sub", x, mean, name="centred")
    return graph.add("Div", x, std, name="normalized")


def _convolve(graph: Graph, x: str, conv: Tree, *, stride: int, name: str) -> str:
    size = conv["kernel"].shape[0]
    return graph.add(
        "Conv",
        x,
        conv["kernel"].transpose(3, 2, 0, 1),
        *([conv["bias"]] if "bias" in conv else []),
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[size // 2] * 4,
        name=name,
    )


def _add_block(graph: Graph, x: str, params: Tree, stride: int, unit: str, *, stride_on_3x3: bool) -> str:
    """A folded block. The shortcut's convolution, which `fold` has joined to the last one, stands alone again: programs
    for inference fuse the sum with it, and would copy to join its inputs."""
    first, second = (1, stride) if stride_on_3x3 else (stride, 1)
    features = params["2_conv"]["kernel"].shape[3]
    kernel = params["3_conv"]["kernel"]
    shortcut = x
    if kernel.shape[2] > features:
        shortcut = _convolve(graph, x, {"kernel": kernel[:, :, features:]}, stride=stride, name=f"{unit}/0_conv")
    x = graph.add("Relu", _convolve(graph, x, params["1_conv"], stride=first, name=f"{unit}/1_conv"), name=f"{unit}/1")
    x = graph.add("Relu", _convolve(graph, x, params["2_conv"], stride=second, name=f"{unit}/2_conv"), name=f"{unit}/2")
    last = {"kernel": kernel[:, :, :features], "bias": params["3_conv"]["bias"]}
    x = graph.add("Add", _convolve(graph, x, last, stride=1, name=f"{unit}/3_conv"), shortcut, name=f"{unit}/sum")
    return graph.add("Relu", x, name=f"{unit}/3")


def _add_head(graph: Graph, x: str, params: Tree, hidden: int) -> str:
    for i in range(1, hidden + 1):
        layer = params[f"hidden_{i}"]
        x = graph.add("Gemm", x, layer["kernel"], layer["bias"], name=f"head/hidden_{i}")
        x = graph.add("Relu", x, name=f"head/relu_{i}")
    return graph.add("Gemm", x, params["kernel"], params["bias"], name="head")
