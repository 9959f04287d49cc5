"""Mixes: a candidate and a precision for each role, from a catalog and a profile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from sdpack.documents.catalog import Catalog, Mixable
from sdpack.documents.profile import Profile
from sdpack.domain.picture_scaling import SCALING
from sdpack.domain.placement import Guidance, Loading, Placement, Role
from sdpack.domain.precision import Precision
from sdpack.quantization.schemes import Scheme


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
    """One variant for each of a pipeline's roles, in the order of work."""

    variants: tuple[Variant, ...]

    @classmethod
    def of(cls, *variants: Variant) -> Mix:
        """The mix of these variants, in whatever order they come."""
        return cls(tuple(sorted(variants, key=lambda v: list(Role).index(v.role))))

    @property
    def roles(self) -> tuple[Role, ...]:
        return tuple(variant.role for variant in self.variants)

    @property
    def candidates(self) -> tuple[tuple[Role, str], ...]:
        """What it is made of, whatever the precisions."""
        return tuple((variant.role, variant.candidate) for variant in self.variants)

    def variant(self, role: Role) -> Variant:
        return next(variant for variant in self.variants if variant.role is role)

    @property
    def text_encoder(self) -> Variant:
        """The first text encoder."""
        return self.variants[0]

    @property
    def denoiser(self) -> Variant:
        return self.variant(Role.DENOISER)

    @property
    def decoder(self) -> Variant:
        return self.variant(Role.DECODER)

    def replacing(self, variant: Variant) -> Mix:
        """This mix with another variant in its role."""
        return Mix(tuple(variant if v.role is variant.role else v for v in self.variants))

    def __str__(self) -> str:
        return " + ".join(str(variant) for variant in self.variants)


def mixes(catalog: Catalog, precisions: Sequence[Precision]) -> Iterator[Mix]:
    """Every mix of a catalog's candidates in these precisions."""
    for parts in catalog.mixable():
        for chosen in product(precisions, repeat=len(parts.names)):
            yield in_precisions(parts, chosen)


def in_precisions(parts: Mixable, precisions: Sequence[Precision]) -> Mix:
    """Candidates that work together, each in a precision, in the order of their roles."""
    return Mix.of(
        *(
            Variant(role, name, precision, parts.partner(role))
            for (role, name), precision in zip(parts.names.items(), precisions, strict=True)
        )
    )


def placements(profile: Profile, latent_side: int) -> list[Placement]:
    """The profile's placements, the fastest first.

    Guidance in two halves costs some speed. On a GPU tiles cost more, and loading parts for every
    picture the most. On a CPU a picture is decoded for longer than parts take to load, and tiles
    decode it several times over: there they come last (`benchmarks.placements`).

    Args:
        latent_side: the longer side of a picture's latents; tiles are at most half of it.
    """
    tiles: list[int | None] = [None]
    side = latent_side // 2
    while side >= SCALING.smallest_tile:
        tiles.append(side)
        side //= 2
    loadings = [loading for loading in Loading if loading in profile.loading]
    if profile.runtime.on_gpu:
        ways = [(loading, tile) for loading in loadings for tile in tiles]
    else:
        ways = [(loading, tile) for tile in tiles for loading in loadings]
    return [
        Placement(loading, guidance, tile)
        for loading, tile in ways
        for guidance in Guidance
        if guidance in profile.guidance
    ]
