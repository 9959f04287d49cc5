"""A bundle in NVIDIA's Triton Inference Server.

Triton's own backends run a model for each part. A Python model calls them: it encodes the prompts,
denoises step by step and returns images. It needs only sdpack's base install in Triton's Python.
"""
