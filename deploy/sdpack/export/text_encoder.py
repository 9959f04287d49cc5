"""Text encoders: token ids to what a denoiser attends to, a bridge fused in where one is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optimum.utils.input_generators import DummyTextInputGenerator
from optimum.utils.normalized_config import NormalizedTextConfig
from torch import Tensor, nn

from sdpack.export.bridge import Bridge
from sdpack.export.graph import Shape


class _Encoder(nn.Module):
    def __init__(self, model: nn.Module, bridge: Bridge | None) -> None:
        super().__init__()
        self.model = model
        self.bridge = bridge

    def forward(self, input_ids: Tensor) -> Tensor:
        states: Tensor = self.model(input_ids=input_ids).last_hidden_state
        return states if self.bridge is None else self.bridge(states)


class TextEncoderPart:
    """input_ids int64 (batch, T) to last_hidden_state float32 (batch, T, width).

    T is the encoder's own longest text: prompts are padded to it.
    """

    output = "last_hidden_state"
    dynamic: Mapping[str, Mapping[int, str]] = {"input_ids": {0: "batch"}}

    def __init__(self, model: nn.Module, bridge: Bridge | None) -> None:
        self.module = _Encoder(model, bridge).eval()
        self._config: Any = model.config

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        config = NormalizedTextConfig(self._config)
        generator = DummyTextInputGenerator(
            "feature-extraction",
            config,
            batch_size=shape.batch,
            sequence_length=self._config.max_position_embeddings,
        )
        return {"input_ids": generator.generate("input_ids", framework="pt")}
