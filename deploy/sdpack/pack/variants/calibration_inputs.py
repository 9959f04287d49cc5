"""Calibration inputs: what each part is given while the calibration prompts are drawn in fp32."""

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
from sdpack.engines import onnxruntime
from sdpack.errors import CatalogError
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.mix import Mix, Variant, in_precisions
from sdpack.pack.request import BuildRequest
from sdpack.pack.variants.graph_files import fused_attention_graph
from sdpack.pack.variants.sampler_tables import SamplerTables
from sdpack.pack.variants.source_graphs import SourceGraphs
from sdpack.quantization.observe import Inputs
from sdpack.quantization.sensitivity import middle_of
from sdpack.runtime.pipeline import Pictures, Pipeline, Request, to_pictures
from sdpack.runtime.text_embeddings import encoder_inputs
from sdpack.store.artifacts import digest

MOST_TEXTS = 512
MOST_PICTURES = 64
STEPS = 6  # of each picture's, evenly spaced
DECODED_SIDE = 32  # latent pixels of a large picture that a decoder is calibrated on
PROBED_SIDE = 8  # and that its layers are tried on one by one
FEW_STEPS = 2  # of each, where pictures are large
BATCH = 16  # texts, and pictures of BATCH_PIXELS; fewer of larger ones
BATCH_PIXELS = 64 * 64
FEWEST_PICTURES = 2

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Drawing:
    """What parts gave out while they drew: a denoiser's inputs, and latents, a batch each."""

    parts: tuple[Variant, ...]
    denoised: list[Arrays] = field(default_factory=list)
    latents: list[NDArray[np.float32]] = field(default_factory=list)


