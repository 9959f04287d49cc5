"""What a build is asked to make."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sdpack.documents.catalog import Sampling
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.profile import Profile, Size
from sdpack.domain.precision import Precision, usual
from sdpack.domain.workload import WORKLOAD
from sdpack.evaluate.rules import Rules


@dataclass(frozen=True)
class BuildRequest:
    """What a build is asked to make; pure data.

    Attributes:
        out: the bundle's folder.
        budget_bytes: peak of the pipeline; None takes the profile's.
        asked_sizes: of images; none takes the catalog's, as far as the profile allows it.
        asked_batch: the most images drawn at once; None for the profile's.
        steps: of denoising; None takes the catalog's.
    """

    profile: Profile
    located: LocatedCatalog
    out: Path
    budget_bytes: int | None = None
    rules: Rules = field(default_factory=Rules)
    asked_sizes: tuple[Size, ...] = ()
    asked_batch: int | None = None
    steps: int | None = None

    @property
    def budget(self) -> int:
        """Bytes that the pipeline's peak may take."""
        return self.profile.budget_bytes if self.budget_bytes is None else self.budget_bytes

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Of images; the first is the one that is measured, and the bundle's default."""
        side, shapes = self.located.catalog.image_size, self.profile.shapes
        return self.asked_sizes or ((min(side, shapes.height), min(side, shapes.width)),)

    @property
    def height(self) -> int:
        """Of a measured image, in pixels."""
        return self.sizes[0][0]

    @property
    def width(self) -> int:
        """Of a measured image, in pixels."""
        return self.sizes[0][1]

    @property
    def is_large(self) -> bool:
        """Whether a CPU takes many seconds for a measured image."""
        return WORKLOAD.is_large(self.height, self.width)

    @property
    def batch(self) -> int:
        """The most images drawn at once."""
        return self.asked_batch or self.profile.shapes.batch

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those to try: the ones the profile names, or else the usual ones of the device."""
        if self.profile.precisions is not None:
            return self.profile.allowed_precisions
        return usual(self.profile.runtime, self.profile.device_precisions)

    def sampling_of(self, denoiser: str) -> Sampling:
        """How a denoiser is run, with the number of steps that was asked for."""
        sampling = self.located.catalog.sampling_of(denoiser)
        return sampling if self.steps is None else sampling.model_copy(update={"steps": self.steps})
