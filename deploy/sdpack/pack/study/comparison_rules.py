"""Mixes chosen by simple rules, with which a study compares the best mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sdpack.documents.record import (
    DENOISER_FIRST,
    ENCODER_FIRST,
    LIKE_STABLE_DIFFUSION,
    STABLE_DIFFUSION,
)
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.study.budget import Budget
from sdpack.pack.variants.variant_builder import VariantBuilder

NEAR = 0.02  # a difference in distance to Stable Diffusion's shares that does not count

Pick = Callable[[Budget], Fitted | None]
IsOne = Callable[[Role], bool]


def is_encoder(role: Role) -> bool:
    """Whether a role is a text encoder's."""
    return role.encodes_text


def is_denoiser(role: Role) -> bool:
    """Whether a role is the denoiser's."""
    return role is Role.DENOISER


def is_decoder(role: Role) -> bool:
    """Whether a role is the decoder's."""
    return role is Role.DECODER


ENCODERS_FIRST: Sequence[IsOne] = (is_encoder, is_denoiser, is_decoder)
DENOISERS_FIRST: Sequence[IsOne] = (is_denoiser, is_encoder, is_decoder)


@dataclass(frozen=True)
class ComparisonRules:
    """Picks one mix by each rule; the module `study` describes the rules."""

    candidates: Candidates
    variants: VariantBuilder
    footprints: Footprints

    def rules(self) -> Iterator[tuple[str, Pick]]:
        """The name of each rule, and the function that picks a mix by it."""
        request = self.candidates.request
        for precision in request.precisions:
            yield f"all {precision}", partial(self.all_in, precision)
        yield ENCODER_FIRST, partial(self.largest, ENCODERS_FIRST)
        yield DENOISER_FIRST, partial(self.largest, DENOISERS_FIRST)
        yield LIKE_STABLE_DIFFUSION, self.like_stable_diffusion

    def all_in(self, precision: Precision, budget: Budget) -> Fitted | None:
        """The most promising mix with every part in this precision."""
        return budget.promising(
            fitted for fitted in budget.fitted if self.variants.is_in(fitted.mix, precision)
        )

    def largest(self, order: Sequence[IsOne], budget: Budget) -> Fitted | None:
        """The mix whose candidates have the most parameters, compared in this order of roles."""
        fitted = list(budget.fitted)
        for is_one in order:
            sizes = [self._parameters(each.mix, is_one) for each in fitted]
            most = max(sizes)
            fitted = [each for each, size in zip(fitted, sizes, strict=True) if size == most]
        return budget.promising(fitted)

    def like_stable_diffusion(self, budget: Budget) -> Fitted | None:
        """The mix whose weights are shared out among roles most like Stable Diffusion's."""
        distances = {fitted.mix: self._distance(fitted) for fitted in budget.fitted}
        least = min(distances.values())
        return budget.promising(f for f in budget.fitted if distances[f.mix] <= least + NEAR)

    def _parameters(self, mix: Mix, is_one: IsOne) -> int:
        return sum(
            self.candidates.parameters(v.role, v.candidate) for v in mix.variants if is_one(v.role)
        )

    def _distance(self, fitted: Fitted) -> float:
        """The summed differences between a mix's shares of weights and Stable Diffusion's."""
        shares = self._shares(fitted)
        return sum(abs(shares[group] - share) for group, share in STABLE_DIFFUSION.items())

    def _shares(self, fitted: Fitted) -> Mapping[str, float]:
        sizes = dict.fromkeys(STABLE_DIFFUSION, 0)
        for variant in fitted.mix.variants:
            group = "text" if variant.role.encodes_text else variant.role.value
            sizes[group] += self._weight_bytes(variant, fitted)
        total = sum(sizes.values())
        return {group: size / total for group, size in sizes.items()}

    def _weight_bytes(self, variant: Variant, fitted: Fitted) -> int:
        return self.footprints.of(variant, fitted.placement).weight_bytes
