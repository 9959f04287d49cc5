"""Making the graphs of a request's variants in several processes."""

from __future__ import annotations

from collections.abc import Sequence

from sdpack.engines.onnxruntime import LARGE_BYTES
from sdpack.pack.parallel.tasks import by_part, export_jobs, graph_jobs
from sdpack.pack.planning.mix import Variant
from sdpack.pack.toolchain import Toolchain


def prepare_graphs(
    toolchain: Toolchain, variants: Sequence[Variant], also_calibrated: bool = False
) -> None:
    """Export the candidates of these variants, and make their graphs, as many as are missing.

    All exports come first, as a part is calibrated in a mix with others. Candidates that were
    calibrated in an earlier build are left out: the rest of their work is short. Large candidates
    come first, so that no worker is left with one at the end.

    Args:
        also_calibrated: also make the graphs of candidates that are calibrated already, of which
            most are missing in a build that has made only one precision so far.
    """
    candidates, context = toolchain.candidates, toolchain.context
    sources, calibration = toolchain.sources, toolchain.calibration

    def parameters(part: Sequence[Variant]) -> int:
        return candidates.parameters(part[0].role, part[0].candidate)

    parts = sorted(by_part(variants), key=parameters, reverse=True)
    context.prepare(export_jobs([part for part in parts if not sources.has(part[0])]))
    new = [part for part in parts if also_calibrated or not calibration.has(part[0])]
    context.prepare(graph_jobs(new))
    if sources.largest_bytes > LARGE_BYTES:
        context.executor.rest()  # the compilers, which run next, need the memory
