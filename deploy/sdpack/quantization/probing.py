"""Limits of the runs that measure the gains of a graph's layers."""

from __future__ import annotations

MOST_PROBES = 128  # groups of layers that are probed one by one
BATCHES = 3  # batches per probe
MOST_ROWS = 8  # rows of a batch
FORWARD = 2**29  # maximum of rows times parameters per probe, unless a single row exceeds it
