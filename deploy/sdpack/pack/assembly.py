"""From the candidates of a request to its bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sdpack.documents.bundle import sole_writer
from sdpack.documents.manifest import Manifest
from sdpack.pack.anytime.choose import TimedChoice
from sdpack.pack.anytime.deadline import Deadline
from sdpack.pack.bundling.files import BundleFiles, BundleImages
from sdpack.pack.bundling.manifests import Manifests
from sdpack.pack.bundling.winner import Winner
from sdpack.pack.candidates import Candidates
from sdpack.pack.checks import check
from sdpack.pack.forecast.build_plan import Planning
from sdpack.pack.forecast.stage_clock import StageClock, record_stages
from sdpack.pack.judging.primary_check import check_primary
from sdpack.pack.parallel.local import open_executor
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.preselection.choose import SetChoice
from sdpack.pack.preselection.mixes_of_sets import MixesOfSets
from sdpack.pack.recording.build_record import BuildRecording
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.contact_sheet import SheetDrawing
from sdpack.pack.selection.evidence import EvidenceMeasuring
from sdpack.pack.selection.samples import Samples
from sdpack.pack.selection.second_opinion import SecondOpinions
from sdpack.pack.toolchain import Toolchain, open_toolchain
from sdpack.progress import Say
from sdpack.workers.executor import USUAL_WORKERS, WorkerOptions


def assemble(
    request: BuildRequest,
    say: Say,
    finish: Callable[[Path], None] | None,
    workers: WorkerOptions = USUAL_WORKERS,
    deadline: Deadline | None = None,
) -> Manifest:
    """Build the bundle of a request, reusing the artifacts in the store.

    Args:
        finish, workers: as in `sdpack.pack.build.build`.
        deadline: when the bundle is to be ready; None for no limit.
    """
    candidates = Candidates(request)
    check(candidates, say)
    clock = StageClock(say)
    tell = clock.say if deadline is None else deadline.watching(clock.say)
    with (
        sole_writer(request.out),
        open_executor(candidates, workers, tell) as executor,
        open_toolchain(candidates, tell, executor) as toolchain,
    ):
        manifest = _bundle(toolchain, finish, deadline)
        if deadline is None:  # a limited build says what it draws more often than it draws it
            _record_times(toolchain, clock)
    return manifest


def _bundle(
    toolchain: Toolchain, finish: Callable[[Path], None] | None, deadline: Deadline | None
) -> Manifest:
    footprints = Footprints.of_toolchain(toolchain)
    candidates, variants = toolchain.candidates, toolchain.variants
    request = toolchain.request
    check_primary(toolchain)
    mixes = MixesOfSets(toolchain, footprints, request.budget)
    if deadline is None:
        chosen = SetChoice(mixes).choose()
    else:
        chosen = TimedChoice(mixes, deadline).choose()
    evaluator = chosen.evaluator
    selected = SecondOpinions(evaluator).asked(chosen.result)
    evidence = EvidenceMeasuring(evaluator, footprints, selected).measure()
    winner = Winner(toolchain, selected.winner)
    manifest = Manifests(winner, candidates, variants, footprints.foresight).of(evidence)
    sheet = SheetDrawing(evaluator, variants, selected).draw()
    samples = Samples(evaluator).draw(selected.winner.mix)
    recording = BuildRecording(
        toolchain.context,
        candidates,
        footprints,
        selected,
        evaluator.summary(),
        sheet,
    )
    files = BundleFiles(winner, BundleImages(samples, sheet.image()), recording.record(manifest))
    return files.write(manifest, finish)


def _record_times(toolchain: Toolchain, clock: StageClock) -> None:
    """Record how long the stages took, to improve later predictions."""
    candidates, ledger = toolchain.candidates, toolchain.context.ledger
    planning = Planning(candidates, ledger)
    ratios = clock.ratios(planning.seconds(), planning.units())
    request = candidates.request
    name = f"{candidates.catalog.name} for {request.profile.name} in {request.out.resolve().name}"
    record_stages(ledger, name, ratios, request.drawn_on)
