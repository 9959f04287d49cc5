"""The outputs of the original graph on some of the calibration inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sdpack.pack.single_graph.output_check import Batch, Outputs, check_finite, outputs_of
from sdpack.progress import Say
from sdpack.quantization.archive import archive
from sdpack.quantization.batches import Batches
from sdpack.quantization.quantizable_graph import QuantizableGraph
from sdpack.quantization.sensitivity import spread
from sdpack.store.artifacts import Store

CHECKED_BATCHES = 4
OUTPUTS_FILE = "outputs.npz"


@dataclass(frozen=True)
class SourceOutputs:
    """The outputs with which those of the quantized graph are compared.

    They are kept in the store, as no other step takes as much memory as running the graph in fp32.
    """

    graph: QuantizableGraph
    calibration: Batches
    store: Store
    say: Say

    @property
    def batches(self) -> list[Batch]:
        """The batches on which outputs are compared."""
        return list(spread(self.calibration, CHECKED_BATCHES))

    @cached_property
    def values(self) -> Outputs:
        """The values of each output, one array for each batch.

        Raises:
            EngineError: the graph does not run.
            QuantizationError: an output is not finite.
        """
        observations = self.graph.observations()
        inputs = {
            **observations.inputs,
            "activations": observations.content,
            "checked": CHECKED_BATCHES,
        }
        artifact = self.store.make("source outputs", inputs, self._run)
        outputs: Outputs = {}
        with np.load(artifact.path(OUTPUTS_FILE)) as stored:
            for key in stored.files:
                outputs.setdefault(key.partition("/")[2], []).append(stored[key])
        check_finite(self.graph.path, outputs)
        return outputs

    def _run(self, folder: Path) -> None:
        self.say("running the graph")
        outputs = outputs_of(self.graph.path, self.batches, emulate=False)
        with archive(folder / OUTPUTS_FILE) as put:
            for name, values in outputs.items():
                for number, value in enumerate(values):
                    put(f"{number}/{name}", value)
