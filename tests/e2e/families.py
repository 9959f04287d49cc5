"""Tiny random pipelines of every family: the real classes, as diffusers' own folders."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

CLIP_TOKENS, T5_TOKENS = 16, 20
Made = TypeVar("Made", bound=torch.nn.Module)
WIDTH = 16
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLIP_VOCABULARY = 600
T5_VOCABULARY = 400

Parts = dict[str, Any]


def clip_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """Bytes, and a few merges."""
    letters = sorted(ByteLevel.alphabet())
    merges = [("a", "n"), ("an", "d</w>"), ("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>")]
    pieces = [*letters, *(f"{x}</w>" for x in letters), *("".join(pair) for pair in merges)]
    names = [*pieces, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(names)}
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=CLIP_TOKENS
    )


def save_clip_tokenizer(folder: Path, pad_token: str = "<|endoftext|>") -> None:
    """As Stable Diffusion's repositories keep it: vocab.json and merges.txt, no tokenizer.json."""
    made = clip_tokenizer(pad_token)
    folder.mkdir(parents=True)
    state = json.loads(made.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(state["vocab"]))
    merges = [" ".join(m) if isinstance(m, list) else m for m in state["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CLIP_TOKENS,
        "pad_token": pad_token,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def t5_tokenizer() -> T5Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz,.ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in letters]
    pieces += [(f"▁{word}", -1.0) for word in ("a", "red", "cat", "on", "the")]
    return T5Tokenizer(vocab=pieces, extra_ids=4, model_max_length=T5_TOKENS)


def seeded(make: Callable[..., Made]) -> Callable[..., Made]:
    """The same part has the same weights in every pipeline, so that it is exported once."""

    def made(*words: Any, seed: int = 0, **settings: Any) -> Made:
        torch.manual_seed(seed)
        return make(*words, **settings)

    return made


@seeded
def clip(
    projected: bool = False, width: int = WIDTH, layers: int = 3, eos_token_id: int = 519
) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=CLIP_VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=CLIP_TOKENS,
        projection_dim=width,
        bos_token_id=518,
        eos_token_id=eos_token_id,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


@seeded
def t5(width: int = 2 * WIDTH) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=T5_VOCABULARY,
            d_model=width,
            d_kv=8,
            d_ff=2 * width,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )


@seeded
def unet(**settings: Any) -> UNet2DConditionModel:
    values: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**values, **settings})


@seeded
def kl(latent_channels: int = 4, blocks: int = 4, **settings: Any) -> AutoencoderKL:
    """A decoder that enlarges by two between each two of its blocks."""
    return AutoencoderKL(
        block_out_channels=(4,) * blocks,
        norm_num_groups=2,
        latent_channels=latent_channels,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        **settings,
    )


def sd(**settings: Any) -> Parts:
    return {
        "text_encoder": clip(),
        "tokenizer": save_clip_tokenizer,
        "unet": unet(**settings),
        "vae": kl(),
    }


def sd_tiny_decoder() -> Parts:
    widths = {"encoder_block_out_channels": (4,) * 4, "decoder_block_out_channels": (4,) * 4}
    return {**sd(), "vae": AutoencoderTiny(**widths)}


def sd_tinier_decoder() -> Parts:
    """A tiny decoder of three blocks, which enlarges 4 times."""
    widths, counts = (4,) * 3, (1,) * 3
    made = AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=counts,
        num_decoder_blocks=counts,
    )
    return {**sd(), "vae": made}


def sdxl(**settings: Any) -> Parts:
    values: dict[str, Any] = {
        "cross_attention_dim": WIDTH + 24,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24 + 6 * 8,
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
        "attention_head_dim": (2, 4),
    }
    xl = unet(**{**values, **settings})
    return {
        "text_encoder": clip(),
        "tokenizer": save_clip_tokenizer,
        "text_encoder_2": clip(projected=True, width=24),
        "tokenizer_2": lambda folder: save_clip_tokenizer(folder, pad_token="!"),
        "unet": xl,
        "vae": kl(),
    }


def sdxl_distilled() -> Parts:
    """As SSD-1B and Vega are: no attention in the middle, other layers going up than going down."""
    return sdxl(
        transformer_layers_per_block=(1, (2,)),
        reverse_transformer_layers_per_block=((1, 2), 1),
        mid_block_type="UNetMidBlock2D",
    )


def sdxl_without_middle() -> Parts:
    """As KOALA-700M is."""
    return sdxl(mid_block_type=None)


@seeded
def sd3_transformer() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=12,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )


