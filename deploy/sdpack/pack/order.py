"""What a build is asked for, and what follows from it before anything is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sdpack.catalog import LocatedCatalog, Source
from sdpack.errors import CatalogError, InfeasibleError
from sdpack.evaluate.race import Rules
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.source import local_folder
from sdpack.memory.predict import Footprint
from sdpack.pack.fit import fit
from sdpack.pack.mix import Variant, mixes, placements
from sdpack.pack.outline import least_footprint
from sdpack.placement import Placement, Role
from sdpack.precision import Precision
from sdpack.profile import LATENT_PIXEL, Profile


@dataclass(frozen=True)
class Order:
    """What a build is asked for.

    Attributes:
        out: the bundle's folder.
        budget_bytes: peak of the pipeline; None takes the profile's.
    """

    profile: Profile
    located: LocatedCatalog
    out: Path
    budget_bytes: int | None = None
    rules: Rules = field(default_factory=Rules)

    @property
    def budget(self) -> int:
        return self.profile.budget_bytes if self.budget_bytes is None else self.budget_bytes

    @property
    def height(self) -> int:
        """Of a picture, in pixels: the catalog's size where the profile allows it."""
        return min(self.located.catalog.image_size, self.profile.shapes.height)

    @property
    def width(self) -> int:
        return min(self.located.catalog.image_size, self.profile.shapes.width)

    @property
    def latent_rows(self) -> tuple[int, int]:
        """Height and width of a picture's latents."""
        return self.height // LATENT_PIXEL, self.width // LATENT_PIXEL

    @property
    def placements(self) -> list[Placement]:
        return placements(self.profile, max(self.latent_rows))

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those to try: the profile's, but fp32 on a GPU only if it was asked for."""
        allowed = self.profile.allowed_precisions
        if self.profile.precisions is None and self.profile.runtime.on_gpu:
            return tuple(p for p in allowed if p is not Precision.FP32)
        return allowed

    def folder(self, source: Source) -> Path:
        """Where a source's files are on this machine, fetched if they have to be.

        Raises:
            SourceError: they cannot be had.
        """
        return local_folder(source, self.located.folder)

    def checkpoint(self, role: Role, candidate: str) -> Checkpoint:
        """A candidate's checkpoint."""
        return Checkpoint(self.folder(self.located.catalog.candidates(role)[candidate].source))


def check(order: Order) -> None:
    """Refuse what can be seen to fail before anything is loaded, exported or built.

    Raises:
        CatalogError: a file the catalog names is missing.
        InfeasibleError: even the weights and one convolution of the smallest mix do not fit.
    """
    missing = [f"{key}: {path} is missing" for key, path in order.located.missing()]
    if missing:
        raise CatalogError("; ".join(missing))
    _refuse_hopeless(order)


def _refuse_hopeless(order: Order) -> None:
    checkpoints: dict[tuple[Role, str], Checkpoint] = {}

    def least(variant: Variant, placement: Placement) -> Footprint:
        key = (variant.role, variant.candidate)
        if key not in checkpoints:
            checkpoints[key] = order.checkpoint(*key)
        rows, runtime = order.latent_rows, order.profile.runtime
        return least_footprint(checkpoints[key], variant, placement, rows, runtime)

    every = mixes(order.located.catalog, order.precisions)
    try:
        fit(every, order.placements[-1:], least, order.budget)
    except InfeasibleError as error:
        raise InfeasibleError(
            f"{error} (a lower bound, from the sizes of the checkpoints alone)",
            error.smallest_bytes,
        ) from error