@dataclass
class CalibrationDrawing:
    """Draws the calibration prompts with the largest parts in fp32."""

    candidates: Candidates
    graphs: SourceGraphs
    samplers: SamplerTables
    _last: _Drawing | None = field(default=None, init=False)

    def probing(self, variant: Variant) -> Sequence[Inputs]:
        """What a part is run on again and again, to find out which layers matter.

        A decoder enlarges what it is given: of a large picture a few latent pixels are enough.
        """
        batches = self.batches(variant)
        if variant.role is Role.DECODER and self._request.is_large:
            return [middle_of(batch, PROBED_SIDE) for batch in batches]
        return batches

    @cached_property
    def _texts(self) -> list[str]:
        located = self._request.located
        return located.prompts(located.catalog.quality.calibration)[:MOST_TEXTS]

    def identity(self, variant: Variant) -> dict[str, Any]:
        reference = self.reference(variant)
        denoiser = reference.denoiser.candidate
        sampling = self._request.sampling_of(denoiser)
        return {
            "texts": self._texts,
            "pictures": [self._pictures, self._steps],
            "sampler": digest(self.samplers.of(denoiser).to_json()),
            "conditioning": self.candidates.conditioning(denoiser).model_dump(mode="json"),
            "guidance_scale": sampling.guidance_scale,
            "size": [self._request.height, self._request.width],
            "with": [self.graphs.of(v).content for v in reference.variants],
            "tokenizers": [
                self.graphs.tokenizers.content(v.candidate)
                for v in reference.variants
                if v.role.encodes_text
            ],
            "latents": asdict(self.candidates.latents(reference.decoder.candidate)),
        }

    @property
    def _request(self) -> BuildRequest:
        return self.candidates.request

    def reference(self, variant: Variant) -> Mix:
        """The mix a variant is calibrated in: the largest partners it has, all in fp32."""
        fitting = [
            parts
            for parts in self.candidates.catalog.mixable()
            if parts.names.get(variant.role) == variant.candidate
            and variant.partner in (None, parts.denoiser)
        ]
        if not fitting:
            raise CatalogError(f"{variant.full_name} fits no other part in the catalog; check it")
        largest = max(fitting, key=self._parameters)
        return in_precisions(largest, [Precision.FP32] * len(largest.names))

    def _parameters(self, parts: Mixable) -> int:
        return sum(self.candidates.parameters(*part) for part in parts.names.items())

    def batches(self, variant: Variant) -> list[Arrays]:
        """Real inputs of a variant's graph, from drawing the calibration prompts in fp32."""
        reference = self.reference(variant)
        if variant.role.encodes_text:
            return list(self._read(variant, reference))
        drawing = self._drawing(reference)
        if variant.role is Role.DENOISER:
            return drawing.denoised
        space = self.candidates.latents(reference.decoder.candidate)
        decoded = (x / space.scaling_factor + space.shift_factor for x in drawing.latents)
        return [self._cut({"latent_sample": latents}) for latents in decoded]

    def _drawing(self, reference: Mix) -> _Drawing:
        """What a mix gives out while it draws the calibration prompts; the last one is kept.

        A decoder is not run, so that mixes that differ in it alone are the same here.
        """
        parts = tuple(v for v in reference.variants if v.role is not Role.DECODER)
        if self._last is None or self._last.parts != parts:
            self._last = self._draw(reference, parts)
        return self._last

    def _draw(self, reference: Mix, parts: tuple[Variant, ...]) -> _Drawing:
        seen: list[Arrays] = []
        made = _Drawing(parts)
        pipeline = self._pipeline(reference, {}, seen.append)
        for request in self._requests(reference, self._pictures):
            seen.clear()
            made.latents.append(self._denoised(pipeline, request))
            chosen = np.linspace(0, len(seen) - 1, min(self._steps, len(seen))).round()
            made.denoised.extend(
                self._thinned(seen[int(step)], place) for place, step in enumerate(chosen)
            )
        pipeline.close()
        return made

    def _read(self, variant: Variant, reference: Mix) -> Iterator[Arrays]:
        """What a text encoder is given for the calibration prompts."""
        tokenizer = self.graphs.tokenizers.of(variant.candidate)
        conditioning = self.candidates.conditioning(reference.denoiser.candidate)
        for texts in _cut(self._texts, BATCH):
            yield encoder_inputs(tokenizer, texts, conditioning, variant.role)

    def pictures(self, variant: Variant, replaced: Mapping[Role, Path], count: int) -> Pictures:
        """The first calibration prompts through a variant's reference mix: uint8 (N, H, W, 3).

        Args:
            replaced: graphs to use in the place of the reference's.
        """
        reference = self.reference(variant)
        pipeline = self._pipeline(reference, replaced)
        drawn = [
            pipeline.decode(self._denoised(pipeline, request))
            for request in self._requests(reference, min(count, self._pictures))
        ]
        pipeline.close()
        return to_pictures(np.concatenate(drawn))

    def _cut(self, given: Arrays) -> Arrays:
        """The middle of large pictures' latents: a decoder does the same everywhere, and to watch
        all of a large picture takes gigabytes.
        """
        return dict(middle_of(given, DECODED_SIDE)) if self._request.is_large else given

    def _thinned(self, given: Arrays, place: int) -> Arrays:
        """Of a large picture one row: by turns the half without guidance, and that with it."""
        rows = len(given["sample"])
        if not self._request.is_large or rows == 1:
            return given
        row = place % 2 * (rows // 2)
        return {
            name: array[row : row + 1] if len(array) == rows else array
            for name, array in given.items()
        }

    @property
    def _steps(self) -> int:
        return FEW_STEPS if self._request.is_large else STEPS

    @property
    def _pictures(self) -> int:
        """How many are drawn: fewer of larger ones."""
        request = self._request
        return max(
            FEWEST_PICTURES, MOST_PICTURES * BATCH_PIXELS // (request.height * request.width)
        )

    def _requests(self, reference: Mix, count: int) -> list[Request]:
        """Of the first calibration prompts, picture number i from seed i."""
        request = self._request
        sampling = self._request.sampling_of(reference.denoiser.candidate)
        size = max(1, BATCH * BATCH_PIXELS // (request.height * request.width))
        found: list[Request] = []
        for first in range(0, min(count, len(self._texts)), size):
            prompts = self._texts[first : min(first + size, count)]
            found.append(
                Request(
                    prompts,
                    list(range(first, first + len(prompts))),
                    sampling.guidance_scale,
                    request.height,
                    request.width,
                    guidance_rescale=sampling.guidance_rescale,
                )
            )
        return found

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
                v.role: self.graphs.tokenizers.of(v.candidate)
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