def sd3(with_t5: bool = True, blocks: int = 4) -> Parts:
    return {
        # As CLIP's first configs say it; what is meant is the largest number of a text.
        "text_encoder": clip(projected=True, eos_token_id=2),
        "tokenizer": save_clip_tokenizer,
        "text_encoder_2": clip(projected=True, seed=1),
        "tokenizer_2": lambda folder: save_clip_tokenizer(folder, pad_token="!"),
        "text_encoder_3": t5(3 * WIDTH) if with_t5 else None,
        "tokenizer_3": t5_tokenizer() if with_t5 else None,
        "transformer": sd3_transformer(),
        "vae": kl(16, blocks, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
    }


def pixart(**settings: Any) -> Parts:
    return {
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "transformer": PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            cross_attention_dim=24,
            caption_channels=2 * WIDTH,
            **{"sample_size": 8, **settings},
        ),
        "vae": kl(),
    }


def flux(guidance_embeds: bool, blocks: int = 4) -> Parts:
    return {
        "text_encoder": clip(),
        "tokenizer": save_clip_tokenizer,
        "text_encoder_2": t5(),
        "tokenizer_2": t5_tokenizer(),
        "transformer": FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 4, 8),
        ),
        "vae": kl(4, blocks, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1),
    }


FAMILIES: Mapping[str, Callable[[], Parts]] = {
    "sd": sd,
    "sd, tiny decoder": sd_tiny_decoder,
    "lcm": lambda: sd(time_cond_proj_dim=8),
    "sdxl": sdxl,
    "sdxl, distilled": sdxl_distilled,
    "sdxl without a middle": sdxl_without_middle,
    "sd3": sd3,
    "sd3, its t5 left out": sd3,
    "sd3 without t5": lambda: sd3(with_t5=False),
    "pixart": pixart,
    "pixart of 1024": lambda: pixart(sample_size=128, interpolation_scale=2),
    "flux schnell": lambda: flux(guidance_embeds=False),
    "flux dev": lambda: flux(guidance_embeds=True),
    "sd, 4 times": lambda: {**sd(), "vae": kl(blocks=3)},
    # Stable Diffusion's pipeline does not heed the shift.
    "sd, 16 times": lambda: {**sd(), "vae": kl(blocks=5, shift_factor=0.4, scaling_factor=0.4)},
    "sd, tiny decoder, 4 times": sd_tinier_decoder,
    "sd3, 4 times": lambda: sd3(blocks=3),
    "flux dev, 16 times": lambda: flux(guidance_embeds=True, blocks=5),
}
PIPELINES = {
    "sd": diffusers.StableDiffusionPipeline,
    "sd, tiny decoder": diffusers.StableDiffusionPipeline,
    "lcm": diffusers.LatentConsistencyModelPipeline,
    "sdxl": diffusers.StableDiffusionXLPipeline,
    "sdxl, distilled": diffusers.StableDiffusionXLPipeline,
    "sdxl without a middle": diffusers.StableDiffusionXLPipeline,
    "sd3": diffusers.StableDiffusion3Pipeline,
    "sd3, its t5 left out": diffusers.StableDiffusion3Pipeline,
    "sd3 without t5": diffusers.StableDiffusion3Pipeline,
    "pixart": diffusers.PixArtSigmaPipeline,
    "pixart of 1024": diffusers.PixArtAlphaPipeline,
    "flux schnell": diffusers.FluxPipeline,
    "flux dev": diffusers.FluxPipeline,
    "sd, 4 times": diffusers.StableDiffusionPipeline,
    "sd, 16 times": diffusers.StableDiffusionPipeline,
    "sd, tiny decoder, 4 times": diffusers.StableDiffusionPipeline,
    "sd3, 4 times": diffusers.StableDiffusion3Pipeline,
    "flux dev, 16 times": diffusers.FluxPipeline,
}


def write_model(folder: Path, family: str, scheduler: Any, **index: Any) -> Path:
    """A seeded pipeline of a family as a diffusers folder, as hubs hold them."""
    torch.manual_seed(0)
    parts = {**FAMILIES[family](), "scheduler": scheduler}
    write_parts(folder, PIPELINES[family], parts, **index)
    if family == "pixart":
        rename_class(folder / "transformer", "Transformer2DModel")
    return folder


def write_parts(folder: Path, pipeline: type[Any], parts: Parts, **index: Any) -> Path:
    """Parts as the folder of a pipeline."""
    named: dict[str, Any] = {"_class_name": pipeline.__name__, **index}
    for name, part in parts.items():
        if part is None:
            named[name] = [None, None]
            continue
        if inspect.isfunction(part):  # writes a CLIP's tokenizer as old repositories hold it
            part(folder / name)
            named[name] = ["transformers", "CLIPTokenizer"]
            continue
        part.save_pretrained(folder / name)
        library = "transformers" if name.startswith(("text_encoder", "tokenizer")) else "diffusers"
        named[name] = [library, type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(named, indent=1))
    return folder


def rename_class(folder: Path, name: str) -> None:
    """Call a model's class in its config what older versions of diffusers called it."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": name}))
