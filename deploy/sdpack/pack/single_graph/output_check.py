"""What a written graph does: whether ONNX Runtime loads and runs it, and how far it is off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.domain.finite import broken_words
from sdpack.domain.precision import Precision, Runtime
from sdpack.engines.detect import memory_bytes
from sdpack.engines.onnxruntime import load
from sdpack.errors import EngineError, QuantizationError
from sdpack.quantization.half import widened
from sdpack.rewrite.onnx_file import read, write

CHEAP_BYTES = 64 * 2**20  # of weights
LOADED_COPIES = 4  # of the fp32 weights, that a graph takes at most while it is loaded
CHEAP_NUMBERS = 2**16  # in the inputs
FREE_AXIS = 8  # what an axis of any length is given

Batch = Mapping[str, NDArray[Any]]
Outputs = dict[str, list[NDArray[Any]]]


@dataclass(frozen=True)
class WrittenGraph:
    """A graph that was written, and what it was made from.

    Attributes:
        path: where it lies until it is moved to its name.
        source: the graph it was made from.
        recipe: what was asked for, in words.
        arithmetic: the type it computes in.
    """

    path: Path
    source: Path
    recipe: str
    arithmetic: Precision
    runtime: Runtime

    def check_runs(self) -> str:
        """Load the graph; where that is cheap, also run it on random inputs the source runs on.

        Returns why that was left out, as of a graph that only a GPU runs; "" where it was done.

        Raises:
            QuantizationError: ONNX Runtime loads the source, and cannot load or run what was made.
            MissingPackageError: onnxruntime is not installed.
        """
        if LOADED_COPIES * _weight_bytes(self.source) > memory_bytes():
            return "it is too large for this machine's memory"
        inputs = _random_inputs(self.source)
        try:
            self._check_types()
            with load(self._runnable(), emulate=self.runtime.on_gpu) as session:
                if inputs is not None and _runs(self.source, inputs):
                    session.run(inputs)
        except EngineError as cause:
            if not _loads(self.source):
                return f"ONNX Runtime does not load {self.source} here either"
            raise QuantizationError(
                f"{self.source} as {self.recipe} makes a graph that ONNX Runtime rejects: "
                f"{self._reason(cause)}; nothing was written. Choose another --precision, and "
                "report the graph"
            ) from cause
        return ""

    def errors(self, wanted: Outputs, batches: Sequence[Batch]) -> dict[str, float]:
        """By output, the energy of its change as a share of its own.

        Args:
            wanted: the source's outputs on the batches, all finite.

        Raises:
            QuantizationError: the graph cannot be loaded, or gives out what is not finite, or
                constant.
        """
        self._check_types()
        seen = outputs_of(self._runnable(), batches, emulate=self.runtime.on_gpu)
        errors = {}
        for name, references in wanted.items():
            off = whole = 0.0
            for values, reference in zip(seen[name], references, strict=True):
                self._refuse_broken(name, values, reference)
                exact = reference.astype(np.float64)
                off += float(((values.astype(np.float64) - exact) ** 2).sum())
                whole += float((exact**2).sum())
            errors[name] = off / whole if whole else 0.0
            if not math.isfinite(errors[name]):
                raise QuantizationError(
                    f"{self.source}: the output {name} is too large to be compared; check the "
                    "calibration inputs"
                )
        return errors

    def _runnable(self) -> Path:
        """The graph as a CPU can run it: bf16 with its arithmetic in fp32."""
        if self.arithmetic is not Precision.BF16:
            return self.path
        target = self.path.with_name(f"fp32-{self.path.name}")
        if not target.exists():
            wide = read(self.path)
            widened(wide)
            write(wide, target)
        return target

    def _check_types(self) -> None:
        """See that ONNX Runtime takes bf16 where the graph has it, though a CPU has no kernels.

        Raises:
            QuantizationError: an operator takes bf16 in later opsets only.
        """
        if self.arithmetic is not Precision.BF16 or self.runtime is not Runtime.ONNXRUNTIME_CUDA:
            return
        try:
            load(self.path).close()
        except EngineError as cause:
            if "NOT_IMPLEMENTED" not in str(cause):
                raise QuantizationError(
                    f"{self.source} has operators that support bf16 only in later opsets "
                    f"({self._reason(cause)}); export it again with opset_version=22, or choose "
                    "--precision fp16"
                ) from cause

    def _reason(self, cause: EngineError) -> str:
        """What ONNX Runtime says, without the place the graph is in for the time being."""
        said = str(cause)
        for path in (self._runnable(), self.path):
            said = said.replace(str(path), self.path.name)
        return said

    def _refuse_broken(self, name: str, values: NDArray[Any], reference: NDArray[Any]) -> None:
        if not np.isfinite(values).all():
            raise QuantizationError(
                f"{self.source} as {self.recipe}: the output {name} is not finite "
                f"({broken_words(values)}); use --keep for the layers it overflows in"
            )
        if values.size > 1 and np.ptp(values) == 0 and np.ptp(reference) > 0:
            raise QuantizationError(
                f"{self.source} as {self.recipe}: the output {name} is constant; keep some "
                "layers with --keep, or give calibration inputs closer to real ones"
            )


def outputs_of(path: Path, batches: Sequence[Batch], emulate: bool) -> Outputs:
    """Of each floating-point output, what it is on each batch.

    Raises:
        EngineError: the graph cannot be loaded or run.
    """
    found: Outputs = {}
    with load(path, emulate=emulate) as session:
        for batch in batches:
            for name, values in session.run(batch).items():
                if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.floating):
                    found.setdefault(name, []).append(values)
    return found


def check_finite(path: Path, outputs: Outputs) -> None:
    """See that what a graph gives out is finite, before anything is compared with it.

    Raises:
        QuantizationError: an output is not; it is named, with how much of it is not.
    """
    for name, values in outputs.items():
        broken = np.concatenate([value.ravel() for value in values])
        if not np.isfinite(broken).all():
            raise QuantizationError(
                f"{path} itself: the output {name} is not finite on the calibration inputs "
                f"({broken_words(broken)}); check the inputs and the source of the graph"
            )


def _weight_bytes(path: Path) -> int:
    stored = (value.const_value for value in read(path).graph.initializers.values())
    return sum(tensor.nbytes for tensor in stored if tensor is not None)


def _random_inputs(path: Path) -> dict[str, NDArray[Any]] | None:
    """Small inputs of the right types; None where running the graph would not be cheap."""
    if _weight_bytes(path) > CHEAP_BYTES:
        return None
    model = read(path)
    random = np.random.default_rng(0)
    inputs = {}
    for value in model.graph.inputs:
        if not isinstance(value.type, ir.TensorType) or value.shape is None:
            return None
        sizes = [size if isinstance(size, int) else FREE_AXIS for size in value.shape]
        if math.prod(sizes) > CHEAP_NUMBERS:
            return None
        kind = value.type.dtype.numpy()
        drawn = random.standard_normal(sizes) if value.type.dtype.is_floating_point() else None
        inputs[str(value.name)] = np.asarray(np.ones(sizes) if drawn is None else drawn, kind)
    return inputs


def _loads(path: Path) -> bool:
    try:
        load(path).close()
    except EngineError:
        return False
    return True


def _runs(path: Path, inputs: Batch) -> bool:
    """Whether a graph takes these inputs: axes of any length may have to agree in some way."""
    try:
        with load(path) as session:
            session.run(inputs)
    except EngineError:
        return False
    return True
