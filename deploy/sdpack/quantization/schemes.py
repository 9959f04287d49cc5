"""Schemes: number format, block size and input rounding of a layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import ml_dtypes
import numpy as np

from sdpack.domain.arrays import Float32Array
from sdpack.domain.precision import Precision, Runtime
from sdpack.errors import QuantizationError
from sdpack.quantization.layers import Layer
from sdpack.quantization.uses import LayerKind

BLOCKS = (32, 64, 128)
SMALLEST_BLOCK = 16  # of ONNX Runtime's MatMulNBits


class Number(StrEnum):
    """A number format of stored weights."""

    INT4 = "int4"
    INT8 = "int8"
    FP8 = "fp8"

    @property
    def bits(self) -> int:
        return 4 if self is Number.INT4 else 8

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return _DTYPES[self]

    @property
    def largest(self) -> float:
        """The largest magnitude representable with both signs."""
        return {Number.INT4: 7.0, Number.INT8: 127.0, Number.FP8: 448.0}[self]

    def rounded(self, values: Float32Array) -> Float32Array:
        """The nearest representable numbers, those beyond the ends clipped."""
        if self is Number.FP8:
            clipped = np.clip(values, -self.largest, self.largest)
            return clipped.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        lowest = -8.0 if self is Number.INT4 else -self.largest
        nearest = np.rint(values)
        return np.clip(nearest, lowest, self.largest, out=nearest)


_DTYPES: Mapping[Number, np.dtype[np.generic]] = {
    Number.INT4: np.dtype(ml_dtypes.int4),
    Number.INT8: np.dtype(np.int8),
    Number.FP8: np.dtype(ml_dtypes.float8_e4m3fn),
}


@dataclass(frozen=True, order=True)
class Scheme:
    """How one layer is stored.

    Attributes:
        number: number format of the weight.
        block: number of elements along the summed axis that share a scale; 0 means a whole output
            channel.
        inputs: whether the layer's input is rounded to the same format.
    """

    number: Number
    block: int = 0
    inputs: bool = False

    def __str__(self) -> str:
        if self.inputs:
            return self.number.value
        return f"w{self.number.bits}" + (f":{self.block}" if self.block else "")

    def bytes_of(self, layer: Layer, scale_bytes: int) -> int:
        """Return the bytes of a layer's weight and scales."""
        scales = layer.outputs * (-(-layer.summed // self.block) if self.block else 1)
        return -(-layer.size * self.number.bits // 8) + scales * scale_bytes


def parse_scheme(words: str) -> Scheme:
    """Parse "int8", "fp8", "w8", "w4" (blocks of 32) or "w4:64".

    Raises:
        QuantizationError: the text is none of these.
    """
    if words in ("int8", "fp8"):
        return Scheme(Number(words), inputs=True)
    match = re.fullmatch(r"w([48])(?::(\d+))?", words)
    if match is None or (match[2] and not 16 <= int(match[2]) <= 1024):
        raise QuantizationError(
            f"{words!r} is not a layer precision; choose int8, fp8, w8, w4, w4:64 or w4:128"
        )
    if match[1] == "8":
        return Scheme(Number.INT8, int(match[2] or 0))
    return Scheme(Number.INT4, int(match[2] or BLOCKS[0]))


@dataclass(frozen=True)
class Abilities:
    """Which quantized weights a runtime keeps packed while it runs.

    Attributes:
        packed_tables: whether it gathers rows of a table under DequantizeLinear without unpacking
            the whole table; otherwise rows are gathered as int8 and scaled afterwards.
        packed_attention: whether quantized projections before an attention cost no extra memory.
    """

    packed_tables: bool
    packed_attention: bool


# TensorRT-RTX 1.7 keeps a block-wise int4 table packed and rejects a Gather of int8; with ONNX
# Runtime 1.32 it is the other way round. Quantized projections before attention increased
# TensorRT-RTX's scratch memory from 16 to 78 MiB in one denoiser, and saved 1 MiB of weights.
_TENSORRT = Abilities(packed_tables=True, packed_attention=False)
_ONNXRUNTIME = Abilities(packed_tables=False, packed_attention=True)
ABILITIES: Mapping[Runtime, Abilities] = {
    Runtime.TENSORRT_RTX: _TENSORRT,
    Runtime.TENSORRT: _TENSORRT,
    Runtime.ONNXRUNTIME_CUDA: _ONNXRUNTIME,
    Runtime.ONNXRUNTIME_CPU: _ONNXRUNTIME,
}

UNIFORM: Mapping[Precision, Scheme] = {
    Precision.INT8: Scheme(Number.INT8, inputs=True),
    Precision.FP8: Scheme(Number.FP8, inputs=True),
    Precision.W8: Scheme(Number.INT8),
    Precision.W4: Scheme(Number.INT4, BLOCKS[0]),
}
"""Schemes of layers in uniform precisions; in other precisions, layers are not quantized."""

MIXABLE = (Scheme(Number.INT8), *(Scheme(Number.INT4, block) for block in BLOCKS))
"""Schemes that layers of a mixed part may have."""


def suited(layer: Layer, scheme: Scheme, abilities: Abilities) -> Scheme | None:
    """Adapt a scheme to a layer and a runtime; None means that the layer is not quantized.

    Tables have no input to round, and get eight bits if the runtime cannot gather four-bit rows. A
    block that does not divide the summed axis is halved until it does, because compilers derive the
    block size from the number of scales. If not even SMALLEST_BLOCK divides the axis, four bits
    become eight. An input with one row per image is not rounded to int8: that saves no time, and
    TensorRT-RTX rejects some of these layers.
    """
    inputs = scheme.inputs and not (layer.has_few_rows and scheme.number is Number.INT8)
    if layer.feeds_attention and not (inputs or abilities.packed_attention):
        return None
    packed = scheme.number is Number.INT4 and abilities.packed_tables
    if layer.kind is LayerKind.TABLE and not packed:
        return Scheme(Number.INT8)
    block = scheme.block
    while block >= SMALLEST_BLOCK and layer.summed % block:
        block //= 2
    if block >= SMALLEST_BLOCK:
        return Scheme(scheme.number, block, inputs)
    return Scheme(Number.INT8 if scheme.block else scheme.number, 0, inputs)
