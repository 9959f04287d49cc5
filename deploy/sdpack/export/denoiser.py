"""Denoisers: noisy latents, timestep and text states to the model's prediction."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from optimum.utils.input_generators import (
    DummySeq2SeqDecoderTextInputGenerator,
    DummyTimestepInputGenerator,
    DummyVisionInputGenerator,
)
from optimum.utils.normalized_config import NormalizedConfig
from torch import Tensor, nn

from sdpack.export.graph import Shape, unit_variance

TIMESTEPS = 1000
TOKENS = 24


class _UNet(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        output: Tensor = self.model(sample, timestep, encoder_hidden_states, return_dict=False)[0]
        return output


class UNetPart:
    """UNet2DConditionModel as Stable Diffusion runs it.

    sample float32 (batch, C, height, width), timestep float32 (1,), encoder_hidden_states
    float32 (batch, T, width) to out_sample float32 (batch, C, height, width).
    """

    output = "out_sample"
    dynamic: Mapping[str, Mapping[int, str]] = {
        "sample": {0: "batch", 2: "height", 3: "width"},
        "timestep": {},
        "encoder_hidden_states": {0: "batch", 1: "sequence"},
    }

    def __init__(self, model: nn.Module) -> None:
        self.module = _UNet(model).eval()
        self._config: Any = model.config

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        config = NormalizedConfig(
            SimpleNamespace(
                num_channels=self._config.in_channels,
                image_size=(shape.height, shape.width),
                hidden_size=self._config.cross_attention_dim,
                vocab_size=TIMESTEPS,
            )
        )
        made = {"task": "semantic-segmentation", "normalized_config": config}
        vision = DummyVisionInputGenerator(**made, batch_size=shape.batch)
        time = DummyTimestepInputGenerator(**made)
        text = DummySeq2SeqDecoderTextInputGenerator(
            **made, batch_size=shape.batch, sequence_length=TOKENS
        )
        return {
            "sample": unit_variance(vision.generate("sample")),
            "timestep": time.generate("timestep").reshape(1),
            "encoder_hidden_states": unit_variance(text.generate("encoder_hidden_states")[0]),
        }
