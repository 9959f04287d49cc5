"""Calibration inputs: the inputs of each part while the calibration prompts are drawn in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sdpack.domain.placement import Role
from sdpack.domain.workload import WORKLOAD
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.calibration_mixes import Arrays, CalibrationMixes
from sdpack.pack.variants.calibration_recordings import CalibrationRecordings
from sdpack.quantization.observe import Inputs
from sdpack.quantization.sensitivity import middle_of, spread
from sdpack.runtime.text_embeddings import encoder_inputs


@dataclass
class PartInputs:
    """Gives the inputs that each part is calibrated on."""

    mixes: CalibrationMixes
    recordings: CalibrationRecordings

    def identity(self, variant: Variant) -> dict[str, Any]:
        """The JSON values that determine the batches of a variant's graph."""
        mix = self.mixes.of(variant)
        return {
            "texts": self._texts(variant) if variant.role.encodes_text else self.mixes.texts,
            "pictures": [self.mixes.images, self.mixes.steps],
            **self._batch(variant),
            **self.mixes.inputs(mix, mix.variants),
        }

    def batches(self, variant: Variant) -> list[Arrays]:
        """Real inputs of a variant's graph, from drawing the calibration prompts in fp32."""
        mix = self.mixes.of(variant)
        if variant.role.encodes_text:
            return list(self._read(variant, mix))
        recording = self.recordings.of(mix)
        if variant.role is Role.DENOISER:
            return recording.steps
        candidates = self.mixes.candidates
        space = candidates.latents(mix.decoder.candidate)
        decoded = (space.rescaled(latents) for latents in recording.latents)
        return [self._cut({"latent_sample": latents}) for latents in decoded]

    def probing(self, variant: Variant) -> Sequence[Inputs]:
        """The batches on which the layers of a variant's graph are rounded one by one.

        A decoder upscales its input, so a few latent pixels of a large image are enough.
        """
        batches = self.batches(variant)
        if variant.role is Role.DECODER and self.mixes.is_large:
            return [middle_of(batch, WORKLOAD.probed_side) for batch in batches]
        return batches

    def _texts(self, variant: Variant) -> list[str]:
        """The calibration prompts that a text encoder is calibrated on, evenly spaced."""
        most = WORKLOAD.calibration_texts_of(*self._size(variant))
        texts = self.mixes.texts
        return spread(texts, most)

    def _batch(self, variant: Variant) -> dict[str, int]:
        """How many texts a large text encoder reads at once, which decides what is observed."""
        if not variant.role.encodes_text:
            return {}
        at_once = WORKLOAD.calibration_batch_of(*self._size(variant))
        return {} if at_once == WORKLOAD.batch else {"at_once": at_once}

    def _size(self, variant: Variant) -> tuple[int, int]:
        """The number of parameters of a text encoder, and of tokens of its texts."""
        mixes = self.mixes
        tokenizer = mixes.tokenizers.of(variant.candidate)
        return mixes.candidates.parameters(variant.role, variant.candidate), tokenizer.length

    def _read(self, variant: Variant, mix: Mix) -> Iterator[Arrays]:
        """The inputs of a text encoder for the calibration prompts."""
        mixes = self.mixes
        tokenizer = mixes.tokenizers.of(variant.candidate)
        conditioning = mixes.candidates.conditioning(mix.denoiser.candidate)
        at_once = WORKLOAD.calibration_batch_of(*self._size(variant))
        for texts in _cut(self._texts(variant), at_once):
            yield encoder_inputs(tokenizer, texts, conditioning, variant.role)

    def _cut(self, inputs: Arrays) -> Arrays:
        """The middle of the latents of large images.

        A decoder treats every place alike, and the activations of a large image take gigabytes.
        """
        return dict(middle_of(inputs, WORKLOAD.calibrated_side)) if self.mixes.is_large else inputs


def _cut(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]
