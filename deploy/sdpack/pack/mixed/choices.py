"""The ways to store each layer of a mix, and the mix that results from an allocation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sdpack.domain.precision import UNQUANTIZED, Precision, computed_in, weight_bits
from sdpack.pack.context import BuildContext
from sdpack.pack.mixed.allocate import Allocation, Choice
from sdpack.pack.mixed.layer_options import allocator_options
from sdpack.pack.mixed.sensitivity import Sensitivities
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.calibration import Calibration
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.quantization.schemes import MIXABLE, UNIFORM, Number, Scheme


@dataclass
class Choices:
    """Lists the allocator's choices for the parts of a request, once for each part.

    Attributes:
        shared: whether to offer only the schemes of uniform variants, which are rounded already.
    """

    context: BuildContext
    calibration: Calibration
    variants: VariantBuilder
    shared: bool = False
    _listed_for: dict[Variant, list[Choice]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.sensitivities = Sensitivities(self.context, self.calibration, self.variants)

    @classmethod
    def of_toolchain(cls, toolchain: Toolchain, shared: bool = False) -> Choices:
        """The choices of a build."""
        return cls(toolchain.context, toolchain.calibration, toolchain.variants, shared)

    @property
    def offered(self) -> list[Scheme]:
        """The schemes of layers that the request's precisions allow."""
        allowed = self.context.precisions
        precisions = {Number.INT8: Precision.W8, Number.INT4: Precision.W4}
        return [scheme for scheme in MIXABLE if precisions[scheme.number] in allowed]

    def of_mix(self, mix: Mix) -> list[Choice]:
        """The layers of all parts of a mix."""
        return [choice for variant in mix.variants for choice in self.of(variant)]

    def of(self, variant: Variant) -> list[Choice]:
        """The layers of a variant's candidate, and how each may be stored."""
        mixed = Variant(variant.role, variant.candidate, Precision.MIXED, variant.partner)
        if mixed not in self._listed_for:
            self._listed_for[mixed] = list(self._listed(mixed))
        return self._listed_for[mixed]

    def layer_bytes(self, variant: Variant) -> int:
        """Bytes of a uniform variant's layers, as the allocator counts them."""
        schemes = self.variants.schemes(variant)
        total = 0
        for choice in self.of(variant):
            name = choice.name.removeprefix(f"{choice.part}/")
            stored = str(schemes[name]) if name in schemes else UNQUANTIZED
            sizes = {option.name: option.bytes for option in choice.options}
            total += sizes.get(stored, sizes[UNQUANTIZED])
        return total

    def mix(self, widest: Mix, choices: Sequence[Choice], allocation: Allocation) -> Mix:
        """The mixed mix of the parts of `widest` that an allocation describes."""
        by_name = {str(scheme): scheme for scheme in MIXABLE}
        stored: dict[str, list[tuple[str, Scheme]]] = {role.value: [] for role in widest.roles}
        part_bytes = dict.fromkeys((role.value for role in widest.roles), 0)
        for choice, option in zip(choices, allocation.options, strict=True):
            part_bytes[choice.part] += option.bytes
            if option.name != UNQUANTIZED:
                name = choice.name.removeprefix(f"{choice.part}/")
                stored[choice.part].append((name, by_name[option.name]))
        return Mix(
            tuple(
                self._mixed(base, stored[base.role.value], part_bytes[base.role.value])
                for base in widest.variants
            ),
            widest.steps,
        )

    def _mixed(self, base: Variant, stored: Sequence[tuple[str, Scheme]], size: int) -> Variant:
        numbers = sum(layer.size for layer in self.calibration.of(base).layers())
        return Variant(
            base.role,
            base.candidate,
            Precision.MIXED,
            base.partner,
            tuple(sorted(stored)),
            round(8 * size / numbers, 2) if numbers else 0.0,
        )

    def _listed(self, mixed: Variant) -> Iterator[Choice]:
        arithmetic = computed_in(self.context.runtime, Precision.MIXED)
        wide = weight_bits(arithmetic) // 8
        refused = self._refused(mixed)
        options = self.sensitivities.options(mixed, self.offered)
        part = mixed.role.value
        for layer in self.calibration.of(mixed).layers():
            stored = [
                option
                for option in options.get(layer.name, [])
                if layer.name not in refused
                and (not self.shared or option.scheme in UNIFORM.values())
            ]
            yield Choice(f"{part}/{layer.name}", part, allocator_options(layer, stored, wide))

    def _refused(self, mixed: Variant) -> frozenset[str]:
        """Layers that the compiler rejects in one of the uniform variants."""
        refused: frozenset[str] = frozenset()
        for precision in (Precision.W8, Precision.W4):
            if precision in self.context.precisions:
                uniform = Variant(mixed.role, mixed.candidate, precision, mixed.partner)
                refused |= self.variants.built(uniform).refused
        return refused
