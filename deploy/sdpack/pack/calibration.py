"""Calibration: what flows through a part's graph while the calibration prompts are drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.artifacts import Artifact, digest
from sdpack.engines import onnxruntime
from sdpack.errors import CatalogError
from sdpack.onnx_file import MODEL_FILE
from sdpack.pack.mix import Variant
from sdpack.pack.sources import REVISION, Sources, part_words, versions, words
from sdpack.placement import Role
from sdpack.precision import Precision
from sdpack.quantize.observe import Observed, observe, read_observed
from sdpack.quantize.sensitivity import PROBING, found_gains
from sdpack.runtime.pipeline import Pictures, Pipeline, Request, to_pictures

OBSERVERS = ("onnx-ir", "onnxruntime", "numpy")
MOST_TEXTS = 512
MOST_PICTURES = 64
STEPS = 6  # of each picture's, evenly spaced
BATCH = 16
GAINS = "gains.json"

Arrays = dict[str, NDArray[Any]]
Part = tuple[Role, str, str | None]  # of which candidate, for which partner


@dataclass
class Calibration:
    """Sees what flows through the graphs of one order."""

    sources: Sources
    _last: tuple[Part, list[Arrays]] | None = field(default=None, init=False)

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
            "revision": REVISION,
        }

        def build(folder: Any) -> None:
            self.sources.say(f"calibrating {words(variant)}")
            observe(source.path(MODEL_FILE), self.batches(variant), folder)

        return self.sources.store.make("activations", inputs, build)

    def gains(self, variant: Variant) -> dict[str, float]:
        """What share of its layers' errors comes out of a variant's part (`found_gains`)."""
        path = self.sources.graph(variant).path(MODEL_FILE)
        inputs = {
            "graph": self.sources.graph(variant).content,
            "observed": self.content(variant),
            "probing": PROBING,
            "tools": versions((*OBSERVERS, "scipy")),
            "revision": REVISION,
        }

        def build(folder: Path) -> None:
            self.sources.say(f"finding which layers of {part_words(variant)} matter")
            with self.sources.store.scratch() as scratch:
                found = found_gains(path, self.observed(variant), self.batches(variant), scratch)
            (folder / GAINS).write_text(json.dumps(found, indent=1))

        made = self.sources.store.make("gains", inputs, build)
        return dict(json.loads(made.path(GAINS).read_text()))

    @cached_property
    def _texts(self) -> list[str]:
        located = self.sources.located
        return located.prompts(located.catalog.quality.calibration)[:MOST_TEXTS]

    def _inputs(self, variant: Variant) -> dict[str, Any]:
        reference, sources = self.reference(variant), self.sources
        return {
            "texts": self._texts,
            "pictures": [MOST_PICTURES, STEPS],
            "sampler": digest(sources.sampler.to_json()),
            "guidance_scale": sources.located.catalog.sampling.guidance_scale,
            "size": [sources.order.height, sources.order.width],
            "with": [sources.graph(v).content for v in reference],
            "tokenizer": sources.tokenizer_content(reference[0].candidate),
            "latents": asdict(sources.latents(reference[2].candidate)),
        }

    def reference(self, variant: Variant) -> tuple[Variant, Variant, Variant]:
        """The mix a variant is calibrated in: the largest partners it has, all in fp32."""
        fitting = [
            parts
            for parts in self.sources.located.catalog.mixable()
            if getattr(parts, variant.role.value) == variant.candidate
            and variant.partner in (None, parts.denoiser)
        ]
        if not fitting:
            raise CatalogError(f"{words(variant)} fits nothing else in the catalog")
        parts = max(fitting, key=lambda p: sum(self._parameters(r, p) for r in Role))
        partner = parts.denoiser if parts.bridge is not None else None
        return (
            Variant(Role.TEXT_ENCODER, parts.text_encoder, Precision.FP32, partner),
            Variant(Role.DENOISER, parts.denoiser, Precision.FP32),
            Variant(Role.DECODER, parts.decoder, Precision.FP32),
        )

    def _parameters(self, role: Role, parts: Any) -> int:
        return self.sources.checkpoint(role, getattr(parts, role.value)).parameters

    def batches(self, variant: Variant) -> list[Arrays]:
        """Real inputs of a variant's graph, from drawing the calibration prompts in fp32.

        Those asked for last are kept.
        """
        asked = (variant.role, variant.candidate, variant.partner)
        if self._last is None or self._last[0] != asked:
            self._last = (asked, self._drawn(variant))
        return self._last[1]

    def _drawn(self, variant: Variant) -> list[Arrays]:
        reference = self.reference(variant)
        tokenizer = self.sources.tokenizer(reference[0].candidate)
        if variant.role is Role.TEXT_ENCODER:
            return [{"input_ids": tokenizer.ids(texts)} for texts in _cut(self._texts)]
        seen: list[Arrays] = []
        made: list[Arrays] = []
        space = self.sources.latents(reference[2].candidate)
        pipeline = self._pipeline(reference, {}, seen.append)
        for request in self._requests(MOST_PICTURES):
            seen.clear()
            latents = self._denoised(pipeline, request)
            if variant.role is Role.DECODER:
                made.append({"latent_sample": latents / space.scaling_factor + space.shift_factor})
            else:
                chosen = np.linspace(0, len(seen) - 1, min(STEPS, len(seen))).round()
                made += [seen[int(step)] for step in chosen]
        pipeline.close()
        return made

    def pictures(self, variant: Variant, replaced: Mapping[Role, Path], count: int) -> Pictures:
        """The first calibration prompts through a variant's reference mix: uint8 (N, H, W, 3).

        Args:
            replaced: graphs to use in the place of the reference's.
        """
        pipeline = self._pipeline(self.reference(variant), replaced)
        drawn = [
            pipeline.decode(self._denoised(pipeline, request)) for request in self._requests(count)
        ]
        pipeline.close()
        return to_pictures(np.concatenate(drawn))

    def _requests(self, count: int) -> list[Request]:
        """Of the first calibration prompts, picture number i from seed i."""
        order, sampling = self.sources.order, self.sources.located.catalog.sampling
        found: list[Request] = []
        for prompts in _cut(self._texts[:count]):
            first = len(found) * BATCH
            seeds = list(range(first, first + len(prompts)))
            found.append(
                Request(prompts, seeds, sampling.guidance_scale, order.height, order.width)
            )
        return found

    def _denoised(self, pipeline: Pipeline, request: Request) -> NDArray[np.float32]:
        states = pipeline.encode(request.prompts)
        empty = pipeline.encode([request.negative_prompt])
        return pipeline.denoise(request, states, empty if request.guided else None)

    def _pipeline(
        self,
        reference: tuple[Variant, Variant, Variant],
        replaced: Mapping[Role, Path],
        observe: Callable[[Arrays], None] | None = None,
    ) -> Pipeline:
        paths = {v.role: self.sources.graph(v).path(MODEL_FILE) for v in reference}
        opened = {**paths, **replaced}
        return Pipeline(
            {role: partial(onnxruntime.load, opened[role], emulate=True) for role in Role},
            self.sources.tokenizer(reference[0].candidate),
            self.sources.sampler,
            self.sources.latents(reference[2].candidate),
            observe=observe,
        )


def _cut(texts: list[str]) -> list[list[str]]:
    return [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
