"""Trained networks as files of other programs: ONNX, Keras, torchvision and timm, StableHLO."""
