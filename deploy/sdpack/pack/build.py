"""`build`: from a profile and a catalog to the bundle of the best mix that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdpack.documents.bundle import sole_writer
from sdpack.documents.evidence import StandingFigures
from sdpack.documents.manifest import Manifest
from sdpack.pack.finished_builds import FinishedBuilds
from sdpack.pack.request import BuildRequest
from sdpack.progress import Say
from sdpack.store.artifacts import cache_folder
from sdpack.store.ledger import Ledger


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Attributes:
        manifest: of the bundle.
        is_new: whether the bundle was built now; an unchanged request finds its bundle again.
    """

    manifest: Manifest
    is_new: bool

    @property
    def winner(self) -> StandingFigures:
        """The mix of the bundle, and what was measured of it."""
        return self.manifest.evidence.winner


def build(
    request: BuildRequest, say: Say = lambda _: None, finish: Callable[[Path], None] | None = None
) -> BuildResult:
    """Build the bundle a request asks for.

    If its folder holds the bundle of the same request, with all files as they were written, that
    bundle is the result: nothing is opened or drawn.

    Args:
        say: called with a line on what is being done.
        finish: called with the folder of the bundle before it takes its place, to draw a report. If
            it fails, an older bundle in that place stays.

    Raises:
        InfeasibleError: nothing fits; found before any export where sizes alone tell.
        SdpackError: anything else that failed, in one line.
    """
    ledger = Ledger(cache_folder() / "ledger.sqlite")
    try:
        with sole_writer(request.out):
            finished = FinishedBuilds(request, ledger)
            known = finished.find()
            if known is not None:
                return BuildResult(known, is_new=False)
            from sdpack.pack.assembly import assemble  # imports PyTorch

            manifest = assemble(request, say, finish)
            finished.record(manifest)
            return BuildResult(manifest, is_new=True)
    finally:
        ledger.close()
