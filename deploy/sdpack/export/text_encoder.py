"""Text encoders: from token ids to a denoiser's conditioning, with a bridge fused in if needed."""

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
from sdpack.export.layers_read import cut, layers_read
from sdpack.runtime.text_embeddings import ATTENTION_MASK, IDS, POOLED, STATES

PLAIN_OUTPUTS = EncoderOutputs()
HIDDEN = (States.PENULTIMATE, States.SEVERAL)
CHECKED_TOKENS = 24  # of a text where the encoder reads texts of any length


class _Encoder(nn.Module):
    """An encoder that returns only the outputs that a family uses."""

    def __init__(
        self,
        model: nn.Module,
        encoder_outputs: EncoderOutputs,
        bridge: BridgeModule | None,
        skip: int,
        is_cut: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.skip = skip
        self.is_cut = is_cut
        self.encoder_outputs = encoder_outputs
        self.bridge = bridge

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        model = cast(Any, self.model)
        last = self.encoder_outputs.states is States.PENULTIMATE and self.is_cut
        hidden = self.encoder_outputs.states in HIDDEN and not last
        result = model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=hidden
        )
        outputs: list[Tensor] = []
        if self.encoder_outputs.states is not States.NONE:
            states = self._states(result)
            outputs.append(states if self.bridge is None else self.bridge(states))
        if self.encoder_outputs.pooled:
            outputs.append(result.text_embeds if "text_embeds" in result else result.pooler_output)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _states(self, result: Any) -> Tensor:
        match self.encoder_outputs.states:
            case States.PENULTIMATE if self.is_cut:
                states = result.last_hidden_state
            case States.PENULTIMATE:
                states = result.hidden_states[-2 - self.skip]
            case States.SEVERAL:
                of_layers = [result.hidden_states[layer] for layer in self.encoder_outputs.layers]
                states = torch.cat(of_layers, dim=-1)
            case _:
                states = result.last_hidden_state
        return cast(Tensor, states)


class TextEncoderPart:
    """A text encoder ready for export, without layers that are not read; it modifies the model.

    Inputs are input_ids int64 (batch, T) and, if `encoder_outputs.masked`, attention_mask int64
    (batch, T). Outputs, as `encoder_outputs` selects, are last_hidden_state float32 (batch, T,
    width) and text_embeds float32 (batch, width).

    Args:
        model: a text encoder of transformers.
        bridge: projection of the hidden states, if any.
        encoder_outputs: the outputs that the family uses.
        tokens: T, the number of tokens that prompts are padded to; by default the model's limit.
        clip_skip: number of last layers whose hidden states are skipped. Without a pooled output
            these layers are removed from the model.

    Raises:
        CatalogError: the model has too few layers for `clip_skip`.
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
        layers = layers_read(encoder_outputs, clip_skip, vars(self._config))
        is_cut = layers is not None and cut(model, layers)
        if not is_cut and not encoder_outputs.pooled:
            _skip_last(model, clip_skip)
        skipped = clip_skip if encoder_outputs.pooled else 0
        module = _Encoder(model, encoder_outputs, bridge, skipped, is_cut)
        self.module = module.eval()
        named = (
            (STATES, encoder_outputs.states is not States.NONE),
            (POOLED, encoder_outputs.pooled),
        )
        self.outputs = tuple(name for name, is_used in named if is_used)
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
        tensors: dict[str, Tensor] = {IDS: generator.generate(IDS, framework="pt")}
        if self._masked:
            lengths = torch.randint(1, self._tokens + 1, (shape.batch, 1))
            tensors[ATTENTION_MASK] = (torch.arange(self._tokens).unsqueeze(0) < lengths).long()
        return tensors


def _check_layers(model: nn.Module, count: int) -> None:
    """Check that a model is a CLIP with more than `count` layers.

    Raises:
        CatalogError: it is not.
    """
    config: Any = model.config
    # Its last layers may have been left out when it was loaded; the config still counts them.
    layers = config.num_hidden_layers if len(_layers(model)) else 0
    if count and count >= layers:
        raise CatalogError(
            f"clip_skip {count}: {type(model).__name__} has too few layers to skip; lower it"
        )


def _skip_last(model: nn.Module, count: int) -> None:
    """Remove a CLIP's last layers and their weights."""
    if count:
        layers = _layers(model)
        _encoder(model).layers = layers[: len(layers) - count]


def _encoder(model: nn.Module) -> Any:
    return getattr(getattr(model, "text_model", model), "encoder", None)


def _layers(model: nn.Module) -> nn.ModuleList:
    layers = getattr(_encoder(model), "layers", None)
    return layers if isinstance(layers, nn.ModuleList) else nn.ModuleList()
