"""Checks of denoiser configs: denoisers must need only a text and latents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdpack.errors import SourceError

USUAL_CHANNELS = 4  # of latents, if a config does not say
# What else a UNet may be asked for, by the key of diffusers' config, and the values that ask for
# nothing sdpack does not give. A key that is not there has the first value.
KNOWN: Mapping[str, tuple[object, ...]] = {
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "addition_embed_type": (None, "text", "text_time"),
    "encoder_hid_dim_type": (None, "text_proj"),
    "dual_cross_attention": (False, None),
    "attention_type": ("default", None),
}
ASKED: Mapping[str, str] = {
    "class_embed_type": "a class or another embedding for each picture",
    "num_class_embeds": "a class for each picture",
    "addition_embed_type": "more than a text",
    "encoder_hid_dim_type": "more than a text",
    "dual_cross_attention": "a second text or picture",
    "attention_type": "boxes with a text for each",
}
# Kinds of UNet by how many channels they take beside their latents'.
KINDS: Mapping[int, str] = {
    5: "for inpainting, which takes a mask and the latents of the masked picture",
    4: "for instruct-pix2pix or a latent upscaler, which takes the latents of another picture",
    1: "for depth2img, which takes a depth map",
    3: "for upscaling, which takes a smaller picture",
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
    taken, given = config.get("in_channels"), config.get("out_channels")
    if class_name.startswith("PixArt") or not isinstance(given, int) or taken == given:
        return
    raise SourceError(
        f"{path}: in_channels is {taken} and out_channels is {given}: a transformer that takes a "
        "picture beside its latents (such as for inpainting, depth or edges), which sdpack does "
        "not support; give a text-to-image model"
    )


def _check_channels(config: Mapping[str, Any], path: Path) -> None:
    taken, given = (
        USUAL_CHANNELS if config.get(key) is None else config[key]
        for key in ("in_channels", "out_channels")
    )
    if taken == given:
        return
    if given == 2 * taken:
        kind = "that learns its variance, as pixel-space models do"
    else:
        kind = KINDS.get(taken - given, "of a kind sdpack does not know")
    raise SourceError(
        f"{path}: in_channels is {taken} and out_channels is {given}: a UNet {kind}. sdpack does "
        "not support it; give a text-to-image model"
    )


def _check_inputs(config: Mapping[str, Any], path: Path) -> None:
    for key, known in KNOWN.items():
        value = config.get(key, known[0])
        if value not in known:
            more = ", ".join(repr(k) for k in known if k is not None)
            allowed = f"; supported: {more}" if more else ""
            raise SourceError(
                f"{path}: {key} is {value!r}, so the UNet needs {ASKED[key]}, which sdpack does "
                f"not support{allowed}; give another denoiser"
            )
