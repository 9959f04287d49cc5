"""Low-rank weights (LoRA, Hu et al. 2021) merged into a model before it is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sdpack.errors import SourceError

# As files of LoRA weights name the models they are for.
TEXT_ENCODER, UNET, TRANSFORMER = "text_encoder", "unet", "transformer"


def lora_file(folder: Path) -> Path:
    """The one file of low-rank weights in a folder.

    Raises:
        SourceError: there is none, or more than one.
    """
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        named = ", ".join(path.name for path in found) or "none"
        raise SourceError(f"{folder}: one .safetensors file of LoRA weights is wanted, not {named}")
    return found[0]


def merge(model: Any, folder: Path, scale: float) -> None:
    """Add low-rank weights, so many times, to those of a model of diffusers or transformers.

    Raises:
        SourceError: they are damaged, or belong to another model.
    """
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader

    path = lora_file(folder)
    try:
        state, alphas = Loader.lora_state_dict(str(path))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as cause:
        raise SourceError(f"{path} holds no LoRA weights: {_first_line(cause)}") from cause
    prefix = _prefix(model)
    if not any(name.startswith(f"{prefix}.") for name in state):
        raise SourceError(f"{path} has no LoRA weights for a {type(model).__name__}")
    try:
        if prefix == TEXT_ENCODER:
            Loader.load_lora_into_text_encoder(state, alphas, model, prefix=prefix)
        else:
            model.load_lora_adapter(state, network_alphas=alphas, prefix=prefix)
        merged = _merge_layers(model, scale)
    except (ValueError, RuntimeError, LookupError) as cause:
        raise SourceError(
            f"{path} does not fit {type(model).__name__}: {_first_line(cause)}"
        ) from (cause)
    if merged == 0:
        raise SourceError(f"{path} fits no layer of the {type(model).__name__}")


def _prefix(model: Any) -> str:
    """Under which name a file keeps the weights for a model of this class."""
    if hasattr(model, "get_input_embeddings"):
        return TEXT_ENCODER
    return UNET if hasattr(model, "down_blocks") else TRANSFORMER


def _merge_layers(model: Any, scale: float) -> int:
    """Merge what was loaded into the layers it goes with; returns how many they are."""
    from diffusers.utils.peft_utils import recurse_remove_peft_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.scale_layer(scale)
        layer.merge()
    recurse_remove_peft_layers(model)
    return len(layers)


def _first_line(cause: Exception) -> str:
    return (str(cause) or type(cause).__name__).splitlines()[0]
