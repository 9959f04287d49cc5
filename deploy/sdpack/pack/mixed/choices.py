"""How each layer of a mix may be stored, and the mix that a choice for each of them makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdpack.domain.precision import Precision, computed_in, weight_bits
from sdpack.pack.mixed.allocate import Allocation, Choice, Option
from sdpack.pack.mixed.sensitivity import Sensitivities
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.variant_builder import KEPT, VariantBuilder
from sdpack.quantization.layers import layers
from sdpack.quantization.schemes import MIXABLE, UNIFORM, Number, Scheme


class Choices:
    """The allocator's choices for the parts of a request, each part's listed once.

    Attributes:
        shared: none but the schemes of uniform variants, whose layers are rounded already.
    """

    def __init__(self, builder: VariantBuilder, shared: bool = False) -> None:
        self.builder = builder
        self.shared = shared
        self.sensitivities = Sensitivities(builder)
        self._listed_for: dict[Variant, list[Choice]] = {}

    @property
    def offered(self) -> list[Scheme]:
        """What a layer may be stored in besides as it is computed; the order's precisions tell."""
        allowed = self.builder.request.precisions
        has = {Number.INT8: Precision.W8, Number.INT4: Precision.W4}
        return [scheme for scheme in MIXABLE if has[scheme.number] in allowed]

    def of_mix(self, mix: Mix) -> list[Choice]:
        """The layers of all its parts."""
        return [choice for variant in mix.variants for choice in self.of(variant)]

    def of(self, variant: Variant) -> list[Choice]:
        """The layers of a variant's candidate, and how each may be stored."""
        mixed = Variant(variant.role, variant.candidate, Precision.MIXED, variant.partner)
        if mixed not in self._listed_for:
            self._listed_for[mixed] = list(self._listed(mixed))
        return self._listed_for[mixed]

    def stored(self, variant: Variant) -> int:
        """Bytes of a uniform variant's layers, as the allocator counts them."""
        made = self.builder.made(variant)
        schemes = self.builder.schemes(variant, made.refused)
        total = 0
        for choice in self.of(variant):
            name = choice.name.removeprefix(f"{choice.part}/")
            asked = str(schemes[name]) if name in schemes else KEPT
            known = {option.name: option.bytes for option in choice.options}
            total += known.get(asked, known[KEPT])
        return total

    def mix(self, widest: Mix, choices: Sequence[Choice], allocation: Allocation) -> Mix:
        """The mixed mix of the same parts as `widest` that an allocation stands for."""
        by_name = {str(scheme): scheme for scheme in MIXABLE}
        stored: dict[str, list[tuple[str, Scheme]]] = {role.value: [] for role in widest.roles}
        taken = dict.fromkeys((role.value for role in widest.roles), 0)
        for choice, option in zip(choices, allocation.options, strict=True):
            taken[choice.part] += option.bytes
            if option.name != KEPT:
                name = choice.name.removeprefix(f"{choice.part}/")
                stored[choice.part].append((name, by_name[option.name]))
        made = []
        for base in widest.variants:
            role = base.role
            sizes = sum(layer.size for layer in layers(self.builder.model(base)))
            made.append(
                Variant(
                    role,
                    base.candidate,
                    Precision.MIXED,
                    base.partner,
                    tuple(sorted(stored[role.value])),
                    round(8 * taken[role.value] / sizes, 2) if sizes else 0.0,
                )
            )
        return Mix(tuple(made))

    def _listed(self, mixed: Variant) -> Iterator[Choice]:
        runtime = self.builder.profile.runtime
        arithmetic = computed_in(runtime, Precision.MIXED)
        wide = weight_bits(arithmetic) // 8
        refused = self._refused(mixed)
        costs = self.sensitivities.costs(mixed, self.offered)
        for layer in layers(self.builder.model(mixed)):
            options = [Option(KEPT, layer.size * wide, 0.0)]
            if layer.name not in refused:
                for scheme, (had, cost) in costs.get(layer.name, {}).items():
                    if not self.shared or scheme in UNIFORM.values():
                        options.append(Option(str(scheme), had.bytes_of(layer, wide), cost))
            yield Choice(f"{mixed.role.value}/{layer.name}", mixed.role.value, tuple(options))

    def _refused(self, mixed: Variant) -> frozenset[str]:
        """Layers the compiler would not take in one of the uniform variants."""
        found: frozenset[str] = frozenset()
        for precision in (Precision.W8, Precision.W4):
            if precision in self.builder.request.precisions:
                uniform = Variant(mixed.role, mixed.candidate, precision, mixed.partner)
                found |= self.builder.made(uniform).refused
        return found
