"""Quantization of ONNX graphs: observation, rounding, lowering, and 16-bit conversion."""
