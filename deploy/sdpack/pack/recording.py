"""A finished build as the ledger keeps it, and the part of the ledger that ships with it."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from sdpack.documents.manifest import Manifest, Origin
from sdpack.documents.record import (
    BUILD,
    DISTANCE,
    LATENCY,
    SCREENED_OUT,
    BuildRecord,
    DrawnRecord,
    Entrant,
    PartFigures,
    PeakFigures,
    ScreeningFigures,
    Shown,
)
from sdpack.domain.placement import Placement
from sdpack.domain.precision import Precision
from sdpack.errors import BrokenPictureError, EngineError, UnsupportedGraphError
from sdpack.evaluate.pipeline_spec import PipelineSpec
from sdpack.evaluate.rules import Fate, Standing
from sdpack.pack.planning.fit import Fitted, peak_of
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.selection.mix_evaluator import MixEvaluator, sheet
from sdpack.pack.selection.selection import SelectionResult
from sdpack.pack.variants.source_graphs import EXPORTERS, versions
from sdpack.pack.variants.variant_builder import QUANTIZERS
from sdpack.runtime.pipeline import Pictures
from sdpack.store.ledger import Ledger, Measurement, write_rows

Record = TypeVar("Record", bound=DrawnRecord)

PICTURES = 8  # of one mix on the contact sheet; fewer of large ones
UNIFORM = (Precision.FP16, Precision.INT8)
IN_FP32 = "the same parts in fp32"
TOOLS = (*EXPORTERS, *QUANTIZERS, "tensorrt_rtx_cu13", "sdpack")


@dataclass(frozen=True)
class Recording:
    """Keeps what a evaluator came to."""

    evaluator: MixEvaluator
    selected: SelectionResult
    footprints: Footprints

    def record(self, manifest: Manifest) -> Kept[BuildRecord]:
        """Write the build into the ledger, and return what was written.

        Args:
            manifest: of the bundle, which says the same of the winner.
        """
        rows = list(self._rows)  # drawing them may score mixes that are then entrants
        fitted = {each.mix: each for each in self.evaluator.fitted}
        standings = {self.evaluator.fitted[s.arm].mix: s for s in self.selected.outcome.standings}
        roster = Roster(
            self.evaluator,
            self.footprints,
            self.evaluator.drawn,
            fitted,
            standings,
            self.evaluator.timed,
            self.evaluator.distances,
        )
        found = BuildRecord(
            **roster.fields(manifest.name),
            memory=manifest.memory,
            sampling=manifest.sampling,
            fitting=len(fitted),
            screened=self._screened(),
            winner=roster.names[self._winner.mix],
            basis=self.selected.outcome.basis.value,
            shown=tuple(
                Shown(label=row.label, mix=row.mix and roster.names.get(row.mix, str(row.mix)))
                for row in rows
            ),
            shown_prompts=len(self._numbers),
        )
        return keep(self.evaluator, BUILD, found, {"budget_bytes": found.memory.budget_bytes})

    def write_contact_sheet(self, path: Path) -> None:
        """The same prompts and noise through the mixes people ask about, a row of each."""
        pictures = np.concatenate([row.pictures for row in self._rows])
        Image.fromarray(sheet(pictures, columns=len(self._numbers))).save(path, optimize=True)

    @property
    def _winner(self) -> Fitted:
        return self.evaluator.fitted[self.selected.outcome.winner]

    @cached_property
    def _numbers(self) -> range:
        """The prompts on the contact sheet."""
        return range(min(len(self.evaluator.first_round), self.evaluator.few or PICTURES))

    @cached_property
    def _rows(self) -> list[_Row]:
        """What is on the contact sheet, each mix once; what draws broken pictures is left out."""
        asked = {"the winner": self._winner.mix}
        rivals = [
            s for s in self.selected.outcome.standings if s.fate not in (Fate.WON, Fate.BROKEN)
        ]
        if rivals:
            nearest = max(rivals, key=lambda s: s.difference)
            asked["the runner-up"] = self.evaluator.fitted[nearest.arm].mix
        for precision in UNIFORM:
            mix = self._uniform(precision)
            if mix is not None:
                asked[f"the same parts in {precision}"] = mix
        found: dict[Mix, _Row] = {}
        for label, mix in asked.items():
            pictures = None if mix in found else self._pictures_of(mix)
            if pictures is not None:
                found[mix] = _Row(label, mix, pictures)
        in_fp32 = self._in_fp32()
        return [*found.values(), *([] if in_fp32 is None else [_Row(IN_FP32, None, in_fp32)])]

    def _pictures_of(self, mix: Mix) -> Pictures | None:
        """Of a mix; one that was not scored is, where that is cheap."""
        if mix not in self.evaluator.drawn and self.evaluator.few is None:
            try:
                self.evaluator.scores([mix], self.evaluator.first_round)
            except EngineError as error:
                self.evaluator.say(f"not on the contact sheet: {error}")
                return None
        scored = mix in self.evaluator.drawn
        numbers = self.evaluator.first_round if scored else list(self._numbers)
        return self._pictures(self.evaluator.spec(mix), numbers)

    def _in_fp32(self) -> Pictures | None:
        """Of the winner's parts in fp32; where there is no judge they were drawn already."""
        judging = self.evaluator.judging
        numbers = list(self._numbers) if judging.is_judged else self.evaluator.first_round
        return self._pictures(self.evaluator.reference(self._winner.mix), numbers)

    def _pictures(self, spec: PipelineSpec, numbers: Sequence[int]) -> Pictures | None:
        try:
            return self.evaluator.runner.pictures(spec, numbers, len(self._numbers))
        except (BrokenPictureError, EngineError) as error:
            self.evaluator.say(f"not on the contact sheet: {error}")
            return None

    def _uniform(self, precision: Precision) -> Mix | None:
        """The winner's parts in one precision, where they can be built so."""
        parts = self._winner.mix.candidates
        return next(
            (
                mix
                for mix in self.evaluator.possible
                if mix.candidates == parts and self.evaluator.builder.is_in(mix, precision)
            ),
            None,
        )

    def _screened(self) -> ScreeningFigures | None:
        screened = self.selected.screened
        if screened is None:
            return None
        out = len(self.evaluator.fitted) - len(screened.left)
        return ScreeningFigures(left_out=out, error=screened.error, checked=screened.checked)


