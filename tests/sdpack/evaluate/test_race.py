from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sdpack.domain.arrays import Float64Array
from sdpack.errors import BrokenPictureError
from sdpack.evaluate.confidence import interval
from sdpack.evaluate.race import Race
from sdpack.evaluate.rules import BROKEN_SCORE, Arm, Basis, Outcome, Preference, RaceResult, Rules
from sdpack.progress import TimeIsUp

RULES = Rules(first=16, most=256)


class Pictures:
    """Made-up scores: a mix's quality, what a prompt is worth to all, and a mix's own luck."""

    def __init__(self, qualities: Sequence[float], noise: float, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        prompts = rng.normal(0, 0.2, RULES.most)
        luck = rng.normal(0, noise, (len(qualities), RULES.most))
        table = np.array(qualities)[:, None] + prompts + luck
        self.table = np.maximum(table, -0.99)  # a score of -1 or less means a broken picture
        self.drawn: list[tuple[int, int]] = []

    def __call__(self, arms: Sequence[int], prompts: Sequence[int]) -> np.ndarray:
        self.drawn += [(a, p) for a in arms for p in prompts]
        return self.table[np.ix_(list(arms), list(prompts))]


def run(pictures: Pictures, sizes: Sequence[int] | None = None, rules: Rules = RULES) -> RaceResult:
    count = len(pictures.table)
    sizes = sizes or range(count)
    return Race([Arm(f"mix {i}", (sizes[i],)) for i in range(count)], pictures, rules).run()


def outcomes(outcome: RaceResult) -> dict[int, Outcome]:
    return {standing.arm: standing.outcome for standing in outcome.standings}


def test_the_clearly_best_wins_with_few_pictures() -> None:
    pictures = Pictures([0.1, 0.2, 0.5, 0.15], 0.1)
    outcome = run(pictures)
    assert outcome.winner == 2
    assert outcome.pictures == len(pictures.drawn) == len(set(pictures.drawn))
    assert outcome.pictures < 4 * RULES.most / 4
    assert outcomes(outcome)[0] is Outcome.WORSE


def test_equal_pictures_go_to_the_smaller_at_once() -> None:
    outcome = run(Pictures([0.3, 0.3, 0.3], 0.0), sizes=[30, 10, 20])
    assert outcome.winner == 1
    assert outcome.pictures == 3 * RULES.fewest


def test_a_failure_that_strikes_one_prompt_in_ten_is_seen_in_time() -> None:
    """A smaller mix that is as good but for its failures hides them in the first prompts."""
    wrong = 0
    for seed in range(100):
        pictures = Pictures([0.3, 0.3], 0.002, seed)
        strikes = np.random.default_rng(seed).random(RULES.most) < 0.1
        pictures.table[0] -= 0.6 * strikes
        wrong += run(pictures, sizes=[10, 20]).winner == 0
    assert wrong <= 10


def test_one_broken_picture_puts_a_mix_out() -> None:
    pictures = Pictures([0.5, 0.3, 0.3], 0.01)
    pictures.table[0, 5] = BROKEN_SCORE
    outcome = run(pictures, sizes=[10, 20, 30])
    assert outcome.winner == 1
    assert outcomes(outcome)[0] is Outcome.BROKEN
    everything = Pictures([0.5, 0.3], 0.01)
    everything.table[:, 3] = BROKEN_SCORE
    with pytest.raises(BrokenPictureError, match="all 2 mixes"):
        run(everything)


def test_a_tie_in_size_goes_to_the_faster() -> None:
    pictures = Pictures([0.3, 0.3], 0.0)
    arms = [Arm("a", (10, 2.0)), Arm("b", (10, 1.0))]
    assert Race(arms, pictures, RULES).run().winner == 1


def test_what_stays_open_goes_to_the_better_mean() -> None:
    pictures = Pictures([0.31, 0.30], 0.2)
    better = int(pictures.table.mean(axis=1).argmax())
    outcome = run(pictures, sizes=[20, 10])
    assert outcome.winner == better
    assert outcome.basis is Basis.BEST
    assert outcomes(outcome) == {better: Outcome.WON, 1 - better: Outcome.OPEN}
    (other,) = (s for s in outcome.standings if s.outcome is Outcome.OPEN)
    assert other.low <= 0 <= other.high
    assert other.prompts == RULES.most


def test_a_preference_for_memory_takes_what_is_open_within_the_indifference_and_says_so() -> None:
    """0.004 apart with a noise of 0.1: 256 prompts cannot tell."""
    pictures = Pictures([0.304, 0.300], 0.1)
    pictures.table[1] += pictures.table[0].mean() - 0.004 - pictures.table[1].mean()
    rules = Rules(first=16, most=256, prefer=Preference.MEMORY)
    outcome = run(pictures, sizes=[20, 10], rules=rules)
    assert (outcome.winner, outcome.basis) == (1, Basis.OPEN)
    assert run(pictures, sizes=[20, 10]).winner == 0
    pictures.table[0] += 0.02  # more than the indifference: still open, but not taken
    assert run(pictures, sizes=[20, 10], rules=rules).winner == 0


def test_a_smaller_mix_wins_only_where_no_difference_was_measured() -> None:
    equal = run(Pictures([0.30, 0.3001], 0.003), sizes=[10, 20])
    assert equal.winner == 0
    assert equal.basis in (Basis.EQUAL, Basis.BEST)
    assert run(Pictures([0.30, 0.304], 0.003), sizes=[10, 20]).winner == 1
    assert run(Pictures([0.30, 0.35], 0.003), sizes=[10, 20]).winner == 1


def test_a_chain_of_small_steps_down_is_not_walked() -> None:
    """Each mix is as good as the next larger, but the smallest is far from the best."""
    qualities = [0.30 - 0.006 * step for step in range(20)]
    outcome = run(Pictures(qualities, 0.002), sizes=list(range(20, 0, -1)))
    assert qualities[outcome.winner] > 0.30 - 2 * RULES.indifference


def test_a_tie_is_no_cover_for_a_mix_that_was_seen_to_be_worse() -> None:
    """Too few pictures to tell them apart beyond chance, but the smaller one is 0.05 behind."""
    outcome = run(Pictures([0.35, 0.30], 0.06), sizes=[20, 10], rules=Rules(most=16))
    assert outcome.winner == 0
    assert outcomes(outcome)[1] is Outcome.OPEN


def test_a_guard_has_the_last_word_among_those_level() -> None:
    pictures = Pictures([0.3, 0.3, 0.3, 0.1], 0.1)
    asked = []

    def guard(leader: int, level: Sequence[int]) -> int:
        asked.append((leader, list(level)))
        return level[-1]

    sizes = [30, 10, 20, 5]
    arms = [Arm(f"mix {i}", (size,)) for i, size in enumerate(sizes)]
    outcome = Race(arms, pictures, RULES).run(guard)
    ((leader, level),) = asked
    assert leader in level
    assert [sizes[arm] for arm in level] == sorted(sizes[arm] for arm in level)
    assert outcome.winner == level[-1]


def test_narrowing_keeps_the_best_and_the_lightest_of_the_level() -> None:
    qualities = [0.3 + 0.0001 * n for n in range(40)]
    pictures = Pictures(qualities, 0.3)
    arms = [Arm(f"mix {i}", (100 - i,)) for i in range(40)]
    left, means = Race(arms, pictures, RULES).narrow(10, preferred=5)
    assert len(left) == len(set(left)) == 10
    assert int(means.argmax()) in left
    assert len(pictures.drawn) == 40 * RULES.most


def test_slack_spares_what_would_have_lost() -> None:
    qualities = [0.5] + [0.35] * 20
    arms = [Arm(f"mix {i}", (i,)) for i in range(21)]
    lost, _ = Race(arms, Pictures(qualities, 0.01), RULES).narrow(1, preferred=0)
    spared, _ = Race(arms, Pictures(qualities, 0.01), RULES, slack=0.3).narrow(5, preferred=2)
    assert lost == [0]
    assert len(spared) == 5


def test_one_mix_alone_needs_one_round() -> None:
    outcome = run(Pictures([0.3], 0.1))
    assert outcome.winner == 0
    assert outcome.pictures == RULES.first


def test_prompts_beyond_the_list_are_never_asked_for() -> None:
    pictures = Pictures([0.3, 0.3], 0.2)
    run(pictures, rules=Rules(first=16, most=100))
    assert max(p for _, p in pictures.drawn) == 99


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_the_best_is_rarely_thrown_out(noise: float) -> None:
    """Two hundred races among mixes close to each other; the errors stay within the 5 %."""
    wrong = 0
    for seed in range(200):
        qualities = 0.3 - 0.02 * np.arange(8)
        outcome = run(Pictures(list(qualities), noise, seed), sizes=list(range(8, 0, -1)))
        lost = outcomes(outcome)[0]
        wrong += lost in (Outcome.WORSE, Outcome.NO_BETTER)
    assert wrong <= 0.05 * 200


def test_racing_takes_a_fraction_of_an_exhaustive_search() -> None:
    """A field as a build meets it: three sizes of two parts in four precisions each."""
    shares, total = [], 3 * 3 * 16
    for seed in range(5):
        rng = np.random.default_rng(seed)
        qualities = [
            0.1 * encoder + 0.15 * denoiser - 0.03 * rng.random() * narrow
            for encoder in range(3)
            for denoiser in range(3)
            for narrow in range(16)
        ]
        sizes = [int(s) for s in rng.permutation(total)]
        pictures = Pictures(qualities, 0.08, seed)
        outcome = run(pictures, sizes)
        best = max(qualities)
        assert qualities[outcome.winner] > best - 0.05
        shares.append(outcome.pictures / (total * RULES.most))
    assert max(shares) < 0.25


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0, 0.3))
def test_every_race_ends_with_one_winner_and_all_accounted_for(
    count: int, seed: int, noise: float
) -> None:
    qualities = np.random.default_rng(seed).uniform(0, 0.5, count)
    pictures = Pictures(list(qualities), noise, seed)
    outcome = run(pictures)
    assert sorted(outcomes(outcome)) == list(range(count))
    assert [s.arm for s in outcome.standings if s.outcome is Outcome.WON] == [outcome.winner]
    assert outcome.pictures == len(pictures.drawn) == len(set(pictures.drawn))


