"""The mixes that draw the calibration prompts in fp32: each part with its largest partners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.domain.workload import WORKLOAD
from sdpack.engines import onnxruntime
from sdpack.errors import CatalogError
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.mix import Mix, Variant, in_precisions
from sdpack.pack.request import BuildRequest
from sdpack.pack.variants.graph_files import fused_attention_graph
from sdpack.pack.variants.sampler_tables import SamplerTables
from sdpack.pack.variants.source_graphs import SourceGraphs
from sdpack.pack.variants.tokenizers import Tokenizers
from sdpack.runtime.pipeline import Pictures, Pipeline, Request, to_pictures
from sdpack.store.artifacts import digest

MOST_TEXTS = 512

Arrays = dict[str, NDArray[Any]]


@dataclass
class CalibrationMixes:
    """Gives the mix that a part is calibrated in, and runs it."""

    candidates: Candidates
    tokenizers: Tokenizers
    graphs: SourceGraphs
    samplers: SamplerTables

    @property
    def request(self) -> BuildRequest:
        """The request of the build."""
        return self.candidates.request

    @cached_property
    def texts(self) -> list[str]:
        """The calibration prompts."""
        located = self.request.located
        quality = located.catalog.quality
        return located.prompts(quality.calibration)[:MOST_TEXTS]

    @property
    def is_large(self) -> bool:
        """Whether a CPU takes many seconds for an image."""
        return self.request.is_large

    @property
    def steps(self) -> int:
        """How many steps of each image are observed."""
        steps, large = WORKLOAD.calibration_steps, WORKLOAD.large_calibration_steps
        return large if self.is_large else steps

    @property
    def images(self) -> int:
        """How many images are drawn: fewer of larger ones."""
        return WORKLOAD.calibration_images_of(self.request.height, self.request.width)

    def of(self, variant: Variant) -> Mix:
        """The mix a variant is calibrated in: its largest partners, all in fp32.

        Raises:
            CatalogError: the variant's candidate fits no other.
        """
        fitting = self.candidates.sets_with(variant)
        if not fitting:
            raise CatalogError(f"{variant.full_name} fits no other part in the catalog; check it")
        largest = max(fitting, key=self.candidates.parameters_of)
        return in_precisions(largest, [Precision.FP32] * len(largest.names))

    def inputs(self, mix: Mix, variants: Sequence[Variant]) -> dict[str, Any]:
        """The JSON values that determine what a mix draws.

        Args:
            variants: the parts of the mix that count.
        """
        denoiser = mix.denoiser.candidate
        sampling = self.request.sampling_of(denoiser)
        return {
            "sampler": digest(self.samplers.of(denoiser).to_json()),
            "conditioning": self.candidates.conditioning(denoiser).model_dump(mode="json"),
            "guidance_scale": sampling.guidance_scale,
            "guidance_rescale": sampling.guidance_rescale,
            "size": [self.request.height, self.request.width],
            "with": [self.graphs.of(v).content for v in variants],
            "tokenizers": [
                self.tokenizers.content(v.candidate) for v in variants if v.role.encodes_text
            ],
            "latents": asdict(self.candidates.latents(mix.decoder.candidate)),
        }

    def requests(self, mix: Mix, count: int | None = None) -> list[Request]:
        """Requests for the first calibration prompts; image number i starts from seed i.

        Args:
            count: number of images; None for all.
        """
        request = self.request
        sampling = request.sampling_of(mix.denoiser.candidate)
        size = WORKLOAD.batch_of(request.height, request.width)
        most = min(self.images if count is None else count, self.images)
        requests: list[Request] = []
        for first in range(0, min(most, len(self.texts)), size):
            prompts = self.texts[first : min(first + size, most)]
            requests.append(
                Request(
                    prompts,
                    list(range(first, first + len(prompts))),
                    sampling.guidance_scale,
                    request.height,
                    request.width,
                    guidance_rescale=sampling.guidance_rescale,
                )
            )
        return requests

    def pictures(self, variant: Variant, replaced: Mapping[Role, Path], count: int) -> Pictures:
        """Images of the first calibration prompts by a variant's mix.

        Args:
            replaced: graphs to use instead of the mix's.

        Returns:
            uint8 (N, H, W, 3).
        """
        mix = self.of(variant)
        pipeline = self.pipeline(mix, replaced)
        drawn = [
            pipeline.decode(denoised(pipeline, request)) for request in self.requests(mix, count)
        ]
        pipeline.close()
        return to_pictures(np.concatenate(drawn))

    def pipeline(
        self,
        mix: Mix,
        replaced: Mapping[Role, Path],
        observe: Callable[[Arrays], None] | None = None,
    ) -> Pipeline:
        """The pipeline of a mix.

        Args:
            replaced: graphs to use instead of the mix's.
            observe: receives the inputs of each call of the denoiser.
        """
        denoiser = mix.denoiser.candidate
        paths = {v.role: fused_attention_graph(self.graphs.of(v)) for v in mix.variants}
        opened = {**paths, **replaced}
        return Pipeline(
            {role: partial(onnxruntime.load, opened[role], emulate=True) for role in opened},
            {v.role: self.tokenizers.of(v.candidate) for v in mix.variants if v.role.encodes_text},
            lambda _: self.samplers.of(denoiser),
            self.candidates.latents(mix.decoder.candidate),
            conditioning=self.candidates.conditioning(denoiser),
            observe=observe,
        )


def denoised(pipeline: Pipeline, request: Request) -> NDArray[np.float32]:
    """The denoised latents of a request: float32 (N, C, h, w)."""
    return pipeline.denoise(request, *pipeline.texts(request))
