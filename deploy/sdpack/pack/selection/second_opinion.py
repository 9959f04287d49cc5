"""What other judges say about the winner of a race."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate, mean_estimate
from sdpack.evaluate.confidence import Looks, interval, repeated_over_prompts
from sdpack.evaluate.rules import Outcome, Standing
from sdpack.evaluate.runner import EvaluationRunner
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.loaded_judge import OtherJudge
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.opinion import Opinion
from sdpack.pack.selection.selection import SelectionResult
from sdpack.progress import TimeIsUp, counted

FEWEST_FOR_DISPUTE = 8  # prompts; the deviation of fewer is not known well enough
FEWEST_FOR_AGREEMENT = 5  # mixes; the rank correlation of fewer says little
WITHOUT_SCORES = (Outcome.BROKEN, Outcome.UNLIKE)


@dataclass(frozen=True)
class SecondOpinions:
    """Asks the other judges of a catalog about a finished race."""

    evaluator: MixEvaluator

    def asked(self, result: SelectionResult) -> SelectionResult:
        """A selection with the opinions of the other judges.

        A mix that one of them scores better than the winner, beyond chance, is disputed. The winner
        stays: the first judge decides. Nobody is asked about a race that a time limit ended.
        """
        others = self.evaluator.judging.others
        if not others or result.is_hurried or result.race.is_cut:
            return result
        opinions, left_out = dict[str, Opinion](), dict[str, str]()
        for name, judge in others.items():
            try:
                opinion = self._opinion(name, judge, result)
            except TimeIsUp:
                return result
            except Exception as error:  # a model may raise anything, and the race is done
                left_out[name] = str(error) or type(error).__name__
                self.evaluator.say(f"the judge {name} is left out: {left_out[name]}")
            else:
                if opinion is not None:
                    opinions[name] = opinion
        disputed = {number for opinion in opinions.values() for number in opinion.against}
        standings = [
            replace(s, outcome=Outcome.DISPUTED, to=result.race.winner) if s.arm in disputed else s
            for s in result.standings
        ]
        for number in disputed:
            self.evaluator.say(f"the judges disagree about {result.fitted[number].mix}")
        race = replace(result.race, standings=tuple(standings))
        return replace(result, race=race, opinions=opinions, judges_left_out=left_out)

    def _opinion(self, name: str, judge: OtherJudge, result: SelectionResult) -> Opinion | None:
        """What a judge says; None if it can judge none of the winner's prompts."""
        runner = self.evaluator.runner.judged_by(judge.scorer)
        listed = self.evaluator.prompt_list.listed
        judged = np.array([judge.judges(prompt) for prompt in listed], bool)
        compared = [s for s in result.standings if s.outcome not in WITHOUT_SCORES]
        winner = next(s for s in compared if s.arm == result.race.winner)
        others = [s for s in compared if s is not winner]
        step = counted(self.evaluator.say, f"asking the judge {name}")
        ask = partial(self._scores, runner, judged, result)
        best = ask(winner, lambda: step(0, 1 + len(others)))
        if not len(best):
            return None
        alpha = (1 - result.rules.confidence) / max(1, len(others))
        against, means = dict[int, Estimate](), dict[int, float]()
        prompts = int(judged[: result.rules.prompts].sum())
        looks = result.rules.looks if judged.all() else None
        for place, standing in enumerate(others, 1):
            own = ask(standing, partial(step, place, 1 + len(others)))
            if not len(own):
                continue
            both = min(len(own), len(best))
            apart = own[:both] - best[:both]
            found = Estimate(*interval(apart, alpha, looks or Looks((both,), prompts)))
            means[standing.arm] = found.value
            if found.low > 0 and min(both, prompts) >= FEWEST_FOR_DISPUTE:
                against[standing.arm] = found
        enough = result.rules.enough
        longest = [s for s in others if s.prompts >= enough and s.arm in means]
        agreement = rank_correlation(
            [s.difference for s in longest], [means[s.arm] for s in longest]
        )
        mean = mean_estimate(repeated_over_prompts(best, prompts))
        return Opinion(mean, len(best), len(means), agreement, against)

    def _scores(
        self,
        runner: EvaluationRunner,
        judged: NDArray[np.bool_],
        result: SelectionResult,
        standing: Standing,
        tell: Callable[[], None],
    ) -> Float64Array:
        """A judge's scores of a mix on the prompts it drew and the judge can judge: float64 (N,).

        Args:
            tell: called before each chunk, so that progress is shown and a time limit can end it.
        """
        mix: Mix = result.fitted[standing.arm].mix
        spec, found = self.evaluator.spec(mix), list[Float64Array]()
        for chunk in runner.chunks(range(standing.prompts)):
            tell()
            if judged[chunk].any():
                found.append(runner.scores([spec], chunk)[0][judged[chunk]])
        return np.concatenate(found) if found else np.empty(0)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for too few values, or if all of one are equal."""
    if len(one) < FEWEST_FOR_AGREEMENT or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)
