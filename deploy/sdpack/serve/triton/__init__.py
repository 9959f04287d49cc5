"""A bundle in NVIDIA's Triton Inference Server.

A model for each part, which Triton's own backends run, and one in Python that calls them: it reads
the prompts, denoises step by step and hands out pictures. That one needs sdpack's base install in
Triton's Python and nothing else.
"""
