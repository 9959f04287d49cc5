"""Graphs into other graphs that compute the same."""
