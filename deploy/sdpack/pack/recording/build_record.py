"""The record of a finished build in the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from sdpack.documents.manifest import Manifest
from sdpack.documents.record import BUILD, BuildRecord, ScreeningFigures, Shown
from sdpack.pack.candidates import Candidates
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.recording.kept import Kept, keep
from sdpack.pack.recording.roster import RacedMix, Roster
from sdpack.pack.selection.contact_sheet import ContactSheet
from sdpack.pack.selection.evaluation_summary import EvaluationSummary
from sdpack.pack.selection.selection import SelectionResult


@dataclass(frozen=True)
class BuildRecording:
    """Records a build."""

    context: BuildContext
    candidates: Candidates
    footprints: Footprints
    selected: SelectionResult
    summary: EvaluationSummary
    sheet: ContactSheet

    def record(self, manifest: Manifest) -> Kept[BuildRecord]:
        """Write the record of the build into the ledger, and return it.

        Args:
            manifest: the manifest of the bundle, whose figures the record repeats.
        """
        selected, race, fitted = self.selected, self.selected.race, self.selected.fitted
        raced = {fitted[s.arm].mix: RacedMix(s, fitted[s.to].mix) for s in race.standings}
        roster = Roster(
            self.candidates,
            self.footprints,
            self.summary,
            {each.mix: each for each in fitted},
            raced,
        )
        record = BuildRecord(
            **roster.fields(manifest.name),
            memory=manifest.memory,
            sampling=manifest.sampling,
            fitting=len(fitted),
            screened=self._screened(),
            winner=roster.names[selected.winner.mix],
            basis=race.basis.value,
            latency_limit=selected.limit,
            time_limit=selected.time_limit,
            preselection=manifest.evidence.preselection,
            other_judges=manifest.evidence.other_judges,
            judges_left_out=manifest.evidence.judges_left_out,
            appearance=manifest.evidence.appearance,
            shown=tuple(
                Shown(label=row.label, mix=row.mix and roster.names.get(row.mix, str(row.mix)))
                for row in self.sheet.rows
            ),
            shown_prompts=self.sheet.columns,
        )
        return keep(self.context, BUILD, record, {"budget_bytes": record.memory.budget_bytes})

    def _screened(self) -> ScreeningFigures | None:
        screened = self.selected.screened
        if screened is None:
            return None
        left_out = len(self.selected.fitted) - len(screened.finalists)
        return ScreeningFigures(left_out=left_out, error=screened.error, checked=screened.checked)
