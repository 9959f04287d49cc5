"""One fp32 graph and everything its quantization is based on.

`sdpack quantize` and builds share this: calibration, the gain of every layer, the rounding errors
of schemes, the nodes that fp16 cannot hold. Each is computed once and kept in the store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from sdpack.domain.precision import Precision
from sdpack.engines.onnxruntime import LARGE_BYTES, make_room_for
from sdpack.progress import Say, counted
from sdpack.quantization.half import beyond_half
from sdpack.quantization.layers import LAYERS_REVISION, Layer, layers
from sdpack.quantization.moment_runs import threads_for_layers
from sdpack.quantization.observe import Inputs, Observed, observe, read_observed
from sdpack.quantization.rounded_weights import sampled_errors
from sdpack.quantization.rounding import SAMPLED_ROWS
from sdpack.quantization.schemes import UNIFORM, Abilities, Scheme, suited
from sdpack.quantization.sensitivity import (
    PROBING,
    Shares,
    nearest_rounding_gains,
    raised,
    uneven,
)
from sdpack.quantization.threads import in_order
from sdpack.quantization.variant import scale_type, uniform_schemes
from sdpack.rewrite.onnx_file import files_of, read
from sdpack.store.artifacts import REVISION, Artifact, Store
from sdpack.version import versions

OBSERVERS = ("onnx-ir", "onnxruntime", "numpy")
QUANTIZERS = (*OBSERVERS, "torch")
OBSERVATIONS = "activations"  # the kind of their artifact
GAINS_FILE = "gains.json"
SHARE_KIND = "gains of some layers"
GAIN_SHARES = 8  # of a large graph
ERRORS_FILE = "errors.json"

RoundingErrors = Mapping[str, Mapping[str, float]]
"""By layer and scheme, the energy that rounding adds to the layer's outputs, as a share of it."""


@dataclass(frozen=True)
class Fp32Graph:
    """A graph to quantize.

    Attributes:
        path: its ONNX file.
        content: one hash of its files.
        name: its name in progress messages.
        run_path: the ONNX file that calibration runs. It computes the same with the same names,
            but may hold attention as one operator, which takes less memory.
    """

    path: Path
    content: str
    name: str
    run_path: Path

    @property
    def bytes(self) -> int:
        """Total size of its files."""
        return sum(path.stat().st_size for path in files_of(self.path))

    def model(self) -> ir.Model:
        """The graph, read again at each call; weights stay on the disk until they are used."""
        return read(self.path)

    def layers(self) -> list[Layer]:
        """Return its layers, read again at each call."""
        return layers(self.model())


@dataclass(frozen=True)
class CalibrationInputs:
    """Real inputs of a graph.

    Attributes:
        identity: returns JSON values that determine the batches: part of the key of every result.
        batches: returns the batches. It is called only if a result is not in the store.
        probing: returns the batches on which layers are rounded one by one.
        probing_side: the latents of `probing` are cut to this many pixels a side; 0 if not cut.
    """

    identity: Callable[[], Mapping[str, Any]]
    batches: Callable[[], Sequence[Inputs]]
    probing: Callable[[], Sequence[Inputs]]
    probing_side: int = 0


