"""Making the graphs of a request's variants in several processes.

Each stage makes what the next one needs: the images for calibration, the observations of each
candidate, the gains and the rounded weights of its layers, and the graphs of its variants. Large
candidates come first, so that no worker is left with one at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision, computed_in
from sdpack.engines.onnxruntime import LARGE_BYTES
from sdpack.pack.parallel.tasks import (
    Calibrate,
    DrawCalibration,
    ExportPart,
    MeasureGains,
    RoundWeights,
    by_part,
    graph_jobs,
    part_jobs,
)
from sdpack.pack.planning.mix import Variant
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.calibration_recordings import without_decoder
from sdpack.progress import counted
from sdpack.quantization.schemes import UNIFORM
from sdpack.workers.jobs import WorkerJob

Parts = Sequence[Sequence[Variant]]
"""The variants of each candidate."""


def prepare_graphs(
    toolchain: Toolchain, variants: Sequence[Variant], also_calibrated: bool = False
) -> None:
    """Export the candidates of these variants, and make their graphs, as many as are missing.

    All exports come first, as a part is calibrated in a mix with others. Candidates that were
    calibrated in an earlier build are left out: the rest of their work is short.

    Args:
        also_calibrated: also make the graphs of candidates that are calibrated already, of which
            most are missing in a build that has made only one precision so far.
    """
    calibration, context = toolchain.calibration, toolchain.context
    prepare_exports(toolchain, variants)
    parts = _largest_first(toolchain, variants)
    uncalibrated = [part for part in parts if not calibration.has(part[0])]
    drawings = _calibration_drawings(toolchain, uncalibrated)
    if len(drawings) > 1:
        doing = "calibrating parts: drawing their images"
        context.say(doing)
        context.prepare(drawings, counted(context.say, doing))
    context.prepare(part_jobs("calibrating", uncalibrated, Calibrate))
    new = parts if also_calibrated else uncalibrated
    context.prepare([*_gains(toolchain, new), *_rounding(toolchain, new)])
    context.prepare(graph_jobs(new))
    sources, executor = toolchain.sources, context.executor
    if sources.largest_bytes > LARGE_BYTES:
        executor.rest()  # the compilers, which run next, need the memory


def prepare_exports(toolchain: Toolchain, variants: Sequence[Variant]) -> None:
    """Export the candidates of these variants, as many as are missing."""
    sources, context = toolchain.sources, toolchain.context
    parts = _largest_first(toolchain, variants)
    missing = [part for part in parts if not sources.has(part[0])]
    context.prepare(part_jobs("exporting", missing, ExportPart))


def _calibration_drawings(toolchain: Toolchain, parts: Parts) -> list[WorkerJob]:
    """A job for each batch of calibration images; parts with the same images share them."""
    calibration = toolchain.calibration
    needed = {
        without_decoder(calibration.mixes.of(part[0])): part[0]
        for part in parts
        if not part[0].role.encodes_text
    }
    return [
        WorkerJob(
            f"drawing for the calibration of {variant.part_name}",
            "calibration",
            DrawCalibration(variant, place),
        )
        for variant in needed.values()
        for place in calibration.recordings.missing(variant)
    ]


def _gains(toolchain: Toolchain, parts: Parts) -> list[WorkerJob]:
    """Jobs for the gains, if the precisions of the request need them."""
    if Precision.INT8 not in toolchain.context.precisions:
        return []
    calibration, jobs = toolchain.calibration, list[WorkerJob]()
    for part in parts:
        variant, graph = part[0], calibration.of(part[0])
        jobs += [
            WorkerJob(
                f"measuring the sensitivity of {variant.part_name}",
                variant.part_name,
                MeasureGains(variant, share),
            )
            for share in range(graph.gain_shares)
        ]
    return jobs


def _rounding(toolchain: Toolchain, parts: Parts) -> list[WorkerJob]:
    """Jobs for the rounded weights, one for each type of arithmetic that a candidate needs."""
    runtime = toolchain.context.runtime
    jobs: list[WorkerJob] = []
    for part in parts:
        quantized = [variant for variant in part if variant.precision in UNIFORM]
        by_type = {computed_in(runtime, variant.precision): (variant,) for variant in quantized}
        jobs += part_jobs("rounding", list(by_type.values()), RoundWeights)
    return jobs


def _largest_first(toolchain: Toolchain, variants: Sequence[Variant]) -> list[tuple[Variant, ...]]:
    """The variants of each candidate, those that take longest first: denoisers, by size."""
    candidates = toolchain.candidates

    def work(part: Sequence[Variant]) -> tuple[bool, int]:
        variant = part[0]
        size = candidates.parameters(variant.role, variant.candidate)
        return variant.role is Role.DENOISER, size

    return sorted(by_part(variants), key=work, reverse=True)
