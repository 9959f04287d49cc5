"""Recipes: how to quantize one ONNX graph, written as "w4" or "mixed@4.5"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sdpack.domain.precision import Precision
from sdpack.errors import InputError, QuantizationError
from sdpack.quantization.schemes import UNIFORM, Scheme, parse_scheme


@dataclass(frozen=True)
class Recipe:
    """How to quantize a graph.

    Attributes:
        scheme: the scheme of every layer; None if layers differ, or if only the arithmetic changes.
        bits: for `mixed`, the maximum average bits per weight, including scales.
    """

    precision: Precision
    scheme: Scheme | None = None
    bits: float = 0.0

    @property
    def calibrated(self) -> bool:
        """Whether the recipe requires calibration inputs."""
        return self.precision is Precision.MIXED or (self.scheme is not None and self.scheme.inputs)

    @property
    def changes_arithmetic_alone(self) -> bool:
        """Whether layers stay unquantized, and only the arithmetic changes, to 16 bits."""
        return self.precision in (Precision.FP16, Precision.BF16)

    def __str__(self) -> str:
        if self.precision is Precision.MIXED:
            return f"mixed@{self.bits:g}"
        usual = UNIFORM.get(self.precision) == self.scheme
        return self.precision.value if usual else str(self.scheme)


def parse_recipe(words: str) -> Recipe:
    """Parse "fp16", "bf16", "int8", "fp8", "w8", "w4", "w4:64" or "mixed@4.5".

    Raises:
        InputError: the words are not a recipe.
    """
    if words in (Precision.FP16, Precision.BF16):
        return Recipe(Precision(words))
    mixed = re.fullmatch(r"mixed@(\d+(?:\.\d+)?)", words)
    if mixed is not None and float(mixed[1]) > 0:
        return Recipe(Precision.MIXED, bits=float(mixed[1]))
    try:
        scheme = parse_scheme(words)
    except QuantizationError as cause:
        raise InputError(
            f"{words!r} is not a valid precision; choose fp16, bf16, int8, fp8, w8, w4, w4:64, "
            "w4:128, or bits per weight like mixed@4.5"
        ) from cause
    return Recipe(Precision(str(replace(scheme, block=0))), scheme)
