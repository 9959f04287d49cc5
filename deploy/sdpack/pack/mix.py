"""Mixes: a candidate and a precision for each role, from a catalog and a profile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from sdpack.catalog import Catalog
from sdpack.placement import Guidance, Loading, Placement, Role
from sdpack.precision import Precision
from sdpack.profile import Profile
from sdpack.quantize.schemes import Scheme

SMALLEST_TILE = 32  # latent pixels; below that a tile's borders are most of it


@dataclass(frozen=True, order=True)
class Variant:
    """One candidate in one precision.

    Attributes:
        partner: a text encoder's denoiser, whose bridge is fused into it; None for the others.
        schemes: of a mixed variant, how its layers are stored, by name; others stay as computed.
        bits: of a mixed variant, what one of its parameters takes on average.
    """

    role: Role
    candidate: str
    precision: Precision
    partner: str | None = None
    schemes: tuple[tuple[str, Scheme], ...] = ()
    bits: float = 0.0

    @property
    def label(self) -> str:
        """ "w4", or "mixed@4.61"."""
        mixed = self.precision is Precision.MIXED
        return f"{self.precision}@{self.bits:.2f}" if mixed else self.precision.value

    def __str__(self) -> str:
        return f"{self.candidate}/{self.label}"


@dataclass(frozen=True, order=True)
class Mix:
    """One variant for each role."""

    text_encoder: Variant
    denoiser: Variant
    decoder: Variant

    def variant(self, role: Role) -> Variant:
        found: Variant = getattr(self, role.value)
        return found

    def __str__(self) -> str:
        return " + ".join(str(self.variant(role)) for role in Role)


def mixes(catalog: Catalog, precisions: Sequence[Precision]) -> Iterator[Mix]:
    """Every mix of a catalog's candidates in these precisions."""
    for parts in catalog.mixable():
        partner = parts.denoiser if parts.bridge is not None else None
        for said, drawn, seen in product(precisions, repeat=3):
            yield Mix(
                Variant(Role.TEXT_ENCODER, parts.text_encoder, said, partner),
                Variant(Role.DENOISER, parts.denoiser, drawn),
                Variant(Role.DECODER, parts.decoder, seen),
            )


def placements(profile: Profile, latent_side: int) -> list[Placement]:
    """The profile's placements, the fastest first.

    Guidance in two halves costs some speed, tiles cost more, loading parts for every picture the
    most.

    Args:
        latent_side: the longer side of a picture's latents; tiles are at most half of it.
    """
    tiles: list[int | None] = [None]
    side = latent_side // 2
    while side >= SMALLEST_TILE:
        tiles.append(side)
        side //= 2
    return [
        Placement(loading, guidance, tile)
        for loading in Loading
        if loading in profile.loading
        for tile in tiles
        for guidance in Guidance
        if guidance in profile.guidance
    ]
