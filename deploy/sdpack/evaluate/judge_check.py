"""Whether a judge rewards damage: the effect of small changes on its score, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate, difference_estimate, mean_estimate
from sdpack.errors import SourceError
from sdpack.evaluate.perturbations import (
    PERTURBATIONS,
    Perturbation,
    changed_captions,
    wrong_captions,
)
from sdpack.evaluate.scorers import Score
from sdpack.progress import Step, unheard
from sdpack.runtime.pipeline import Pictures

SEED = 0
FEWEST_IMAGES = 16
AT_ONCE = 16  # images that are changed and scored together


class Verdict(StrEnum):
    """What a change does to a score.

    Attributes:
        COSTS: it lowers the score, at 95 % confidence.
        UNSEEN: no effect is seen.
        MAY_PAY: it raises the score at 95 % confidence, which one change in forty does by chance.
        PAYS: it raises the score, at 95 % confidence over all changes together (Bonferroni).
    """

    COSTS = "costs"
    UNSEEN = "not seen"
    MAY_PAY = "may pay"
    PAYS = "pays"


@dataclass(frozen=True)
class Effect:
    """The effect of one change on a score.

    Attributes:
        change: the change, in words.
        estimate: the score of the changed images or captions minus that of the original ones, with
            its 95 % interval.
        least: the lower end of the interval that holds for all changes together.
        is_damage: whether a good judge must not reward it.
    """

    change: str
    estimate: Estimate
    least: float
    is_damage: bool = True

    @property
    def verdict(self) -> Verdict:
        if self.least > 0:
            return Verdict.PAYS
        if self.estimate.low > 0:
            return Verdict.MAY_PAY
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
        changed: for some captions, the same one with a detail changed.
    """

    name: str
    images: Pictures
    captions: Sequence[str]
    changed: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Check that a judge can be checked on them.

        Raises:
            SourceError: they are too few, or all captions are equal.
        """
        if len(self.images) < FEWEST_IMAGES:
            raise SourceError(
                f"{len(self.images)} images ({self.name}) are too few to check a judge; give at "
                f"least {FEWEST_IMAGES}"
            )
        if len(set(self.captions)) == 1:
            raise SourceError(
                f"all {len(self.captions)} captions ({self.name}) are equal; give images of "
                "different prompts"
            )


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


def check_responds(score: Score, name: str) -> None:
    """Check that a judge gives different finite scores to images that have nothing in common.

    Args:
        name: what errors call it.

    Raises:
        SourceError: its scores are not finite, or all equal.
    """
    side = 64
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    plain = np.full((side, side, 3), (200, 30, 30), np.uint8)
    striped = np.broadcast_to(ramp[:, None, None], (side, side, 3))
    noisy = np.random.default_rng(SEED).integers(0, 256, (side, side, 3)).astype(np.uint8)
    images = np.stack([plain, striped, noisy])
    found = [score(images, [caption] * len(images)) for caption in ("a red square", "noise")]
    _checked(np.concatenate(found), name)


def check_judge(score: Score, given: CaptionedImages, step: Step = unheard) -> JudgeCheck:
    """Measure the effect of every change on the scores of a judge.

    Args:
        score: the judge.
        given: images and captions.
        step: called with the number of changes measured, and of all.

    Raises:
        SourceError: as `CaptionedImages.check`; or a score is not finite, or all are equal.
    """
    given.check()
    original = _checked(score(given.images, given.captions))
    texts = given.captions
    captions = {
        "a wrong caption": wrong_captions(texts, np.random.default_rng(SEED)),
        "a caption with one detail changed": changed_captions(
            texts, np.random.default_rng(SEED), given.changed
        ),
    }
    count = len(PERTURBATIONS) + len(captions)
    effects = []
    for place, change in enumerate(PERTURBATIONS):
        step(place, count)
        apart = _changed_scores(score, change, given) - original
        effects.append(_effect(change.name, apart, count, change.is_damage))
    for place, (name, changed_texts) in enumerate(captions.items(), len(PERTURBATIONS)):
        step(place, count)
        apart = score(given.images, changed_texts) - original
        effects.append(_effect(name, apart, count))
    return JudgeCheck(given.name, len(given.images), mean_estimate(original), effects)


def _changed_scores(score: Score, change: Perturbation, given: CaptionedImages) -> Float64Array:
    """Return the scores of changed images; a few are changed at a time, to save memory."""
    rng, found = np.random.default_rng(SEED), []
    for start in range(0, len(given.images), AT_ONCE):
        few = slice(start, start + AT_ONCE)
        found.append(score(change.apply(given.images[few], rng), given.captions[few]))
    return np.concatenate(found)


def _effect(name: str, apart: Float64Array, count: int, is_damage: bool = True) -> Effect:
    """Return the effect of one of `count` changes, from the differences that it makes."""
    from scipy.stats import t

    estimate = difference_estimate(apart)
    half = t.ppf(1 - 0.025 / count, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5
    return Effect(name, estimate, float(estimate.value - half), is_damage)


def _checked(scores: Float64Array, name: str = "the judge") -> Float64Array:
    """Check that scores are numbers that differ.

    Raises:
        SourceError: they are not finite, or all equal.
    """
    if not np.isfinite(scores).all():
        raise SourceError(f"{name} gives scores that are not finite; check its files")
    if np.ptp(scores) == 0:
        raise SourceError(f"{name} gives the score {scores[0]:g} to every image; check its files")
    return scores
