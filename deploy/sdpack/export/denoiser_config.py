"""Checks of denoiser configs: denoisers must need only a text and latents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdpack.errors import SourceError

USUAL_CHANNELS = 4  # if a config has no channels
# Keys of a UNet's config that can require other inputs, and their supported values; the first is
# the default.
SUPPORTED: Mapping[str, tuple[object, ...]] = {
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "addition_embed_type": (None, "text", "text_time"),
    "encoder_hid_dim_type": (None, "text_proj"),
    "dual_cross_attention": (False, None),
    "attention_type": ("default", None),
}
NEEDS: Mapping[str, str] = {
    "class_embed_type": "a class or another embedding for each image",
    "num_class_embeds": "a class for each image",
    "addition_embed_type": "more than a text",
    "encoder_hid_dim_type": "more than a text",
    "dual_cross_attention": "a second text or image",
    "attention_type": "boxes with a text for each",
}
# Keys of Qwen-Image's config that no text-to-image model sets, and what sets them.
EDITS: Mapping[str, str] = {
    "zero_cond_t": "that edits an image",
    "use_layer3d_rope": "that draws several layers",
    "use_additional_t_cond": "that draws several layers",
}
QWEN_PATCH = 4  # latent pixels of a token; Qwen-Image counts its outputs for each of them
# Kinds of UNet, by the number of input channels in addition to the latents'.
KINDS: Mapping[int, str] = {
    5: "for inpainting, which takes a mask and the latents of the masked image",
    4: "for instruct-pix2pix or a latent upscaler, which takes the latents of another image",
    1: "for depth2img, which takes a depth map",
    3: "for upscaling, which takes a smaller image",
}


def check_denoiser(class_name: str, config: Mapping[str, Any], path: Path) -> None:
    """Check that a denoiser needs only a text and its own latents.

    Args:
        class_name: its diffusers class.
        config: its config.
        path: path of the config, for messages.

    Raises:
        SourceError: it needs other inputs; names the key and the kind of denoiser.
    """
    if class_name.startswith("UNet"):
        _check_channels(config, path)
        _check_inputs(config, path)
        return
    _check_edits(config, path)
    inputs, outputs = config.get("in_channels"), config.get("out_channels")
    if class_name.startswith("PixArt") or not isinstance(outputs, int):
        return
    if inputs == outputs * (QWEN_PATCH if class_name.startswith("QwenImage") else 1):
        return
    raise SourceError(
        f"{path}: in_channels is {inputs} and out_channels is {outputs}: a transformer that takes "
        "an image in addition to its latents (such as for inpainting, depth or edges), which "
        "sdpack does not support; give a text-to-image model"
    )


def _check_edits(config: Mapping[str, Any], path: Path) -> None:
    for key, kind in EDITS.items():
        if config.get(key):
            raise SourceError(
                f"{path}: {key} is {config[key]!r}: a transformer {kind}, which sdpack does not "
                "support; give a text-to-image model"
            )


def _check_channels(config: Mapping[str, Any], path: Path) -> None:
    inputs, outputs = (
        USUAL_CHANNELS if config.get(key) is None else config[key]
        for key in ("in_channels", "out_channels")
    )
    if inputs == outputs:
        return
    if outputs == 2 * inputs:
        kind = "that learns its variance, as pixel-space models do"
    else:
        kind = KINDS.get(inputs - outputs, "of an unknown kind")
    raise SourceError(
        f"{path}: in_channels is {inputs} and out_channels is {outputs}: a UNet {kind}. sdpack "
        "does not support it; give a text-to-image model"
    )


def _check_inputs(config: Mapping[str, Any], path: Path) -> None:
    for key, supported in SUPPORTED.items():
        value = config.get(key, supported[0])
        if value not in supported:
            values = ", ".join(repr(k) for k in supported if k is not None)
            alternatives = f"; supported: {values}" if values else ""
            raise SourceError(
                f"{path}: {key} is {value!r}, so the UNet needs {NEEDS[key]}, which sdpack does "
                f"not support{alternatives}; give another denoiser"
            )
