"""The selection of a build at one memory budget after another, without the rest of the build."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from sdpack.documents.catalog_files import default_catalog, read_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Placement
from sdpack.evaluate.rules import Rules
from sdpack.pack.candidates import Candidates
from sdpack.pack.parallel.local import open_executor
from sdpack.pack.planning.feasible import buildable, fitting
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.toolchain import Toolchain, open_toolchain
from sdpack.workers.executor import WorkerOptions


@dataclass(frozen=True)
class BudgetSelections:
    """The mixes that can be built of one catalog, and what each takes.

    Attributes:
        possible: every mix that can be built, whether it fits or not.
        footprints: the memory of each mix's parts.
        placements: the placements that the profile allows, fastest first.
    """

    toolchain: Toolchain
    possible: Sequence[Mix]
    footprints: Footprints
    placements: Sequence[Placement]

    def evaluator(self, budget_bytes: int) -> MixEvaluator:
        """Return an evaluator of the mixes that fit into a budget.

        Raises:
            InfeasibleError: no mix fits.
        """
        fitted = fitting(self.placements, self.footprints, self.possible, budget_bytes)
        return MixEvaluator(self.toolchain, self.possible, fitted)


@contextmanager
def open_selections(
    profile: str,
    catalog: Path | None,
    prompts: int,
    console: Console,
    workers: int | None = None,
) -> Iterator[BudgetSelections]:
    """Build the parts of a catalog for a profile, and yield the selections among their mixes.

    Args:
        profile: a profile's name or file.
        catalog: a catalog's file; None for the zoo's.
        prompts: the most prompts that a race draws with a mix.
        console: where progress is logged.
        workers: number of worker processes; None for as many as cores and memory allow.
    """
    chosen = default_catalog() if catalog is None else read_catalog(catalog)
    request = BuildRequest(find_profile(profile), chosen, Path("unused"), rules=Rules(most=prompts))
    candidates = Candidates(request)
    with (
        open_executor(
            candidates, WorkerOptions(workers), lambda words: console.log(words)
        ) as executor,
        open_toolchain(candidates, lambda words: console.log(words), executor) as toolchain,
    ):
        footprints = Footprints.of_toolchain(toolchain)
        yield BudgetSelections(toolchain, buildable(toolchain), footprints, candidates.placements)
