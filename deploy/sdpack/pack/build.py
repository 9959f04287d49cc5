"""A build: from a profile and a catalog to the bundle of the best mix that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdpack.documents.evidence import StandingFigures
from sdpack.documents.manifest import Manifest
from sdpack.pack.anytime.deadline import Deadline
from sdpack.pack.finished_builds import FinishedBuilds
from sdpack.pack.request import BuildRequest
from sdpack.progress import Say
from sdpack.workers.executor import USUAL_WORKERS, WorkerOptions


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Attributes:
        manifest: the bundle's manifest.
        is_new: False if an earlier build of the same request had already made the bundle.
    """

    manifest: Manifest
    is_new: bool

    @property
    def winner(self) -> StandingFigures:
        """The mix of the bundle, and its measurements."""
        evidence = self.manifest.evidence
        return evidence.winner


def build(
    request: BuildRequest,
    say: Say = lambda _: None,
    finish: Callable[[Path], None] | None = None,
    workers: WorkerOptions = USUAL_WORKERS,
    within_s: float | None = None,
) -> BuildResult:
    """Build the bundle of a request.

    If its folder already contains the bundle of the same request, with unchanged files, that bundle
    is returned and nothing is built.

    Args:
        say: called with a line of text at each step.
        finish: called with the bundle's temporary folder before it replaces the old bundle, to add
            files that are made from it; if that fails, the old bundle stays.
        workers: the worker processes to use.
        within_s: seconds until the bundle is to be ready, the best that is found until then; None
            for no limit. A later build continues from what this one has made.

    Raises:
        InfeasibleError: nothing fits; found before any export if file sizes alone show it.
        SdpackError: something else failed, described in one line.
    """
    deadline = None if within_s is None else Deadline(within_s)
    finished = FinishedBuilds(request)
    known = finished.find()
    if known is not None:
        return BuildResult(known, is_new=False)
    from sdpack.pack.assembly import assemble  # imports PyTorch

    manifest = assemble(request, say, finish, workers, deadline)
    evidence = manifest.evidence
    limit = evidence.time_limit
    is_complete = limit is None or limit.is_complete
    if is_complete and not evidence.judges_left_out:  # the same command asks these again
        finished.record(manifest)
    return BuildResult(manifest, is_new=True)
