"""Export of a module to an ONNX graph, and comparison of their outputs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sdpack.domain.finite import broken_words
from sdpack.engines.onnxruntime import load, trim_memory
from sdpack.errors import ExportError, GraphError, SourceError
from sdpack.export.streamed import stored_weights
from sdpack.export.streamed_graph import supply, withhold
from sdpack.rewrite.onnx_file import MODEL_FILE, write
from sdpack.rewrite.roots import divide_by_roots

OPSET = 21  # the first with block-wise DequantizeLinear and four-bit integers
OUTPUT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Shape:
    """Sizes of inputs for an export or its check; height and width are in latent pixels."""

    batch: int
    height: int
    width: int


EXPORTED_AT = Shape(2, 16, 24)
CHECKED_AT = (Shape(1, 16, 16), Shape(3, 24, 8))


class ExportablePart(Protocol):
    """A part ready for export: a module whose keyword arguments are the graph's inputs.

    Two attributes are optional: `tracing()` returns a context in which the module can be traced,
    and `checked_at` lists the shapes to check instead of CHECKED_AT.
    """

    @property
    def outputs(self) -> tuple[str, ...]: ...

    @property
    def dynamic(self) -> Mapping[str, Mapping[int, str]]: ...

    @property
    def module(self) -> nn.Module: ...

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        """Return random inputs of this shape, by name."""
        ...


@dataclass(frozen=True)
class Exported:
    """The result of an export: the worst error at each checked shape, relative to the output."""

    errors: dict[str, float]

    @property
    def worst(self) -> float:
        return _largest(self.errors.values())


def export(part: ExportablePart, folder: Path) -> Exported:
    """Write a part as model.onnx and model.onnx.data, and check it against PyTorch.

    Raises:
        ExportError: it cannot be exported, or the graph disagrees with the module.
        OSError: it cannot be written.
    """
    path = folder / MODEL_FILE
    return _checked(_exported(part, path), path)


def export_made(make: Callable[[], ExportablePart], folder: Path) -> Exported:
    """Export a part as `export` does, but free it before its graph runs.

    The weights of a large part are then in memory only once.
    """
    path, part = folder / MODEL_FILE, make()
    answers = _exported(part, path)
    _empty(part.module)
    del part
    trim_memory()
    return _checked(answers, path)


def _empty(module: nn.Module) -> None:
    """Free a module's weights, although the exporter still refers to them."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.new_empty(0)


def _checked(answers: Sequence[_Answer], path: Path) -> Exported:
    exported = Exported({_words(a.shape): _error(a, path) for a in answers})
    if not exported.worst < OUTPUT_TOLERANCE:
        raise ExportError(
            f"{path}: the graph differs by {exported.worst:.1e} from the module's output (allowed "
            f"{OUTPUT_TOLERANCE:.0e}); report this checkpoint's class and versions"
        )
    return exported


@dataclass(frozen=True)
class _Answer:
    """A module's inputs and outputs at one shape, by name."""

    shape: Shape
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


def _exported(part: ExportablePart, path: Path) -> list[_Answer]:
    """Write the graph, and return the module's answers at the shapes to check."""
    tracing = getattr(part, "tracing", nullcontext)
    with _quiet(), torch.no_grad():
        try:
            with tracing():
                _write(part, path)
        except (GraphError, SourceError, OSError):
            raise
        except Exception as cause:  # the exporter raises its own classes, and many others
            raise ExportError(f"{path}: export failed: {_last_line(cause)}") from cause
        return [_answer(part, shape) for shape in getattr(part, "checked_at", CHECKED_AT)]


def _answer(part: ExportablePart, shape: Shape) -> _Answer:
    inputs = seeded_inputs(part, shape)
    result = part.module(**inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    return _Answer(
        shape,
        {name: value.numpy() for name, value in inputs.items()},
        {name: value.numpy() for name, value in zip(part.outputs, outputs, strict=True)},
    )


def _write(part: ExportablePart, path: Path) -> None:
    inputs, stored = seeded_inputs(part, EXPORTED_AT), stored_weights(part.module)
    program = torch.onnx.export(
        part.module,
        (),
        kwargs=inputs,
        dynamo=True,
        input_names=list(inputs),
        output_names=list(part.outputs),
        dynamic_shapes={name: dict(part.dynamic.get(name, {})) for name in inputs},
        opset_version=OPSET,
        verbose=False,
        optimize=not stored,
    )
    assert program is not None
    if stored:
        withhold(program.model, stored)
        program.optimize()
        supply(program.model, stored)
    divide_by_roots(program.model)
    write(program.model, path)
    # The exporter's rewrite rules keep a reference to the last graph, and so to its weights.
    graph = program.model.graph
    for initializer in graph.initializers.values():
        initializer.const_value = None


def seeded_inputs(part: ExportablePart, shape: Shape) -> dict[str, Tensor]:
    """Return random inputs that are the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return part.inputs(shape)


def unit_variance(uniform: Tensor) -> Tensor:
    """Scale values uniform in [0, 1), as from optimum's generators, to mean 0 and variance 1."""
    return (uniform - 0.5) * 12**0.5


def _error(answer: _Answer, path: Path) -> float:
    """Return the graph's largest absolute error, relative to the module's largest output."""
    with load(path) as session:
        outputs = session.run(answer.inputs)
    return _largest(_difference(path, outputs[n], own) for n, own in answer.outputs.items())


def _largest(errors: Iterable[float]) -> float:
    """Return the largest error; NaN if any is NaN, unlike Python's `max`."""
    return float(np.max(list(errors)))


def _difference(path: Path, output: NDArray[Any], expected: NDArray[Any]) -> float:
    if output.shape != expected.shape:
        raise ExportError(
            f"{path}: output has shape {output.shape}, PyTorch gives {expected.shape}"
        )
    for words, values in (("PyTorch gives", expected), ("the graph gives", output)):
        if not np.isfinite(values).all():  # a NaN would pass every comparison
            raise ExportError(
                f"{path}: {words} an output with {broken_words(values)} on random inputs; check "
                "the checkpoint's weights"
            )
    return float(np.abs(output - expected).max() / (np.abs(expected).max() or 1.0))


def _words(shape: Shape) -> str:
    return f"{shape.batch}x{shape.height}x{shape.width}"


def _last_line(cause: Exception) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("(Refer to")]
    return telling[-1] if telling else type(cause).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and warnings out of the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
