"""Parameters in the catalogs of today's models are those of the real classes."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaTransformer2DModel,
    Flux2Transformer2DModel,
    Lumina2Transformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    ZImageTransformer2DModel,
)
from sdpack.documents.catalog_files import find_catalog
from sdpack.documents.conditioning import ENCODER_OUTPUTS, Family
from sdpack.export.frame_decoder import read_numbers
from sdpack.export.layers_read import is_unread, layers_read
from transformers import (
    Gemma2Config,
    Gemma2Model,
    Qwen2_5_VLTextModel,
    Qwen3Config,
    Qwen3Model,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig

from benchmarks.random_language_models import DC_AE, QWEN3_4B, SANA_600M

QWEN25_VL_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
KLEIN_4B = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}


def held(*modules: Any) -> int:
    return sum(tensor.numel() for module in modules for tensor in module.state_dict().values())


def test_parameters_are_those_of_the_classes() -> None:
    with torch.device("meta"):
        denoisers = {
            ("flux2-klein", "klein-4b"): Flux2Transformer2DModel(**KLEIN_4B),
            ("z-image", "z-image-turbo"): ZImageTransformer2DModel(),
            ("sana", "sana-600m"): SanaTransformer2DModel(**SANA_600M),
            ("sana-sprint", "sana-sprint-600m"): SanaTransformer2DModel(
                **SANA_600M, guidance_embeds=True, qk_norm="rms_norm_across_heads"
            ),
            ("lumina2", "lumina2"): Lumina2Transformer2DModel(cap_feat_dim=2304),
            ("chroma", "chroma1-hd"): ChromaTransformer2DModel(),
            ("qwen-image", "qwen-image"): QwenImageTransformer2DModel(),
        }
        flux2, deep = AutoencoderKLFlux2(), AutoencoderDC(**DC_AE)
        gemma = Gemma2Model(Gemma2Config())
    for (name, key), module in denoisers.items():
        assert find_catalog(name).catalog.denoisers[key].parameters == held(module), key
    decoder = find_catalog("flux2-klein").catalog.decoders["flux2"]
    assert decoder.parameters == held(flux2.decoder, flux2.post_quant_conv, flux2.bn)
    assert find_catalog("sana").catalog.decoders["dc-ae"].parameters == held(deep.decoder)
    encoders = {
        name: find_catalog(name).catalog.text_encoders["gemma-2-2b"].parameters
        for name in ("sana", "sana-sprint", "lumina2")
    }
    assert encoders["sana"] == encoders["sana-sprint"] == held(gemma)
    tensors = gemma.state_dict().items()
    read = sum(tensor.numel() for name, tensor in tensors if not is_unread(name, 25))
    assert encoders["lumina2"] == read


def test_qwen_image_counts_what_a_picture_of_a_text_needs() -> None:
    catalog = find_catalog("qwen-image").catalog
    with torch.device("meta"):
        text = Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**QWEN25_VL_7B))
        videos = AutoencoderKLQwenImage()
    assert catalog.text_encoders["qwen2.5-vl-7b"].parameters == held(text)
    read = sum(
        read_numbers(name, tuple(tensor.shape))
        for name, tensor in videos.state_dict().items()
        if not name.startswith(("encoder.", "quant_conv."))
    )
    assert catalog.decoders["qwen-image"].parameters == read


def test_a_language_model_counts_without_the_layers_that_are_not_read() -> None:
    with torch.device("meta"):
        qwen = Qwen3Model(Qwen3Config(**QWEN3_4B))
    tensors = {name: tensor.numel() for name, tensor in qwen.state_dict().items()}
    for catalog, family, share in (
        ("flux2-klein", Family.FLUX2, 0.226),
        ("z-image", Family.Z_IMAGE, 0.025),
    ):
        layers = layers_read(ENCODER_OUTPUTS[family][0], 0, QWEN3_4B)
        assert layers is not None
        read = sum(size for name, size in tensors.items() if not is_unread(name, layers))
        assert find_catalog(catalog).catalog.text_encoders["qwen3-4b"].parameters == read
        assert abs(1 - read / sum(tensors.values()) - share) < 0.001
