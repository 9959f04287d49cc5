"""Calibration inputs: the inputs of each part while the calibration prompts are drawn in fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.documents.catalog import Mixable
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
from sdpack.quantization.observe import Inputs
from sdpack.quantization.sensitivity import middle_of
from sdpack.runtime.pipeline import Pictures, Pipeline, Request, to_pictures
from sdpack.runtime.text_embeddings import encoder_inputs
from sdpack.store.artifacts import digest

MOST_TEXTS = 512

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Drawing:
    """The arrays recorded while the calibration prompts were drawn.

    Attributes:
        parts: the text encoders and the denoiser that drew them.
        denoised: the inputs of the denoiser, one entry for each batch.
        latents: the denoised latents, float32 (N, C, H, W), one entry for each batch.
    """

    parts: tuple[Variant, ...]
    denoised: list[Arrays] = field(default_factory=list)
    latents: list[NDArray[np.float32]] = field(default_factory=list)


@dataclass
class CalibrationDrawing:
    """Draws the calibration prompts in fp32, each part with its largest partners."""

    candidates: Candidates
    tokenizers: Tokenizers
    graphs: SourceGraphs
    samplers: SamplerTables
    _last: _Drawing | None = field(default=None, init=False)

    def identity(self, variant: Variant) -> dict[str, Any]:
        """The JSON values that determine the batches of a variant's graph."""
        reference = self.reference(variant)
        denoiser = reference.denoiser.candidate
        sampling = self._request.sampling_of(denoiser)
        return {
            "texts": self._texts,
            "pictures": [self._images, self._steps],
            "sampler": digest(self.samplers.of(denoiser).to_json()),
            "conditioning": self.candidates.conditioning(denoiser).model_dump(mode="json"),
            "guidance_scale": sampling.guidance_scale,
            "size": [self._request.height, self._request.width],
            "with": [self.graphs.of(v).content for v in reference.variants],
            "tokenizers": [
                self.tokenizers.content(v.candidate)
                for v in reference.variants
                if v.role.encodes_text
            ],
            "latents": asdict(self.candidates.latents(reference.decoder.candidate)),
        }

    def reference(self, variant: Variant) -> Mix:
        """The mix a variant is calibrated in: its largest partners, all in fp32."""
        fitting = self.candidates.sets_with(variant)
        if not fitting:
            raise CatalogError(f"{variant.full_name} fits no other part in the catalog; check it")
        largest = max(fitting, key=self._parameters)
        return in_precisions(largest, [Precision.FP32] * len(largest.names))

    def batches(self, variant: Variant) -> list[Arrays]:
        """Real inputs of a variant's graph, from drawing the calibration prompts in fp32."""
        reference = self.reference(variant)
        if variant.role.encodes_text:
            return list(self._read(variant, reference))
        drawing = self._drawing(reference)
        if variant.role is Role.DENOISER:
            return drawing.denoised
        space = self.candidates.latents(reference.decoder.candidate)
        decoded = (space.rescaled(latents) for latents in drawing.latents)
        return [self._cut({"latent_sample": latents}) for latents in decoded]

    def probing(self, variant: Variant) -> Sequence[Inputs]:
        """The batches on which the layers of a variant's graph are rounded one by one.

        A decoder upscales its input, so a few latent pixels of a large image are enough.
        """
        batches = self.batches(variant)
        if variant.role is Role.DECODER and self._request.is_large:
            return [middle_of(batch, WORKLOAD.probed_side) for batch in batches]
        return batches

    def pictures(self, variant: Variant, replaced: Mapping[Role, Path], count: int) -> Pictures:
        """Images of the first calibration prompts by a variant's reference mix.

        Args:
            replaced: graphs to use instead of the reference's.

        Returns:
            uint8 (N, H, W, 3).
        """
        reference = self.reference(variant)
        pipeline = self._pipeline(reference, replaced)
        drawn = [
            pipeline.decode(self._denoised(pipeline, request))
            for request in self._requests(reference, min(count, self._images))
        ]
        pipeline.close()
        return to_pictures(np.concatenate(drawn))

    @property
    def _request(self) -> BuildRequest:
        return self.candidates.request

    @cached_property
    def _texts(self) -> list[str]:
        request = self._request
        quality = request.catalog.quality
        return request.located.prompts(quality.calibration)[:MOST_TEXTS]

    def _parameters(self, parts: Mixable) -> int:
        return sum(self.candidates.parameters(*part) for part in parts.names.items())

    def _drawing(self, reference: Mix) -> _Drawing:
        """The recording of a mix that draws the calibration prompts; the last one is kept.

        Decoders are not run, so mixes that differ only in the decoder share a recording.
        """
        parts = tuple(v for v in reference.variants if v.role is not Role.DECODER)
        if self._last is None or self._last.parts != parts:
            self._last = self._draw(reference, parts)
        return self._last

    def _draw(self, reference: Mix, parts: tuple[Variant, ...]) -> _Drawing:
        steps: list[Arrays] = []
        drawing = _Drawing(parts)
        pipeline = self._pipeline(reference, {}, steps.append)
        for request in self._requests(reference, self._images):
            steps.clear()
            drawing.latents.append(self._denoised(pipeline, request))
            chosen = np.linspace(0, len(steps) - 1, min(self._steps, len(steps))).round()
            drawing.denoised.extend(
                self._thinned(steps[int(step)], place) for place, step in enumerate(chosen)
            )
        pipeline.close()
        return drawing

    def _read(self, variant: Variant, reference: Mix) -> Iterator[Arrays]:
        """The inputs of a text encoder for the calibration prompts."""
        tokenizer = self.tokenizers.of(variant.candidate)
        conditioning = self.candidates.conditioning(reference.denoiser.candidate)
        for texts in _cut(self._texts, WORKLOAD.batch):
            yield encoder_inputs(tokenizer, texts, conditioning, variant.role)

    def _cut(self, inputs: Arrays) -> Arrays:
        """The middle of the latents of large images.

        A decoder treats every place alike, and the activations of a large image take gigabytes.
        """
        return (
            dict(middle_of(inputs, WORKLOAD.calibrated_side)) if self._request.is_large else inputs
        )

    def _thinned(self, inputs: Arrays, place: int) -> Arrays:
        """One row of a large image's inputs, alternating between the two halves of guidance."""
        rows = len(inputs["sample"])
        if not self._request.is_large or rows == 1:
            return inputs
        row = place % 2 * (rows // 2)
        return {
            name: array[row : row + 1] if len(array) == rows else array
            for name, array in inputs.items()
        }

    @property
    def _steps(self) -> int:
        steps, large = WORKLOAD.calibration_steps, WORKLOAD.large_calibration_steps
        return large if self._request.is_large else steps

    @property
    def _images(self) -> int:
        """How many images are drawn: fewer of larger ones."""
        return WORKLOAD.calibration_images_of(self._request.height, self._request.width)

    def _requests(self, reference: Mix, count: int) -> list[Request]:
        """Requests for the first calibration prompts; image number i starts from seed i."""
        request = self._request
        sampling = self._request.sampling_of(reference.denoiser.candidate)
        size = WORKLOAD.batch_of(request.height, request.width)
        requests: list[Request] = []
        for first in range(0, min(count, len(self._texts)), size):
            prompts = self._texts[first : min(first + size, count)]
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

    def _denoised(self, pipeline: Pipeline, request: Request) -> NDArray[np.float32]:
        return pipeline.denoise(request, *pipeline.texts(request))

    def _pipeline(
        self,
        reference: Mix,
        replaced: Mapping[Role, Path],
        observe: Callable[[Arrays], None] | None = None,
    ) -> Pipeline:
        denoiser = reference.denoiser.candidate
        paths = {v.role: fused_attention_graph(self.graphs.of(v)) for v in reference.variants}
        opened = {**paths, **replaced}
        return Pipeline(
            {role: partial(onnxruntime.load, opened[role], emulate=True) for role in opened},
            {
                v.role: self.tokenizers.of(v.candidate)
                for v in reference.variants
                if v.role.encodes_text
            },
            lambda _: self.samplers.of(denoiser),
            self.candidates.latents(reference.decoder.candidate),
            conditioning=self.candidates.conditioning(denoiser),
            observe=observe,
        )


def _cut(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]
