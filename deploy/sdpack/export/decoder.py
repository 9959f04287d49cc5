"""Image decoders: latents to a picture in [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from optimum.utils.input_generators import DummyVisionInputGenerator
from optimum.utils.normalized_config import NormalizedConfig
from torch import Tensor, nn

from sdpack.export.graph import Shape, unit_variance


class _Decoder(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent_sample: Tensor) -> Tensor:
        decoded: Tensor = cast(Any, self.model).decode(latent_sample, return_dict=False)[0]
        return decoded


class DecoderPart:
    """latent_sample float32 (batch, C, height, width) to sample (batch, 3, 8 height, 8 width)."""

    outputs = ("sample",)
    dynamic: Mapping[str, Mapping[int, str]] = {
        "latent_sample": {0: "batch", 2: "height", 3: "width"}
    }

    def __init__(self, model: nn.Module) -> None:
        self.module = _Decoder(model).eval()
        self._config: Any = model.config

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        config = NormalizedConfig(
            SimpleNamespace(
                num_channels=self._config.latent_channels, image_size=(shape.height, shape.width)
            )
        )
        generator = DummyVisionInputGenerator(
            "semantic-segmentation", config, batch_size=shape.batch
        )
        return {"latent_sample": unit_variance(generator.generate("latent_sample"))}
