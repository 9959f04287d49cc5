"""Mixes: a candidate and a precision for each role of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from sdpack.documents.catalog import Catalog, Mixable
from sdpack.documents.profile import Profile
from sdpack.domain.placement import Guidance, Loading, Placement, Role
from sdpack.domain.precision import Precision
from sdpack.domain.workload import WORKLOAD
from sdpack.quantization.schemes import Scheme


@dataclass(frozen=True, order=True)
class Variant:
    """One candidate in one precision.

    Attributes:
        partner: the denoiser whose bridge is fused into a text encoder; otherwise None.
        schemes: for a mixed variant, the schemes of its quantized layers, by name.
        bits: for a mixed variant, the average bits per parameter.
    """

    role: Role
    candidate: str
    precision: Precision
    partner: str | None = None
    schemes: tuple[tuple[str, Scheme], ...] = ()
    bits: float = 0.0

    @property
    def label(self) -> str:
        """The precision, such as "w4" or "mixed@4.61"."""
        mixed = self.precision is Precision.MIXED
        return f"{self.precision}@{self.bits:.2f}" if mixed else self.precision.value

    @property
    def part_name(self) -> str:
        """The candidate in words, such as "text encoder s for denoiser m"."""
        partner = f" for denoiser {self.partner}" if self.partner else ""
        return f"{self.role.words} {self.candidate}{partner}"

    @property
    def full_name(self) -> str:
        """The variant in words, such as "text encoder s for denoiser m in w8"."""
        return f"{self.part_name} in {self.label}"

    def __str__(self) -> str:
        return f"{self.candidate}/{self.label}"


@dataclass(frozen=True, order=True)
class PartSet:
    """A set of parts: the candidate of each role, in whatever precision.

    Attributes:
        candidates: the role and the name of each candidate, in the order in which they run.
        steps: as of a mix.
    """

    candidates: tuple[tuple[Role, str], ...]
    steps: int | None = None

    def __str__(self) -> str:
        parts = " + ".join(name for _, name in self.candidates)
        return parts if self.steps is None else f"{parts} in {self.steps} steps"


@dataclass(frozen=True, order=True)
class Mix:
    """One variant for each role of a pipeline, in the order in which they run.

    Attributes:
        steps: number of denoising steps; None if the catalog offers only one for its denoiser.
    """

    variants: tuple[Variant, ...]
    steps: int | None = None

    @classmethod
    def of(cls, *variants: Variant, steps: int | None = None) -> Mix:
        """The mix of these variants, given in any order."""
        return cls(tuple(sorted(variants, key=lambda v: list(Role).index(v.role))), steps)

    @property
    def roles(self) -> tuple[Role, ...]:
        return tuple(variant.role for variant in self.variants)

    @property
    def candidates(self) -> tuple[tuple[Role, str], ...]:
        """The role and the name of each candidate, without the precisions."""
        return tuple((variant.role, variant.candidate) for variant in self.variants)

    @property
    def part_set(self) -> PartSet:
        """The set of parts that this mix is made of."""
        return PartSet(self.candidates, self.steps)

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
        variants = tuple(variant if v.role is variant.role else v for v in self.variants)
        return replace(self, variants=variants)

    def in_steps(self, steps: int | None) -> Mix:
        """This mix with another number of steps."""
        return replace(self, steps=steps)

    def __str__(self) -> str:
        parts = " + ".join(str(variant) for variant in self.variants)
        return parts if self.steps is None else f"{parts} in {self.steps} steps"


def by_part_set(mixes: Iterable[Mix]) -> dict[PartSet, list[Mix]]:
    """The mixes of each set of parts, in their order."""
    sets: dict[PartSet, list[Mix]] = {}
    for mix in mixes:
        sets.setdefault(mix.part_set, []).append(mix)
    return sets


StepChoices = tuple[int | None, ...]
"""The numbers of steps that a denoiser's mixes differ in; (None,) if it has only one."""


def only_one(denoiser: str) -> StepChoices:
    """The choices of a denoiser whose number of steps is fixed."""
    return (None,)


def mixes(
    catalog: Catalog,
    precisions: Sequence[Precision],
    steps: Callable[[str], StepChoices] = only_one,
) -> Iterator[Mix]:
    """Every mix of a catalog's candidates in these precisions.

    Args:
        steps: gives the numbers of steps to choose from, by denoiser. They change neither graphs
            nor memory.
    """
    for parts in catalog.mixable():
        for combination in product(precisions, repeat=len(parts.names)):
            mix = in_precisions(parts, combination)
            for count in steps(parts.denoiser):
                yield mix.in_steps(count)


def in_precisions(parts: Mixable, precisions: Sequence[Precision]) -> Mix:
    """The mix of candidates that work together, given a precision for each, in role order."""
    return Mix.of(
        *(
            Variant(role, name, precision, parts.partner(role))
            for (role, name), precision in zip(parts.names.items(), precisions, strict=True)
        )
    )


def placements(profile: Profile, latent_side: int) -> list[Placement]:
    """The placements that a profile allows, fastest first.

    Sequential guidance costs a little speed. On a GPU, tiles cost more, and loading the parts for
    every image costs most. On a CPU, decoding an image takes longer than loading the parts, and
    with tiles it is decoded several times over, so tiles come last there
    (`benchmarks.placement_costs`).

    Args:
        latent_side: the longer side of an image's latents; tiles are at most half of it.
    """
    tiles: list[int | None] = [None]
    side = latent_side // 2
    while side >= WORKLOAD.smallest_tile:
        tiles.append(side)
        side //= 2
    loadings = [loading for loading in Loading if loading in profile.loading]
    if profile.runtime.on_gpu:
        pairs = [(loading, tile) for loading in loadings for tile in tiles]
    else:
        pairs = [(loading, tile) for tile in tiles for loading in loadings]
    return [
        Placement(loading, guidance, tile)
        for loading, tile in pairs
        for guidance in Guidance
        if guidance in profile.guidance
    ]
