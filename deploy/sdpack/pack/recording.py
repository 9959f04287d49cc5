"""A finished build as the ledger keeps it, and the part of the ledger that ships with it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdpack.bundle import Manifest, Origin, PlacementFigures
from sdpack.errors import BrokenPictureError, RefusedError
from sdpack.evaluate.race import Fate, Standing
from sdpack.evaluate.studio import Ensemble
from sdpack.ledger import Measurement, write_rows
from sdpack.pack.contest import Contest, Settled, sheet
from sdpack.pack.fit import Fitted, peak_of
from sdpack.pack.footprints import Footprints
from sdpack.pack.mix import Mix, Variant
from sdpack.pack.sources import EXPORTERS, versions
from sdpack.pack.workshop import QUANTIZERS
from sdpack.placement import Placement
from sdpack.precision import Precision
from sdpack.record import (
    BUILD,
    DISTANCE,
    LATENCY,
    BuildRecord,
    DrawnRecord,
    Entrant,
    PartFigures,
    PeakFigures,
    Screened,
    Shown,
    scored_key,
)

PICTURES = 8  # of one mix on the contact sheet; fewer of large ones
UNIFORM = (Precision.FP16, Precision.INT8)
IN_FP32 = "the same parts in fp32"
TOOLS = (*EXPORTERS, *QUANTIZERS, "tensorrt_rtx_cu13", "sdpack")


@dataclass(frozen=True)
class Recording:
    """Keeps what a contest came to."""

    contest: Contest
    settled: Settled
    footprints: Footprints

    def record(self, manifest: Manifest) -> BuildRecord:
        """Write the build into the ledger, and return what was written.

        Args:
            manifest: of the bundle, which says the same of the winner.
        """
        shown = [Shown(label=label, mix=str(mix)) for label, mix in self._beside.items()]
        if self._in_fp32 is not None:
            shown.append(Shown(label=IN_FP32, mix=None))
        fitted = self.contest.fitted
        standings = {fitted[s.arm].mix: s for s in self.settled.outcome.standings}
        roster = Roster(self.contest, self.footprints, standings)
        found = BuildRecord(
            **roster.fields(manifest.name, self.contest.drawn),
            memory=manifest.memory,
            sampling=manifest.sampling,
            fitting=len(fitted),
            screened=self._screened(),
            winner=str(self._winner.mix),
            shown=tuple(shown),
            shown_prompts=len(self._numbers),
        )
        keep(self.contest, BUILD, found, {"budget_bytes": found.memory.budget_bytes})
        return found

    def write_rows(self, path: Path, record: BuildRecord) -> None:
        """The rows of the ledger that a build's record refers to, and the record itself."""
        write_rows(path, rows_of(self.contest, BUILD, record))

    def write_contact_sheet(self, path: Path) -> None:
        """The same prompts and noise through the mixes people ask about, a row of each."""
        rows = [self._pictures(self.contest.ensemble(mix)) for mix in self._beside.values()]
        if self._in_fp32 is not None:
            rows.append(self._pictures(self._in_fp32))
        pictures = np.concatenate(rows)
        Image.fromarray(sheet(pictures, columns=len(self._numbers))).save(path, optimize=True)

    def _pictures(self, ensemble: Ensemble) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return self.contest.first_pictures(ensemble, len(self._numbers))

    @property
    def _winner(self) -> Fitted:
        return self.contest.fitted[self.settled.outcome.winner]

    @cached_property
    def _numbers(self) -> range:
        """The prompts on the contact sheet."""
        return range(min(len(self.contest.first_round), self.contest.few or PICTURES))

    @cached_property
    def _beside(self) -> dict[str, Mix]:
        """The mixes on the contact sheet, by what they are, each once.

        Mixes that draw broken pictures are left out.
        """
        asked = {"the winner": self._winner.mix}
        rivals = [
            s for s in self.settled.outcome.standings if s.fate not in (Fate.WON, Fate.BROKEN)
        ]
        if rivals:
            nearest = max(rivals, key=lambda s: s.difference)
            asked["the runner-up"] = self.contest.fitted[nearest.arm].mix
        for precision in UNIFORM:
            mix = self._uniform(precision)
            if mix is not None:
                asked[f"the same parts in {precision}"] = mix
        found: dict[str, Mix] = {}
        for label, mix in asked.items():
            if mix not in found.values() and self._draws(mix):
                found[label] = mix
        return found

    def _uniform(self, precision: Precision) -> Mix | None:
        """The winner's parts in one precision, where they can be built so."""
        parts = self._winner.mix.candidates
        return next(
            (
                mix
                for mix in self.contest.possible
                if mix.candidates == parts
                and all(variant.precision is precision for variant in mix.variants)
            ),
            None,
        )

    def _draws(self, mix: Mix) -> bool:
        self.contest.scores([mix], self.contest.first_round)
        try:
            self._pictures(self.contest.ensemble(mix))
        except BrokenPictureError:
            return False
        return True

    @cached_property
    def _in_fp32(self) -> Ensemble | None:
        """The winner's parts in fp32; None where they draw broken pictures."""
        reference = self.contest.reference(self._winner.mix)
        try:
            self._pictures(reference)
        except BrokenPictureError:
            return None
        return reference

    def _screened(self) -> Screened | None:
        screened = self.settled.screened
        if screened is None:
            return None
        out = len(self.contest.fitted) - len(screened.left)
        return Screened(left_out=out, error=screened.error, checked=screened.checked)


