"""Text encoders: token ids to what a denoiser attends to, a bridge fused in where one is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from optimum.utils.input_generators import DummyTextInputGenerator
from optimum.utils.normalized_config import NormalizedTextConfig
from torch import Tensor, nn

from sdpack.documents.conditioning import EncoderOutputs, States
from sdpack.errors import CatalogError
from sdpack.export.bridge import BridgeModule
from sdpack.export.graph import Shape
from sdpack.runtime.text_embeddings import ATTENTION_MASK, IDS, POOLED, STATES

PLAIN_OUTPUTS = EncoderOutputs()
CHECKED_TOKENS = 24  # of a text where the encoder reads texts of any length


class _Encoder(nn.Module):
    """What is asked of an encoder, and nothing that was not asked for."""

    def __init__(
        self,
        model: nn.Module,
        encoder_outputs: EncoderOutputs,
        bridge: BridgeModule | None,
        skip: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.skip = skip
        self.encoder_outputs = encoder_outputs
        self.bridge = bridge

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        model = cast(Any, self.model)
        hidden = self.encoder_outputs.states is States.PENULTIMATE
        said = model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=hidden
        )
        found: list[Tensor] = []
        if self.encoder_outputs.states is not States.NONE:
            states = said.hidden_states[-2 - self.skip] if hidden else said.last_hidden_state
            found.append(states if self.bridge is None else self.bridge(states))
        if self.encoder_outputs.pooled:
            found.append(said.text_embeds if "text_embeds" in said else said.pooler_output)
        return found[0] if len(found) == 1 else tuple(found)


class TextEncoderPart:
    """input_ids int64 (batch, T), and where it is asked for attention_mask int64 (batch, T).

    Gives last_hidden_state float32 (batch, T, width), which is what the denoiser attends to, and
    text_embeds float32 (batch, width), as its voice has it. T is what prompts are padded to.

    Args:
        tokens: T.
        clip_skip: so many of the last layers have no part in the states; where they have none in
            a pooled text either they are left out, and the model is changed.
    """

    def __init__(
        self,
        model: nn.Module,
        bridge: BridgeModule | None,
        encoder_outputs: EncoderOutputs = PLAIN_OUTPUTS,
        tokens: int | None = None,
        clip_skip: int = 0,
    ) -> None:
        self._config: Any = model.config
        self._masked = encoder_outputs.masked
        longest = getattr(self._config, "max_position_embeddings", None)
        self._tokens = int(tokens or longest or CHECKED_TOKENS)
        _check_layers(model, clip_skip)
        if not encoder_outputs.pooled:
            _skip_last(model, clip_skip)
        skipped = clip_skip if encoder_outputs.pooled else 0
        self.module = _Encoder(model, encoder_outputs, bridge, skipped).eval()
        named = (
            (STATES, encoder_outputs.states is not States.NONE),
            (POOLED, encoder_outputs.pooled),
        )
        self.outputs = tuple(name for name, asked in named if asked)
        read = (IDS, ATTENTION_MASK) if encoder_outputs.masked else (IDS,)
        self.dynamic: Mapping[str, Mapping[int, str]] = {name: {0: "batch"} for name in read}

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        config = NormalizedTextConfig(self._config)
        generator = DummyTextInputGenerator(
            "feature-extraction",
            config,
            batch_size=shape.batch,
            sequence_length=self._tokens,
        )
        made: dict[str, Tensor] = {IDS: generator.generate(IDS, framework="pt")}
        if self._masked:
            lengths = torch.randint(1, self._tokens + 1, (shape.batch, 1))
            made[ATTENTION_MASK] = (torch.arange(self._tokens).unsqueeze(0) < lengths).long()
        return made


def _check_layers(model: nn.Module, count: int) -> None:
    """See that a model is a CLIP with more layers than so many.

    Raises:
        CatalogError: it is not.
    """
    if count and count >= len(_layers(model)):
        raise CatalogError(
            f"clip_skip {count}: {type(model).__name__} has too few layers to skip; lower it"
        )


def _skip_last(model: nn.Module, count: int) -> None:
    """Leave out a CLIP's last layers, their weights with them."""
    if count:
        found = _layers(model)
        _encoder(model).layers = found[: len(found) - count]


def _encoder(model: nn.Module) -> Any:
    return getattr(getattr(model, "text_model", model), "encoder", None)


def _layers(model: nn.Module) -> nn.ModuleList:
    found = getattr(_encoder(model), "layers", None)
    return found if isinstance(found, nn.ModuleList) else nn.ModuleList()
