"""Family, conditioning and input sizes of a denoiser, from its config alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdpack.documents.conditioning import Conditioning, Family, Input
from sdpack.documents.sampling import Sampling
from sdpack.errors import SourceError
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.denoiser_config import check_denoiser
from sdpack.export.pipeline_index import CONFIG

FAMILIES = {
    "SD3Transformer2DModel": Family.SD3,
    "PixArtTransformer2DModel": Family.PIXART,
    "FluxTransformer2DModel": Family.FLUX,
    "ChromaTransformer2DModel": Family.CHROMA,
    "Flux2Transformer2DModel": Family.FLUX2,
    "ZImageTransformer2DModel": Family.Z_IMAGE,
    "SanaTransformer2DModel": Family.SANA,
    "Lumina2Transformer2DModel": Family.LUMINA2,
    "QwenImageTransformer2DModel": Family.QWEN_IMAGE,
    "OvisImageTransformer2DModel": Family.OVIS_IMAGE,
}
SIZES = 6  # numbers in time_ids: original size, crop, target size
USUAL_PATCH = 2  # default side of a transformer's token, in latent pixels
USUAL_POSITIONS = 96  # default side of Stable Diffusion 3's table of positions
PACKED = 4  # latent pixels per token of a Flux transformer
PACKED_FAMILIES = (Family.FLUX, Family.CHROMA, Family.QWEN_IMAGE, Family.OVIS_IMAGE)
TABLED = (Family.Z_IMAGE, Family.LUMINA2)  # with tables of the positions of texts and images
SD3_ABSENT_TOKENS = 256  # zero tokens with which diffusers replaces an omitted T5

Sizes = tuple[int, ...]


def family_of(checkpoint: Checkpoint) -> Family:
    """Return the family of a denoiser.

    Raises:
        SourceError: it needs other inputs than a text; names them.
    """
    check_denoiser(checkpoint.class_name, checkpoint.config, checkpoint.folder / CONFIG)
    if not checkpoint.class_name.startswith("UNet"):
        return FAMILIES[checkpoint.class_name]
    sized = checkpoint.config.get("addition_embed_type") == "text_time"
    return Family.SDXL if sized else Family.SD


def conditioning_of(checkpoint: Checkpoint, sampling: Sampling) -> Conditioning:
    """Return how a denoiser is conditioned.

    Raises:
        SourceError: as in `family_of`.
    """
    family, config = family_of(checkpoint), checkpoint.config
    return Conditioning(
        family=family,
        inputs=_inputs(family, config),
        states_width=int(config["joint_attention_dim"]) if family is Family.SD3 else 0,
        absent_tokens=SD3_ABSENT_TOKENS if family is Family.SD3 else 0,
        guidance_width=int(config.get("time_cond_proj_dim") or 0),
        zero_empty=sampling.zero_empty_prompt,
        lowercase=family in (Family.PIXART, Family.SANA),
        distilled=sampling.distilled,
    )


def _inputs(family: Family, config: Mapping[str, Any]) -> tuple[Input, ...]:
    guidance_embedding = (Input.TIMESTEP_COND,) if config.get("time_cond_proj_dim") else ()
    match family:
        case Family.SD:
            return guidance_embedding
        case Family.SDXL:
            return (Input.TEXT_EMBEDS, Input.TIME_IDS, *guidance_embedding)
        case Family.SD3:
            return (Input.POOLED_PROJECTIONS,)
        case Family.PIXART:
            sizes = (Input.RESOLUTION, Input.ASPECT_RATIO) if _takes_sizes(config) else ()
            return (Input.MASK, *sizes)
        case Family.FLUX:
            scale = (Input.GUIDANCE,) if config.get("guidance_embeds") else ()
            return (Input.POOLED_PROJECTIONS, *scale)
        case Family.FLUX2 | Family.OVIS_IMAGE:
            return ()
        case Family.CHROMA | Family.Z_IMAGE | Family.LUMINA2 | Family.QWEN_IMAGE:
            return (Input.MASK,)
        case Family.SANA:
            scale = (Input.GUIDANCE,) if config.get("guidance_embeds") else ()
            return (Input.MASK, *scale)


def _takes_sizes(config: Mapping[str, Any]) -> bool:
    """Whether a PixArt transformer takes image sizes; by default as diffusers' class decides."""
    takes_sizes = config.get("use_additional_conditions")
    return config.get("sample_size") == 128 if takes_sizes is None else bool(takes_sizes)


def latent_channels(family: Family, config: Mapping[str, Any]) -> int:
    """Return the number of channels of a denoiser's latents."""
    channels = int(config["in_channels"])
    return channels // PACKED if family in PACKED_FAMILIES else channels


