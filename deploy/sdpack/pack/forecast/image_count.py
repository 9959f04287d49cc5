"""The number of images a build draws, from the rules of its race."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdpack.evaluate.rules import Rules
from sdpack.pack.forecast.intervals import NOTHING, Interval
from sdpack.pack.planning.mix import Mix, Variant, by_part_set
from sdpack.pack.preselection.preselect import ROUNDS
from sdpack.pack.selection.rounds import finalists_of, screened_prompts


@dataclass(frozen=True)
class ImageCount:
    """The number of images in the stages of a selection.

    Attributes:
        screened: images of the screening; 0 if all mixes race.
        raced: images of the race.
        in_fp32: images of the sets of parts in fp32; 0 if they are not compared.
    """

    screened: Interval
    raced: Interval
    in_fp32: Interval = NOTHING

    @property
    def all(self) -> Interval:
        """The images of all stages."""
        return self.in_fp32 + self.screened + self.raced


def image_count(mixes: Sequence[Mix], rules: Rules, is_large: bool, prompts: int) -> ImageCount:
    """Return bounds of the number of images that a selection among these mixes draws.

    At least, every mix but the winner is eliminated in the first round that allows it. At most,
    every mix of the race draws every prompt.

    Args:
        prompts: number of prompts in the catalog.
    """
    most = rules.with_prompts(prompts).most
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


def preselected_count(
    mixes: Sequence[Mix], rules: Rules, is_large: bool, prompts: int
) -> ImageCount:
    """Return bounds of the number of images if sets of parts are compared in fp32 first.

    At least, one set is left after the first round; at most, none is left out.

    Args:
        prompts: number of prompts in the catalog.
    """
    by_set = by_part_set(mixes)
    every = image_count(mixes, rules, is_large, prompts)
    if len(by_set) < 2:
        return every
    alone = [image_count(of_set, rules, is_large, prompts) for of_set in by_set.values()]
    most = rules.with_prompts(prompts).most
    first = min(rules.first, most)
    rounds = 1 if is_large else ROUNDS
    return ImageCount(
        Interval(min(count.screened.low for count in alone), every.screened.high),
        Interval(min(count.raced.low for count in alone), every.raced.high),
        Interval(len(by_set) * first, len(by_set) * min(most, first * 2 ** (rounds - 1))),
    )


def one_at_a_time(mixes: Iterable[Mix]) -> set[tuple[object, Variant | int | None]]:
    """Return what a screening draws: one mix per variant, denoiser and set of roles.

    Each number of steps counts like a variant.
    """
    return {
        ((mix.denoiser.candidate, mix.roles), choice)
        for mix in mixes
        for choice in (*mix.variants, *(() if mix.steps is None else (mix.steps,)))
    }
