"""Images of one mix of the zoo, with some of its graphs replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sdpack.domain.arrays import Float32Array, Float64Array
from sdpack.domain.placement import Role
from sdpack.engines.onnxruntime import load
from sdpack.evaluate.metrics import similarity
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.toolchain import Toolchain
from sdpack.runtime.pipeline import Pipeline, Request, to_pictures

BATCH = 16


@dataclass(frozen=True)
class Drawn:
    """Images of the prompts in turn, repeated as often as needed; image i has seed i.

    Attributes:
        latents: float32 (N, C, H, W), the input of the decoder.
        pictures: uint8 (N, H, W, 3).
        scores: judge similarity, (N,).
    """

    latents: Float32Array
    pictures: NDArray[np.uint8]
    scores: Float64Array

    def latent_psnr(self, of: Drawn) -> Float64Array:
        """Return the PSNR of each image's latents in dB, for a peak of the range of `of`'s."""
        return _psnr(self.latents, of.latents, float(np.ptp(of.latents)))

    def picture_psnr(self, of: Drawn) -> Float64Array:
        """Return the PSNR of each image in dB."""
        return _psnr(self.pictures, of.pictures, 255.0)


def _psnr(values: NDArray[np.generic], wanted: NDArray[np.generic], peak: float) -> Float64Array:
    squares = (values.astype(np.float64) - wanted.astype(np.float64)) ** 2
    # Equal values count as a thousandth of the error of rounding to 8 bits.
    least = (peak / 255) ** 2 / 12 / 1000
    mean_squares = np.maximum(squares.mean(axis=(1, 2, 3)), least)
    decibels: Float64Array = 10 * np.log10(peak**2 / mean_squares)
    return decibels


@dataclass
class MixDrawing:
    """Draws images with the fp32 graphs of a mix, some of which can be replaced."""

    toolchain: Toolchain
    mix: Mix

    @cached_property
    def _evaluator(self) -> MixEvaluator:
        return MixEvaluator(self.toolchain, [self.mix], [])

    @property
    def prompts(self) -> list[str]:
        """Return the catalog's evaluation prompts."""
        return self._evaluator.prompts

    def draw(self, replaced: Mapping[Role, Path], count: int) -> Drawn:
        """Draw this number of images."""
        prompts, pipeline = self.prompts, self._pipeline(replaced)
        context = self.toolchain.context
        request, catalog = context.request, context.catalog
        guidance_scale = catalog.sampling.guidance_scale
        latents, pictures, texts = [], [], []
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            batch_prompts = [prompts[n % len(prompts)] for n in numbers]
            batch = Request(
                batch_prompts, list(numbers), guidance_scale, request.height, request.width
            )
            latents.append(pipeline.denoise(batch, *pipeline.texts(batch)))
            pictures.append(to_pictures(pipeline.decode(latents[-1])))
            texts += batch_prompts
        pipeline.close()
        images = np.concatenate(pictures)
        judging = self._evaluator.judging
        panel = judging.panel
        features = panel.features(torch.from_numpy(images))
        scores = np.asarray(similarity(panel, panel.embed_features(features), texts))
        return Drawn(np.concatenate(latents), images, scores)

    def _pipeline(self, replaced: Mapping[Role, Path]) -> Pipeline:
        toolchain, mix = self.toolchain, self.mix
        encoder, denoiser, decoder = mix.text_encoder, mix.denoiser, mix.decoder
        sources = toolchain.sources
        paths = {**{v.role: sources.path(v) for v in mix.variants}, **replaced}
        return Pipeline(
            {role: partial(load, paths[role]) for role in paths},
            {Role.TEXT_ENCODER: toolchain.tokenizers.of(encoder.candidate)},
            lambda _: toolchain.samplers.of(denoiser.candidate),
            toolchain.candidates.latents(decoder.candidate),
        )