def states_width(family: Family, config: Mapping[str, Any]) -> int:
    """Return the width of the hidden states that a denoiser takes.

    Raises:
        SourceError: the config has no single width.
    """
    keys = {
        Family.SD3: "joint_attention_dim",
        Family.FLUX: "joint_attention_dim",
        Family.PIXART: "caption_channels",
        Family.CHROMA: "joint_attention_dim",
        Family.FLUX2: "joint_attention_dim",
        Family.Z_IMAGE: "cap_feat_dim",
        Family.SANA: "caption_channels",
        Family.LUMINA2: "cap_feat_dim",
        Family.QWEN_IMAGE: "joint_attention_dim",
        Family.OVIS_IMAGE: "joint_attention_dim",
    }
    key = keys.get(family, "cross_attention_dim")
    if config.get("encoder_hid_dim_type") == "text_proj":
        key = "encoder_hid_dim"
    width = config.get(key)
    if not isinstance(width, int):
        raise SourceError(f"the denoiser's {key} is {width!r}; sdpack supports one number only")
    return width


def pooled_width(family: Family, config: Mapping[str, Any]) -> int:
    """Return the width of a denoiser's pooled text embeddings; 0 if it takes none."""
    if family is Family.SDXL:
        sizes = SIZES * int(config["addition_time_embed_dim"])
        return int(config["projection_class_embeddings_input_dim"]) - sizes
    return int(config.get("pooled_projection_dim") or 0)


def widest_numbers(checkpoint: Checkpoint, pixels: int) -> int:
    """Return the number of values in the largest hidden state of a denoiser, for one image.

    Args:
        checkpoint: the denoiser.
        pixels: number of latent pixels of the image.
    """
    family, config = family_of(checkpoint), checkpoint.config
    if family in (Family.SD, Family.SDXL):
        return int(config["block_out_channels"][0]) * pixels
    side = latent_step(family, config)
    return transformer_width(family, config) * pixels // side**2


def transformer_width(family: Family, config: Mapping[str, Any]) -> int:
    """Return the width of a transformer's hidden states."""
    if family is Family.Z_IMAGE:
        return int(config["dim"])
    if family is Family.LUMINA2:
        return int(config["hidden_size"])
    return int(config["num_attention_heads"]) * int(config["attention_head_dim"])


def latent_step(family: Family, config: Mapping[str, Any]) -> int:
    """Return the number of latent pixels that image sides must be multiples of.

    UNets halve the latents several times; transformers cut them into patches.
    """
    if family in (Family.SD, Family.SDXL):
        return int(2 ** (len(config["block_out_channels"]) - 1))
    if family in (*PACKED_FAMILIES, Family.Z_IMAGE):
        return 2
    if family is Family.FLUX2:
        return 1
    return int(config.get("patch_size", USUAL_PATCH))


def most_rows(family: Family, config: Mapping[str, Any]) -> int:
    """Return the maximum side in latent pixels, from the table of positions; 0 if unlimited."""
    if family in TABLED:
        return int(config["axes_lens"][1]) * latent_step(family, config)
    if family is not Family.SD3:
        return 0
    positions = int(config.get("pos_embed_max_size") or USUAL_POSITIONS)
    return positions * latent_step(family, config)


def most_tokens(family: Family, config: Mapping[str, Any]) -> int:
    """Return the maximum number of tokens of a text, from the table of positions; 0 if unlimited.

    The position after the text is the image's.
    """
    return int(config["axes_lens"][0]) - 2 if family in TABLED else 0


def denoiser_sizes(
    conditioning: Conditioning,
    config: Mapping[str, Any],
    batch: int,
    rows: tuple[int, int],
    tokens: int,
) -> dict[str, Sizes]:
    """Return the shape of each of a denoiser's inputs, by name.

    Args:
        conditioning: how the denoiser is conditioned.
        config: its config.
        batch: batch size.
        rows: height and width of the latents.
        tokens: number of tokens of a text.
    """
    family = conditioning.family
    pooled = pooled_width(family, config)
    conditions: dict[Input, Sizes] = {
        Input.TEXT_EMBEDS: (batch, pooled),
        Input.POOLED_PROJECTIONS: (batch, pooled),
        Input.TIME_IDS: (batch, SIZES),
        Input.MASK: (batch, tokens),
        Input.RESOLUTION: (batch, 2),
        Input.ASPECT_RATIO: (batch, 1),
        Input.TIMESTEP_COND: (batch, conditioning.guidance_width),
        Input.GUIDANCE: (1,),
    }
    return {
        "sample": (batch, latent_channels(family, config), *rows),
        "timestep": (1,),
        "encoder_hidden_states": (batch, tokens, states_width(family, config)),
        **{name.value: conditions[name] for name in conditioning.inputs},
    }
