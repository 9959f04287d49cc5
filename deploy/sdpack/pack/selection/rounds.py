"""The number of mixes and prompts in the stages of a selection."""

from __future__ import annotations

from sdpack.domain.workload import WORKLOAD
from sdpack.evaluate.rules import Rules

SCREENED_SHARE = 4  # a screening draws at most one in four of the prompts


def finalists_of(is_large: bool) -> int:
    """Return the maximum number of mixes in the race.

    Args:
        is_large: whether images are large.
    """
    return WORKLOAD.large_finalists if is_large else WORKLOAD.finalists


def screened_prompts(rules: Rules, most: int) -> int:
    """Return the maximum number of prompts in a screening.

    Args:
        most: maximum number of prompts in the race.
    """
    share = -(-most // SCREENED_SHARE // WORKLOAD.chunk) * WORKLOAD.chunk
    return min(most, max(2 * rules.first, share))
