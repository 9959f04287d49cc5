"""Calibration: what flows through a part's graph while the calibration prompts are drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.documents.catalog import Mixable
from sdpack.domain.arrays import Float32Array
from sdpack.domain.picture_scaling import SCALING
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.engines import onnxruntime
from sdpack.errors import CatalogError
from sdpack.pack.planning.mix import Mix, Variant, in_precisions
from sdpack.pack.variants.source_graphs import (
    REVISION,
    SourceGraphs,
    fused_attention_graph,
    part_words,
    versions,
    words,
)
from sdpack.progress import counted
from sdpack.quantization.layers import LAYERS_REVISION
from sdpack.quantization.observe import Inputs, Observed, observe, read_observed
from sdpack.quantization.sensitivity import PROBING, found_gains, middle_of
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.runtime.pipeline import Pictures, Pipeline, Request, to_pictures
from sdpack.runtime.text_embeddings import encoder_inputs
from sdpack.store.artifacts import Artifact, digest

OBSERVERS = ("onnx-ir", "onnxruntime", "numpy")
MOST_TEXTS = 512
GAINS = "gains.json"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Drawing:
    """What parts gave out while they drew: a denoiser's inputs, and latents, a batch each."""

    parts: tuple[Variant, ...]
    denoised: list[Arrays] = field(default_factory=list)
    latents: list[Float32Array] = field(default_factory=list)