@st.composite
def score_tables(draw: st.DrawFn) -> np.ndarray:
    """Scores of mixes that are alike in part, as those of one catalog are: float64 (mixes, 96)."""
    count = draw(st.integers(2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    apart = draw(st.sampled_from([0.0, 0.002, 0.01, 0.05]))
    noise = rng.choice([0.0, 0.003, 0.02, 0.1], count)
    table: NDArray[np.float64] = (
        0.3 + rng.normal(0, 0.2, 96) + rng.normal(0, 1, (count, 96)) * noise[:, None]
    )
    table += rng.normal(0, apart, count)[:, None]
    for copy in range(draw(st.integers(0, 2))):
        table[rng.integers(count)] = table[copy]
    if draw(st.booleans()):
        table[rng.integers(1, count), rng.integers(96)] = BROKEN_SCORE
    return np.clip(table, BROKEN_SCORE, 1)


@given(score_tables(), st.sampled_from(list(Preference)), st.data())
@settings(max_examples=300)
def test_no_winner_is_worse_than_another_mix_beyond_chance(
    table: np.ndarray, prefer: Preference, data: st.DataObject
) -> None:
    """And with quality none has a lower mean than a mix that it was not shown equal to."""
    count = len(table)
    sizes = data.draw(st.permutations(range(count)))
    rules = Rules(first=8, fewest=16, most=96, prefer=prefer)
    arms = [Arm(f"mix {i}", (sizes[i],)) for i in range(count)]
    outcome = Race(arms, lambda a, p: table[np.ix_(list(a), list(p))], rules).run()
    seen = {s.arm: s.prompts for s in outcome.standings}
    works = [s.arm for s in outcome.standings if s.outcome is not Outcome.BROKEN]
    assert outcome.winner in works
    bases = set()
    for other in set(works) - {outcome.winner}:
        both = min(seen[other], seen[outcome.winner])
        apart = table[outcome.winner, :both] - table[other, :both]
        mean, low, high = interval(apart, 0.05 / (count - 1), rules.looks)
        equal = both >= 16 and -rules.indifference < low <= 0 <= high < rules.indifference
        assert high >= 0
        assert mean >= 0 or equal or (prefer.takes_open and mean > -rules.indifference)
        if mean < 0:
            bases.add(Basis.EQUAL if equal else Basis.OPEN)
    expected = (b for b in (Basis.OPEN, Basis.EQUAL) if b in bases)
    assert outcome.basis is next(expected, Basis.BEST)


def test_a_mix_that_left_early_comes_back_if_it_stands_against_the_winner() -> None:
    """It left as the double of a smaller mix, which then fell behind."""
    rng = np.random.default_rng(0)
    leader = 0.3 + rng.normal(0, 0.2, RULES.most)
    falls = leader - 0.1 * (np.arange(RULES.most) >= 32)  # the same on the first two rounds
    noisy = leader - 0.02 + rng.normal(0, 0.1, RULES.most)
    pictures = Pictures([0.3] * 3, 0.0)
    pictures.table = np.array([falls, leader, noisy])
    outcome = run(pictures, sizes=[10, 30, 5])
    assert outcome.winner == 1
    assert pictures.drawn.index((1, 32)) > pictures.drawn.index((2, 63))  # it was away for a round
    assert outcome.pictures == len(pictures.drawn) == len(set(pictures.drawn))


def test_a_race_that_runs_out_of_time_ends_with_its_last_round() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(0.3, 0.2, (6, 64)) + np.linspace(0, 0.02, 6)[:, None]
    rules = Rules(first=16, most=64)
    rounds: list[int] = []

    def score(arms: Sequence[int], prompts: Sequence[int]) -> Float64Array:
        if len(rounds) == 2:
            raise TimeIsUp
        rounds.append(len(prompts))
        return table[np.ix_(list(arms), list(prompts))]

    arms = [Arm(str(n), (float(n),)) for n in range(len(table))]
    result = Race(arms, score, rules).run()
    assert result.is_cut
    assert max(s.prompts for s in result.standings) == 32
    drawn_in_full = {s.arm: s.mean for s in result.standings if s.prompts == 32}
    assert result.winner == max(drawn_in_full, key=drawn_in_full.__getitem__)
    again = Race(arms, lambda a, p: table[np.ix_(list(a), list(p))], rules).run()
    assert not again.is_cut


def test_a_race_without_a_complete_round_has_no_result() -> None:
    def score(arms: Sequence[int], prompts: Sequence[int]) -> Float64Array:
        raise TimeIsUp

    with pytest.raises(TimeIsUp):
        Race([Arm("a", (1.0,)), Arm("b", (2.0,))], score).run()
