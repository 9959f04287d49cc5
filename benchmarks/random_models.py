"""Stable Diffusion pipelines of full size with random weights, as diffusers folders.

Random weights do not draw real images, but need the same memory and time as trained ones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel

PARAMETERS: Mapping[str, Mapping[str, int]] = {
    "sd15": {"text_encoder": 123_060_480, "unet": 859_520_964, "vae": 83_653_863},
    "sdxl": {
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
        "unet": 2_567_463_684,
        "vae": 83_653_863,
    },
}
TOKENS, VOCABULARY = 77, 49_408
DONE = "model_index.json"  # written last
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class _Part:
    make: Callable[[], torch.nn.Module]
    library: str


def random_model(family: str, folder: Path) -> Path:
    """Return the folder of a family's random pipeline, created once; its weights are in fp16."""
    if (folder / DONE).is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    index: dict[str, Any] = {"_class_name": f"StableDiffusion{'XL' * (family == 'sdxl')}Pipeline"}
    for name, part in _parts(family).items():
        torch.manual_seed(0)
        with torch.no_grad():
            model = part.make()
            count = sum(parameter.numel() for parameter in model.parameters())
            wanted = PARAMETERS[family][name]
            assert count == wanted, f"{name} has {count:,} parameters, not {wanted:,}"
            model.half().save_pretrained(folder / name)  # type: ignore[operator]
        index[name] = [part.library, type(model).__name__]
        del model
    _write_scheduler(folder, index)
    for name in [name for name in index if name.startswith("text_encoder")]:
        tokenizer = name.replace("text_encoder", "tokenizer")
        _write_tokenizer(folder / tokenizer)
        index[tokenizer] = ["transformers", "CLIPTokenizer"]
    (folder / DONE).write_text(json.dumps(index, indent=1))
    return folder


def _write_scheduler(folder: Path, index: dict[str, Any]) -> None:
    from diffusers import EulerDiscreteScheduler

    EulerDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]


def _write_tokenizer(folder: Path) -> None:
    """Write a CLIP tokenizer of single bytes, with CLIP's special tokens at their usual ids."""
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    vocabulary |= {"<|startoftext|>": VOCABULARY - 2, "<|endoftext|>": VOCABULARY - 1}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>"} | dict.fromkeys(
        ("eos_token", "pad_token", "unk_token"), "<|endoftext|>"
    )
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _parts(family: str) -> dict[str, _Part]:
    if family == "sd15":
        return {
            "text_encoder": _Part(lambda: _clip(768, 12, 12, projected=False), "transformers"),
            "unet": _Part(unet, "diffusers"),
            "vae": _Part(_vae, "diffusers"),
        }
    return {
        "text_encoder": _Part(lambda: _clip(768, 12, 12, projected=False), "transformers"),
        "text_encoder_2": _Part(lambda: _clip(1280, 32, 20, projected=True), "transformers"),
        "unet": _Part(_unet_xl, "diffusers"),
        "vae": _Part(_vae, "diffusers"),
    }


def _clip(width: int, layers: int, heads: int, projected: bool) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=TOKENS,
        projection_dim=width,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
    )
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    model: torch.nn.Module = kind(config)
    return model


def unet() -> torch.nn.Module:
    """Return Stable Diffusion 1's UNet with PyTorch's initial weights."""
    from diffusers import UNet2DConditionModel

    model: torch.nn.Module = UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=768,
        attention_head_dim=8,
        block_out_channels=(320, 640, 1280, 1280),
    )
    return model


def _unet_xl() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    model: torch.nn.Module = UNet2DConditionModel(
        sample_size=128,
        cross_attention_dim=2048,
        attention_head_dim=(5, 10, 20),
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return model


def _vae() -> torch.nn.Module:
    from diffusers import AutoencoderKL

    model: torch.nn.Module = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=512,
    )
    return model
