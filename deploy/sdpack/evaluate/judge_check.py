"""Whether a judge rewards damage: the effect of small changes on its score, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate, difference_estimate, mean_estimate
from sdpack.errors import SourceError
from sdpack.evaluate.perturbations import (
    PERTURBATIONS,
    Pictures,
    changed_captions,
    wrong_captions,
)
from sdpack.progress import Step, unheard

SEED = 0
FEWEST_IMAGES = 16

Score = Callable[[Pictures, Sequence[str]], Float64Array]
"""Takes images uint8 (N, H, W, 3) and their captions, and returns their scores, (N,)."""


class Verdict(StrEnum):
    """What a change does to a score, at 95 % confidence."""

    COSTS = "costs"
    UNSEEN = "not seen"
    PAYS = "pays"


@dataclass(frozen=True)
class Effect:
    """The effect of one change on a score.

    Attributes:
        change: the change, in words.
        estimate: the score of the changed images or captions minus that of the original ones.
        is_damage: whether a good judge must not reward it.
    """

    change: str
    estimate: Estimate
    is_damage: bool = True

    @property
    def verdict(self) -> Verdict:
        if self.estimate.low > 0:
            return Verdict.PAYS
        return Verdict.COSTS if self.estimate.high < 0 else Verdict.UNSEEN

    @property
    def is_wrong(self) -> bool:
        """Whether damage is rewarded."""
        return self.is_damage and self.verdict is Verdict.PAYS


@dataclass(frozen=True)
class CaptionedImages:
    """Images of one kind, with their captions.

    Attributes:
        name: such as "real" or "drawn".
        images: uint8 (N, H, W, 3).
        captions: N of them.
        changed: captions with one word changed, by caption, as far as they are known.
    """

    name: str
    images: Pictures
    captions: Sequence[str]
    changed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgeCheck:
    """The result of checking a judge on one kind of images.

    Attributes:
        name: the kind of images.
        images: their number.
        score: the mean score of the original images.
        effects: one for each change.
    """

    name: str
    images: int
    score: Estimate
    effects: Sequence[Effect]

    @property
    def wrong(self) -> list[Effect]:
        """The damages that are rewarded."""
        return [effect for effect in self.effects if effect.is_wrong]


def check_judge(score: Score, given: CaptionedImages, step: Step = unheard) -> JudgeCheck:
    """Measure the effect of every change on the scores of a judge.

    Args:
        score: the judge.
        given: images and captions.
        step: called with the number of changes measured, and of all.

    Raises:
        SourceError: there are too few images, or a score is not finite, or all are equal.
    """
    if len(given.images) < FEWEST_IMAGES:
        raise SourceError(
            f"{len(given.images)} {given.name} images are too few to check a judge; give at least "
            f"{FEWEST_IMAGES}"
        )
    original = _checked(score(given.images, given.captions))
    texts = given.captions
    captions = {
        "a wrong caption": wrong_captions(texts, np.random.default_rng(SEED)),
        "a caption with one word changed": changed_captions(
            texts, np.random.default_rng(SEED), given.changed
        ),
    }
    effects = []
    for place, change in enumerate(PERTURBATIONS):
        step(place, len(PERTURBATIONS) + len(captions))
        changed = change.apply(given.images, np.random.default_rng(SEED))
        apart = score(changed, texts) - original
        effects.append(Effect(change.name, difference_estimate(apart), change.is_damage))
    for place, (name, changed_texts) in enumerate(captions.items(), len(PERTURBATIONS)):
        step(place, len(PERTURBATIONS) + len(captions))
        apart = score(given.images, changed_texts) - original
        effects.append(Effect(name, difference_estimate(apart)))
    return JudgeCheck(given.name, len(given.images), mean_estimate(original), effects)


def _checked(scores: Float64Array) -> Float64Array:
    """Check that scores are numbers that differ.

    Raises:
        SourceError: they are not finite, or all equal.
    """
    if not np.isfinite(scores).all():
        raise SourceError("the judge gives scores that are not finite; check its files")
    if np.ptp(scores) == 0:
        raise SourceError(
            f"the judge gives the score {scores[0]:g} to every image; check its files"
        )
    return scores