@dataclass
class QuantizableGraph:
    """Computes the basis of the quantization of one graph.

    Attributes:
        calibration: None where there are no real inputs; weights are then rounded to nearest.
    """

    graph: Fp32Graph
    calibration: CalibrationInputs | None
    store: Store
    say: Say = lambda _: None
    _observations: Artifact | None = field(default=None, init=False)
    _gains: dict[str, float] | None = field(default=None, init=False)

    @property
    def path(self) -> Path:
        """The fp32 graph's file."""
        return self.graph.path

    def layers(self) -> list[Layer]:
        """The graph's layers, read again at each call."""
        return self.graph.layers()

    @property
    def observed(self) -> Observed | None:
        """Observations on the calibration inputs; None if there are none."""
        return None if self.calibration is None else read_observed(self.observations().folder)

    def observations(self) -> Artifact:
        """The artifact of `observed`.

        Raises:
            QuantizationError: an activation is not finite, or the graph's opset is too old.
            EngineError: the graph does not run.
        """
        if self._observations is None:
            inputs = self._observation_inputs()
            self._observations = self.store.make(OBSERVATIONS, inputs, self._observe)
        return self._observations

    @property
    def is_observed(self) -> bool:
        """Whether the store has the observations."""
        return self.store.find(OBSERVATIONS, self._observation_inputs()) is not None

    def gains(self) -> dict[str, float]:
        """Return the share of each layer's error that reaches the outputs."""
        if self._gains is None:
            artifact = self.store.make("gains", self._gain_inputs(), self._find_gains)
            self._gains = _read_gains(artifact)
        return self._gains

    @property
    def gain_shares(self) -> int:
        """In how many shares several workers measure the gains; one if the graph is small."""
        return GAIN_SHARES if self.graph.bytes > LARGE_BYTES else 1

    def measure_share(self, number: int) -> None:
        """Measure the gains of a share of the layers, which `gains` then uses."""

        def build(folder: Path) -> None:
            _write_gains(folder, self._measured_gains([number]))

        self.store.make(SHARE_KIND, self._share_inputs(number), build)

    def _gain_inputs(self) -> dict[str, Any]:
        return {
            "graph": self.graph.content,
            "observed": self.observations().content,
            "probing": {**PROBING, "decoded": self._calibration.probing_side},
            "tools": versions(OBSERVERS),
            "revision": [REVISION, LAYERS_REVISION],
        }

    def _share_inputs(self, number: int) -> dict[str, Any]:
        return {**self._gain_inputs(), "share": [number, self.gain_shares]}

    def rounding_errors(
        self, schemes: Sequence[Scheme], arithmetic: Precision, abilities: Abilities
    ) -> RoundingErrors:
        """The error of every scheme that a layer supports, measured on a sample of its rows."""
        inputs = {
            "graph": self.graph.content,
            "observed": None if self.calibration is None else self.observations().content,
            "schemes": [str(scheme) for scheme in schemes],
            "scales": str(scale_type(arithmetic)),
            "abilities": asdict(abilities),
            "rows": SAMPLED_ROWS,
            "tools": versions(QUANTIZERS),
            "revision": [REVISION, LAYERS_REVISION],
        }

        def build(folder: Path) -> None:
            errors = self._sampled_errors(schemes, arithmetic, abilities)
            (folder / ERRORS_FILE).write_text(json.dumps(errors, indent=1))

        artifact = self.store.make("rounding errors", inputs, build)
        return dict(json.loads(artifact.path(ERRORS_FILE).read_text()))

    def fp32_nodes(self, arithmetic: Precision) -> frozenset[str]:
        """Nodes to compute in fp32 because their values overflowed fp16 during calibration.

        Empty without calibration inputs, and where the arithmetic is not fp16.
        """
        if arithmetic is not Precision.FP16 or self.calibration is None:
            return frozenset()
        return beyond_half(self.graph.model(), read_observed(self.observations().folder).peaks)

    def uniform_schemes(self, scheme: Scheme | None, keep: Set[str]) -> dict[str, Scheme]:
        """The scheme of each layer when all of the graph has one.

        Args:
            scheme: None where layers stay in the type they compute in.
            keep: names of layers to leave in that type.
        """
        spared = self.uneven_inputs(scheme)
        return uniform_schemes(self.layers(), scheme, spared, keep)

    def uneven_inputs(self, scheme: Scheme | None) -> frozenset[str]:
        """Layers whose inputs int8 would round too coarsely; none for other schemes."""
        if scheme != UNIFORM[Precision.INT8]:
            return frozenset()
        return uneven(read_observed(self.observations().folder).noise, self.gains())

    @property
    def _calibration(self) -> CalibrationInputs:
        assert self.calibration is not None
        return self.calibration

    def _observation_inputs(self) -> dict[str, Any]:
        """Everything that determines the observations."""
        return {
            "graph": self.graph.content,
            "calibration": self._calibration.identity(),
            "tools": versions(OBSERVERS),
            "revision": [REVISION, LAYERS_REVISION],
        }

    def _observe(self, folder: Path) -> None:
        doing = f"calibrating {self.graph.name}"
        self.say(doing)
        batches = self._calibration.batches()
        make_room_for(self.graph.bytes)
        observe(self.graph.run_path, batches, folder, step=counted(self.say, doing))

    def _find_gains(self, folder: Path) -> None:
        """Measure the gains of all layers, except those of which a share was measured."""
        numbers = range(self.gain_shares)
        shares = {n: self.store.find(SHARE_KIND, self._share_inputs(n)) for n in numbers}
        gains: dict[str, float] = {}
        for artifact in shares.values():
            gains |= {} if artifact is None else _read_gains(artifact)
        missing = [number for number, artifact in shares.items() if artifact is None]
        if missing:
            gains |= self._measured_gains(missing)
        in_order = [layer.name for layer in self.layers() if layer.name in gains]
        _write_gains(folder, raised({name: gains[name] for name in in_order}))

    def _measured_gains(self, numbers: Sequence[int]) -> dict[str, float]:
        """The gains of some shares of the layers, before `raised`."""
        doing = f"measuring the sensitivity of the layers of {self.graph.name}"
        self.say(doing)
        make_room_for(self.graph.bytes)
        observed = read_observed(self.observations().folder)
        batches = self._calibration.probing()
        with self.store.scratch() as scratch:
            step = counted(self.say, doing)
            shares = Shares(tuple(numbers), self.gain_shares)
            path = self.graph.run_path
            return nearest_rounding_gains(path, observed, batches, scratch, step, shares)

    def _sampled_errors(
        self, schemes: Sequence[Scheme], arithmetic: Precision, abilities: Abilities
    ) -> dict[str, dict[str, float]]:
        step = counted(self.say, f"measuring the rounding error of the layers of {self.graph.name}")
        observed, every = self.observed, self.layers()
        errors = {}

        def sampled(layer: Layer) -> Mapping[Scheme, float]:
            supported = {suited(layer, scheme, abilities) for scheme in schemes}
            forms = sorted(scheme for scheme in supported if scheme is not None)
            return sampled_errors(layer, forms, observed, scale_type(arithmetic))

        for place, measured in enumerate(in_order(sampled, every, threads_for_layers(every))):
            step(place, len(every))
            errors[every[place].name] = {str(scheme): error for scheme, error in measured.items()}
        return errors


def _read_gains(artifact: Artifact) -> dict[str, float]:
    return dict(json.loads(artifact.path(GAINS_FILE).read_text()))


def _write_gains(folder: Path, gains: Mapping[str, float]) -> None:
    (folder / GAINS_FILE).write_text(json.dumps(gains, indent=1))
