"""The predicted duration of each stage, before earlier builds on this machine refine it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision, Runtime
from sdpack.domain.workload import WORKLOAD
from sdpack.pack.forecast.candidate_sizes import USUAL_PIXELS, CandidateSize
from sdpack.pack.forecast.intervals import NOTHING, Interval, total
from sdpack.pack.forecast.stages import NETWORK, Stage
from sdpack.pack.planning.mix import Mix
from sdpack.pack.request import BuildRequest
from sdpack.quantization.probing import BATCHES, FORWARD, MOST_ROWS, most_probes
from sdpack.quantization.schemes import UNIFORM

# Measured on two cores of an x86-64 server: one build of the zoo, several of Stable Diffusion 1.5.
EXPORT_S, EXPORT_S_PER_PARAMETER = 4.0, 40e-9
OBSERVE_S_PER_PARAMETER = 100e-9
ROUND_S_PER_NUMBER = 30 / 64e6
ENGINE_S, ENGINE_S_PER_PARAMETER = 2.0, 15e-9
FEWEST_PROBES = 30  # runs of a graph with few layers


@dataclass(frozen=True)
class Speeds:
    """Speeds of this machine, in multiply-accumulate operations per second.

    Attributes:
        cpu: of the CPU, on which parts are calibrated.
        drawing: of what draws the images: the CPU, or a GPU.
    """

    cpu: float
    drawing: float


@dataclass(frozen=True)
class StageCosts:
    """Predicts how long the stages of a build take.

    Attributes:
        sizes: the size of every candidate.
        mixes: the uniform mixes.
        images: number of images the selection draws.
        guided: the denoisers that run twice in each step, for guidance.
    """

    request: BuildRequest
    sizes: Sequence[CandidateSize]
    mixes: Sequence[Mix]
    images: Interval
    speeds: Speeds
    guided: frozenset[str]

    def seconds(self) -> dict[Stage, Interval]:
        """Return the duration of each stage, in the order of the build."""
        return {
            Stage.FETCH: self._fetch(),
            Stage.EXPORT: self._export(),
            Stage.CALIBRATE: self._calibrate(),
            Stage.SENSITIVITY: self._sensitivity(),
            Stage.ROUND: self._round(),
            Stage.ENGINES: self._engines(),
            Stage.DRAW: self._draw(),
        }

    def units(self) -> dict[Stage, float]:
        """Return the number of graphs, engines or images that each stage processes."""
        graphs = float(len(self._graphs()))
        return {
            Stage.FETCH: float(len(self.sizes)),
            Stage.EXPORT: graphs,
            Stage.CALIBRATE: graphs,
            Stage.SENSITIVITY: graphs,
            Stage.ROUND: graphs,
            Stage.ENGINES: graphs * len(self.request.precisions),
            Stage.DRAW: self.images.middle,
        }

    def image_seconds(self) -> Interval:
        """Return how long one image takes with the average mix, in a batch of one."""
        every = [self._image_macs(mix) for mix in self.mixes]
        mean = total(every).times(1 / len(every))
        return mean.times(1 / self.speeds.drawing)

    def _fetch(self) -> Interval:
        size = sum(each.fetch_bytes for each in self.sizes)
        return Interval(size / NETWORK.high, size / NETWORK.low)

    def _graphs(self) -> Mapping[tuple[str, str, str | None], CandidateSize]:
        """The fp32 graphs to export, by role, candidate and the denoiser of a bridge."""
        by_name = {(size.role.group, size.name): size for size in self.sizes}
        variants = {variant for mix in self.mixes for variant in mix.variants}
        return {
            (v.role.value, v.candidate, v.partner): by_name[v.role.group, v.candidate]
            for v in variants
        }

    def _export(self) -> Interval:
        graphs = self._graphs().values()
        seconds = sum(EXPORT_S + EXPORT_S_PER_PARAMETER * graph.parameters for graph in graphs)
        return Interval(seconds, seconds)

    @property
    def _calibrated(self) -> bool:
        """Whether any precision needs calibration."""
        return any(p is Precision.FP16 or p in UNIFORM for p in self.request.precisions)

    def _calibrate(self) -> Interval:
        if not self._calibrated:
            return NOTHING
        graphs = self._graphs().values()
        denoisers = [graph for graph in graphs if graph.role is Role.DENOISER]
        images = WORKLOAD.calibration_images_of(self.request.height, self.request.width)
        drawn = total(
            each.macs.times(2 * images * self.request.sampling_of(each.name).most_steps)
            for each in denoisers
        )
        observed = sum(OBSERVE_S_PER_PARAMETER * graph.parameters for graph in graphs)
        return drawn.times(1 / self.speeds.cpu) + Interval(observed, observed)

    def _sensitivity(self) -> Interval:
        if not any(precision in UNIFORM for precision in self.request.precisions):
            return NOTHING
        runs = total(self._probing(graph) for graph in self._graphs().values())
        return runs.times(1 / self.speeds.cpu)

    def _probing(self, graph: CandidateSize) -> Interval:
        """Return the operations of measuring the gains of a graph's layers."""
        rows = max(1, FORWARD // graph.parameters)
        batches = min(BATCHES, rows)
        share = float(batches * min(MOST_ROWS, rows // batches))
        if rows == 1 and not graph.role.encodes_text:
            height, width = self.request.sizes[0]
            share = min(1.0, (WORKLOAD.huge_probed_side * USUAL_PIXELS) ** 2 / (height * width))
        run = graph.macs.times(share)
        probes = most_probes(run.middle)
        return run.times(min(FEWEST_PROBES, probes), probes)

    def _round(self) -> Interval:
        stored = {UNIFORM[p].number for p in self.request.precisions if p in UNIFORM}
        numbers = sum(graph.parameters for graph in self._graphs().values())
        seconds = ROUND_S_PER_NUMBER * numbers * len(stored)
        return Interval(seconds, seconds)

    def _engines(self) -> Interval:
        if self.request.runtime is not Runtime.TENSORRT_RTX:
            return NOTHING
        graphs = self._graphs().values()
        one = sum(ENGINE_S + ENGINE_S_PER_PARAMETER * graph.parameters for graph in graphs)
        seconds = one * len(self.request.precisions)
        return Interval(seconds, seconds)

    def _draw(self) -> Interval:
        image = self.image_seconds()
        return Interval(image.low * self.images.low, image.high * self.images.high)

    def _image_macs(self, mix: Mix) -> Interval:
        by_name = {(size.role.group, size.name): size.macs for size in self.sizes}
        rows = 2 if mix.denoiser.candidate in self.guided else 1
        return total(
            by_name[v.role.group, v.candidate].times(
                self.request.steps_of(mix) * rows if v.role is Role.DENOISER else 1
            )
            for v in mix.variants
        )
