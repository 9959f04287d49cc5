"""How many images a build draws, by the rules of its race."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdpack.evaluate.rules import Rules
from sdpack.pack.forecast.intervals import Interval
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.selection.rounds import finalists_of, screened_prompts


@dataclass(frozen=True)
class ImageCount:
    """The images of the two stages of a selection.

    Attributes:
        screened: for the screening; none if all mixes race.
        raced: for the race.
    """

    screened: Interval
    raced: Interval


def image_count(mixes: Sequence[Mix], rules: Rules, is_large: bool, prompts: int) -> ImageCount:
    """Bounds on the images that a selection among these mixes draws.

    The least: every mix leaves after the first round that can show it. The most: every mix of the
    race draws every prompt.

    Args:
        prompts: of the catalog.
    """
    most = min(rules.most, prompts)
    first, enough = min(rules.first, most), min(rules.enough, most)
    few = finalists_of(is_large)
    if len(mixes) <= few:
        racing, screened = len(mixes), Interval(0, 0)
    else:
        racing = few
        drawn = len(one_at_a_time(mixes)) + few // 2
        screened = Interval(drawn * first, drawn * screened_prompts(rules, most))
    return ImageCount(screened, Interval(racing * first + enough, racing * most))


def one_at_a_time(mixes: Iterable[Mix]) -> set[tuple[object, Variant]]:
    """The mixes a screening draws: one for each variant of each kind of mix."""
    return {
        ((mix.denoiser.candidate, mix.roles), variant) for mix in mixes for variant in mix.variants
    }
