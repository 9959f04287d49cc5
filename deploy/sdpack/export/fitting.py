"""Check that the parts of a pipeline fit together, by their configs."""

from __future__ import annotations

from collections.abc import Mapping, Set

from sdpack.documents.conditioning import (
    ENCODER_OUTPUTS,
    EncoderOutputs,
    Family,
    States,
    encoder_outputs,
)
from sdpack.domain.placement import TEXT_ENCODERS, Role
from sdpack.errors import CatalogError, SourceError
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.families import family_of, latent_channels, pooled_width, states_width
from sdpack.export.latents import latent_channels as decoder_latents

WIDTH_KEYS = ("hidden_size", "d_model", "dim")  # keys of a text encoder's width, class by class
PADDED = (Role.TEXT_ENCODER, Role.TEXT_ENCODER_2)  # whose states SD3 fills up with zeros


def check_parts_fit(
    where: str,
    encoders: Mapping[Role, Checkpoint],
    denoiser: Checkpoint,
    decoder: Checkpoint,
    bridged: Set[Role] = frozenset(),
) -> None:
    """Check the widths of hidden states and pooled embeddings, and the channels of latents.

    Args:
        where: the file or folder that lists the parts, for messages.
        encoders: text encoders by role.
        denoiser: the denoiser.
        decoder: the decoder.
        bridged: roles of text encoders whose hidden states pass through a bridge.

    Raises:
        CatalogError: two parts do not fit; names them.
        SourceError: a config lacks a width.
    """
    family = family_of(denoiser)
    most = len(ENCODER_OUTPUTS[family])
    if any(TEXT_ENCODERS.index(role) >= most for role in encoders):
        raise CatalogError(
            f"{where}: {denoiser.class_name} takes {most} text encoders, but there are "
            f"{len(encoders)}; remove the others"
        )
    _check_states_fit(where, family, encoders, denoiser, bridged)
    _check_pooled_fit(where, family, encoders, denoiser)
    _check_latents_fit(where, family, denoiser, decoder)


def _check_pooled_fit(
    where: str, family: Family, encoders: Mapping[Role, Checkpoint], denoiser: Checkpoint
) -> None:
    encoder_widths = [
        _pooled_width(encoder)
        for role, encoder in encoders.items()
        if encoder_outputs(family, role).pooled
    ]
    denoiser_width = pooled_width(family, denoiser.config)
    if denoiser_width and encoder_widths and sum(encoder_widths) != denoiser_width:
        raise CatalogError(
            f"{where}: {denoiser.folder.name} takes pooled embeddings of width {denoiser_width}, "
            f"but its text encoders give {sum(encoder_widths)}; use another encoder"
        )


def _check_latents_fit(
    where: str, family: Family, denoiser: Checkpoint, decoder: Checkpoint
) -> None:
    if family is Family.SDXL and decoder.config.get("latents_mean") is not None:
        raise CatalogError(
            f"{where}: {decoder.folder.name} has latents_mean and latents_std, a scale for each "
            "channel, which sdpack does not support; use another decoder"
        )
    channels = latent_channels(family, denoiser.config)
    decoder_channels = decoder_latents(decoder.class_name, decoder.config)
    if channels != decoder_channels:
        raise CatalogError(
            f"{where}: {denoiser.folder.name} makes latents of {channels} channels, but "
            f"{decoder.folder.name} decodes {decoder_channels}; use the decoder it was trained with"
        )


def _check_states_fit(
    where: str,
    family: Family,
    encoders: Mapping[Role, Checkpoint],
    denoiser: Checkpoint,
    bridged: Set[Role],
) -> None:
    expected = states_width(family, denoiser.config)
    widths = {
        role: _width(encoder)
        for role, encoder in encoders.items()
        if _has_states(encoder_outputs(family, role)) and role not in bridged
    }
    if family is Family.SDXL:
        fits = bool(bridged) or sum(widths.values()) == expected
    else:
        full = [
            width * max(len(encoder_outputs(family, role).layers), 1)
            for role, width in widths.items()
            if family is not Family.SD3 or role not in PADDED
        ]
        fits = all(width == expected for width in full)
    if not fits:
        listed = ", ".join(f"{role.words} {width}" for role, width in widths.items())
        raise CatalogError(
            f"{where}: {denoiser.folder.name} attends to states of width {expected}, but its text "
            f"encoders give other widths ({listed}); add a bridge or use another encoder"
        )


def _has_states(outputs: EncoderOutputs) -> bool:
    return outputs.states is not States.NONE


def _width(encoder: Checkpoint) -> int:
    """The width of an encoder's states."""
    for key in WIDTH_KEYS:
        if isinstance(encoder.config.get(key), int):
            return int(encoder.config[key])
    raise SourceError(f"{encoder.folder}: its config has no width ({', '.join(WIDTH_KEYS)})")


def _pooled_width(encoder: Checkpoint) -> int:
    projected = encoder.class_name.endswith("WithProjection")
    return int(encoder.config["projection_dim"]) if projected else _width(encoder)
