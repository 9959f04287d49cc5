"""A whole catalog of tiny random parts of the real classes, seeded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from sdpack.evaluate.judge import Judge, JudgeConfig
from transformers import CLIPTextConfig, CLIPTextModel

TOKENIZER = Path(__file__).parents[2] / "zoo" / "parts" / "tokenizer"
VOCABULARY, TOKENS, WIDTH, SIDE = 3072, 16, 32, 64
PROMPTS = [f"noto, thing number {n}" for n in range(8)]
STEPS, GUIDANCE_SCALE = 3, 2.5


def text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            bos_token_id=0,
            eos_token_id=1,
        )
    ).eval()


def denoiser() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    ).eval()


def decoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.5,
    ).eval()


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def write_catalog(folder: Path) -> Path:
    """Write parts, prompts and catalog.yaml; returns the folder."""
    torch.manual_seed(0)
    for name, part in (
        ("text", text_encoder()),
        ("unet", denoiser()),
        ("vae", decoder()),
        ("scheduler", scheduler()),
        ("judge", Judge(JudgeConfig(vocab_size=VOCABULARY))),
    ):
        part.save_pretrained(folder / name)
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    lines = [json.dumps({"text": prompt}) for prompt in PROMPTS]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, len(PROMPTS) * SIDE, 3), np.uint8)
    Image.fromarray(noise).save(folder / "real.png")
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog(), sort_keys=False))
    return folder


def catalog() -> dict[str, Any]:
    def part(name: str, **more: Any) -> dict[str, Any]:
        return {"source": {"path": name}, "licence": "none", **more}

    return {
        "schema": 1,
        "name": "tiny",
        "image_size": SIDE,
        "text_encoders": {"e": part("text", tokenizer={"path": "tokenizer"}, states="t")},
        "denoisers": {"d": part("unet", latents="z", states="t")},
        "decoders": {"v": part("vae", latents="z")},
        "sampling": {
            "scheduler": {"path": "scheduler"},
            "steps": STEPS,
            "guidance_scale": GUIDANCE_SCALE,
        },
        "quality": {
            "judge": {"path": "judge"},
            "tokenizer": {"path": "tokenizer"},
            "prompts": "prompts.jsonl",
            "calibration": "prompts.jsonl",
            "samples": "prompts.jsonl",
            "real_images": "real.png",
            "real_columns": len(PROMPTS),
        },
    }
