"""Limits of the runs that measure the gains of a graph's layers."""

from __future__ import annotations

MOST_PROBES = 128  # groups of layers that are probed one by one
BATCHES = 3  # batches per probe
MOST_ROWS = 8  # rows of a batch
FORWARD = 2**29  # maximum of rows times parameters per probe, unless a single row exceeds it
MOST_WORK = 3e13  # multiplications of all probes of a graph, as far as FEWEST_GROUPS allows
FEWEST_GROUPS = 8


def most_probes(work: float) -> int:
    """Return how many groups of layers are probed one by one.

    Args:
        work: about how many multiplications one probe takes.
    """
    return max(FEWEST_GROUPS, min(MOST_PROBES, int(MOST_WORK / max(1.0, work))))
