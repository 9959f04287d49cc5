"""The number of images a build draws, from the rules of its race."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdpack.evaluate.rules import Rules
from sdpack.pack.forecast.intervals import Interval
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.selection.rounds import finalists_of, screened_prompts


@dataclass(frozen=True)
class ImageCount:
    """The number of images in the two stages of a selection.

    Attributes:
        screened: images of the screening; 0 if all mixes race.
        raced: images of the race.
    """

    screened: Interval
    raced: Interval


def image_count(mixes: Sequence[Mix], rules: Rules, is_large: bool, prompts: int) -> ImageCount:
    """Return bounds of the number of images that a selection among these mixes draws.

    At least, every mix but the winner is eliminated in the first round that allows it. At most,
    every mix of the race draws every prompt.

    Args:
        prompts: number of prompts in the catalog.
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
    raced = Interval((racing - 1) * first + max(first, enough), racing * most)
    return ImageCount(screened, raced)


def one_at_a_time(mixes: Iterable[Mix]) -> set[tuple[object, Variant | int | None]]:
    """Return what a screening draws: one mix per variant, denoiser and set of roles.

    Each number of steps counts like a variant.
    """
    return {
        ((mix.denoiser.candidate, mix.roles), choice)
        for mix in mixes
        for choice in (*mix.variants, *(() if mix.steps is None else (mix.steps,)))
    }
