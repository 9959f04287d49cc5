"""From checkpoints to what the runtime needs: ONNX graphs and a sampler table. Needs torch."""
