"""A build: from a profile and a catalog to the bundle of the best mix that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdpack.documents.bundle import sole_writer
from sdpack.documents.manifest import Manifest
from sdpack.pack.bundling.files import BundleFiles, BundleImages
from sdpack.pack.bundling.manifests import Manifests
from sdpack.pack.bundling.winner import Winner
from sdpack.pack.candidates import Candidates
from sdpack.pack.checks import check
from sdpack.pack.mixed.propose import Proposals
from sdpack.pack.planning.feasible import buildable, fitting
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.recording.build_record import BuildRecording
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.contact_sheet import SheetDrawing
from sdpack.pack.selection.evidence import EvidenceMeasuring
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.selection import Selection, SelectionResult
from sdpack.pack.toolchain import Toolchain, open_toolchain
from sdpack.progress import Say


@dataclass(frozen=True)
class BuildResult:
    """A finished build: how the winner was selected, and the bundle."""

    selected: SelectionResult
    manifest: Manifest

    @property
    def fitted(self) -> tuple[Fitted, ...]:
        """The mixes that fit."""
        return self.selected.fitted

    @property
    def winner(self) -> Fitted:
        """The mix of the bundle."""
        return self.selected.winner


def build(
    request: BuildRequest, say: Say = lambda _: None, finish: Callable[[Path], None] | None = None
) -> BuildResult:
    """Build the bundle of a request.

    Args:
        say: called with a line on what is being done.
        finish: called with the bundle's temporary folder before it replaces the old bundle, to add
            files that are made from it; if that fails, the old bundle stays.

    Raises:
        InfeasibleError: nothing fits; found before any export if file sizes alone show it.
        SdpackError: something else failed, described in one line.
    """
    candidates = Candidates(request)
    check(candidates)
    with sole_writer(request.out), open_toolchain(candidates, say) as toolchain:
        return _build(toolchain, finish)


def _build(toolchain: Toolchain, finish: Callable[[Path], None] | None) -> BuildResult:
    request, footprints = toolchain.context.request, Footprints.of_toolchain(toolchain)
    uniform = buildable(toolchain)
    mixed = list(Proposals(toolchain, footprints, uniform, request.budget).mixes())
    possible = [*uniform, *mixed]
    fitted = fitting(toolchain.candidates.placements, footprints, possible, request.budget)
    evaluator = MixEvaluator(toolchain, possible, fitted)
    selected = Selection(evaluator).run()
    evidence = EvidenceMeasuring(evaluator, footprints, selected).measure()
    winner = Winner(toolchain, selected.winner)
    manifest = Manifests(winner, footprints.foresight).of(evidence)
    sheet = SheetDrawing(evaluator, toolchain.variants, selected).draw()
    samples = evaluator.samples(selected.race.winner)
    recording = BuildRecording(
        toolchain.context,
        toolchain.candidates,
        footprints,
        selected,
        evaluator.summary(),
        sheet,
    )
    files = BundleFiles(winner, BundleImages(samples, sheet.image()), recording.record(manifest))
    return BuildResult(selected, files.write(manifest, finish))
