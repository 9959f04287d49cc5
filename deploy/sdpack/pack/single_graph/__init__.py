"""One ONNX graph, quantized on its own."""
