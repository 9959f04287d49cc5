"""What was drawn and measured for a selection, as frozen data."""

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
        prompts: on how many, the first ones.
        recipe: hash of how its denoiser is run.
        judge: hash of what its scores depend on beside its images and the prompts.
        contents: hash of what each part does, by role.
        timed: whether its latency was measured.
        distance_prompts: over how many its distance to real images was; None for none.
    """

    prompts: int
    recipe: str
    judge: str
    contents: Mapping[Role, str]
    timed: bool = False
    distance_prompts: int | None = None


@dataclass(frozen=True)
class EvaluationSummary:
    """What was drawn, with what, and how it was scored.

    Attributes:
        metric: what scores are called.
        measured_on: what draws, in words.
        drawn_with: what else figures depend on, as the ledger's rows have it.
        prompts: the catalog's.
        real_content: hash of the real images; None where there are none.
        mixes: those that were scored.
    """

    metric: str
    measured_on: str
    drawn_with: str
    prompts: tuple[str, ...]
    rules: Rules
    real_content: str | None
    mixes: Mapping[Mix, EvaluatedMix]
