"""From an ONNX graph to a narrower one: one file a family of precisions."""
