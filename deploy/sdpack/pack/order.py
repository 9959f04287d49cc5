"""What a build is asked for, and what follows from it before anything is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdpack.catalog import LocatedCatalog, Source
from sdpack.errors import CatalogError, InfeasibleError
from sdpack.evaluate.race import Rules
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.source import local_folder
from sdpack.memory.predict import Footprint
from sdpack.pack.fit import fit
from sdpack.pack.mix import Variant, mixes, placements
from sdpack.pack.outline import LEAST_PROCESS, least_footprint
from sdpack.placement import Placement, Role
from sdpack.precision import Precision, usual
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
        """Those to try: what the profile names, or else the device's usual ones."""
        if self.profile.precisions is not None:
            return self.profile.allowed_precisions
        return usual(self.profile.runtime, self.profile.device_precisions)

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
    check_catalog(order.located)
    _refuse_hopeless(order)


def check_catalog(located: LocatedCatalog) -> None:
    """See that every file a catalog names on this machine is there and can be read.

    Raises:
        CatalogError: one is missing, or the real pictures are fewer than the prompts.
        SourceError: a checkpoint is damaged.
    """
    missing = [f"{key}: {path} is missing" for key, path in located.missing()]
    if missing:
        raise CatalogError("; ".join(missing))
    catalog, quality = located.catalog, located.catalog.quality
    weighted = [c.source for role in Role for c in catalog.candidates(role).values()]
    weighted += [quality.judge, *(bridge.source for bridge in catalog.bridges)]
    for source in weighted:
        if source.path is not None:
            for _ in Checkpoint(located.path(source.path)).shapes():
                pass
    for key in (quality.calibration, quality.samples):
        located.prompts(key)
    real_pictures(located)


def real_pictures(located: LocatedCatalog) -> NDArray[np.uint8]:
    """The real pictures the prompts stand for, cut from their sheet: uint8 (N, side, side, 3).

    Raises:
        CatalogError: the sheet cannot be read, or holds too few.
    """
    quality, side = located.catalog.quality, located.catalog.image_size
    path, columns = located.path(quality.real_images), quality.real_columns
    count = len(located.prompts(quality.prompts))
    try:
        whole = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, SyntaxError) as cause:
        raise CatalogError(f"{path} cannot be read ({cause}); restore it") from cause
    rows = whole.shape[0] // side
    if whole.shape[1] != columns * side or rows * columns < count:
        raise CatalogError(
            f"{path} is {whole.shape[1]}x{whole.shape[0]}, which does not hold {count} tiles of "
            f"{side}, {columns} a row; check quality.real_columns"
        )
    tiles = whole[: rows * side].reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    return tiles.reshape(-1, side, side, 3)[:count]


def _refuse_hopeless(order: Order) -> None:
    checkpoints: dict[tuple[Role, str], Checkpoint] = {}

    def least(variant: Variant, placement: Placement) -> Footprint:
        key = (variant.role, variant.candidate)
        if key not in checkpoints:
            checkpoints[key] = order.checkpoint(*key)
        rows, runtime = order.latent_rows, order.profile.runtime
        return least_footprint(checkpoints[key], variant, placement, rows, runtime)

    every = mixes(order.located.catalog, order.precisions)
    process = LEAST_PROCESS.get(order.profile.runtime, 0)
    try:
        fit(every, order.placements[-1:], least, order.budget, process)
    except InfeasibleError as error:
        raise InfeasibleError(
            f"{error}; this is a lower bound, from the sizes of the checkpoints alone: what is "
            "needed exactly is known once the graphs are made",
            error.smallest_bytes,
        ) from error
