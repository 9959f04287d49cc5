"""Checks of a written graph: whether ONNX Runtime loads and runs it, and its output errors."""

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

CHEAP_BYTES = 64 * 2**20  # of weights, up to which running a graph is cheap
LOADED_COPIES = 4  # of the fp32 weights that loading a graph takes at most
CHEAP_NUMBERS = 2**16  # in an input, up to which running a graph is cheap
FREE_AXIS = 8  # the length given to a dynamic axis

Batch = Mapping[str, NDArray[Any]]
Outputs = dict[str, list[NDArray[Any]]]


@dataclass(frozen=True)
class WrittenGraph:
    """A graph that was written, and the graph it was made from.

    Attributes:
        path: the temporary file, which is moved to its final name later.
        source: the graph it was made from.
        recipe: the requested recipe, in words.
        arithmetic: the type it computes in.
    """

    path: Path
    source: Path
    recipe: str
    arithmetic: Precision
    runtime: Runtime

    def check_runs(self) -> str:
        """Load the graph and, if that is cheap, run it on random inputs that the source supports.

        Returns:
            why the graph was not loaded, for example because only a GPU can load it; "" if it was.

        Raises:
            QuantizationError: ONNX Runtime can load the source, but not load or run the new graph.
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

    def errors(self, expected: Outputs, batches: Sequence[Batch]) -> dict[str, float]:
        """The relative squared error of each output.

        Args:
            expected: the source's outputs on the batches, all finite.

        Raises:
            QuantizationError: the graph cannot be loaded, or an output is constant or not finite.
        """
        self._check_types()
        outputs = outputs_of(self._runnable(), batches, emulate=self.runtime.on_gpu)
        errors = {}
        for name, references in expected.items():
            error = energy = 0.0
            for values, reference in zip(outputs[name], references, strict=True):
                self._check_output(name, values, reference)
                exact = reference.astype(np.float64)
                error += float(((values.astype(np.float64) - exact) ** 2).sum())
                energy += float((exact**2).sum())
            errors[name] = error / energy if energy else 0.0
            if not math.isfinite(errors[name]):
                raise QuantizationError(
                    f"{self.source}: the output {name} is too large to be compared; check the "
                    "calibration inputs"
                )
        return errors

    def _runnable(self) -> Path:
        """The graph in a form that a CPU can run: one in bf16 computes in fp32 there."""
        if self.arithmetic is not Precision.BF16:
            return self.path
        target = self.path.with_name(f"fp32-{self.path.name}")
        if not target.exists():
            model = read(self.path)
            widened(model)
            write(model, target)
        return target

    def _check_types(self) -> None:
        """Check that ONNX Runtime accepts bf16 in every operator; a CPU only has no kernels for it.

        Raises:
            QuantizationError: an operator supports bf16 only in later opsets.
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
        """ONNX Runtime's message, with the graph's final name instead of its temporary path."""
        message = str(cause)
        for path in (self._runnable(), self.path):
            message = message.replace(str(path), self.path.name)
        return message

    def _check_output(self, name: str, values: NDArray[Any], reference: NDArray[Any]) -> None:
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
    """The values of each floating-point output, one array for each batch.

    Raises:
        EngineError: the graph cannot be loaded or run.
    """
    outputs: Outputs = {}
    with load(path, emulate=emulate) as session:
        for batch in batches:
            for name, values in session.run(batch).items():
                if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.floating):
                    outputs.setdefault(name, []).append(values)
    return outputs


def check_finite(path: Path, outputs: Outputs) -> None:
    """Check that a graph's own outputs are finite, before anything is compared with them.

    Raises:
        QuantizationError: an output is not finite; the message counts its NaN and infinite numbers.
    """
    for name, batches in outputs.items():
        values = np.concatenate([batch.ravel() for batch in batches])
        if not np.isfinite(values).all():
            raise QuantizationError(
                f"{path} itself: the output {name} is not finite on the calibration inputs "
                f"({broken_words(values)}); check the inputs and the source of the graph"
            )


def _weight_bytes(path: Path) -> int:
    stored = (value.const_value for value in read(path).graph.initializers.values())
    return sum(tensor.nbytes for tensor in stored if tensor is not None)


def _random_inputs(path: Path) -> dict[str, NDArray[Any]] | None:
    """Small random inputs of the right types; None if running the graph would not be cheap."""
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
        dtype = value.type.dtype
        numbers = random.standard_normal(sizes) if dtype.is_floating_point() else np.ones(sizes)
        inputs[str(value.name)] = np.asarray(numbers, dtype.numpy())
    return inputs


def _loads(path: Path) -> bool:
    try:
        load(path).close()
    except EngineError:
        return False
    return True


def _runs(path: Path, inputs: Batch) -> bool:
    """Whether a graph runs on these inputs: its dynamic axes may not support their lengths."""
    try:
        with load(path) as session:
            session.run(inputs)
    except EngineError:
        return False
    return True
