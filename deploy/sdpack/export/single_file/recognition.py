"""What a single file is, from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdpack.errors import SourceError
from sdpack.export.denoiser_config import KINDS, USUAL_CHANNELS
from sdpack.export.single_file.content import (
    BARE,
    DENOISER_PREFIX,
    OriginalFile,
    Shapes,
    empty,
)
from sdpack.export.single_file.options import BASES

# Bases by what diffusers calls them.
KNOWN: Mapping[str, str] = {
    "sd3": "sd3-medium",
    "sd35_medium": "sd3.5-medium",
    "sd35_large": "sd3.5-large",
    "flux-dev": "flux-dev",
    "flux-schnell": "flux-schnell",
}
# Bases with a UNet by the width of the states it attends to. The same width is that of 2.1 with
# 512 and with 768 pixels, which the keys do not tell apart.
BY_WIDTH: Mapping[int, str] = {768: "sd15", 1024: "sd21", 2048: "sdxl"}
REFINER_WIDTH = 1280
# Other models that diffusers recognizes, and which sdpack does not build.
OTHERS: Mapping[str, str] = {
    "flux-fill": "Flux Fill, which takes a masked image",
    "flux-depth": "Flux Depth or Canny, which takes another image",
    "flux-2-dev": "Flux 2",
    "flux-3-image": "Flux 3",
    "flux-3-image-distilled": "Flux 3",
    "chroma": "Chroma",
    "playground-v2-5": "Playground 2.5, whose latents have a scale for each channel",
    "upscale": "an upscaler",
    "auraflow": "AuraFlow",
    "lumina2": "Lumina 2",
    "sana": "Sana",
    "hidream": "HiDream",
    "z-image-turbo": "Z-Image",
    "qwen-image-2.1": "Qwen Image",
    "hunyuan-video": "Hunyuan Video",
    "mochi-1-preview": "Mochi",
}
ADAPTER_MARKS = ("lora_", ".lora", ".hada_", ".lokr_", ".oft_", ".dora_scale")
SCALED = ("scaled_fp8", ".scale_weight", ".weight_scale")  # weights that a number each multiplies
EMA = "model_ema."
STATES = ".attn2.to_k.weight"  # a UNet's weights that take the states of a text encoder


@dataclass(frozen=True)
class Marks:
    """What names of tensors say about the sampling."""

    is_v: bool
    is_zero_snr: bool


def check_whole(file: OriginalFile) -> None:
    """Check that a file holds a denoiser, and one that needs only a text.

    Raises:
        SourceError: it is something else; says what, and how to give it.
    """
    shapes = file.shapes
    if not file.has((DENOISER_PREFIX,)):
        raise SourceError(f"{file.path} {_explain_other(shapes)}")
    scaled = [name for name in shapes if name.endswith(SCALED)]
    if scaled:
        raise SourceError(
            f"{file.path} holds {scaled[0]}: its weights are quantized with scales, which "
            "diffusers does not read; give a file in fp16, bf16, plain fp8 or GGUF"
        )
    channels = _in_channels(shapes)
    if channels is not None and channels - USUAL_CHANNELS in KINDS:
        kind = KINDS[channels - USUAL_CHANNELS]
        raise SourceError(
            f"{file.path} holds a UNet of {channels} input channels, {kind}; sdpack supports only "
            "text-to-image models"
        )


def guess_base(file: OriginalFile) -> str | None:
    """Return the base that a file's keys tell, or None if they tell none.

    Raises:
        SourceError: they tell a model that sdpack does not build.
    """
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    try:
        kind = infer_diffusers_model_type(empty(file.shapes))
    except (KeyError, IndexError, UnboundLocalError):  # of models that diffusers knows only in part
        return None
    if kind in OTHERS:
        raise SourceError(
            f"{file.path} is {OTHERS[kind]}, which sdpack does not support; it builds "
            f"{', '.join(BASES)} and models trained from them"
        )
    if kind in KNOWN:
        return KNOWN[kind]
    width = _attended_width(file.shapes)
    if width == REFINER_WIDTH:
        raise SourceError(
            f"{file.path} is a refiner, which continues from another model's latents; sdpack does "
            "not support refiners: give the base model"
        )
    return BY_WIDTH.get(width or 0)


def read_marks(shapes: Shapes) -> Marks:
    """Return what empty tensors say that some programs write for their names."""
    return Marks("v_pred" in shapes, "ztsnr" in shapes)


def count_averages(shapes: Shapes) -> int:
    """Return the number of tensors that are averages over the training (EMA)."""
    return sum(name.startswith(EMA) for name in shapes)


def _in_channels(shapes: Shapes) -> int | None:
    shape = shapes.get(f"{DENOISER_PREFIX}input_blocks.0.0.weight")
    return None if shape is None else shape[1]


def _attended_width(shapes: Shapes) -> int | None:
    """Return the width of the states that a UNet attends to."""
    names = (name for name in shapes if name.startswith(DENOISER_PREFIX))
    return next((shapes[name][-1] for name in names if name.endswith(STATES)), None)


def _explain_other(shapes: Shapes) -> str:
    """Say what a file without a denoiser holds, and how to give it."""
    names = list(shapes)
    if any(mark in name for name in names for mark in ADAPTER_MARKS):
        return "is a LoRA, not a model; list it under `loras` in a catalog of its model"
    if any(name.startswith(("emb_params", "clip_l", "clip_g", "<")) for name in names):
        return "is a textual inversion, not a model; give it with --embedding, and a model"
    if any(name.endswith("decoder.conv_in.weight") for name in names):
        return "is a VAE, not a model; give it with --vae, and a model"
    if any(name.startswith(("down_blocks.", "transformer_blocks.")) for name in names):
        return "is one part of a diffusers pipeline; give its folder, which has model_index.json"
    looked = ", ".join(f"{begin}*" for begin in (DENOISER_PREFIX, *BARE))
    return f"holds no denoiser that diffusers converts (no {looked}); give another file"
