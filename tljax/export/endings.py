"""The names of the formats, each with the ending of its files. What makes a file imports much more: `formats.py`."""

EXPORT_ENDINGS = {
    "onnx": ".onnx",
    "keras": ".weights.h5",
    "keras-legacy": ".h5",
    "torch": ".safetensors",
    "stablehlo": ".stablehlo",
}
