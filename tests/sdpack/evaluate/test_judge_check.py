from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate
from sdpack.errors import SourceError
from sdpack.evaluate.judge_check import (
    AT_ONCE,
    CaptionedImages,
    Effect,
    Verdict,
    check_judge,
    check_responds,
)
from sdpack.evaluate.scorers import Score
from sdpack.runtime.pipeline import Pictures

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(40, 216, (24, 16, 16, 3)).astype(np.uint8)
GIVEN = CaptionedImages("drawn", IMAGES, [f"a thing with number {n}" for n in range(24)])


def judge(sign: float) -> Score:
    """A judge of sharpness, which knows the captions by their numbers."""

    def score(images: Pictures, captions: Sequence[str]) -> Float64Array:
        steps = np.abs(np.diff(images.astype(float), axis=2)).mean(axis=(1, 2, 3))
        # Changed images come a few at a time, and always with their own captions.
        wanted = GIVEN.captions if len(images) == len(IMAGES) else captions
        right = [caption == own for caption, own in zip(captions, wanted, strict=True)]
        return np.asarray(sign * steps + 100.0 * np.array(right))

    return score


def test_a_judge_that_pays_for_blur_is_found_out() -> None:
    wrong = [effect.change for effect in check_judge(judge(-1.0), GIVEN).wrong]
    assert any("blur" in change for change in wrong)
    assert not any("caption" in change for change in wrong)


def test_a_judge_of_sharpness_pays_for_noise_and_not_for_blur() -> None:
    told: list[tuple[int, int]] = []
    found = check_judge(judge(1.0), GIVEN, lambda done, of: told.append((done, of)))
    verdicts = {effect.change: effect.verdict for effect in found.effects}
    assert verdicts["noise of standard deviation 25"] is Verdict.PAYS
    assert verdicts["blur over 1.6% of the side"] is Verdict.COSTS
    assert verdicts["mirrored"] is Verdict.UNSEEN
    assert verdicts["a wrong caption"] is verdicts["a caption with one detail changed"]
    assert verdicts["a wrong caption"] is Verdict.COSTS
    assert told == [(n, len(found.effects)) for n in range(len(found.effects))]


def test_only_damage_that_pays_is_wrong() -> None:
    above = Estimate(0.2, 0.1, 0.3)
    assert Effect("blur", above, 0.05).is_wrong
    assert not Effect("mirrored", above, 0.05, is_damage=False).is_wrong
    by_chance = Effect("blur", above, -0.01)
    assert by_chance.verdict is Verdict.MAY_PAY
    assert not by_chance.is_wrong
    assert not Effect("blur", Estimate(0.2, -0.1, 0.5), -0.2).is_wrong


@pytest.mark.parametrize(("value", "said"), [(np.nan, "not finite"), (0.25, "0.25 to every image")])
def test_a_judge_without_an_opinion_is_refused(value: float, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        check_judge(lambda images, _: np.full(len(images), value), GIVEN)


def test_too_few_images_are_refused() -> None:
    few = CaptionedImages("real", IMAGES[:3], GIVEN.captions[:3])
    with pytest.raises(SourceError, match=r"3 images \(real\) are too few"):
        check_judge(judge(1.0), few)


def test_equal_captions_are_refused() -> None:
    with pytest.raises(SourceError, match=r"all 24 captions \(drawn\) are equal"):
        check_judge(judge(1.0), CaptionedImages("drawn", IMAGES, ["a cat"] * 24))


def test_images_are_changed_a_few_at_a_time() -> None:
    seen: list[int] = []

    def score(images: Pictures, captions: Sequence[str]) -> Float64Array:
        seen.append(len(images))
        return judge(1.0)(images, captions)

    check_judge(score, GIVEN)
    assert set(seen) == {24, AT_ONCE, 24 - AT_ONCE}


def test_a_judge_that_tells_images_apart_responds() -> None:
    check_responds(judge(1.0), "the judge")


@pytest.mark.parametrize(("value", "said"), [(np.inf, "not finite"), (0.5, "0.5 to every image")])
def test_a_judge_that_says_the_same_of_everything_is_refused_by_name(
    value: float, said: str
) -> None:
    with pytest.raises(SourceError, match=f"the judge ours gives.*{said}"):
        check_responds(lambda images, captions: np.full(len(images), value), "the judge ours")
