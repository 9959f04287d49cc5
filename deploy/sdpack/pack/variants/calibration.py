"""Calibration of a build's graphs on their inputs for the calibration prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sdpack.domain.placement import Role
from sdpack.domain.workload import WORKLOAD
from sdpack.pack.planning.mix import Variant
from sdpack.pack.request import BuildRequest
from sdpack.pack.variants.calibration_inputs import PartInputs
from sdpack.pack.variants.calibration_mixes import CalibrationMixes
from sdpack.pack.variants.calibration_recordings import CalibrationRecordings
from sdpack.pack.variants.graph_files import fused_attention_graph
from sdpack.pack.variants.source_graphs import SourceGraphs
from sdpack.progress import Say
from sdpack.quantization.observe import Observed
from sdpack.quantization.quantizable_graph import CalibrationInputs, Fp32Graph, QuantizableGraph
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.store.artifacts import Artifact, Store


@dataclass
class Calibration:
    """Gives the quantizable graph of each variant's candidate."""

    request: BuildRequest
    store: Store
    say: Say
    graphs: SourceGraphs
    inputs: PartInputs
    _known: dict[tuple[Role, str, str | None], QuantizableGraph] = field(
        default_factory=dict, init=False
    )

    @property
    def mixes(self) -> CalibrationMixes:
        """The mixes that draw the calibration prompts."""
        return self.inputs.mixes

    @property
    def recordings(self) -> CalibrationRecordings:
        """What was recorded while they drew."""
        return self.inputs.recordings

    def of(self, variant: Variant) -> QuantizableGraph:
        """The fp32 graph of a variant's candidate with its calibration inputs."""
        key = (variant.role, variant.candidate, variant.partner)
        if key not in self._known:
            self._known[key] = self._quantizable(variant)
        return self._known[key]

    def has(self, variant: Variant) -> bool:
        """Whether that graph was calibrated already."""
        return self.of(variant).is_observed

    def observed(self, variant: Variant) -> Observed:
        """The observations of that graph's layers on the calibration inputs."""
        observed = self.of(variant).observed
        assert observed is not None
        return observed

    def content(self, variant: Variant) -> str:
        """One hash of the observations."""
        return self.of(variant).observations().content

    def _quantizable(self, variant: Variant) -> QuantizableGraph:
        artifact, inputs = self.graphs.of(variant), self.inputs
        is_large = self.request.is_large
        run_path = _run_path(artifact, is_large)
        graph = Fp32Graph(artifact.path(MODEL_FILE), artifact.content, variant.part_name, run_path)
        given = CalibrationInputs(
            lambda: inputs.identity(variant),
            lambda: inputs.batches(variant),
            lambda: inputs.probing(variant),
            WORKLOAD.probed_side if is_large else 0,
        )
        return QuantizableGraph(graph, given, self.store, self.say)


def _run_path(graph: Artifact, is_large: bool) -> Path:
    """The file that is run for calibration.

    At large sizes the attention scores of all pairs of tokens do not fit into memory; the form that
    computes attention as one operator does not expose them.
    """
    return fused_attention_graph(graph) if is_large else graph.path(MODEL_FILE)
