"""A module as an ONNX graph, and the proof that both say the same."""

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
from sdpack.errors import ExportError, GraphError
from sdpack.rewrite.onnx_file import MODEL_FILE, write

OPSET = 21  # the first with block-wise DequantizeLinear and four-bit integers
OUTPUT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Shape:
    """Sizes to export and to check at; height and width are in latent pixels."""

    batch: int
    height: int
    width: int


EXPORTED_AT = Shape(2, 16, 24)
CHECKED_AT = (Shape(1, 16, 16), Shape(3, 24, 8))


class ExportablePart(Protocol):
    """A part ready for export: a module whose keyword arguments are the graph's inputs.

    A part whose class cannot be traced as it is has a `tracing`, a context in which it can; one
    that is to be checked at other shapes than CHECKED_AT has them as `checked_at`.
    """

    @property
    def outputs(self) -> tuple[str, ...]: ...

    @property
    def dynamic(self) -> Mapping[str, Mapping[int, str]]: ...

    @property
    def module(self) -> nn.Module: ...

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        """Random inputs of that shape."""
        ...


@dataclass(frozen=True)
class Exported:
    """What an export showed: the worst error at each checked shape, relative to the output."""

    errors: dict[str, float]

    @property
    def worst(self) -> float:
        return _largest(self.errors.values())


def export(part: ExportablePart, folder: Path) -> Exported:
    """Write `part` as model.onnx and model.onnx.data, and check it against PyTorch.

    Raises:
        ExportError: it cannot be exported, or the graph disagrees with the module.
        OSError: it cannot be written.
    """
    path = folder / MODEL_FILE
    return _checked(_exported(part, path), path)


def export_made(make: Callable[[], ExportablePart], folder: Path) -> Exported:
    """As `export`, of a part that is let go before its graph is run, so that a large one is in
    memory once.
    """
    path, part = folder / MODEL_FILE, make()
    answers = _exported(part, path)
    _empty(part.module)
    del part
    trim_memory()
    return _checked(answers, path)


def _empty(module: nn.Module) -> None:
    """Have a module's weights freed, though the exporter still refers to them."""
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
    """What a module says to some inputs: outputs by name."""

    shape: Shape
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


def _exported(part: ExportablePart, path: Path) -> list[_Answer]:
    """Write the graph; returns what the module says at the shapes it is checked at."""
    tracing = getattr(part, "tracing", nullcontext)
    with _quiet(), torch.no_grad():
        try:
            with tracing():
                _write(part, path)
        except (GraphError, OSError):
            raise
        except Exception as cause:  # the exporter raises classes of its own, and many others
            raise ExportError(f"{path}: export failed: {_last_line(cause)}") from cause
        return [_answer(part, shape) for shape in getattr(part, "checked_at", CHECKED_AT)]


def _answer(part: ExportablePart, shape: Shape) -> _Answer:
    inputs = seeded_inputs(part, shape)
    given = part.module(**inputs)
    outputs = given if isinstance(given, tuple) else (given,)
    return _Answer(
        shape,
        {name: value.numpy() for name, value in inputs.items()},
        {name: value.numpy() for name, value in zip(part.outputs, outputs, strict=True)},
    )


def _write(part: ExportablePart, path: Path) -> None:
    inputs = seeded_inputs(part, EXPORTED_AT)
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
    )
    assert program is not None
    write(program.model, path)
    # The exporter's rules for rewriting keep the last graph they saw, and it all its weights.
    for value in program.model.graph.initializers.values():
        value.const_value = None


def seeded_inputs(part: ExportablePart, shape: Shape) -> dict[str, Tensor]:
    """The same random inputs every time, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return part.inputs(shape)


def unit_variance(uniform: Tensor) -> Tensor:
    """Numbers uniform in [0, 1), as optimum's generators draw them, at mean 0 and variance 1."""
    return (uniform - 0.5) * 12**0.5


def _error(answer: _Answer, path: Path) -> float:
    """Worst absolute difference of graph and module, relative to the output's largest number."""
    with load(path) as session:
        seen = session.run(answer.inputs)
    return _largest(_difference(path, seen[n], wanted) for n, wanted in answer.outputs.items())


def _largest(errors: Iterable[float]) -> float:
    """NaN if one is, which Python's `max` may pass over."""
    return float(np.max(list(errors)))


def _difference(path: Path, seen: NDArray[Any], wanted: NDArray[Any]) -> float:
    if seen.shape != wanted.shape:
        raise ExportError(f"{path}: output has shape {seen.shape}, PyTorch gives {wanted.shape}")
    for words, values in (("PyTorch gives", wanted), ("the graph gives", seen)):
        if not np.isfinite(values).all():  # a NaN would pass every comparison
            raise ExportError(
                f"{path}: {words} an output with {broken_words(values)} on random inputs; check "
                "the checkpoint's weights"
            )
    return float(np.abs(seen - wanted).max() / (np.abs(wanted).max() or 1.0))


def _words(shape: Shape) -> str:
    return f"{shape.batch}x{shape.height}x{shape.width}"


def _last_line(cause: Exception) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__


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
