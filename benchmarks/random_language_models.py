"""Pipelines with language models as text encoders, of full size, with random weights in bf16.

sana           SANA 0.6B, all of it
klein-encoder  the text encoder of FLUX.2 klein 4B, which is Qwen3 4B, with a denoiser and a
               decoder that are tiny: what the encoder needs is then what the build needs
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.e2e import language_families

DONE = "model_index.json"  # written last
PARAMETERS: Mapping[str, Mapping[str, int]] = {
    "sana": {
        "text_encoder": 2_614_341_888,
        "transformer": 591_747_872,
        "vae": 298_755_555,
    },
    "klein-encoder": {"text_encoder": 4_022_468_096},
}
QWEN3_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
SANA_600M = {
    "num_layers": 28,
    "num_attention_heads": 36,
    "attention_head_dim": 32,
    "num_cross_attention_heads": 16,
    "cross_attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "caption_channels": 2304,
}
_SCALES = ((), (), (), (5,), (5,), (5,))
_KINDS = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
DC_AE = {
    "encoder_block_types": _KINDS,
    "decoder_block_types": _KINDS,
    "encoder_qkv_multiscales": _SCALES,
    "decoder_qkv_multiscales": _SCALES,
    "upsample_block_type": "interpolate",
    "scaling_factor": 0.41407,
}

Parts = Mapping[str, Callable[[], Any]]


def random_language_model(family: str, folder: Path) -> Path:
    """Return the folder of a family's random pipeline, created once."""
    if (folder / DONE).is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pipeline, parts = _FAMILIES[family]
    index: dict[str, Any] = {"_class_name": pipeline}
    for name, make in parts.items():
        torch.manual_seed(0)
        made = make()
        wanted = PARAMETERS[family].get(name)
        if wanted is not None:
            count = sum(parameter.numel() for parameter in made.parameters())
            assert count == wanted, f"{name} has {count:,} parameters, not {wanted:,}"
        made.save_pretrained(folder / name)
        index[name] = [type(made).__module__.partition(".")[0], type(made).__name__]
        del made
    (folder / DONE).write_text(json.dumps(index, indent=1))
    return folder


@contextmanager
def _in_bf16() -> Iterator[None]:
    """Make models in bf16: in fp32, the weights of a large one would take twice the memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)


def _gemma() -> Any:
    from transformers import Gemma2Config, Gemma2Model

    with _in_bf16():
        return Gemma2Model(Gemma2Config())


def _qwen() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    with _in_bf16():
        return Qwen3ForCausalLM(Qwen3Config(**QWEN3_4B, tie_word_embeddings=True))


def _sana() -> Any:
    from diffusers import SanaTransformer2DModel

    with _in_bf16():
        return SanaTransformer2DModel(**SANA_600M)


def _deep_decoder() -> Any:
    from diffusers import AutoencoderDC

    with _in_bf16():
        return AutoencoderDC(**DC_AE)


def _flow(**settings: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**settings)


_FAMILIES: Mapping[str, tuple[str, Parts]] = {
    "sana": (
        "SanaPipeline",
        {
            "text_encoder": _gemma,
            "tokenizer": language_families.gemma_tokenizer,
            "transformer": _sana,
            "vae": _deep_decoder,
            "scheduler": lambda: _flow(shift=3.0),
        },
    ),
    "klein-encoder": (
        "Flux2KleinPipeline",
        {
            "text_encoder": _qwen,
            "tokenizer": language_families.qwen_tokenizer,
            "transformer": lambda: language_families.klein_transformer(3 * QWEN3_4B["hidden_size"]),
            "vae": language_families.klein_decoder,
            "scheduler": lambda: _flow(use_dynamic_shifting=True),
        },
    ),
}
