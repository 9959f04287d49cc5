"""Which sets of parts are left out by their images in fp32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.domain.arrays import Float64Array
from sdpack.domain.placement import Role
from sdpack.evaluate.rules import BROKEN_SCORE, Rules
from sdpack.pack.planning.mix import PartSet
from sdpack.pack.preselection.preselect import ROUNDS, Preselection

RULES = Rules(first=16, most=64)


def parts(name: str) -> PartSet:
    return PartSet(((Role.DENOISER, name),))


class Drawing:
    """Scores around a mean for each set; `drawn` lists what was drawn in each round."""

    def __init__(self, means: dict[str, float], spread: float = 0.02) -> None:
        rng = np.random.default_rng(0)
        self.scores = {
            parts(name): mean + spread * rng.standard_normal(RULES.most)
            for name, mean in means.items()
        }
        self.drawn: list[tuple[list[str], range]] = []

    def draw(self, sets: Sequence[PartSet], numbers: Sequence[int]) -> Float64Array:
        names = [each.candidates[0][1] for each in sets]
        self.drawn.append((names, range(numbers[0], numbers[-1] + 1)))
        return np.array([self.scores[each][list(numbers)] for each in sets])

    def preselection(self, rules: Rules = RULES) -> Preselection:
        preselection = Preselection(list(self.scores), self.draw, rules)
        preselection.run()
        return preselection


def test_a_set_that_is_clearly_worse_is_drawn_for_one_round_only() -> None:
    drawing = Drawing({"large": 0.4, "medium": 0.4, "small": 0.1})
    preselection = drawing.preselection()
    assert drawing.drawn == [
        (["large", "medium", "small"], range(16)),
        (["large", "medium"], range(16, 32)),
        (["large", "medium"], range(32, 64)),
    ]
    assert preselection.pictures == 2 * 64 + 16
    assert preselection.unbeaten(preselection.sets) == [parts("large"), parts("medium")]


def test_rounds_end_when_one_set_is_left() -> None:
    drawing = Drawing({"large": 0.4, "small": 0.1})
    drawing.preselection()
    assert len(drawing.drawn) == 1


def test_after_all_prompts_a_mean_that_is_worse_by_more_than_the_indifference_is_beaten() -> None:
    spread = 0.2  # so much that no interval excludes zero
    near = Drawing({"large": 0.4, "medium": 0.36}, spread)
    means = {name: float(scores.mean()) for name, scores in near.scores.items()}
    gap = means[parts("large")] - means[parts("medium")]
    assert abs(gap) > RULES.indifference
    assert len(near.preselection().unbeaten(near.scores)) == 1
    more_prompts = near.preselection(Rules(first=16, most=128))
    assert len(more_prompts.unbeaten(near.scores)) == 2  # 64 prompts do not decide


def test_the_best_is_one_of_the_sets_with_the_most_images() -> None:
    """A set that was beaten after the last round does not return because of earlier prompts."""
    drawing = Drawing({"large": 0.4, "medium": 0.4, "small": 0.1}, 0.05)
    late = drawing.scores[parts("medium")]
    late[16:] -= 0.1
    assert late[:16].mean() > drawing.scores[parts("large")][:16].mean()  # ahead at first
    preselection = drawing.preselection()
    assert preselection.unbeaten(preselection.sets) == [parts("large")]


def test_few_prompts_need_an_interval() -> None:
    drawing = Drawing({"large": 0.4, "medium": 0.36}, 0.2)
    preselection = drawing.preselection(Rules(first=16, most=20))
    assert len(preselection.unbeaten(preselection.sets)) == 2


def test_sets_come_back_if_the_winner_is_weaker_than_the_best_set_in_fp32() -> None:
    drawing = Drawing({"large": 0.4, "medium": 0.3, "small": 0.1})
    preselection = drawing.preselection()
    assert preselection.unbeaten(preselection.sets) == [parts("large")]
    weaker = drawing.scores[parts("medium")] - 0.005
    rest = [parts("medium"), parts("small")]
    assert preselection.rivals(rest, weaker) == [parts("medium")]


def test_a_broken_set_is_beaten_unless_all_are() -> None:
    drawing = Drawing({"large": 0.4, "medium": 0.4})
    drawing.scores[parts("large")][:] = BROKEN_SCORE
    preselection = drawing.preselection()
    assert preselection.unbeaten(preselection.sets) == [parts("medium")]
    assert preselection.unbeaten([parts("large")]) == [parts("large")]


def test_what_was_left_out_is_compared_with_the_winner_on_shared_prompts() -> None:
    drawing = Drawing({"large": 0.4, "medium": 0.2, "small": 0.1})
    preselection = drawing.preselection()
    winner = drawing.scores[parts("large")][:32]
    beaten = preselection.beaten([parts("large")], winner)
    assert [each.parts for each in beaten] == [parts("medium"), parts("small")]
    medium = beaten[0]
    assert not medium.is_broken
    own = drawing.scores[parts("medium")][:16]
    assert medium.prompts == 16
    assert medium.quality.value == pytest.approx(own.mean())
    assert medium.difference == pytest.approx((own - winner[:16]).mean())
    assert medium.low < medium.difference < medium.high < 0


@given(
    st.lists(st.floats(0, 0.5), min_size=1, max_size=8),
    st.floats(0, 0.3),
    st.integers(1, 100),
)
def test_the_best_set_always_stays_and_rounds_are_few(
    means: list[float], spread: float, most: int
) -> None:
    drawing = Drawing({str(place): mean for place, mean in enumerate(means)}, spread)
    preselection = drawing.preselection(Rules(first=16, most=min(most, RULES.most)))
    left = preselection.unbeaten(preselection.sets)
    drawn = {each: preselection.scores(each) for each in preselection.sets}
    longest = max(len(scores) for scores in drawn.values())
    means_of = {each: s.mean() for each, s in drawn.items() if len(s) == longest}
    assert max(means_of, key=means_of.__getitem__) in left
    assert len(drawing.drawn) <= ROUNDS
    ends = [numbers.stop for _, numbers in drawing.drawn]
    assert [numbers.start for _, numbers in drawing.drawn] == [0, *ends[:-1]]
    assert ends[-1] <= min(most, RULES.most)
