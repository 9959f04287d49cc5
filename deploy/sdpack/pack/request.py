"""The request of a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdpack.documents.catalog import Catalog
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.profile import Profile, Size
from sdpack.documents.sampling import Sampling
from sdpack.domain.precision import Precision, Runtime, usual
from sdpack.domain.workload import WORKLOAD
from sdpack.evaluate.rules import Rules
from sdpack.pack.planning.mix import Mix, StepChoices


@dataclass(frozen=True)
class BuildRequest:
    """The request of a build; it is pure data.

    Attributes:
        out: the bundle's folder.
        budget_bytes: the most memory at the pipeline's peak; None for the profile's budget.
        rules: the rules of the race.
        asked_sizes: heights and widths of images; empty for the catalog's, within the profile's.
        asked_batch: the most images drawn at once; None for the profile's.
        steps: number of denoising steps; None for the catalog's, of which there may be several.
        drawn_on: the runtime that draws the images on this machine.
        max_seconds: the most seconds that an image may take; None for the profile's limit, if any.
        weights: how much categories of prompts count in the score, by names that may be given in
            part; others count 1.
    """

    profile: Profile
    located: LocatedCatalog
    out: Path
    budget_bytes: int | None = None
    rules: Rules = field(default_factory=Rules)
    asked_sizes: tuple[Size, ...] = ()
    asked_batch: int | None = None
    steps: int | None = None
    drawn_on: Runtime = Runtime.ONNXRUNTIME_CPU
    max_seconds: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def catalog(self) -> Catalog:
        """The catalog, without the folder of its files."""
        return self.located.catalog

    @property
    def runtime(self) -> Runtime:
        """The runtime of the profile."""
        return self.profile.runtime

    @property
    def budget(self) -> int:
        """The most bytes that the pipeline may take at its peak."""
        return self.profile.budget_bytes if self.budget_bytes is None else self.budget_bytes

    @property
    def latency_limit_s(self) -> float | None:
        """The most seconds that an image may take; None for any."""
        return self.profile.max_seconds if self.max_seconds is None else self.max_seconds

    @property
    def measures_latency(self) -> bool:
        """Whether this machine draws with the kernels that ship, so that times are measured."""
        return self.drawn_on is self.runtime

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Heights and widths of images; the first is measured, and is the bundle's default."""
        side, shapes = self.catalog.image_size, self.profile.shapes
        return self.asked_sizes or ((min(side, shapes.height), min(side, shapes.width)),)

    @property
    def height(self) -> int:
        """Height of a measured image, in pixels."""
        return self.sizes[0][0]

    @property
    def width(self) -> int:
        """Width of a measured image, in pixels."""
        return self.sizes[0][1]

    @property
    def is_large(self) -> bool:
        """Whether a CPU takes many seconds for a measured image."""
        return WORKLOAD.is_large(self.height, self.width)

    @property
    def batch(self) -> int:
        """The most images drawn at once."""
        shapes = self.profile.shapes
        return self.asked_batch or shapes.batch

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions to try: the profile's, or the device's usual ones if it names none."""
        if self.profile.precisions is not None:
            return self.profile.allowed_precisions
        return usual(self.runtime, self.profile.device_precisions)

    def sampling_of(self, denoiser: str) -> Sampling:
        """The sampling settings of a denoiser, with the requested number of steps."""
        sampling = self.catalog.sampling_of(denoiser)
        if self.steps is None:
            return sampling
        return sampling.model_copy(update={"steps": (self.steps,)})

    def step_choices(self, denoiser: str) -> StepChoices:
        """The numbers of steps that the mixes of a denoiser differ in."""
        counts = self.sampling_of(denoiser).steps
        return counts if len(counts) > 1 else (None,)

    def steps_of(self, mix: Mix) -> int:
        """The number of denoising steps of a mix."""
        return mix.steps or self.sampling_of(mix.denoiser.candidate).most_steps
