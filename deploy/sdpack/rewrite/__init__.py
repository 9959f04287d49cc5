"""Rewriting of graphs into equivalent graphs, and reading and writing of ONNX files."""
