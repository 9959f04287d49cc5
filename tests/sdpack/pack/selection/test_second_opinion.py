from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.errors import SourceError
from sdpack.evaluate.race import Race
from sdpack.evaluate.rules import Arm, Outcome, RaceResult, Rules
from sdpack.pack.selection.second_opinion import SecondOpinions, rank_correlation
from sdpack.pack.selection.selection import SelectionResult
from sdpack.progress import TimeIsUp

PROMPTS = 64
RULES = Rules(first=16, fewest=16, most=PROMPTS)


def table(means: Sequence[float], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shared = rng.normal(0.4, 0.1, PROMPTS)
    noise = rng.normal(0, 0.02, (len(means), PROMPTS))
    return np.asarray(shared + noise + np.array(means)[:, None])


class Runner:
    """Gives the scores of a table by the number of a mix."""

    def __init__(self, scores: np.ndarray) -> None:
        self.table = scores

    def judged_by(self, scorer: np.ndarray) -> Runner:
        return Runner(scorer)

    def chunks(self, numbers: Sequence[int]) -> list[list[int]]:
        return [list(numbers)[i : i + 16] for i in range(0, len(numbers), 16)]

    def scores(self, specs: Sequence[int], numbers: Sequence[int]) -> np.ndarray:
        return self.table[np.ix_(list(specs), list(numbers))]


def asked(
    means: Sequence[float],
    others: Mapping[str, np.ndarray],
    judges: Callable[[int], bool] = lambda prompt: True,
) -> tuple[Any, list[str]]:
    scores = table(means)
    arms = [Arm(f"mix {n}", (float(n),)) for n in range(len(means))]
    race = Race(arms, lambda a, p: scores[np.ix_(list(a), list(p))], RULES).run()
    fitted = tuple(SimpleNamespace(mix=number) for number in range(len(means)))
    result = SelectionResult(cast(Any, fitted), race, None, race.pictures, RULES)
    lines: list[str] = []
    judging = SimpleNamespace(
        others={name: SimpleNamespace(scorer=each, judges=judges) for name, each in others.items()}
    )
    evaluator = SimpleNamespace(
        judging=judging,
        runner=Runner(scores),
        say=lines.append,
        spec=lambda mix: mix,
        prompt_list=SimpleNamespace(listed=range(PROMPTS)),
    )
    return SecondOpinions(cast(Any, evaluator)).asked(result), lines


MEANS = [0.2, 0.199, 0.1, 0.05, 0.0, -0.1]


def test_a_judge_that_agrees_disputes_nothing() -> None:
    result, lines = asked(MEANS, {"other": table(MEANS, seed=1)})
    opinion = result.opinions["other"]
    assert opinion.mixes == 5
    assert not opinion.against
    assert opinion.quality.value == pytest.approx(0.6, abs=0.05)
    assert Outcome.DISPUTED not in [s.outcome for s in result.standings]
    assert not any("disagree" in line for line in lines)


def test_a_mix_that_another_judge_prefers_is_disputed_but_does_not_win() -> None:
    others = [0.2, 0.199, 0.5, 0.05, 0.0, -0.1]
    result, lines = asked(MEANS, {"fine": table(MEANS, seed=1), "odd": table(others, seed=2)})
    assert result.race.winner == 0
    assert list(result.opinions["odd"].against) == [2]
    assert not result.opinions["fine"].against
    assert result.opinions["odd"].against[2].value == pytest.approx(0.3, abs=0.03)
    (disputed,) = [s for s in result.standings if s.outcome is Outcome.DISPUTED]
    assert (disputed.arm, disputed.to) == (2, 0)
    assert any("the judges disagree about 2" in line for line in lines)


def test_a_judge_of_some_prompts_is_asked_about_these() -> None:
    odd = table(MEANS, seed=1)
    odd[:, 1::2] = 0  # of prompts that it cannot judge
    result, _ = asked(MEANS, {"odd": odd}, judges=lambda prompt: prompt % 2 == 0)
    opinion = result.opinions["odd"]
    assert opinion.prompts == PROMPTS // 2
    assert opinion.quality.value == pytest.approx(odd[0, ::2].mean())
    result, _ = asked(MEANS, {"odd": odd}, judges=lambda prompt: False)
    assert result.opinions == {}


def test_a_judge_that_does_not_work_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    works = table(MEANS, seed=1)

    def judged_by(self: Runner, scorer: np.ndarray) -> Runner:
        if scorer is not works:
            raise SourceError("no such model")
        return Runner(scorer)

    monkeypatch.setattr(Runner, "judged_by", judged_by)
    result, lines = asked(MEANS, {"odd": table(MEANS), "fine": works})
    assert list(result.opinions) == ["fine"]
    assert result.judges_left_out == {"odd": "no such model"}
    assert "the judge odd is left out: no such model" in lines


def test_nobody_is_asked_without_other_judges_or_if_the_time_was_up() -> None:
    result, _ = asked(MEANS, {})
    assert result.opinions == {}
    cut = SelectionResult((), RaceResult(0, (), 0, is_cut=True), None, 0, RULES)
    evaluator = SimpleNamespace(judging=SimpleNamespace(others={"other": None}))
    assert SecondOpinions(cast(Any, evaluator)).asked(cut) is cut


def test_an_opinion_that_a_time_limit_interrupts_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> np.ndarray:
        raise TimeIsUp

    monkeypatch.setattr(Runner, "scores", interrupted)
    result, _ = asked(MEANS, {"other": table(MEANS)})
    assert result.opinions == {}


@given(st.lists(st.integers(-99, 99), min_size=5, max_size=20, unique=True))
def test_a_judge_correlates_with_itself_and_against_its_opposite(values: list[int]) -> None:
    assert rank_correlation(values, values) == pytest.approx(1)
    assert rank_correlation(values, [-value for value in values]) == pytest.approx(-1)


def test_few_or_equal_values_have_no_correlation() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
