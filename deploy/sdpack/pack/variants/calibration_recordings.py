"""What denoisers were given while the calibration prompts were drawn, and their latents.

Recordings are in the store, one for each batch of images. So several processes can make them, and
all parts that are calibrated in the same mix share them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.domain.placement import Role
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.calibration_mixes import Arrays, CalibrationMixes, denoised
from sdpack.runtime.pipeline import Pipeline, Request
from sdpack.store.artifacts import REVISION, Artifact, Store
from sdpack.version import versions

KIND = "calibration drawing"
LATENTS_FILE, STEP_FILE = "latents.npy", "step-{}.npz"


@dataclass(frozen=True)
class Recording:
    """The arrays recorded while a mix drew the calibration prompts.

    Attributes:
        parts: the text encoders and the denoiser that drew them.
        steps: the inputs of the denoiser, one entry for each observed step of each batch.
        latents: the denoised latents, float32 (N, C, H, W), one entry for each batch.
    """

    parts: tuple[Variant, ...]
    steps: list[Arrays] = field(default_factory=list)
    latents: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, batch: Artifact) -> None:
        """Add the arrays of one batch of images."""
        self.latents.append(np.load(batch.path(LATENTS_FILE)))
        for place in range(len(batch.files) - 1):
            with np.load(batch.path(STEP_FILE.format(place))) as arrays:
                self.steps.append(dict(arrays))


@dataclass
class CalibrationRecordings:
    """Makes recordings, each batch once.

    Decoders are not run, so mixes that differ only in the decoder share a recording.
    """

    mixes: CalibrationMixes
    store: Store
    _last: Recording | None = field(default=None, init=False)
    _opened: tuple[Mix, Pipeline, list[Arrays]] | None = field(default=None, init=False)

    def of(self, mix: Mix) -> Recording:
        """The recording of a mix; the last one is kept."""
        parts = without_decoder(mix)
        if self._last is None or self._last.parts != parts:
            self._last = Recording(parts)
            for request in self.mixes.requests(mix):
                self._last.add(self._made(mix, request))
            self.close()
        return self._last

    def missing(self, variant: Variant) -> list[int]:
        """The batches, by number, that a variant's calibration needs and the store lacks."""
        if variant.role.encodes_text:
            return []
        mix = self.mixes.of(variant)
        return [
            place
            for place, request in enumerate(self.mixes.requests(mix))
            if self.store.find(KIND, self._inputs(mix, request)) is None
        ]

    def make(self, variant: Variant, place: int) -> None:
        """Record one batch, by number; the mix stays open for the next one."""
        mix = self.mixes.of(variant)
        self._made(mix, self.mixes.requests(mix)[place])

    def close(self) -> None:
        """Close the mix that `make` left open."""
        if self._opened is not None:
            pipeline, self._opened = self._opened[1], None
            pipeline.close()

    def _made(self, mix: Mix, request: Request) -> Artifact:
        def build(folder: Path) -> None:
            pipeline, steps = self._open(mix)
            steps.clear()
            np.save(folder / LATENTS_FILE, denoised(pipeline, request))
            chosen = np.linspace(0, len(steps) - 1, min(self.mixes.steps, len(steps))).round()
            for place, step in enumerate(chosen):
                arrays = self._thinned(steps[int(step)], place)
                np.savez(folder / STEP_FILE.format(place), **arrays)  # type: ignore[arg-type]

        return self.store.make(KIND, self._inputs(mix, request), build)

    def _inputs(self, mix: Mix, request: Request) -> dict[str, Any]:
        """Everything that determines the recording of a batch."""
        return {
            **self.mixes.inputs(mix, without_decoder(mix)),
            "prompts": request.prompts,
            "seeds": request.seeds,
            "steps": self.mixes.steps,
            "tools": versions(("onnxruntime", "numpy")),
            "revision": REVISION,
        }

    def _thinned(self, inputs: Arrays, place: int) -> Arrays:
        """One row of a large image's inputs, alternating between the two halves of guidance."""
        rows = len(inputs["sample"])
        if not self.mixes.is_large or rows == 1:
            return inputs
        row = place % 2 * (rows // 2)
        return {
            name: array[row : row + 1] if len(array) == rows else array
            for name, array in inputs.items()
        }

    def _open(self, mix: Mix) -> tuple[Pipeline, list[Arrays]]:
        """A pipeline, and the list to which it adds the inputs of its denoiser."""
        if self._opened is None or self._opened[0] != mix:
            self.close()
            steps: list[Arrays] = []
            self._opened = mix, self.mixes.pipeline(mix, {}, steps.append), steps
        return self._opened[1:]


def without_decoder(mix: Mix) -> tuple[Variant, ...]:
    """The parts of a mix that draw latents."""
    return tuple(v for v in mix.variants if v.role is not Role.DECODER)
