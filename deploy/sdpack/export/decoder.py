"""Image decoders: from latents to an image in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import torch
from optimum.utils.input_generators import DummyVisionInputGenerator
from optimum.utils.normalized_config import NormalizedConfig
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from sdpack.errors import ExportError
from sdpack.export.frame_decoder import FrameDecoder
from sdpack.export.graph import Shape, unit_variance
from sdpack.export.latents import FLUX2_PATCH, enlargement, latent_channels
from sdpack.export.linear_attention import attend_linearly

TRIED_LATENTS = (2, 3)  # rows and columns of latents decoded to measure the enlargement


class _Decoder(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent_sample: Tensor) -> Tensor:
        decoded: Tensor = cast(Any, self.model).decode(latent_sample, return_dict=False)[0]
        return decoded


class _Flux2Decoder(_Decoder):
    """Undoes the normalization of latents, and takes them apart into patches of 2x2."""

    def forward(self, latent_sample: Tensor) -> Tensor:
        model = cast(Any, self.model)
        norm = model.bn
        spread = torch.sqrt(norm.running_var + model.config.batch_norm_eps)
        latents = latent_sample * spread.view(1, -1, 1, 1) + norm.running_mean.view(1, -1, 1, 1)
        return super().forward(pixel_shuffle(latents, FLUX2_PATCH))


class _DeepDecoder(_Decoder):
    """The decoder of SANA's autoencoder."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        attend_linearly(model)


DECODERS: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    "AutoencoderKLFlux2": _Flux2Decoder,
    "AutoencoderDC": _DeepDecoder,
    "AutoencoderKLQwenImage": FrameDecoder,
}


class DecoderPart:
    """latent_sample float32 (batch, C, height, width) to sample (batch, 3, s height, s width).

    s is the enlargement that follows from the config.

    Raises:
        ExportError: the model's enlargement differs from its config's.
    """

    outputs = ("sample",)
    dynamic: Mapping[str, Mapping[int, str]] = {
        "latent_sample": {0: "batch", 2: "height", 3: "width"}
    }

    def __init__(self, model: nn.Module) -> None:
        name, config = type(model).__name__, cast("Mapping[str, Any]", model.config)
        self.module = DECODERS.get(name, _Decoder)(model).eval()
        self._channels = latent_channels(name, config)
        self._check_enlargement(enlargement(name, config))

    def _check_enlargement(self, times: int) -> None:
        with torch.no_grad():
            made = self.module(torch.zeros(1, self._channels, *TRIED_LATENTS))
        wanted = tuple(times * side for side in TRIED_LATENTS)
        if tuple(made.shape[-2:]) != wanted:
            raise ExportError(
                f"the decoder turns {TRIED_LATENTS[0]}x{TRIED_LATENTS[1]} latents into "
                f"{made.shape[-2]}x{made.shape[-1]} pixels, but its config says "
                f"{wanted[0]}x{wanted[1]}; restore its config"
            )

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        config = NormalizedConfig(
            SimpleNamespace(num_channels=self._channels, image_size=(shape.height, shape.width))
        )
        generator = DummyVisionInputGenerator(
            "semantic-segmentation", config, batch_size=shape.batch
        )
        return {"latent_sample": unit_variance(generator.generate("latent_sample"))}
