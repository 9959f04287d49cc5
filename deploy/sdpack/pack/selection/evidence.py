"""The evidence for the winner, as the manifest states it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from sdpack.documents.evidence import (
    AppearanceFigures,
    BeatenParts,
    DisputedMix,
    Estimated,
    Evidence,
    OtherJudgement,
    PreselectionFigures,
    Screening,
    SelectionRule,
    StandingFigures,
)
from sdpack.domain.appearance import APPEARANCE_LIMITS
from sdpack.domain.estimate import Estimate
from sdpack.evaluate.rules import Outcome, Standing
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Variant
from sdpack.pack.preselection.preselect import Preselected
from sdpack.pack.selection.mix_evaluator import FEWEST_FOR_KID, MixEvaluator
from sdpack.pack.selection.selection import SelectionResult

LISTED = 10  # standings whose latency is measured


@dataclass(frozen=True)
class EvidenceMeasuring:
    """Measures what is still unknown about the winner and the mixes nearest to it."""

    evaluator: MixEvaluator
    footprints: Footprints
    selected: SelectionResult

    def measure(self) -> Evidence:
        """The evidence for the winner."""
        race, selected = self.selected.race, self.selected
        number, listed = race.winner, 1 if selected.is_hurried else LISTED
        prompts = next(s.prompts for s in race.standings if s.arm == number)
        preselected = selected.preselected
        return Evidence(
            metric=self.evaluator.metric,
            measured_on=self.evaluator.measured_on,
            quality=_estimated(self.evaluator.quality(number, prompts), prompts),
            kid=self._distance(number, prompts),
            latency_limit=selected.limit,
            time_limit=selected.time_limit,
            preselection=None if preselected is None else _preselection(preselected),
            other_judges=self._other_judges(),
            judges_left_out=self.selected.judges_left_out,
            appearance=self._appearance(),
            tiled_difference=self.evaluator.tiled_difference(number),
            mixes=len(selected.fitted),
            pictures=selected.pictures + (preselected.pictures if preselected else 0),
            rule=self._rule(),
            screening=self._screening(),
            standings=tuple(
                self._standing(s, place < listed) for place, s in enumerate(self._ranked())
            ),
        )

    def _other_judges(self) -> tuple[OtherJudgement, ...]:
        others, fitted = self.evaluator.judging.others, self.selected.fitted
        return tuple(
            OtherJudgement(
                judge=name,
                licence=others[name].licence,
                quality=_estimated(opinion.quality, opinion.prompts),
                mixes=opinion.mixes,
                agreement=opinion.agreement,
                disputed=tuple(
                    DisputedMix(
                        mix=str(fitted[number].mix),
                        difference=apart.value,
                        low=apart.low,
                        high=apart.high,
                    )
                    for number, apart in opinion.against.items()
                ),
            )
            for name, opinion in self.selected.opinions.items()
        )

    def _appearance(self) -> AppearanceFigures | None:
        checked = self.selected.appearance
        if checked is None:
            return None
        return AppearanceFigures(
            **asdict(checked.found), pictures=checked.images, **asdict(APPEARANCE_LIMITS)
        )

    def _rule(self) -> SelectionRule:
        race, rules = self.selected.race, self.selected.rules
        return SelectionRule(
            prefer=rules.prefer.value,
            basis=race.basis.value,
            confidence=rules.confidence,
            indifference=rules.indifference,
            prompts=rules.most,
            different_prompts=min(rules.most, rules.prompts or rules.most),
            weights=self.evaluator.weights,
        )

    def _distance(self, number: int, prompts: int) -> Estimated | None:
        if prompts < FEWEST_FOR_KID or not self.evaluator.has_real_images:
            return None
        return _estimated(self.evaluator.distance(number, prompts), prompts)

    def _screening(self) -> Screening | None:
        screened = self.selected.screened
        if screened is None:
            return None
        finalists = set(screened.finalists)
        left_out = {
            str(fitted.mix): round(float(screened.predicted[number]), 6)
            for number, fitted in enumerate(self.selected.fitted)
            if number not in finalists
        }
        return Screening(error=screened.error, checked=screened.checked, predicted=left_out)

    def _ranked(self) -> list[Standing]:
        """The winner, then the other mixes by their difference from it on the prompts both drew."""
        return sorted(
            self.selected.standings, key=lambda s: (s.outcome is not Outcome.WON, -s.difference)
        )

    def _standing(self, standing: Standing, listed: bool) -> StandingFigures:
        timed = listed and standing.outcome is not Outcome.BROKEN
        fitted = self.selected.fitted[standing.arm]
        quality = self.evaluator.quality(standing.arm, standing.prompts)
        return StandingFigures(
            mix=str(fitted.mix),
            steps=fitted.mix.steps,
            placement=str(fitted.placement),
            peak_bytes=fitted.peak.bytes,
            size_bytes=fitted.size_bytes,
            weights={v.role: self._weight_bytes(fitted, v) for v in fitted.mix.variants},
            outcome=standing.outcome.value,
            lost_to=str(self.selected.fitted[standing.to].mix),
            quality=_estimated(quality, standing.prompts),
            difference=standing.difference,
            low=_finite(standing.low),
            high=_finite(standing.high),
            latency_s=self.evaluator.latency_s(standing.arm) if timed else None,
            expected_s=fitted.expected_s,
            categories={
                name: _estimated(mean, count)
                for name, (mean, count) in self.evaluator.by_category(
                    standing.arm, standing.prompts
                ).items()
            },
        )

    def _weight_bytes(self, fitted: Fitted, variant: Variant) -> int:
        return self.footprints.of(variant, fitted.placement).weight_bytes


def _preselection(preselected: Preselected) -> PreselectionFigures:
    beaten = tuple(
        BeatenParts(
            parts=str(each.parts),
            is_broken=each.is_broken,
            quality=_estimated(each.quality, each.prompts),
            difference=each.difference,
            low=_finite(each.low),
            high=_finite(each.high),
        )
        for each in preselected.beaten
    )
    return PreselectionFigures(sets=preselected.sets, beaten=beaten)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _estimated(estimate: Estimate, pictures: int) -> Estimated:
    return Estimated(value=estimate.value, low=estimate.low, high=estimate.high, pictures=pictures)
