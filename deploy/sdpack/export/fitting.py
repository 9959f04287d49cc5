"""Whether parts were made for each other, as far as their configs tell."""

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
from sdpack.export.denoiser_config import USUAL_CHANNELS
from sdpack.export.families import family_of, latent_channels, pooled_width, states_width

WIDTH_KEYS = ("hidden_size", "d_model", "dim")  # keys of a text encoder's width, class by class
PADDED = (Role.TEXT_ENCODER, Role.TEXT_ENCODER_2)  # whose states SD3 fills up with zeros


def check_parts_fit(
    where: str,
    encoders: Mapping[Role, Checkpoint],
    denoiser: Checkpoint,
    decoder: Checkpoint,
    bridged: Set[Role] = frozenset(),
) -> None:
    """See that widths of states and pooled texts, and channels of latents, are those expected.

    Args:
        where: what the parts are listed in, for the complaint.
        bridged: text encoders whose states a bridge changes.

    Raises:
        CatalogError: they are not; says which.
        SourceError: a config does not tell.
    """
    family = family_of(denoiser)
    known = len(ENCODER_OUTPUTS[family])
    if any(TEXT_ENCODERS.index(role) >= known for role in encoders):
        raise CatalogError(
            f"{where}: {denoiser.class_name} takes {known} text encoders, but there are "
            f"{len(encoders)}; remove the others"
        )
    _check_states_fit(where, family, encoders, denoiser, bridged)
    said = [
        _pooled_width(encoder)
        for role, encoder in encoders.items()
        if encoder_outputs(family, role).pooled
    ]
    heard = pooled_width(family, denoiser.config)
    if heard and said and sum(said) != heard:
        raise CatalogError(
            f"{where}: {denoiser.folder.name} takes pooled embeddings of width {heard}, but its "
            f"text encoders give {sum(said)}; use another encoder"
        )
    if family is Family.SDXL and decoder.config.get("latents_mean") is not None:
        raise CatalogError(
            f"{where}: {decoder.folder.name} has latents_mean and latents_std, a scale for each "
            "channel, which sdpack does not support; use another decoder"
        )
    drawn = latent_channels(family, denoiser.config)
    seen = int(decoder.config.get("latent_channels", USUAL_CHANNELS))
    if drawn != seen:
        raise CatalogError(
            f"{where}: {denoiser.folder.name} makes latents of {drawn} channels, but "
            f"{decoder.folder.name} decodes {seen}; use the decoder it was trained with"
        )


def _check_states_fit(
    where: str,
    family: Family,
    encoders: Mapping[Role, Checkpoint],
    denoiser: Checkpoint,
    bridged: Set[Role],
) -> None:
    heard = states_width(family, denoiser.config)
    widths = {
        role: _width(encoder)
        for role, encoder in encoders.items()
        if _says_states(encoder_outputs(family, role)) and role not in bridged
    }
    if family is Family.SDXL:
        fits = bool(bridged) or sum(widths.values()) == heard
    else:
        whole = [w for role, w in widths.items() if family is not Family.SD3 or role not in PADDED]
        fits = all(width == heard for width in whole)
    if not fits:
        said = ", ".join(f"{role.words} {width}" for role, width in widths.items())
        raise CatalogError(
            f"{where}: {denoiser.folder.name} attends to states of width {heard}, but its text "
            f"encoders give other widths ({said}); add a bridge or use another encoder"
        )


def _says_states(asked: EncoderOutputs) -> bool:
    return asked.states is not States.NONE


def _width(encoder: Checkpoint) -> int:
    """Of an encoder's states."""
    for key in WIDTH_KEYS:
        if isinstance(encoder.config.get(key), int):
            return int(encoder.config[key])
    raise SourceError(f"{encoder.folder}: its config has no width ({', '.join(WIDTH_KEYS)})")


def _pooled_width(encoder: Checkpoint) -> int:
    projected = encoder.class_name.endswith("WithProjection")
    return int(encoder.config["projection_dim"]) if projected else _width(encoder)
