"""Export of checkpoints to ONNX graphs, and of schedulers to sampler tables. Needs torch."""
