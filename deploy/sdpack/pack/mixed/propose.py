"""Mixed variants that fill a memory budget: the allocator chooses a scheme for each layer.

For the largest sets of parts that can fit, each layer's storage is chosen so that the image changes
least. The memory that a runtime needs besides the weights is known only after the variants are
made, so each try corrects the room for weights by the peak of the previous one, as long as that
promises better images. The resulting mixes race against all others.

Uniform variants in w4 have blocks of 32. Wider blocks take less memory, but layers in wider blocks
have to be rounded for the one mix that uses them: minutes for each try with a large model. For
large images they are therefore not offered where the budget is not tight. For the zoo's largest
parts, the predicted change of the image is then higher by at most 4 % if the budget is 15 % or more
of the way from w4 to fp32, by 24 % at a tenth of the way, and 2.3 times as high at a fiftieth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sdpack.domain.placement import Loading, Placement, Role
from sdpack.domain.precision import UNQUANTIZED
from sdpack.errors import InfeasibleError, UnsupportedGraphError
from sdpack.memory.predict import Footprint
from sdpack.pack.mixed.allocate import Allocation, Choice, Limit, allocate
from sdpack.pack.mixed.choices import Choices
from sdpack.pack.parallel.tasks import MeasureEffects, by_part, part_jobs
from sdpack.pack.planning.fit import peak_of
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.graph_files import stored_bytes

MOST = 6  # sets of parts
TRIES = 4  # at filling a budget
FILLED = 0.98  # share of a budget that counts as full
GAIN = 0.02  # of the predicted change of the image; a try that gains less is not made
NARROWER = 0.85  # of the least uniform peak; wider blocks cannot go below that
ROOMY = 1.25  # times the least uniform peak; wider blocks gain little in larger budgets


@dataclass
class Proposals:
    """Proposes mixed variants for one budget.

    Attributes:
        possible: the uniform mixes that can be built.
    """

    toolchain: Toolchain
    footprints: Footprints
    possible: Sequence[Mix]
    budget_bytes: int

    def __post_init__(self) -> None:
        self.context = self.toolchain.context
        self.candidates = self.toolchain.candidates
        self.variants = self.toolchain.variants
        self.choices = Choices.of_toolchain(self.toolchain)
        self.shared = Choices.of_toolchain(self.toolchain, shared=True)

    def mixes(self) -> Iterator[Mix]:
        """The mixed mixes that are worth racing: each fills the budget, or nearly.

        There are none if the request allows no scheme for layers; nothing is measured then.
        """
        request = self.candidates.request
        if not self.choices.offered:
            return
        count, sets = 0, self._widest()
        self._measure_ahead([widest for widest, _ in sets[:MOST]])
        for widest, least in sets:
            quick = request.is_large and least * ROOMY <= self.budget_bytes
            mix = self._proposed(widest, self.shared if quick else self.choices)
            if mix is not None:
                count += 1
                for steps in request.step_choices(mix.denoiser.candidate):
                    yield mix.in_steps(steps)
            if count == MOST:
                return

    def _measure_ahead(self, mixes: Sequence[Mix]) -> None:
        """Measure the effects of the layers of these mixes in several processes."""
        sensitivities = self.choices.sensitivities
        variants = dict.fromkeys(variant for mix in mixes for variant in mix.variants)
        new = []
        for variant in variants:
            with suppress(UnsupportedGraphError):  # the set of this variant is then left out
                if not sensitivities.knows(variant):
                    new.append(variant)
        self.context.prepare(part_jobs("measuring the effect of", by_part(new), MeasureEffects))

    def _widest(self) -> list[tuple[Mix, float]]:
        """Return, for each set of parts, the mix with the largest weights, and the lowest peak.

        Sets with more parameters come first. Two kinds of sets are left out: those whose largest
        mix fits in the fastest placement, as they have nothing to gain, and those whose smallest
        mix is far too large in every placement.
        """
        sets: dict[tuple[tuple[Role, str], ...], list[Mix]] = {}
        for mix in self.possible:
            sets.setdefault(mix.candidates, []).append(mix)
        placements = self.candidates.placements
        tight = []
        for mixes in sets.values():
            ordered = sorted(mixes, key=lambda mix: (self._weight(mix), mix))
            if self._peak_or_more(ordered[-1], placements[0]) <= self.budget_bytes:
                continue
            least = min(self._peak_or_more(ordered[0], placement) for placement in placements)
            if least * NARROWER <= self.budget_bytes:
                tight.append((ordered[-1], least))
        return sorted(tight, key=lambda pair: (-self._parameters(pair[0]), str(pair[0])))

    def _weight(self, mix: Mix) -> int:
        return sum(stored_bytes(self.variants.built(variant).artifact) for variant in mix.variants)

    def _parameters(self, mix: Mix) -> int:
        return sum(self.candidates.parameters(*part) for part in mix.candidates)

    def _peak_or_more(self, mix: Mix, placement: Placement) -> float:
        """The peak of a mix; infinite if the compiler rejects one of its variants."""
        try:
            return self._peak(mix, placement)
        except UnsupportedGraphError:
            return math.inf

    def _peak(self, mix: Mix, placement: Placement) -> int:
        fixed = self.footprints.fixed_bytes
        return peak_of(mix, placement, self.footprints.of, fixed).bytes

    def _proposed(self, widest: Mix, choices: Choices) -> Mix | None:
        """The best mixed mix of a set of parts, in the fastest placement where one fits."""
        for placement in self.candidates.placements:
            try:
                mix = self._filled(widest, placement, choices)
                if mix is not None:
                    return mix
            except (InfeasibleError, UnsupportedGraphError) as error:
                self.context.say(f"no mixed {widest.denoiser.candidate}, {placement}: {error}")
        return None

    def _filled(self, widest: Mix, placement: Placement, choices: Choices) -> Mix | None:
        """Repeat the allocation with better estimates of the room until the budget is nearly full.

        Returns None if every layer can stay unquantized, or if no allocation fits.

        Raises:
            InfeasibleError: the layers do not fit in any of their schemes.
            UnsupportedGraphError: the compiler rejects a variant that was allocated.
        """
        listed = choices.of_mix(widest)
        room = self._room(widest, placement, choices)
        best: tuple[float, Mix] | None = None
        for _ in range(TRIES):
            allocation = allocate(listed, _limits(room, placement))
            if all(option.name == UNQUANTIZED for option in allocation.options):
                break  # this is a uniform mix
            if best is not None and allocation.cost > (1 - GAIN) * best[0]:
                break
            mix = choices.mix(widest, listed, allocation)
            peak = self._peak(mix, placement)
            if peak <= self.budget_bytes and (best is None or allocation.cost < best[0]):
                best = (allocation.cost, mix)
            if self.budget_bytes * FILLED <= peak <= self.budget_bytes:
                break
            room = self._corrected(mix, listed, allocation, placement)
        return best[1] if best is not None else None

    def _room(self, widest: Mix, placement: Placement, choices: Choices) -> dict[Role, int]:
        """A first estimate of the room for layers, in bytes, while each part is loaded.

        It assumes that the other memory of each part is that of its smallest variant.
        """
        narrow = {variant.role: self._narrowest(variant) for variant in widest.variants}
        parts = {role: self.footprints.of(variant, placement) for role, variant in narrow.items()}
        stored = {role: choices.layer_bytes(variant) for role, variant in narrow.items()}
        return self._room_besides(parts, stored, placement)

    def _corrected(
        self,
        mix: Mix,
        choices: Sequence[Choice],
        allocation: Allocation,
        placement: Placement,
    ) -> dict[Role, int]:
        """The room for layers, estimated from the footprints of an allocation's variants."""
        parts = {v.role: self.footprints.of(v, placement) for v in mix.variants}
        stored = dict.fromkeys(mix.roles, 0)
        for choice, option in zip(choices, allocation.options, strict=True):
            stored[Role(choice.part)] += option.bytes
        return self._room_besides(parts, stored, placement)

    def _room_besides(
        self, parts: Mapping[Role, Footprint], stored: Mapping[Role, int], placement: Placement
    ) -> dict[Role, int]:
        """The room for layers, after all other memory that the parts need.

        For resident parts, it is the room for all of them together, repeated for each part. For
        phased parts, it is the room for each part alone.

        Args:
            parts: the footprint of each part.
            stored: how many bytes of that footprint are layers.
        """
        fixed = self.footprints.fixed_bytes
        besides = {role: part.weight_bytes - stored[role] for role, part in parts.items()}
        if placement.loading is Loading.RESIDENT:
            scratch = max(footprint.activation_bytes for footprint in parts.values())
            sessions = sum(footprint.session_bytes for footprint in parts.values())
            used = fixed + sessions + scratch + sum(besides.values())
            return dict.fromkeys(parts, self.budget_bytes - used)
        room, residue = {}, fixed
        for role, part in parts.items():
            used = besides[role] + part.activation_bytes + part.session_bytes + residue
            room[role] = self.budget_bytes - used
            residue += part.residue_bytes
        return room

    def _narrowest(self, variant: Variant) -> Variant:
        part = (variant.role, variant.candidate, variant.partner)
        own = {
            other
            for mix in self.possible
            for other in mix.variants
            if (other.role, other.candidate, other.partner) == part
        }
        return min(own, key=lambda v: (stored_bytes(self.variants.built(v).artifact), v))


def _limits(room: Mapping[Role, int], placement: Placement) -> list[Limit]:
    if placement.loading is Loading.RESIDENT:
        return [Limit(frozenset(role.value for role in room), min(room.values()))]
    return [Limit(frozenset({role.value}), bytes_) for role, bytes_ in room.items()]
