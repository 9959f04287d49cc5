"""The mixes that were drawn and measured for a selection, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdpack.domain.placement import Role
from sdpack.evaluate.rules import Rules
from sdpack.pack.planning.mix import Mix


@dataclass(frozen=True)
class EvaluatedMix:
    """A mix that was scored.

    Attributes:
        prompts: the number of prompts it was scored on, counted from the first.
        recipe: hash of its sampling settings.
        judge: hash of everything its scores depend on, except its images and the prompts.
        contents: a hash that identifies the part of each role.
        timed: whether its latency was measured.
        distance_prompts: the number of prompts over which its distance to real images was measured;
            None if it was not.
    """

    prompts: int
    recipe: str
    judge: str
    contents: Mapping[Role, str]
    timed: bool = False
    distance_prompts: int | None = None


@dataclass(frozen=True)
class EvaluationSummary:
    """The mixes that were drawn, and how they were drawn and scored.

    Attributes:
        metric: the name of the scores.
        measured_on: the runtime that drew the images, in words.
        drawn_with: everything else the figures depend on, as the rows of the ledger state it.
        prompts: the prompts of the catalog.
        captions: what the judge compared the images with; empty if these were the prompts.
        categories: what each tests; empty if they have none.
        weights: how much categories count in the score; those not named count 1.
        real_content: hash of the real images; None if there are none.
        mixes: the mixes that were scored.
    """

    metric: str
    measured_on: str
    drawn_with: str
    prompts: tuple[str, ...]
    captions: tuple[str, ...]
    categories: tuple[str, ...]
    weights: Mapping[str, float]
    rules: Rules
    real_content: str | None
    mixes: Mapping[Mix, EvaluatedMix]
