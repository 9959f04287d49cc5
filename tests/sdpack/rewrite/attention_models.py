"""Classes of diffusers and transformers with attention, tiny, random and exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

WORDS = 12  # in a text of CLIP
PICTURE = {0: "batch", 2: "height", 3: "width"}
TEXT = {0: "batch", 1: "sequence"}


class Told(nn.Module):
    """A model called with fixed arguments besides its inputs; one tensor comes out."""

    def __init__(self, model: nn.Module, pick: Callable[[Any], Tensor], **fixed: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.pick, self.fixed = pick, fixed

    def run(self, **inputs: Tensor) -> Tensor:
        return self.pick(self.model(**inputs, **self.fixed))


class OfIds(Told):
    def forward(self, input_ids: Tensor) -> Tensor:
        return self.run(input_ids=input_ids)


class OfMaskedIds(Told):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.run(input_ids=input_ids, attention_mask=attention_mask)


class OfLatents(Told):
    def forward(self, latent_sample: Tensor) -> Tensor:
        picture: Tensor = self.model.decode(latent_sample).sample
        return picture


class OfNoise(Told):
    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        given = {"timestep": timestep, "encoder_hidden_states": encoder_hidden_states}
        return self.run(sample=sample, **given)


class OfPooledText(Told):
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
    ) -> Tensor:
        return self.run(
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
        )


class OfPlacedTokens(Told):
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        txt_ids: Tensor,
        img_ids: Tensor,
    ) -> Tensor:
        return self.run(
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            txt_ids=txt_ids,
            img_ids=img_ids,
        )


class OfMaskedText(Told):
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
    ) -> Tensor:
        return self.run(
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
        )


def first(output: Any) -> Tensor:
    tensor: Tensor = output[0]
    return tensor


CLIP = CLIPTextConfig(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    projection_dim=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=WORDS,
    bos_token_id=0,
    eos_token_id=1,
)


def bert() -> BertModel:
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    return BertModel(config, add_pooling_layer=False)


def t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    )


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def sd3() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=16,
    )


def flux() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
    )


def pixart() -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=16,
        use_additional_conditions=False,
    )


def decoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        latent_channels=4,
    )


@dataclass(frozen=True)
class Shape:
    batch: int
    height: int
    width: int
    words: int

    @property
    def text(self) -> tuple[int, int, int]:
        return self.batch, self.words, 16


EXPORTED_AT, RUN_AT = Shape(2, 8, 12, 9), Shape(3, 12, 8, 7)


def ids(shape: Shape, words: int) -> Tensor:
    return torch.randint(2, 60, (shape.batch, words))


def padded(shape: Shape) -> Tensor:
    """Every text two words shorter than the one before it."""
    lengths = shape.words - 2 * torch.arange(shape.batch).unsqueeze(1)
    return (torch.arange(shape.words).unsqueeze(0) < lengths).long()


def of_text(shape: Shape) -> dict[str, Tensor]:
    found = ids(shape, WORDS)
    found[:, -1] = CLIP.eos_token_id  # where CLIP pools
    return {"input_ids": found}


def of_padded_text(shape: Shape) -> dict[str, Tensor]:
    return {"input_ids": ids(shape, shape.words), "attention_mask": padded(shape)}


def of_latents(shape: Shape) -> dict[str, Tensor]:
    return {"latent_sample": torch.randn(shape.batch, 4, shape.height, shape.width)}


def of_noise(shape: Shape, name: str = "sample") -> dict[str, Tensor]:
    return {
        name: torch.randn(shape.batch, 4, shape.height, shape.width),
        "timestep": torch.full((shape.batch,), 500.0),
        "encoder_hidden_states": torch.randn(shape.text),
    }


def of_pooled_text(shape: Shape) -> dict[str, Tensor]:
    pooled = {"pooled_projections": torch.randn(shape.batch, 16)}
    return {**of_noise(shape, "hidden_states"), **pooled}


def of_placed_tokens(shape: Shape) -> dict[str, Tensor]:
    tokens = shape.height * shape.width
    places = {"txt_ids": torch.zeros(shape.words, 3), "img_ids": 5 * torch.randn(tokens, 3)}
    noise = {"hidden_states": torch.randn(shape.batch, tokens, 4)}
    return {**of_pooled_text(shape), **noise, **places}


def of_masked_text(shape: Shape) -> dict[str, Tensor]:
    return {**of_noise(shape, "hidden_states"), "encoder_attention_mask": padded(shape)}


IDS, ROWS = {"input_ids": {0: "batch"}}, {0: "batch"}
MASKED_IDS = {"input_ids": TEXT, "attention_mask": TEXT}
NOISE = {"timestep": ROWS, "encoder_hidden_states": TEXT, "pooled_projections": ROWS}


@dataclass(frozen=True)
class Case:
    """A class, how it is called, the axes that vary (none: exported for one size), and how many
    attentions it has."""

    module: Callable[[], nn.Module]
    inputs: Callable[[Shape], dict[str, Tensor]]
    dynamic: Mapping[str, Mapping[int, str]]
    attentions: int

    @property
    def run_at(self) -> Shape:
        return RUN_AT if self.dynamic else EXPORTED_AT


CASES = {
    "UNet2DConditionModel": Case(
        lambda: OfNoise(unet(), first, return_dict=False),
        of_noise,
        {"sample": PICTURE, "timestep": ROWS, "encoder_hidden_states": TEXT},
        attentions=4,
    ),
    "CLIPTextModel": Case(lambda: OfIds(CLIPTextModel(CLIP), first), of_text, IDS, attentions=2),
    "CLIPTextModelWithProjection": Case(
        lambda: OfIds(CLIPTextModelWithProjection(CLIP), lambda output: output.text_embeds),
        of_text,
        IDS,
        attentions=2,
    ),
    "T5EncoderModel": Case(
        lambda: OfMaskedIds(t5(), first), of_padded_text, MASKED_IDS, attentions=2
    ),
    "BertModel": Case(lambda: OfMaskedIds(bert(), first), of_padded_text, MASKED_IDS, attentions=2),
    "SD3Transformer2DModel": Case(
        lambda: OfPooledText(sd3(), first, return_dict=False),
        of_pooled_text,
        {"hidden_states": PICTURE, **NOISE},
        attentions=2,
    ),
    "FluxTransformer2DModel": Case(
        lambda: OfPlacedTokens(flux(), first, return_dict=False),
        of_placed_tokens,
        {
            "hidden_states": {0: "batch", 1: "tokens"},
            "txt_ids": {0: "sequence"},
            "img_ids": {0: "tokens"},
            **NOISE,
        },
        attentions=2,
    ),
    "PixArtTransformer2DModel": Case(
        lambda: OfMaskedText(
            pixart(),
            first,
            return_dict=False,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ),
        of_masked_text,
        {},
        attentions=2,
    ),
    "AutoencoderKL": Case(
        lambda: OfLatents(decoder(), first), of_latents, {"latent_sample": PICTURE}, attentions=1
    ),
}
