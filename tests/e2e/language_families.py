"""Tiny random pipelines whose text encoders are language models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaTransformer2DModel,
    Flux2Transformer2DModel,
    Lumina2Transformer2DModel,
    OvisImageTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.e2e import families

WIDTH = 16
VOCABULARY = 320
LANGUAGE_TOKENS = 40
READ_LAYERS = (1, 2, 3)  # of klein's text encoder, instead of 9, 18 and 27
LOUD = 3.0  # times the usual weights, with which a text has little effect
Parts = dict[str, Any]

# As Qwen3's, which closes an empty thought if the model shall not think.
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)


def byte_tokenizer(special: list[str]) -> Tokenizer:
    """Every byte is a token, and so is each special text."""
    letters = sorted(ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer(["<|endoftext|>"])
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        model_max_length=131072,
    )
    made.chat_template = CHAT
    return made


def gemma_tokenizer() -> PreTrainedTokenizerFast:
    """Gemma's begins each text with a token, and is saved as padding at the left."""
    tokenizer = byte_tokenizer(["<pad>", "<eos>", "<bos>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        padding_side="left",
        model_max_length=10**30,
    )


@families.seeded
def qwen(layers: int = 4) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )


@families.seeded
def gemma() -> Gemma2Model:
    return Gemma2Model(
        Gemma2Config(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=8,
        )
    )


def loud(model: torch.nn.Module) -> torch.nn.Module:
    """With weights so large that the text has an effect."""
    for weights in model.parameters():
        if weights.ndim > 1:
            weights.data *= LOUD
    return model


def flux_decoder() -> AutoencoderKL:
    """Flux.1's, which other families use, too."""
    return families.kl(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)


@families.seeded
def klein_transformer(states: int = 3 * WIDTH) -> Flux2Transformer2DModel:
    return loud(
        Flux2Transformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=states,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
    )


@families.seeded
def klein_decoder() -> AutoencoderKLFlux2:
    made = AutoencoderKLFlux2(
        block_out_channels=(4,) * 4,
        norm_num_groups=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    made.bn.running_mean.normal_()
    made.bn.running_var.uniform_(0.5, 2.0)
    return made


def klein(layers: int = READ_LAYERS[-1] + 2) -> Parts:
    return {
        "text_encoder": qwen(layers),
        "tokenizer": qwen_tokenizer(),
        "transformer": klein_transformer(),
        "vae": klein_decoder(),
    }


@families.seeded
def z_image_transformer() -> ZImageTransformer2DModel:
    made = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    )
    made.x_pad_token.data.normal_()
    made.cap_pad_token.data.normal_()
    return made


def z_image() -> Parts:
    return {
        "text_encoder": qwen(),
        "tokenizer": qwen_tokenizer(),
        "transformer": z_image_transformer(),
        "vae": flux_decoder(),
    }


@families.seeded
def sana_transformer(**settings: Any) -> SanaTransformer2DModel:
    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        sample_size=8,
        **settings,
    )


@families.seeded
def deep_decoder() -> AutoencoderDC:
    """It enlarges 32 times, as DC-AE does, and attends in its first two blocks."""
    kinds = ("ResBlock",) * 4 + ("EfficientViTBlock",) * 2
    scales: tuple[tuple[int, ...], ...] = ((),) * 4 + ((5,),) * 2
    widths, counts = (8,) * 6, (1,) * 6
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=kinds,
        decoder_block_types=kinds,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=counts,
        decoder_layers_per_block=counts,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        scaling_factor=0.41407,
    )


def sana(**settings: Any) -> Parts:
    return {
        "text_encoder": gemma(),
        "tokenizer": gemma_tokenizer(),
        "transformer": sana_transformer(**settings),
        "vae": deep_decoder(),
    }


def sprint() -> Parts:
    return sana(guidance_embeds=True, qk_norm="rms_norm_across_heads", timestep_scale=0.001)


@families.seeded
def chroma_transformer() -> ChromaTransformer2DModel:
    return ChromaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * families.WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )


def chroma() -> Parts:
    return {
        "text_encoder": families.t5(),
        "tokenizer": families.t5_tokenizer(),
        "transformer": chroma_transformer(),
        "vae": flux_decoder(),
    }


@families.seeded
def lumina2_transformer() -> torch.nn.Module:
    return loud(
        Lumina2Transformer2DModel(
            patch_size=2,
            in_channels=4,
            hidden_size=24,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=4,
            num_kv_heads=2,
            multiple_of=8,
            axes_dim_rope=(2, 2, 2),
            axes_lens=(1024, 64, 64),
            cap_feat_dim=WIDTH,
        )
    )


def lumina2() -> Parts:
    return {
        "text_encoder": gemma(),
        "tokenizer": gemma_tokenizer(),
        "transformer": lumina2_transformer(),
        "vae": flux_decoder(),
    }


@families.seeded
def vision_language_model() -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": VOCABULARY,
                "hidden_size": WIDTH,
                "intermediate_size": 2 * WIDTH,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "bos_token_id": None,
                "eos_token_id": 0,
                "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
            },
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_heads": 2,
                "out_hidden_size": WIDTH,
            },
        )
    )


@families.seeded
def qwen_image_transformer() -> torch.nn.Module:
    return loud(
        QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 6, 6),
        )
    )


@families.seeded
def video_decoder() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        num_res_blocks=1,
        latents_mean=[-0.7, 0.2, 0.0, 0.9],
        latents_std=[2.8, 1.4, 2.3, 0.7],
    )


@families.seeded
def ovis_image_transformer() -> torch.nn.Module:
    return loud(
        OvisImageTransformer2DModel(
            in_channels=16,
            out_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 6, 6),
        )
    )


def ovis_image() -> Parts:
    return {
        "text_encoder": qwen().model,
        "tokenizer": qwen_tokenizer(),
        "transformer": ovis_image_transformer(),
        "vae": flux_decoder(),
    }


def qwen_image() -> Parts:
    return {
        "text_encoder": vision_language_model(),
        "tokenizer": qwen_tokenizer(),
        "transformer": qwen_image_transformer(),
        "vae": video_decoder(),
    }


FAMILIES: Mapping[str, tuple[type[Any], Callable[[], Parts]]] = {
    "klein": (diffusers.Flux2KleinPipeline, klein),
    "klein, as deep as it is": (diffusers.Flux2KleinPipeline, lambda: klein(29)),
    "z-image": (diffusers.ZImagePipeline, z_image),
    "sana": (diffusers.SanaPipeline, sana),
    "sana-sprint": (diffusers.SanaSprintPipeline, sprint),
    "chroma": (diffusers.ChromaPipeline, chroma),
    "lumina2": (diffusers.Lumina2Pipeline, lumina2),
    "qwen-image": (diffusers.QwenImagePipeline, qwen_image),
    "ovis-image": (diffusers.OvisImagePipeline, ovis_image),
}


def write_model(folder: Path, family: str, scheduler: Any, **index: Any) -> Path:
    """A seeded pipeline of a family as a diffusers folder, as hubs hold them."""
    pipeline, make = FAMILIES[family]
    return families.write_parts(folder, pipeline, {**make(), "scheduler": scheduler}, **index)


def loaded(family: str, folder: Path) -> Any:
    """The family's pipeline of diffusers."""
    found = FAMILIES[family][0].from_pretrained(folder, local_files_only=True)
    found.set_progress_bar_config(disable=True)
    return found
