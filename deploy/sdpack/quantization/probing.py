"""How much a graph is run to measure the gains of its layers."""

from __future__ import annotations

MOST_PROBES = 128  # runs of the graph
BATCHES = 3  # in a run
MOST_ROWS = 8  # of a batch
FORWARD = 2**29  # rows times numbers of weights that a run takes at most, or one row