@dataclass(frozen=True)
class _Row:
    """A row of the contact sheet."""

    label: str
    mix: Mix | None
    pictures: Pictures


@dataclass(frozen=True)
class Roster:
    """Who was drawn, as the ledger keeps it.

    Attributes:
        drawn: the mixes, and on how many prompts each was scored.
        fitted: how each that fits is run.
        standings: of those that raced.
        timed, distances: as a evaluator has them.
    """

    evaluator: MixEvaluator
    footprints: Footprints
    drawn: Mapping[Mix, int]
    fitted: Mapping[Mix, Fitted]
    standings: Mapping[Mix, Standing] = field(default_factory=dict)
    timed: Collection[Mix] = ()
    distances: Mapping[Mix, int] = field(default_factory=dict)

    @cached_property
    def names(self) -> dict[Mix, str]:
        """What each is called; mixed ones that are called the same get a number."""
        found: dict[Mix, str] = {}
        for mix in sorted(self.drawn, key=lambda mix: (str(mix), mix)):
            before = sum(str(other) == str(mix) for other in found)
            found[mix] = str(mix) if not before else f"{mix} ({before + 1})"
        return found

    def fields(self, name: str) -> dict[str, Any]:
        """The fields of a `DrawnRecord`."""
        evaluator, builder = self.evaluator, self.evaluator.builder
        request, rules = builder.request, evaluator.rules
        return {
            "name": name,
            "catalog": builder.catalog.name,
            "profile": builder.profile,
            "height": request.height,
            "width": request.width,
            "metric": evaluator.metric,
            "measured_on": evaluator.measured_on,
            "drawn_with": evaluator.drawn_with,
            "prompts": tuple(evaluator.prompts[: rules.most]),
            "confidence": rules.confidence,
            "indifference": rules.indifference,
            "prefer": rules.prefer.value,
            "entrants": tuple(self._entrants()),
            "origins": self._origins(),
            "tools": versions(TOOLS),
            "real": evaluator.judging.real_content,
            "machine": _machine(),
            "platform": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
        }

    def _entrants(self) -> Iterator[Entrant]:
        for mix in self.names:
            try:
                known = self.fitted.get(mix) or self._too_large(mix)
            except UnsupportedGraphError:  # whole, as it would have to be; nobody fitted it
                continue
            yield self._entrant(known)

    def _too_large(self, mix: Mix) -> Fitted:
        placement = self.evaluator.builder.request.placements[0]
        peak = peak_of(mix, placement, self.footprints.of, self.footprints.fixed_bytes)
        return Fitted(mix, placement, peak, self.footprints.size_bytes(mix) or peak.bytes, 0)

    def _entrant(self, fitted: Fitted) -> Entrant:
        mix, peak = fitted.mix, fitted.peak
        spec, standing = self.evaluator.spec(mix), self.standings.get(mix)
        fate = None if standing is None else standing.fate.value
        if standing is None and self.standings and mix in self.fitted:
            fate = SCREENED_OUT
        lost_to = None if standing is None else self.evaluator.fitted[standing.to].mix
        return Entrant(
            mix=self.names[mix],
            parts={v.role: self._part(v, fitted.placement, spec) for v in mix.variants},
            recipe=spec.recipe.content,
            judge=self.evaluator.judged_by(spec),
            placement=fitted.placement,
            peak=PeakFigures(
                weights=dict(peak.weights),
                activation_bytes=peak.activation_bytes,
                activation_role=peak.role,
                fixed_bytes=peak.fixed_bytes,
            ),
            fits=mix in self.fitted,
            size_bytes=fitted.size_bytes,
            prompts=self.drawn[mix],
            timed=mix in self.timed,
            distance_prompts=self.distances.get(mix),
            fate=fate,
            lost_to=None if lost_to in (None, mix) else self.names[lost_to],
        )

    def _part(self, variant: Variant, placement: Placement, spec: PipelineSpec) -> PartFigures:
        checkpoint = self.evaluator.builder.checkpoint(variant.role, variant.candidate)
        return PartFigures(
            candidate=variant.candidate,
            precision=variant.label,
            parameters=checkpoint.parameters,
            weight_bytes=self.footprints.of(variant, placement).weight_bytes,
            content=spec.parts[variant.role].content,
        )

    def _origins(self) -> dict[str, Origin]:
        """Where the candidates come from, by role and name."""
        catalog = self.evaluator.builder.catalog
        found: dict[str, Origin] = {}
        for variant in dict.fromkeys(variant for mix in self.drawn for variant in mix.variants):
            candidate = catalog.candidates(variant.role)[variant.candidate]
            name = f"{variant.role.words} {variant.candidate}"
            found[name] = Origin(source=str(candidate.source), licence=candidate.licence)
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Kept(Generic[Record]):
    """A record that is in the ledger, and the rows there that it rests on."""

    record: Record
    row: Measurement
    ledger: Ledger

    def write(self, path: Path) -> None:
        """The record and its rows as a file of their own."""
        write_rows(path, [self.row, *self._rows()])

    def _rows(self) -> Iterator[Measurement]:
        for row in self.ledger.measurements(self.record.metric, LATENCY, DISTANCE):
            with suppress(KeyError, TypeError):  # of no kind this version writes
                if self.record.takes(row):
                    yield row


def keep(
    evaluator: MixEvaluator, kind: str, record: Record, asked: Mapping[str, Any]
) -> Kept[Record]:
    """Write a record into the ledger, unless it is there already as it is.

    Args:
        asked: what the record depends on besides what all of its kind do.
    """
    ledger, request = evaluator.builder.ledger, evaluator.builder.request
    inputs = {
        "name": record.name,
        "profile": record.profile.model_dump(mode="json"),
        "catalog": evaluator.builder.catalog.model_dump(mode="json"),
        "sizes": [list(size) for size in request.sizes],
        "batch": request.batch,
        "steps": request.steps,
        "rules": [record.confidence, record.indifference, len(record.prompts), record.prefer],
        "tools": dict(record.tools),
        "machine": record.machine,
        **asked,
    }
    value = record.model_dump(mode="json", by_alias=True)
    row = ledger.row(kind, inputs)
    if row is None or row.value != value:
        row = ledger.record(kind, inputs, value)
    return Kept(record, row, ledger)


def _machine() -> str:
    here = f"{platform.machine()} {platform.system()}, {len(os.sched_getaffinity(0))} cores"
    return f"{here}, Python {platform.python_version()}"
