"""The mixes that were drawn, as the ledger keeps them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sdpack.documents.catalog import Candidate, Denoiser, TextEncoder
from sdpack.documents.origins import CandidateOrigin, MergedLora, bridge_name
from sdpack.documents.record import SCREENED_OUT, Entrant, PartFigures, PeakFigures
from sdpack.domain.placement import Placement
from sdpack.errors import UnsupportedGraphError
from sdpack.evaluate.rules import Standing
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.fit import Fitted, peak_of
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.selection.evaluation_summary import EvaluatedMix, EvaluationSummary
from sdpack.pack.variants.source_graphs import EXPORTERS
from sdpack.quantization.quantizable_graph import QUANTIZERS
from sdpack.version import versions

TOOLS = (*EXPORTERS, *QUANTIZERS, "tensorrt_rtx_cu13", "sdpack")


@dataclass(frozen=True)
class RacedMix:
    """How the race ended for a mix.

    Attributes:
        lost_to: the mix it lost to, or was equal to; for the winner, itself.
    """

    standing: Standing
    lost_to: Mix

    @property
    def outcome(self) -> str:
        """The outcome of the race for the mix, as records have it."""
        outcome = self.standing.outcome
        return outcome.value


@dataclass(frozen=True)
class Roster:
    """Lists the mixes that were drawn.

    Attributes:
        summary: the mixes that were drawn.
        fitted: the placement and the peak of each mix that fits.
        raced: how the race ended for each mix that was in it.
    """

    candidates: Candidates
    footprints: Footprints
    summary: EvaluationSummary
    fitted: Mapping[Mix, Fitted]
    raced: Mapping[Mix, RacedMix] = field(default_factory=dict)

    @cached_property
    def names(self) -> dict[Mix, str]:
        """The name of each mix; mixed mixes of the same name get a number."""
        names: dict[Mix, str] = {}
        for mix in sorted(self.summary.mixes, key=lambda mix: (str(mix), mix)):
            before = sum(str(other) == str(mix) for other in names)
            names[mix] = str(mix) if not before else f"{mix} ({before + 1})"
        return names

    def fields(self, name: str) -> dict[str, Any]:
        """The fields of a `DrawnRecord`."""
        request, catalog = self.candidates.request, self.candidates.catalog
        summary, rules = self.summary, self.summary.rules
        return {
            "name": name,
            "catalog": catalog.name,
            "profile": request.profile,
            "height": request.height,
            "width": request.width,
            "metric": summary.metric,
            "measured_on": summary.measured_on,
            "drawn_with": summary.drawn_with,
            "prompts": tuple(summary.prompts[: rules.most]),
            "captions": tuple(summary.captions[: rules.most]),
            "categories": tuple(summary.categories[: rules.most]),
            "confidence": rules.confidence,
            "different_prompts": rules.prompts if rules.repeats else None,
            "looks": rules.looks.counts,
            "indifference": rules.indifference,
            "weights": summary.weights,
            "prefer": rules.prefer.value,
            "entrants": tuple(self._entrants()),
            "origins": self._origins(),
            "tools": versions(TOOLS),
            "real": summary.real_content,
            "machine": _machine(),
            "platform": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
        }

    def _entrants(self) -> Iterator[Entrant]:
        for mix in self.names:
            try:
                fitted = self.fitted.get(mix) or self._not_raced(mix)
            except UnsupportedGraphError:  # the unsplit graph, which no placement needed so far
                continue
            yield self._entrant(fitted, self.summary.mixes[mix])

    def _not_raced(self, mix: Mix) -> Fitted:
        """A mix that is too large or too slow, in the first whole placement in which it fits.

        If it fits in none, it is in the fastest placement.
        """
        request, footprints = self.candidates.request, self.footprints
        whole = [each for each in self.candidates.placements if each.tile is None]
        peaks = [peak_of(mix, each, footprints.of, footprints.fixed_bytes) for each in whole]
        size = footprints.size_bytes(mix) or peaks[0].bytes
        fitting = (n for n, peak in enumerate(peaks) if peak.bytes <= request.budget)
        rank = next(fitting, 0) if request.latency_limit_s is not None else 0
        return Fitted(mix, whole[rank], peaks[rank], size, rank)

    def _entrant(self, fitted: Fitted, evaluated: EvaluatedMix) -> Entrant:
        mix, peak, raced = fitted.mix, fitted.peak, self.raced.get(fitted.mix)
        outcome = None if raced is None else raced.outcome
        if raced is None and self.raced and mix in self.fitted:
            outcome = SCREENED_OUT
        lost_to = None if raced is None or raced.lost_to == mix else self.names[raced.lost_to]
        return Entrant(
            mix=self.names[mix],
            parts={v.role: self._part(v, fitted.placement, evaluated) for v in mix.variants},
            steps=mix.steps,
            recipe=evaluated.recipe,
            judge=evaluated.judge,
            placement=fitted.placement,
            peak=PeakFigures(
                weights=dict(peak.weights),
                activation_bytes=peak.activation_bytes,
                activation_role=peak.role,
                fixed_bytes=peak.fixed_bytes,
            ),
            fits=mix in self.fitted or self._is_only_slow(fitted),
            size_bytes=fitted.size_bytes,
            prompts=evaluated.prompts,
            timed=evaluated.timed,
            expected_s=fitted.expected_s,
            distance_prompts=evaluated.distance_prompts,
            outcome=outcome,
            lost_to=lost_to,
        )

    def _is_only_slow(self, fitted: Fitted) -> bool:
        """Whether a mix that did not race fits, but takes longer than the limit."""
        request = self.candidates.request
        return request.latency_limit_s is not None and fitted.peak.bytes <= request.budget

    def _part(self, variant: Variant, placement: Placement, evaluated: EvaluatedMix) -> PartFigures:
        return PartFigures(
            candidate=variant.candidate,
            precision=variant.label,
            parameters=self.candidates.parameters(variant.role, variant.candidate),
            weight_bytes=self.footprints.of(variant, placement).weight_bytes,
            content=evaluated.contents[variant.role],
        )

    def _origins(self) -> dict[str, CandidateOrigin]:
        """Where the candidates and bridges come from, by role and name."""
        origins: dict[str, CandidateOrigin] = {}
        for variant in dict.fromkeys(
            variant for mix in self.summary.mixes for variant in mix.variants
        ):
            candidate = self.candidates.entry(variant.role, variant.candidate)
            name = f"{variant.role.words} {variant.candidate}"
            origins[name] = CandidateOrigin(
                source=str(candidate.source),
                licence=candidate.licence,
                loras=merged_loras(candidate),
            )
            bridge = self.candidates.bridge(variant)
            if bridge is not None:
                origins[bridge_name(name, bridge.denoiser)] = CandidateOrigin(
                    source=str(bridge.source), licence=bridge.licence, loras=()
                )
        return dict(sorted(origins.items()))


def merged_loras(candidate: Candidate) -> tuple[MergedLora, ...]:
    """The LoRAs that are merged into a candidate, as manifests and records have them."""
    loras = candidate.loras if isinstance(candidate, TextEncoder | Denoiser) else ()
    return tuple(
        MergedLora(source=str(lora.source), licence=lora.licence, scale=lora.scale)
        for lora in loras
    )


def _machine() -> str:
    here = f"{platform.machine()} {platform.system()}, {len(os.sched_getaffinity(0))} cores"
    return f"{here}, Python {platform.python_version()}"