@dataclass
class Calibration:
    """Sees what flows through the graphs of a request."""

    sources: SourceGraphs
    _last: _Drawing | None = field(default=None, init=False)

    def observed(self, variant: Variant) -> Observed:
        """What flows through the graph of a variant's candidate on real inputs."""
        return read_observed(self._artifact(variant).folder)

    def content(self, variant: Variant) -> str:
        """One hash of what was observed."""
        return self._artifact(variant).content

    def _artifact(self, variant: Variant) -> Artifact:
        source = self.sources.graph(variant)
        inputs = {
            "graph": source.content,
            "calibration": self._inputs(variant),
            "tools": versions(OBSERVERS),
            "revision": [REVISION, LAYERS_REVISION],
        }

        def build(folder: Any) -> None:
            doing = f"calibrating {part_words(variant)}"
            self.sources.say(doing)
            batches = self.batches(variant)
            self.sources.make_room(variant)
            step = counted(self.sources.say, doing)
            observe(self._watched(source), batches, folder, step=step)

        return self.sources.store.make("activations", inputs, build)

    def _watched(self, graph: Artifact) -> Path:
        """What is watched in a graph's place.

        The scores of all pairs of a large picture's tokens are too many to look at; what computes
        attention as one operator holds them in fp32.
        """
        return (
            fused_attention_graph(graph)
            if self.sources.request.is_large
            else graph.path(MODEL_FILE)
        )

    def gains(self, variant: Variant) -> dict[str, float]:
        """What share of its layers' errors comes out of a variant's part (`found_gains`)."""
        path = self._watched(self.sources.graph(variant))
        inputs = {
            "graph": self.sources.graph(variant).content,
            "observed": self.content(variant),
            "probing": {
                **PROBING,
                "decoded": SCALING.probed_side if self.sources.request.is_large else 0,
            },
            "tools": versions(OBSERVERS),
            "revision": [REVISION, LAYERS_REVISION],
        }

        def build(folder: Path) -> None:
            doing = f"measuring the sensitivity of the layers of {part_words(variant)}"
            self.sources.say(doing)
            self.sources.make_room(variant)
            observed, probed = self.observed(variant), self._probed(variant)
            with self.sources.store.scratch() as scratch:
                step = counted(self.sources.say, doing)
                found = found_gains(path, observed, probed, scratch, step)
            (folder / GAINS).write_text(json.dumps(found, indent=1))

        made = self.sources.store.make("gains", inputs, build)
        return dict(json.loads(made.path(GAINS).read_text()))

    def _probed(self, variant: Variant) -> Sequence[Inputs]:
        """What a part is run on again and again, to find out which layers matter.

        A decoder enlarges what it is given: of a large picture a few latent pixels are enough.
        """
        batches = self.batches(variant)
        if variant.role is Role.DECODER and self.sources.request.is_large:
            return [middle_of(batch, SCALING.probed_side) for batch in batches]
        return batches

    @cached_property
    def _texts(self) -> list[str]:
        located = self.sources.located
        return located.prompts(located.catalog.quality.calibration)[:MOST_TEXTS]

    def _inputs(self, variant: Variant) -> dict[str, Any]:
        reference, sources = self.reference(variant), self.sources
        denoiser = reference.denoiser.candidate
        sampling = sources.request.sampling_of(denoiser)
        return {
            "texts": self._texts,
            "pictures": [self._pictures, self._steps],
            "sampler": digest(sources.sampler(denoiser).to_json()),
            "conditioning": sources.request.conditioning(denoiser).model_dump(mode="json"),
            "guidance_scale": sampling.guidance_scale,
            "size": [sources.request.height, sources.request.width],
            "with": [sources.graph(v).content for v in reference.variants],
            "tokenizers": [
                sources.tokenizer_content(v.candidate)
                for v in reference.variants
                if v.role.encodes_text
            ],
            "latents": asdict(sources.latents(reference.decoder.candidate)),
        }

    def reference(self, variant: Variant) -> Mix:
        """The mix a variant is calibrated in: the largest partners it has, all in fp32."""
        fitting = [
            parts
            for parts in self.sources.catalog.mixable()
            if parts.names.get(variant.role) == variant.candidate
            and variant.partner in (None, parts.denoiser)
        ]
        if not fitting:
            raise CatalogError(f"{words(variant)} fits no other part in the catalog; check it")
        largest = max(fitting, key=self._parameters)
        return in_precisions(largest, [Precision.FP32] * len(largest.names))

    def _parameters(self, parts: Mixable) -> int:
        return sum(self.sources.checkpoint(*part).parameters for part in parts.names.items())

    def batches(self, variant: Variant) -> list[Arrays]:
        """Real inputs of a variant's graph, from drawing the calibration prompts in fp32."""
        reference = self.reference(variant)
        if variant.role.encodes_text:
            return list(self._read(variant, reference))
        drawing = self._drawing(reference)
        if variant.role is Role.DENOISER:
            return drawing.denoised
        space = self.sources.latents(reference.decoder.candidate)
        decoded = map(space.rescaled, drawing.latents)
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
        tokenizer = self.sources.tokenizer(variant.candidate)
        conditioning = self.sources.request.conditioning(reference.denoiser.candidate)
        for texts in _cut(self._texts, SCALING.batch):
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
        return (
            dict(middle_of(given, SCALING.calibrated_side))
            if self.sources.request.is_large
            else given
        )

    def _thinned(self, given: Arrays, place: int) -> Arrays:
        """Of a large picture one row: by turns the half without guidance, and that with it."""
        rows = len(given["sample"])
        if not self.sources.request.is_large or rows == 1:
            return given
        row = place % 2 * (rows // 2)
        return {
            name: array[row : row + 1] if len(array) == rows else array
            for name, array in given.items()
        }

    @property
    def _steps(self) -> int:
        large = self.sources.request.is_large
        return SCALING.large_calibration_steps if large else SCALING.calibration_steps

    @property
    def _pictures(self) -> int:
        """How many are drawn: fewer of larger ones."""
        request = self.sources.request
        return SCALING.calibration_pictures_of(request.height, request.width)

    def _requests(self, reference: Mix, count: int) -> list[Request]:
        """Of the first calibration prompts, picture number i from seed i."""
        request = self.sources.request
        sampling = self.sources.request.sampling_of(reference.denoiser.candidate)
        size = SCALING.batch_of(request.height, request.width)
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

    def _denoised(self, pipeline: Pipeline, request: Request) -> Float32Array:
        return pipeline.denoise(request, *pipeline.texts(request))

    def _pipeline(
        self,
        reference: Mix,
        replaced: Mapping[Role, Path],
        observe: Callable[[Arrays], None] | None = None,
    ) -> Pipeline:
        sources, denoiser = self.sources, reference.denoiser.candidate
        paths = {v.role: fused_attention_graph(sources.graph(v)) for v in reference.variants}
        opened = {**paths, **replaced}
        return Pipeline(
            {role: partial(onnxruntime.load, opened[role], emulate=True) for role in opened},
            {
                v.role: sources.tokenizer(v.candidate)
                for v in reference.variants
                if v.role.encodes_text
            },
            lambda _: sources.sampler(denoiser),
            sources.latents(reference.decoder.candidate),
            conditioning=sources.request.conditioning(denoiser),
            observe=observe,
        )


def _cut(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]
