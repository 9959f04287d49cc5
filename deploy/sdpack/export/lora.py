"""Low-rank weights (LoRA, Hu et al. 2021) merged into a model before it is exported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sdpack.errors import SourceError

# As files of LoRA weights name the models they are for.
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
UNET, TRANSFORMER = "unet", "transformer"
QUERIES = (".q_proj.", ".q.", ".to_q_lora.")  # parts of the names of layers that make them
INNERMOST = ("hidden_size", "d_model")  # keys of a text encoder's width


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
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin as Loader

    path = lora_file(folder)
    try:
        state, alphas = _read(path, model)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as cause:
        raise SourceError(f"{path} holds no LoRA weights: {_first_line(cause)}") from cause
    prefix = _prefix(model, state)
    if not any(name.startswith(f"{prefix}.") for name in state):
        raise SourceError(f"{path} has no LoRA weights for a {type(model).__name__}")
    if prefix not in TEXT_ENCODERS and not hasattr(model, "load_lora_adapter"):
        raise SourceError(
            f"{path}: diffusers loads no LoRA weights into a {type(model).__name__}; give a "
            "checkpoint they are merged into"
        )
    try:
        if prefix in TEXT_ENCODERS:
            Loader.load_lora_into_text_encoder(state, alphas, model, prefix=prefix)
        else:
            model.load_lora_adapter(state, network_alphas=alphas, prefix=prefix)
        merged = _merge_layers(model, scale)
    except (ValueError, RuntimeError, LookupError) as cause:
        raise SourceError(
            f"{path} does not fit {type(model).__name__}: {_first_line(cause)}"
        ) from cause
    if merged == 0:
        raise SourceError(f"{path} fits no layer of the {type(model).__name__}")


def _read(path: Path, model: Any) -> Any:
    """Low-rank weights by diffusers' names, whoever wrote them, and their scales or None."""
    from diffusers import loaders

    kind = type(model).__name__
    if kind.startswith("Flux"):
        return loaders.FluxLoraLoaderMixin.lora_state_dict(str(path), return_alphas=True)
    if kind.startswith("SD3"):
        return loaders.SD3LoraLoaderMixin.lora_state_dict(str(path)), None
    config = model.config if hasattr(model, "down_blocks") else None
    return loaders.StableDiffusionXLLoraLoaderMixin.lora_state_dict(str(path), unet_config=config)


def _prefix(model: Any, state: Mapping[str, Any]) -> str:
    """Under which name a file keeps the weights for a model.

    Of several text encoders it is the one as wide as the model.
    """
    if not hasattr(model, "get_input_embeddings"):
        return UNET if hasattr(model, "down_blocks") else TRANSFORMER
    width = next((getattr(model.config, key) for key in INNERMOST if hasattr(model.config, key)), 0)
    return next((p for p in TEXT_ENCODERS if _reads(p, state) == width), TEXT_ENCODERS[0])


def _reads(prefix: str, state: Mapping[str, Any]) -> int:
    """How many numbers the layers that make queries take, of the model of that name; 0 for none."""
    made = (
        tensor.shape[-1]
        for name, tensor in state.items()
        if name.startswith(f"{prefix}.")
        and any(query in name for query in QUERIES)
        and ("lora_A" in name or "down" in name)
    )
    return next(iter(made), 0)


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
