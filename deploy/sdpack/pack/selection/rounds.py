"""How many mixes and prompts the stages of a selection take."""

from __future__ import annotations

from sdpack.documents.record import CHUNK
from sdpack.domain.workload import WORKLOAD
from sdpack.evaluate.rules import Rules

SCREENED_SHARE = 4  # a screening draws at most one in this many of the prompts


def finalists_of(is_large: bool) -> int:
    """The most mixes that race.

    Args:
        is_large: whether images are large.
    """
    return WORKLOAD.large_finalists if is_large else WORKLOAD.finalists


def screened_prompts(rules: Rules, most: int) -> int:
    """The most prompts of a screening.

    Args:
        most: prompts of the race.
    """
    share = -(-most // SCREENED_SHARE // CHUNK) * CHUNK
    return min(most, max(2 * rules.first, share))
