"""Schedulers as tables of coefficients, and the sampling loop.

Every sampler that sdpack runs is linear in the starting noise, the model's outputs and later noise
draws. Each model input and each sample is therefore a fixed linear combination of the vectors

    start, output 1 ... output K, draw 1 ... draw N

each step's model input and sample are fixed combinations of them: one row of numbers per step.
`sdpack.export.sampler` makes the table from diffusers' own scheduler.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdpack.domain.arrays import Float32Array, Float64Array
from sdpack.errors import BundleError

SAMPLER_SCHEMA = 1


@dataclass(frozen=True)
class SamplerTable:
    """One scheduler at one number of steps.

    K is the number of model calls, which differs from `steps` for second-order schedulers;
    W = 1 + K + `draws`.

    Attributes:
        scheduler: its diffusers class.
        steps: the requested number of steps.
        timesteps: timestep of each model call, float64 (K,).
        inputs: coefficients of each model input, float64 (K, W).
        samples: coefficients of the sample after each call, float64 (K, W); the last one is the
            denoised latents.
        draws: number of later noise draws.
    """

    scheduler: str
    steps: int
    timesteps: Float64Array
    inputs: Float64Array
    samples: Float64Array
    draws: int

    @property
    def calls(self) -> int:
        return len(self.timesteps)

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values, without loss of precision."""
        return {
            "schema": SAMPLER_SCHEMA,
            "scheduler": self.scheduler,
            "steps": self.steps,
            "draws": self.draws,
            "timesteps": self.timesteps.tolist(),
            "inputs": self.inputs.tolist(),
            "samples": self.samples.tolist(),
        }


def read_sampler(path: Path) -> SamplerTable:
    """Read the table in a sampler.json.

    Raises:
        BundleError: the file is missing, damaged or of another schema.
    """
    try:
        return _table(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise BundleError(
            f"{path} is not a valid sampler table ({cause}); build the bundle again"
        ) from cause


def _table(values: dict[str, Any]) -> SamplerTable:
    if values["schema"] != SAMPLER_SCHEMA:
        raise ValueError(f"it has schema {values['schema']}, this version reads {SAMPLER_SCHEMA}")
    inputs, samples = (np.array(values[key], np.float64) for key in ("inputs", "samples"))
    timesteps, draws = np.array(values["timesteps"], np.float64), int(values["draws"])
    shape = (len(timesteps), 1 + len(timesteps) + draws)
    if inputs.shape != shape or samples.shape != shape:
        raise ValueError(
            f"coefficients have shapes {inputs.shape} and {samples.shape}, not {shape}"
        )
    if not all(np.isfinite(array).all() for array in (timesteps, inputs, samples)):
        raise ValueError("some of its numbers are not finite")
    return SamplerTable(
        str(values["scheduler"]), int(values["steps"]), timesteps, inputs, samples, draws
    )


ModelCall = Callable[[Float32Array, float], Float32Array]
"""(model input, timestep) to the model's output, both float32 of the latents' shape."""


Stepped = Callable[[int, int], None]
"""Called with the number of model calls made, and the number of all calls."""


def sample(
    table: SamplerTable,
    start: Float32Array,
    model: ModelCall,
    draw: Callable[[], Float32Array],
    stepped: Stepped | None = None,
) -> Float32Array:
    """Latents float32 of `start`'s shape after all of the table's calls.

    Args:
        start: unit noise.
        draw: called `table.draws` times for more unit noise of the same shape.
        stepped: called after each model call; an exception it raises ends the sampling.
    """
    latents = start
    for made, sampled in enumerate(trajectory(table, start, model, draw), start=1):
        latents = sampled
        if stepped is not None:
            stepped(made, table.calls)
    return latents


def trajectory(
    table: SamplerTable, start: Float32Array, model: ModelCall, draw: Callable[[], Float32Array]
) -> Iterator[Float32Array]:
    """The sample after each model call; the last one is the latents."""
    basis = np.zeros((table.inputs.shape[1], *start.shape), np.float32)
    basis[0] = start
    for k in range(table.draws):
        basis[1 + table.calls + k] = draw()
    for k, timestep in enumerate(table.timesteps):
        basis[1 + k] = model(_combined(table.inputs[k], basis), float(timestep))
        yield _combined(table.samples[k], basis)


def _combined(row: Float64Array, basis: Float32Array) -> Float32Array:
    """The sum of the basis, weighted by a row of coefficients: float32, summed in float64.

    The terms are added one by one: a matrix product would need the whole basis in float64.
    """
    total = np.zeros(basis.shape[1:])
    for column in np.flatnonzero(row):
        total += row[column] * basis[column]
    return total.astype(np.float32)
