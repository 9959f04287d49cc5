"""Quantization of a single ONNX graph."""
