"""Mixed variants for a budget: what the allocator would make of the bytes there are.

For the largest sets of parts that can be made to fit, each layer's storage is chosen so that the
picture changes least. What the runtime needs besides the weights is known only once the variants
are made, so the room for weights is set again by what their peak turns out to be. What comes out is
raced against everything else.

Uniform variants have four bits in blocks of 32. Wider blocks take less, and every layer that has
them is rounded for one mix: minutes of a large model, for each try. Of large pictures they are left
out where there is room: at the zoo's largest parts the harm foretold is then at most 4 % higher
from 15 % of the way from w4 to fp32 on, 24 % higher at a tenth, 2.3 times as high at a fiftieth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sdpack.domain.placement import Loading, Placement, Role
from sdpack.errors import InfeasibleError, UnsupportedGraphError
from sdpack.memory.predict import Footprint
from sdpack.pack.mixed.allocate import Allocation, Choice, Limit, allocate
from sdpack.pack.mixed.choices import Choices
from sdpack.pack.planning.fit import peak_of
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.graph_files import stored_bytes
from sdpack.quantization.schemes import UNQUANTIZED

MOST = 6  # sets of parts
TRIES = 4  # to fill a budget
FILLED = 0.98  # of a budget: enough
NARROWER = 0.85  # of the least uniform peak: wider blocks do not save more
ROOMY = 1.25  # times that: wider blocks gain little from there on


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
        self.candidates = self.toolchain.candidates
        self.variants = self.toolchain.variants
        self.choices = Choices.of_toolchain(self.toolchain)
        self.shared = Choices.of_toolchain(self.toolchain, shared=True)

    def mixes(self) -> Iterator[Mix]:
        """The mixed mixes worth a race: each fills the budget, or nearly.

        None where the order stores no layer in less: nothing is probed then.
        """
        if not self.choices.offered:
            return
        found = 0
        for widest, least in self._widest():
            quick = self.candidates.request.is_large and least * ROOMY <= self.budget_bytes
            mix = self._proposed(widest, self.shared if quick else self.choices)
            if mix is not None:
                found += 1
                yield mix
            if found == MOST:
                return

    def _widest(self) -> list[tuple[Mix, float]]:
        """Of each set of parts the mix with the heaviest weights, and the least peak of any.

        Those sets come first that have most parameters.

        A set whose heaviest mix fits in the fastest placement has nothing to gain, one whose
        lightest is far from fitting in any no way to fit.
        """
        sets: dict[tuple[tuple[Role, str], ...], list[Mix]] = {}
        for mix in self.possible:
            sets.setdefault(mix.candidates, []).append(mix)
        placements = self.candidates.placements
        tight = []
        for mixes in sets.values():
            ordered = sorted(mixes, key=lambda mix: (self._weight(mix), mix))
            least = min(self._peak_or_more(ordered[0], placement) for placement in placements)
            too_wide = self._peak_or_more(ordered[-1], placements[0]) > self.budget_bytes
            if too_wide and least * NARROWER <= self.budget_bytes:
                tight.append((ordered[-1], least))
        return sorted(tight, key=lambda found: (-self._parameters(found[0]), str(found[0])))

    def _weight(self, mix: Mix) -> int:
        return sum(stored_bytes(self.variants.built(variant).artifact) for variant in mix.variants)

    def _parameters(self, mix: Mix) -> int:
        return sum(self.candidates.parameters(*part) for part in mix.candidates)

    def _peak_or_more(self, mix: Mix, placement: Placement) -> float:
        """What a mix takes, or more than there is where the compiler does not take it."""
        try:
            return self._peak(mix, placement)
        except UnsupportedGraphError:
            return math.inf

    def _peak(self, mix: Mix, placement: Placement) -> int:
        fixed = self.footprints.fixed_bytes
        return peak_of(mix, placement, self.footprints.of, fixed).bytes

    def _proposed(self, widest: Mix, choices: Choices) -> Mix | None:
        """The best mixed mix of one set of parts, in the fastest placement in which one fits."""
        for placement in self.candidates.placements:
            try:
                mix = self._filled(widest, placement, choices)
                if mix is not None:
                    return mix
            except (InfeasibleError, UnsupportedGraphError) as error:
                self.toolchain.context.say(
                    f"no mixed {widest.denoiser.candidate}, {placement}: {error}"
                )
        return None

    def _filled(self, widest: Mix, placement: Placement, choices: Choices) -> Mix | None:
        """Allocations with ever better known room, until the budget is nearly full.

        None where every layer can be kept as it is computed, or none of the allocations fits.

        Raises:
            InfeasibleError: the layers do not fit however they are stored.
            UnsupportedGraphError: the compiler refuses what was allocated.
        """
        listed = choices.of_mix(widest)
        room = self._room(widest, placement, choices)
        best: tuple[float, Mix] | None = None
        for _ in range(TRIES):
            allocation = allocate(listed, _limits(room, placement))
            if all(option.name == UNQUANTIZED for option in allocation.options):
                break  # a uniform mix is that already
            mix = choices.mix(widest, listed, allocation)
            peak = self._peak(mix, placement)
            if peak <= self.budget_bytes and (best is None or allocation.cost < best[0]):
                best = (allocation.cost, mix)
            if self.budget_bytes * FILLED <= peak <= self.budget_bytes:
                break
            room = self._corrected(mix, listed, allocation, placement)
        return best[1] if best is not None else None

    def _room(self, widest: Mix, placement: Placement, choices: Choices) -> dict[Role, int]:
        """Bytes of layers' weights there is room for while each part is loaded, a first guess.

        What a part takes besides them is taken to be what its four-bit variant does.
        """
        narrow = {variant.role: self._narrowest(variant) for variant in widest.variants}
        taken = {role: self.footprints.of(variant, placement) for role, variant in narrow.items()}
        stored = {role: choices.layer_bytes(variant) for role, variant in narrow.items()}
        return self._left(taken, stored, placement)

    def _corrected(
        self,
        mix: Mix,
        choices: Sequence[Choice],
        allocation: Allocation,
        placement: Placement,
    ) -> dict[Role, int]:
        """The room as the variants of an allocation show it."""
        taken = {v.role: self.footprints.of(v, placement) for v in mix.variants}
        stored = dict.fromkeys(mix.roles, 0)
        for choice, option in zip(choices, allocation.options, strict=True):
            stored[Role(choice.part)] += option.bytes
        return self._left(taken, stored, placement)

    def _left(
        self, taken: Mapping[Role, Footprint], stored: Mapping[Role, int], placement: Placement
    ) -> dict[Role, int]:
        """Room for layers where so much is taken, of which so much are layers.

        Resident: of all parts together, the same number for each. Phased: of each part alone.
        """
        fixed = self.footprints.fixed_bytes
        besides = {role: part.weight_bytes - stored[role] for role, part in taken.items()}
        if placement.loading is Loading.RESIDENT:
            scratch = max(footprint.activation_bytes for footprint in taken.values())
            sessions = sum(footprint.session_bytes for footprint in taken.values())
            left = self.budget_bytes - fixed - sessions - scratch - sum(besides.values())
            return dict.fromkeys(taken, left)
        room, residue = {}, fixed
        for role, part in taken.items():
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
