"""The mix that a bundle is made of, and where its files go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sdpack.documents.layout import ONNX, plan_name, portable_name
from sdpack.documents.manifest import Engine
from sdpack.documents.sampling import Sampling
from sdpack.domain.placement import Role
from sdpack.domain.precision import Runtime
from sdpack.errors import SchedulerError
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.shapes import Piece

OTHER_STEPS = (1, 2, 4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)


@dataclass(frozen=True)
class Winner:
    """The winner of a race."""

    toolchain: Toolchain
    fitted: Fitted

    @property
    def request(self) -> BuildRequest:
        """The request of the build."""
        return self.toolchain.request

    @property
    def candidates(self) -> Candidates:
        """The candidates of the request."""
        return self.toolchain.candidates

    @property
    def mix(self) -> Mix:
        """The mix that won."""
        return self.fitted.mix

    @property
    def denoiser(self) -> str:
        """The name of its denoiser."""
        denoiser = self.mix.denoiser
        return denoiser.candidate

    @property
    def sampling(self) -> Sampling:
        """The sampling settings of its denoiser."""
        return self.request.sampling_of(self.denoiser)

    @property
    def steps(self) -> int:
        """The number of denoising steps whose quality was measured."""
        return self.request.steps_of(self.mix)

    def portable(self, role: Role) -> str:
        """The folder of a role's portable graph in the bundle."""
        denoiser = self.candidates.checkpoint(Role.DENOISER, self.denoiser)
        return f"{ONNX}/{portable_name(role, denoiser.class_name)}"

    def pieces(self, variant: Variant) -> tuple[Piece, ...]:
        """The graphs that are loaded for a part."""
        pieces = self.toolchain.pieces
        return pieces.of(variant, self.fitted.placement)

    def engine(self, variant: Variant, piece: Piece) -> Engine:
        """The manifest's entry for one of these graphs."""
        graph = f"{self.portable(variant.role)}/{piece.file}"
        planned = self.request.runtime is Runtime.TENSORRT_RTX
        return Engine(
            graph=graph,
            plan=plan_name(variant.role, graph) if planned else None,
            inputs=piece.ranges,
        )

    def scheduler(self) -> Path:
        """The folder of its scheduler's config."""
        return self.candidates.folder(self.sampling.scheduler)

    @cached_property
    def other_steps(self) -> tuple[int, ...]:
        """Other numbers of steps that its scheduler supports, without measured quality."""
        own = self.steps
        return tuple(n for n in OTHER_STEPS if n != own and self._is_supported(n))

    def _is_supported(self, steps: int) -> bool:
        samplers = self.toolchain.samplers
        try:
            samplers.of(self.denoiser, steps=steps)
        except SchedulerError:
            return False
        return True