@dataclass(frozen=True)
class Roster:
    """Who was drawn in a contest, as the ledger keeps it.

    Attributes:
        standings: of those that raced.
    """

    contest: Contest
    footprints: Footprints
    standings: Mapping[Mix, Standing] = field(default_factory=dict)

    def fields(self, name: str, mixes: Iterable[Mix]) -> dict[str, Any]:
        """The fields of a `DrawnRecord` of these mixes."""
        workshop, drawn = self.contest.workshop, sorted(mixes, key=str)
        return {
            "name": name,
            "catalog": workshop.catalog.name,
            "profile": workshop.profile,
            "height": workshop.order.height,
            "width": workshop.order.width,
            "metric": self.contest.metric,
            "measured_on": self.contest.measured_on,
            "drawn_with": self.contest.drawn_with,
            "prompts": tuple(self.contest.prompts[: self.contest.rules.most]),
            "confidence": self.contest.rules.confidence,
            "indifference": self.contest.rules.indifference,
            "entrants": tuple(self._entrants(drawn)),
            "origins": self._origins(drawn),
            "tools": versions(TOOLS),
            "machine": _machine(),
        }

    def _entrants(self, mixes: Iterable[Mix]) -> Iterator[Entrant]:
        fitted = {each.mix: each for each in self.contest.fitted}
        for mix in mixes:
            try:
                known = fitted.get(mix) or self._too_large(mix)
            except RefusedError:
                continue
            yield self._entrant(known, mix in fitted, self.standings.get(mix))

    def _too_large(self, mix: Mix) -> Fitted:
        placement = self.contest.workshop.order.placements[0]
        peak = peak_of(mix, placement, self.footprints.of, self.footprints.fixed_bytes)
        return Fitted(mix, placement, peak, self.footprints.size_bytes(mix) or peak.bytes, 0)

    def _entrant(self, fitted: Fitted, fits: bool, standing: Standing | None) -> Entrant:
        ensemble, peak = self.contest.ensemble(fitted.mix), fitted.peak
        return Entrant(
            mix=str(fitted.mix),
            parts={v.role: self._part(v, fitted.placement, ensemble) for v in fitted.mix.variants},
            recipe=ensemble.recipe.content,
            judge=self.contest.judged_by(ensemble),
            placement=PlacementFigures.of(fitted.placement),
            peak=PeakFigures(
                weights=dict(peak.weights),
                activation_bytes=peak.activation_bytes,
                activation_role=peak.role,
                fixed_bytes=peak.fixed_bytes,
            ),
            fits=fits,
            size_bytes=fitted.size_bytes,
            fate=None if standing is None else standing.fate.value,
            lost_to=None if standing is None else str(self.contest.fitted[standing.to].mix),
        )

    def _part(self, variant: Variant, placement: Placement, ensemble: Ensemble) -> PartFigures:
        checkpoint = self.contest.workshop.checkpoint(variant.role, variant.candidate)
        return PartFigures(
            candidate=variant.candidate,
            precision=variant.label,
            parameters=checkpoint.parameters,
            weight_bytes=self.footprints.of(variant, placement).weight_bytes,
            content=ensemble.parts[variant.role].content,
        )

    def _origins(self, mixes: Iterable[Mix]) -> dict[str, Origin]:
        """Where the candidates come from, by role and name."""
        catalog = self.contest.workshop.catalog
        found: dict[str, Origin] = {}
        for variant in dict.fromkeys(variant for mix in mixes for variant in mix.variants):
            candidate = catalog.candidates(variant.role)[variant.candidate]
            name = f"{variant.role.words} {variant.candidate}"
            found[name] = Origin(source=str(candidate.source), licence=candidate.licence)
        return dict(sorted(found.items()))


def keep(contest: Contest, kind: str, record: DrawnRecord, asked: Mapping[str, Any]) -> None:
    """Write a record into the ledger, unless it is there already as it is.

    Args:
        asked: what the record depends on besides what all of its kind do.
    """
    ledger, order = contest.workshop.ledger, contest.workshop.order
    inputs = {
        "name": record.name,
        "profile": record.profile.model_dump(mode="json"),
        "catalog": contest.workshop.catalog.model_dump(mode="json"),
        "sizes": [list(size) for size in order.sizes],
        "batch": order.batch,
        "steps": order.steps,
        "rules": [record.confidence, record.indifference, len(record.prompts)],
        "tools": dict(record.tools),
        "machine": record.machine,
        **asked,
    }
    value = record.model_dump(mode="json", by_alias=True)
    if ledger.find(kind, inputs) != value:
        ledger.record(kind, inputs, value)


def rows_of(contest: Contest, kind: str, record: DrawnRecord) -> Iterator[Measurement]:
    """A record that is kept, and the rows of the ledger that it refers to."""
    own = {record.scored(entrant) for entrant in record.entrants}
    value = record.model_dump(mode="json", by_alias=True)
    ledger = contest.workshop.ledger
    yield next(row for row in ledger.measurements(kind) if row.value == value)
    for row in ledger.measurements(record.metric, LATENCY, DISTANCE):
        if scored_key(row.inputs) in own:
            yield row


def _machine() -> str:
    here = f"{platform.machine()} {platform.system()}, {len(os.sched_getaffinity(0))} cores"
    return f"{here}, Python {platform.python_version()}"
