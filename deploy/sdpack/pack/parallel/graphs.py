"""Making the graphs of a request's variants in several processes."""

from __future__ import annotations

from collections.abc import Sequence

from sdpack.engines.onnxruntime import LARGE_BYTES
from sdpack.pack.parallel.tasks import by_part, export_jobs, graph_jobs
from sdpack.pack.planning.mix import Variant
from sdpack.pack.toolchain import Toolchain


def prepare_graphs(toolchain: Toolchain, variants: Sequence[Variant]) -> None:
    """Export the candidates of these variants, and make their graphs, as many as are missing.

    All exports come first, as a part is calibrated in a mix with others. Candidates that were
    calibrated in an earlier build are left out: the rest of their work is short.
    """
    parts = by_part(variants)
    context, sources, calibration = toolchain.context, toolchain.sources, toolchain.calibration
    context.prepare(export_jobs([part for part in parts if not sources.has(part[0])]))
    new = [part for part in parts if not calibration.has(part[0])]
    context.prepare(graph_jobs(sorted(new, key=lambda part: -sources.of(part[0]).bytes)))
    if sources.largest_bytes > LARGE_BYTES:
        context.executor.rest()  # the compilers, which run next, need the memory
